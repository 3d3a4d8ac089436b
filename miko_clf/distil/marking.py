"""Marks of judges that are no LLM, into a knowledge base: a critic's, and those of people."""

import asyncio
import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

from miko_clf.data.post import Intention, Post
from miko_clf.distil.annotate import SCALE, Answer
from miko_clf.distil.knowledge import Choice, everything
from miko_clf.distil.shelf import Score, Shelf

_CHUNK = 512  # posts whose marks are committed at a time


class Judged(NamedTuple):
    """One post of a knowledge base with its intentions, the sample they are of, and how far
    people called each of them valid (None where nobody was asked)."""

    post: Post
    sample: int
    intentions: tuple[Intention, ...]
    valid: tuple[float | None, ...]


def judged(db: sqlite3.Connection) -> Iterator[Judged]:
    """Yield every post that has intentions, with the mean of what people said of each."""
    for known in everything(db, Choice()):
        if known.intentions and known.sample is not None:
            said = _people(db, known.post.id, known.sample)
            valid = tuple(said.get(one.relation) for one in known.intentions)
            yield Judged(known.filled(), known.sample, known.intentions, valid)


def drawn(db: sqlite3.Connection, count: int | None) -> list[Judged]:
    """Return some posts, the same ones whatever else is there: those of the least digests."""
    posts = judged(db)
    if count is None:
        return list(posts)
    return heapq.nsmallest(count, posts, key=lambda one: sha256(one.post.id.encode()).digest())


def mark(
    shelf: Shelf, judge: str, assess: Callable[[Sequence[Judged]], Sequence[Sequence[float]]]
) -> int:
    """Keep what `assess` says of every intention as the plausibility of `judge`; return how many.

    It is given some posts at a time and answers with a number for each intention of each.
    """
    return asyncio.run(_mark(shelf, judge, assess))


def collect(shelf: Shelf, answers: Iterable[Answer]) -> int:
    """Keep what people said in an annotation tool as scores of `human:NAME`; return how many."""
    return asyncio.run(_collect(shelf, list(answers)))


async def _mark(
    shelf: Shelf, judge: str, assess: Callable[[Sequence[Judged]], Sequence[Sequence[float]]]
) -> int:
    count = 0
    posts = judged(shelf.db)
    while chunk := list(islice(posts, _CHUNK)):
        scores = [
            Score(one.post.id, intention.relation, one.sample, judge, float(value), None)
            for one, values in zip(chunk, assess(chunk), strict=True)
            for intention, value in zip(one.intentions, values, strict=True)
        ]
        await shelf.score(scores)
        count += len(scores)
    return count


async def _collect(shelf: Shelf, answers: list[Answer]) -> int:
    samples = {one.post.id: one.sample for one in judged(shelf.db)}
    scores = [
        Score(
            answer.post,
            answer.relation,
            samples[answer.post],
            f"human:{answer.annotator}",
            None if answer.plausible is None else float(answer.plausible),
            None if answer.typicality is None else (answer.typicality - 1) / (SCALE - 1),
        )
        for answer in answers
        if answer.post in samples
    ]
    await shelf.score(scores)
    return len(scores)


def _people(db: sqlite3.Connection, post: str, sample: int) -> dict[str, float]:
    rows = db.execute(
        "SELECT relation, AVG(plausibility) FROM scores WHERE post = ? AND sample = ? "
        "AND judge LIKE 'human:%' AND plausibility IS NOT NULL GROUP BY relation",
        (post, sample),
    )
    return dict(rows.fetchall())
