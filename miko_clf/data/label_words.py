"""The words that give a class away: its name in every inflection, negated or not."""

import re
from collections.abc import Iterable

# Words of class names that say nothing by themselves.
_PLAIN = frozenset((
    "not", "non", "no", "none", "other", "others", "yes", "true", "false", "class", "very",
    "somewhat", "partially", "mildly", "highly", "slightly", "the", "and", "with", "for",
))  # fmt: skip
# Endings that follow a whole word (harm-ful), and endings that follow a bound stem (sarcas-tic).
_FREE = "ful|fully|fulness|less|lessly|lessness|ly|ness|s|es|ed|d|ing|er|ers"
_BOUND = (
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
_BEFORE = (
    r"(?:\b(?:not|non|never|hardly|(?:is|are|was|were)(?:n['\u2019]t| not))[\s-]+(?:\w+\s+)?)?"
)
_MENTION = (
    r"\b(?:labell?ed|classified|categori[sz]ed|annotated) as\b|\bground[ -]truth\b|"
    r"\b(?:true|gold|given|correct|assigned|class) label\b|"
    r"\b(?:the|this) label (?:is|was|for|given|assigned|would|should)\b"
)


def label_words(labels: Iterable[str]) -> re.Pattern[str]:
    """Return what finds a class named in a text, or talk of labels and of classifying.

    `not_harmful` finds harm, harmful, harmless, unharmed and their negations, not harmony. Words
    that any text may hold (not, very, other) and names of under three letters are passed over.
    """
    words = {
        word.lower()
        for label in labels
        for word in re.findall(r"[A-Z]?[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))
    }
    forms = sorted({_forms(word) for word in words if len(word) > 2 and word not in _PLAIN})
    if not forms:
        return re.compile(_MENTION, re.IGNORECASE)
    named = rf"{_BEFORE}\b(?:un|in|non-?)?(?:{'|'.join(forms)})\b"
    return re.compile(f"{named}|{_MENTION}", re.IGNORECASE)


def _forms(word: str) -> str:
    """Return an expression for a word in the forms that English derives from it."""
    whole = _STRIP_FREE.sub("", word)
    if whole == word and (bound := _STRIP_BOUND.sub("", word)) != word:
        return rf"(?:{bound}(?:{_BOUND})|{word}(?:{_FREE})?)"
    if whole.endswith("e"):
        return rf"{whole[:-1]}(?:e(?:{_FREE}|r|rs)?|ing|red|ity)"
    return rf"{whole}(?:{_FREE}|{_BOUND})?"
