"""A whole run of a judge over a knowledge base."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from miko_clf.data.post import Post
from miko_clf.distil.estimate import SAMPLE, estimate
from miko_clf.distil.gather import Tally, Way
from miko_clf.distil.judge import REPEAT, judge
from miko_clf.distil.knowledge import Choice, everything
from miko_clf.distil.money import Ledger
from miko_clf.distil.run import Sender, Terms, acquaint, attend, say
from miko_clf.distil.shelf import Outcome, PostRow, Shelf
from miko_clf.distil.tasks import Ask, Plan
from miko_clf.distil.teacher import Teacher
from miko_clf.distil.verdicts import own_work, self_agreement, with_people


def judge_all(
    kb: Path, plan: Plan, sender: Sender, terms: Terms | None = None, *, repeat: float = REPEAT
) -> Tally:
    """Have every intention of a knowledge base judged, and keep what the judge says.

    What was judged already is not asked again. Raises what `run.gather` raises.
    """
    return asyncio.run(_judge_all(kb, plan, sender, terms or Terms(), repeat))


def agreements(db: sqlite3.Connection) -> list[str]:
    """Return how far judges agree with themselves and with people, a line each."""
    return [match.line() for match in (*self_agreement(db), *with_people(db))]


async def _judge_all(kb: Path, plan: Plan, sender: Sender, terms: Terms, repeat: float) -> Tally:
    try:
        with Shelf(kb) as shelf:
            if warning := own_work(shelf.db, plan.model):
                say(warning)
            ledger = Ledger(terms.prices, plan.models, budget=terms.budget, spent=shelf.spent())
            first = [post for post, _ in islice(_posts(shelf, {}), SAMPLE)]
            total = sum(1 for _ in _posts(shelf, {}))
            samples: dict[str, int] = {}
            if terms.probe and isinstance(sender, Teacher):
                await acquaint(sender, plan, shelf, ledger, first)
            pretended = _way(plan, repeat, None, {})
            say((await estimate(first, pretended, ledger, plan.models, total)).line())
            if terms.dry:
                return Tally()
            run = partial(attend, width=terms.width, total=total, title="judge")
            way = _way(plan, repeat, shelf, samples)
            return await run(shelf, _posts(shelf, samples), way, sender, ledger)
    finally:
        await sender.close()


def _way(plan: Plan, repeat: float, shelf: Shelf | None, samples: dict[str, int]) -> Way:
    """Return the way of a post; what is said of it belongs to the sample that was read."""

    async def keep(scores: object) -> None:
        if shelf is not None:
            await shelf.score(scores)  # type: ignore[arg-type]

    async def way(post: Post, ask: Ask) -> Outcome:
        of = replace(plan, sample=samples.pop(post.id, plan.sample))
        return await judge(post, of, ask, keep, repeat)

    return way


def _posts(shelf: Shelf, samples: dict[str, int]) -> Iterator[tuple[Post, PostRow]]:
    """Yield posts that carry intentions, and note in `samples` which sample of them it is."""
    for known in everything(shelf.db, Choice(sample=None)):
        row = shelf.post(known.post.id)
        if known.intentions and known.sample is not None and row is not None:
            samples[known.post.id] = known.sample
            yield known.filled(), row
