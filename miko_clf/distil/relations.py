"""The ten relations in words: how each sentence begins, what it means, and how to join it."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from miko_clf.data.post import RELATIONS, Relation

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
    name: re.compile(rf"(?:because )?(?:{subject} )?(?:{verb})\b|(?:because|to)\b", re.IGNORECASE)
    for name, (_, subject, verb) in _PARTS.items()
}
_ECHO["Open"] = re.compile(r"(?:it is |it's )?because\b|in order(?= to\b)", re.IGNORECASE)
_HEAD = re.compile(r"^[^\w\n]*intention[ \t]*(\d+)[ \t]*[:.]?", re.IGNORECASE | re.MULTILINE)
_FEWEST = 6  # words; fewer, without a stem and an end, are a sentence that was cut off at once
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
    stem = _STEM[relation].match(text)
    return text[stem.end() :].lstrip(_LEAD) if stem else text


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
    while stem := _STEM[relation].match(text) or _ECHO[relation].match(text):
        text = _unquote(text[stem.end() :])
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


class PlacedSentences(NamedTuple):
    """The sentences of an answer by relation, the relation of each number, and what was irregular.

    A number stands in `numbers` where its sentence was placed, and nowhere else.
    """

    texts: Mapping[Relation, str]
    numbers: Mapping[int, Relation]
    odd: tuple[str, ...]


@lru_cache(maxsize=1024)
def place_sentences(raw: str) -> PlacedSentences:
    """Return what each relation is told by an answer of numbered sentences, as MIKO released them.

    The number tells the relation where the sentence begins as that relation does. Where it does
    not, the stem tells, if its relation is still free; then the number, if that is. So a
    sentence that is left out, or a number that comes twice, moves no other sentence.
    """
    sentences = [(number, text) for number, text in split_sentences(raw) if _is_sentence(text)]
    stems = [[at for at in MIKO_RELATION_ORDER if has_stem(at, text)] for _, text in sentences]
    wanted = [dict(enumerate(MIKO_RELATION_ORDER, 1)).get(number) for number, _ in sentences]
    places: dict[int, Relation] = {}
    for i, name in enumerate(wanted):
        if name in stems[i] and name not in places.values():
            places[i] = name
    for i in sorted(range(len(sentences)), key=lambda i: len(stems[i])):
        free = [name for name in (*stems[i], wanted[i]) if name and name not in places.values()]
        if i not in places and free:
            places[i] = free[0]
    return PlacedSentences(
        {name: sentences[i][1] for i, name in places.items()},
        {sentences[i][0]: name for i, name in sorted(places.items(), reverse=True)},
        _find_oddities(sentences, stems, wanted, places),
    )


def split_sentences(raw: str) -> list[tuple[int, str]]:
    """Return the numbers and texts of an answer: lines `Intention 1: ...`, or an object of them.

    A text may be empty. What a length limit left of one more head is passed over.
    """
    if raw.lstrip().startswith("{"):
        texts = json.loads(raw)
        raw = "\n".join(f"{name}: {' '.join(text.split())}" for name, text in texts.items())
    lines = raw.rstrip().split("\n")
    if "intention".startswith(re.sub(r"\W", "", lines[-1]).lower()):
        lines.pop()
    text = "\n".join(lines)
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    return [
        (int(head[1]), " ".join(text[head.end() : end].split()))
        for head, end in zip(heads, ends, strict=True)
    ]


def _is_sentence(text: str) -> bool:
    if not any(map(str.isalnum, text)):
        return False
    is_whole = len(text.split()) >= _FEWEST or text[-1] in ".!?"
    return is_whole or any(has_stem(name, text) for name in RELATIONS)


def _find_oddities(
    sentences: list[tuple[int, str]],
    stems: list[list[Relation]],
    wanted: list[Relation | None],
    places: Mapping[int, Relation],
) -> tuple[str, ...]:
    odd = []
    for i, (number, text) in enumerate(sentences):
        if i not in places:
            odd.append(f"number {number} has no relation left: {text[:60]}")
        elif places[i] not in stems[i]:
            odd.append(f"{places[i]} is told by number {number}, its stem is another: {text[:60]}")
        elif places[i] != wanted[i]:
            odd.append(f"{places[i]} is told by its stem, not by number {number}: {text[:60]}")
    missing = [name for name in RELATIONS if name not in places.values()]
    return (*odd, *(f"{name} is missing" for name in missing))
