"""What judges say of the intentions of a post, and whose word counts."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

RANKS = ("human", "critic", "llm")
"""Whose score counts: people before a trained critic before an LLM."""


@dataclass(frozen=True)
class Mark:
    """What is said of an intention: the mean over the judges whose word counts, and who they are.

    Each question is taken by itself: people may have judged one of the two alone.
    """

    plausibility: float | None = None
    typicality: float | None = None
    by: Mapping[str, str] = field(default_factory=dict)


def marks(db: sqlite3.Connection, name: str, sample: int) -> dict[str, Mark]:
    """Return by relation what is said of one sample of the intentions of a post."""
    say = (
        "SELECT relation, judge, plausibility, typicality FROM scores "
        "WHERE post = ? AND sample = ? ORDER BY relation, judge"
    )
    rows = db.execute(say, (name, sample)).fetchall()
    return {
        relation: _mark([row[1:] for row in each])
        for relation, each in groupby(rows, key=lambda row: row[0])
    }


def _mark(scores: list[tuple[str, float | None, float | None]]) -> Mark:
    plausible = _best({judge: score for judge, score, _ in scores if score is not None})
    typical = _best({judge: score for judge, _, score in scores if score is not None})
    by = {"plausibility_by": ", ".join(plausible), "typicality_by": ", ".join(typical)}
    return Mark(_mean(plausible), _mean(typical), {key: who for key, who in by.items() if who})


def _best(given: Mapping[str, float]) -> dict[str, float]:
    """Return of scores by judge those of the kind that counts most."""
    kinds = {judge.partition(":")[0] for judge in given}
    best = next((kind for kind in RANKS if kind in kinds), None)
    return {judge: score for judge, score in given.items() if judge.partition(":")[0] == best}


def _mean(given: Mapping[str, float]) -> float | None:
    return sum(given.values()) / len(given) if given else None
