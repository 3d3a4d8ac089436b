"""A text's marks, its normal form, and the words in it that name a class."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

# Published texts write placeholders where a mark stood, and blanks within one.
TEXT_MARKS: Mapping[str, re.Pattern[str]] = {
    "hashtag": re.compile(r"#\s?\w|<hashtag>", re.IGNORECASE),
    "emoji": re.compile(
        r"[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf]|\bemoji_?\d+\b", re.IGNORECASE
    ),
    "@user": re.compile(r"(?<!\w)@\s?\w|<user>|\buser_mention\b", re.IGNORECASE),
    "URL": re.compile(r"\bhttps?\b|\bwww\.|<url>|\bhttpurl\b", re.IGNORECASE),
}
# Letters, digits, and the planes of emoji and symbols stay.
_PUNCTUATION = re.compile(r"[^\w\u2190-\u2bff\U0001f000-\U0001faff]+|_")


def normalise_text(text: str | None) -> str:
    """Return a text in lower case without punctuation and white space; an absent one is empty."""
    return _PUNCTUATION.sub("", unicodedata.normalize("NFKC", text or "").casefold())


# Words of class names that say nothing by themselves.
_PLAIN_WORDS = frozenset((
    "not", "non", "no", "none", "other", "others", "yes", "true", "false", "class", "very",
    "somewhat", "partially", "mildly", "highly", "slightly", "the", "and", "with", "for",
))  # fmt: skip
# Endings that follow a whole word (harm-ful), and endings that follow a bound stem (sarcas-tic).
_FREE_ENDINGS = "ful|fully|fulness|less|lessly|lessness|ly|ness|s|es|ed|d|ing|er|ers"
_BOUND_ENDINGS = (
    "tically|tical|tic|istically|istic|ically|ical|ics|ic|isms|ism|ists|ist|ms|m|ies|y|ivity|ity|"
    "ously|ousness|ous|ively|iveness|ive|es|e"
)
_STRIP_FREE = re.compile(
    r"(?<=\w{4})(?:fulness|fully|ful|lessness|lessly|less|ness|ly|ing|ed|(?<![us])s)$"
)
_STRIP_BOUND = re.compile(
    r"(?<=\w{4})(?:tically|tical|tic|istically|istic|ically|ical|ic|ism|ist|ivity|ity|ously|ous|"
    r"ively|ive|y)$"
)
_NEGATION = (
    r"(?:\b(?:not|non|never|hardly|(?:is|are|was|were)(?:n['\u2019]t| not))[\s-]+(?:\w+\s+)?)?"
)
_LABEL_TALK = (
    r"\b(?:labell?ed|classified|categori[sz]ed|annotated) as\b|\bground[ -]truth\b|"
    r"\b(?:true|gold|given|correct|assigned|class) label\b|"
    r"\b(?:the|this) label (?:is|was|for|given|assigned|would|should)\b"
)


def compile_label_pattern(labels: Iterable[str]) -> re.Pattern[str]:
    """Return what finds a class named in a text, or talk of labels and of classifying.

    `not_harmful` finds harm, harmful, harmless, unharmed and their negations, not harmony. Words
    that any text may hold (not, very, other) and names of under three letters are passed over.
    """
    words = {
        word.lower()
        for label in labels
        for word in re.findall(r"[A-Z]?[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))
    }
    telling = [word for word in words if len(word) > 2 and word not in _PLAIN_WORDS]
    forms = "|".join(sorted({_derive_forms(word) for word in telling}))
    named = rf"{_NEGATION}\b(?:un|in|non-?)?(?:{forms})\b|" if forms else ""
    return re.compile(f"{named}{_LABEL_TALK}", re.IGNORECASE)


def _derive_forms(word: str) -> str:
    """Return an expression for a word in the forms that English derives from it."""
    whole = _STRIP_FREE.sub("", word)
    if whole == word and (bound := _STRIP_BOUND.sub("", word)) != word:
        return rf"(?:{bound}(?:{_BOUND_ENDINGS})|{word}(?:{_FREE_ENDINGS})?)"
    if whole.endswith("e"):
        return rf"{whole[:-1]}(?:e(?:{_FREE_ENDINGS}|r|rs)?|ing|red|ity)"
    return rf"{whole}(?:{_FREE_ENDINGS}|{_BOUND_ENDINGS})?"
