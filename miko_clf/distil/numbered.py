"""Answers as MIKO's authors released them, in numbered sentences."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from miko_clf.data.post import RELATIONS, Relation
from miko_clf.distil.relations import PUBLISHED_ORDER, has_stem

_HEAD = re.compile(r"^[^\w\n]*intention[ \t]*(\d+)[ \t]*[:.]?", re.IGNORECASE | re.MULTILINE)
_FEWEST = 6  # words; fewer, without a stem and an end, are a sentence that was cut off at once


class Placed(NamedTuple):
    """The sentences of an answer by relation, the relation of each number, and what was irregular.

    A number stands in `numbers` where its sentence was placed, and nowhere else.
    """

    texts: Mapping[Relation, str]
    numbers: Mapping[int, Relation]
    odd: tuple[str, ...]


@lru_cache(maxsize=1024)
def placed(raw: str) -> Placed:
    """Return what each relation is told by an answer of numbered sentences.

    The number tells the relation where the sentence begins as that relation does. Where it does
    not, the stem tells, if its relation is still free; then the number, if that is. So a
    sentence that is left out, or a number that comes twice, moves no other sentence.
    """
    told = [(number, text) for number, text in sentences(raw) if _says(text)]
    stems = [[name for name in PUBLISHED_ORDER if has_stem(name, text)] for _, text in told]
    wished = [dict(enumerate(PUBLISHED_ORDER, 1)).get(number) for number, _ in told]
    where: dict[int, Relation] = {}
    for i, name in enumerate(wished):
        if name in stems[i] and name not in where.values():
            where[i] = name
    for i in sorted(range(len(told)), key=lambda i: len(stems[i])):
        free = [name for name in (*stems[i], wished[i]) if name and name not in where.values()]
        if i not in where and free:
            where[i] = free[0]
    return Placed(
        {name: told[i][1] for i, name in where.items()},
        {told[i][0]: name for i, name in sorted(where.items(), reverse=True)},
        _odd(told, stems, wished, where),
    )


def sentences(raw: str) -> list[tuple[int, str]]:
    """Return the numbers and texts of an answer: lines `Intention 1: ...`, or an object of them.

    A text may be empty. What a length limit left of one more head is passed over.
    """
    if raw.lstrip().startswith("{"):
        found = json.loads(raw)
        raw = "\n".join(f"{name}: {' '.join(text.split())}" for name, text in found.items())
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


def _says(text: str) -> bool:
    if not any(map(str.isalnum, text)):
        return False
    whole = len(text.split()) >= _FEWEST or text[-1] in ".!?"
    return whole or any(has_stem(name, text) for name in RELATIONS)


def _odd(
    told: list[tuple[int, str]],
    stems: list[list[Relation]],
    wished: list[Relation | None],
    where: Mapping[int, Relation],
) -> tuple[str, ...]:
    found = []
    for i, (number, text) in enumerate(told):
        if i not in where:
            found.append(f"number {number} has no relation left: {text[:60]}")
        elif where[i] not in stems[i]:
            found.append(f"{where[i]} is told by number {number}, its stem is another: {text[:60]}")
        elif where[i] != wished[i]:
            found.append(f"{where[i]} is told by its stem, not by number {number}: {text[:60]}")
    missing = [name for name in RELATIONS if name not in where.values()]
    return (*found, *(f"{name} is missing" for name in missing))
