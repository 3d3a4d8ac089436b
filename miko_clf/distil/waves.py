"""A whole run by the batch route: questions are written down, asked elsewhere, and read back."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from miko_clf.data.read import SkipReport
from miko_clf.distil.batch import Wave, Written, in_waves
from miko_clf.distil.gather import Tally
from miko_clf.distil.money import Ledger
from miko_clf.distil.run import Terms, attend, prepare, reading_of, say, total_of, way_of
from miko_clf.distil.shelf import Shelf
from miko_clf.distil.source import Source, placed
from miko_clf.distil.submit import submit
from miko_clf.distil.tasks import Plan
from miko_clf.distil.teacher import Teacher


def gather_in_waves(
    posts: Path,
    kb: Path,
    plan: Plan,
    folder: Path,
    teacher: Teacher | None,
    terms: Terms | None = None,
    *,
    send: bool = False,
    report: SkipReport | None = None,
) -> tuple[Tally, Written]:
    """Read the answers in a folder, and write there what is to be asked next.

    With `send`, parts go through the Batch API of the teacher's server until every post has
    ended; without, one wave is written, and the same call goes on once its answers lie there.
    `teacher` is needed to send and to probe. Raises what `run.gather` raises.
    """
    terms = terms or Terms()
    read, plan = reading_of(posts, plan, terms, report)
    return asyncio.run(_in_waves(read, kb, plan, folder, teacher, terms, send, report))


async def _in_waves(
    read: Callable[[], Source],
    kb: Path,
    plan: Plan,
    folder: Path,
    teacher: Teacher | None,
    terms: Terms,
    send: bool,
    report: SkipReport | None,
) -> tuple[Tally, Written]:
    tallies: list[Tally] = []

    async def walk() -> Written:
        tallies.append(Tally())
        again = len(tallies) > 1
        return await _wave(read(), kb, plan, folder, teacher, terms, report, tallies[-1], again)

    async def hand_over(written: Written) -> None:
        assert teacher is not None
        with Shelf(kb) as shelf:
            spent = shelf.spent()
        ledger = Ledger(terms.prices, plan.models, budget=terms.budget, spent=spent, batch=True)
        await submit(written.waiting, teacher.client, ledger)

    try:
        written = await in_waves(walk, hand_over if send else None)
    finally:
        if teacher is not None:
            await teacher.close()
    return tallies[-1], written


async def _wave(
    found: Source,
    kb: Path,
    plan: Plan,
    folder: Path,
    teacher: Teacher | None,
    terms: Terms,
    report: SkipReport | None,
    tally: Tally,
    again: bool,
) -> Written:
    with Shelf(kb) as shelf:
        ledger, posts = await prepare(found, shelf, plan, teacher, terms, batch=True, again=again)
        dialects = teacher.dialects if teacher else {}
        host = teacher.host if teacher else "batch"
        with Wave(folder, shelf, ledger, tally, dialects, host=host) as wave:
            await attend(
                shelf,
                placed(shelf, posts, report),
                way_of(plan),
                teacher,
                ledger,
                width=terms.width,
                total=total_of(found, terms),
                title=plan.task,
                pay=wave,
                tally=tally,
            )
        for line in wave.written.lines():
            say(line)
        return wave.written
