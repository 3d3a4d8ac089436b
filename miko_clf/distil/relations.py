"""The ten relations in words: how each sentence begins, what it means, and how to join it."""

import re
from collections.abc import Mapping

from miko_clf.data.post import Relation

RELATION_STEMS: Mapping[Relation, str] = {
    "xNeed": "Before posting this, the author needs to",
    "xIntent": "The author posts this because the author intended to",
    "xAttr": "The author posts this because the author is",
    "xReact": "After posting this, the author feels",
    "xWant": "After posting this, the author wants to",
    "xEffect": "After posting this, the author will",
    "oReact": "After seeing this, others feel",
    "oWant": "After seeing this, others want to",
    "oEffect": "After seeing this, others will",
    "Open": "The author posts this because",
}
RELATION_MEANINGS: Mapping[Relation, str] = {
    "xNeed": "what the author had to do, have or know before the post could be made",
    "xIntent": "the aim the author had in mind while posting",
    "xAttr": "what kind of person, or in what state of mind, the author seems to be",
    "xReact": "the emotion the author is left with once the post is out",
    "xWant": "what the author would like to do or to bring about next",
    "xEffect": "what is likely to happen to the author, or the author to do, as a result",
    "oReact": "the emotion the post stirs in those who see it",
    "oWant": "what those who see the post would like to do next",
    "oEffect": "what those who see the post are likely to do or to undergo as a result",
    "Open": "the one reason for posting that explains it best, in free words",
}
# The order of the ten in MIKO's prompt and in its released files (arXiv 2402.18169).
MIKO_RELATION_ORDER: tuple[Relation, ...] = (
    "xWant", "oEffect", "xAttr", "xIntent", "xReact", "oReact", "oWant", "xEffect", "xNeed", "Open",
)  # fmt: skip

_AUTHOR = r"(?:(?:the |this )?(?:author|user|poster|person|tweeter)|they|he|she)"
_OTHERS = (
    r"(?:(?:the |some |many |most )?(?:other )?"
    r"(?:others|people|users|readers|viewers|followers|everyone)|they)"
)
_NOUN = r"(?:tweet|post|pic|picture|photo|image|meme|message|video|content|caption)"
_THING = rf"(?:it|(?:this|that|the|their|his|her|a)(?: (?:[\w-]+ ){{0,2}}?{_NOUN})?)"
_AFTER_POSTING = rf"after (?:posting|sharing|publishing|tweeting)(?: {_THING})?,? {_AUTHOR}"
_AFTER_SEEING = rf"(?:after|on|upon) (?:seeing|viewing|reading)(?: {_THING})?,? {_OTHERS}"
_BEFORE = rf"before (?:posting|sharing|publishing|tweeting)(?: {_THING})?,? {_AUTHOR}"
_BECAUSE = rf"{_AUTHOR} (?:post|posts|posted|shares|shared|tweets|tweeted)(?: {_THING})? because"
_WANT = r"(?:will |may |might )?(?:(?:wants?|wanted)(?: to)?|(?:hopes?|would like) to)"
_FEEL = r"(?:will |may |might )?(?:feels?|felt)"
_WILL = r"(?:will|would|may|might|could)"
# What stands before the subject's verb, the subject, and the verb that the completion follows.
_PARTS: Mapping[Relation, tuple[str, str, str]] = {
    "xNeed": (_BEFORE, _AUTHOR, r"(?:(?:needs?|needed)(?: to)?|(?:has|have|had) to|must)"),
    "xIntent": (
        rf"{_BECAUSE} {_AUTHOR}", _AUTHOR, r"(?:(?:intends?|intended|meant|wants?|wanted)(?: to)?)",
    ),
    "xAttr": (rf"{_BECAUSE} {_AUTHOR}", _AUTHOR, r"(?:is|are|was|were)"),
    "xReact": (_AFTER_POSTING, _AUTHOR, _FEEL),
    "xWant": (_AFTER_POSTING, _AUTHOR, _WANT),
    "xEffect": (_AFTER_POSTING, _AUTHOR, _WILL),
    "oReact": (_AFTER_SEEING, _OTHERS, _FEEL),
    "oWant": (_AFTER_SEEING, _OTHERS, _WANT),
    "oEffect": (_AFTER_SEEING, _OTHERS, _WILL),
}  # fmt: skip
_STEM: dict[Relation, re.Pattern[str]] = {
    relation: re.compile(rf"{before} (?:{verb})\b", re.IGNORECASE)
    for relation, (before, _, verb) in _PARTS.items()
}
_STEM["Open"] = re.compile(
    rf"{_BECAUSE.removesuffix(' because')}(?: because\b| since\b|(?= (?:in order )?to\b))",
    re.IGNORECASE,
)
# The end of a stem that a model says again where only the completion was asked for.
_ECHO: dict[Relation, re.Pattern[str]] = {
    relation: re.compile(
        rf"(?:because )?(?:{subject} )?(?:{verb})\b|(?:because|to)\b", re.IGNORECASE
    )
    for relation, (_, subject, verb) in _PARTS.items()
}
_ECHO["Open"] = re.compile(r"(?:it is |it's )?because\b|in order(?= to\b)", re.IGNORECASE)
_LEAD = " \t.,;:-*•…"
_TAIL = " \t.,;:!?…"
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"))
# A thing wanted or needed, rather than something to do: the stem then drops its last word.
_THINGS = frozenset((
    "a", "an", "the", "their", "his", "her", "its", "my", "this", "that", "these", "those",
    "more", "some", "no", "others", "people", "everyone", "readers", "viewers", "followers",
    "friends", "someone", "somebody", "them", "him",
))  # fmt: skip
_LOWERED = _THINGS | frozenset((
    "they", "he", "she", "it", "there", "because", "since", "as", "in", "at", "on", "to", "of",
    "by", "with", "when", "while", "after", "before",
))  # fmt: skip


def has_stem(relation: Relation, text: str) -> bool:
    """Say whether a text begins as a sentence of its relation does, in our words or MIKO's."""
    return _STEM[relation].match(_squeeze(text)) is not None


def strip_relation_stem(relation: Relation, text: str) -> str:
    """Return what follows the stem, or the text itself where it has none."""
    text = _squeeze(text)
    found = _STEM[relation].match(text)
    return text[found.end() :].lstrip(_LEAD) if found else text


def make_sentence(relation: Relation, completion: str) -> str:
    """Return one whole sentence: our stem once, the completion, a period.

    A stem, or the end of one, that the completion repeats is dropped. A completion that says
    nothing gives an empty text; one that begins as another relation does is returned as it is,
    so that `has_stem` tells the mismatch.
    """
    text = _unquote(_squeeze(completion))
    if not has_stem(relation, text) and any(has_stem(other, text) for other in RELATION_STEMS):
        return text
    rest = _strip_echo(relation, text)
    if not any(map(str.isalnum, rest)):
        return ""
    stem = RELATION_STEMS[relation]
    if stem.endswith(" to") and rest.split()[0].lower() in _THINGS:
        stem = stem.removesuffix(" to")
    return f"{stem} {rest}."


def _strip_echo(relation: Relation, text: str) -> str:
    """Return a completion without stem, echo, quotes, or punctuation at its ends."""
    while found := _STEM[relation].match(text) or _ECHO[relation].match(text):
        text = _unquote(text[found.end() :])
    first, _, more = text.rstrip(_TAIL).partition(" ")
    if first.istitle() and first != "I" and (relation != "Open" or first.lower() in _LOWERED):
        first = first.lower()
    lead = "they want " if relation == "Open" and first == "to" and more else ""
    return f"{lead}{first} {more}".rstrip()


def _unquote(text: str) -> str:
    """Return a text without bullets, dots or a pair of quotes around it."""
    before = None
    while text != before:
        before = text = text.lstrip(_LEAD)
        for left, right in _QUOTES:
            if text.startswith(left) and text.rstrip(_TAIL).endswith(right):
                text = text.rstrip(_TAIL).removeprefix(left).removesuffix(right).strip()
    return text


def _squeeze(text: str) -> str:
    return " ".join(text.split())
