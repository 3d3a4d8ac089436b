"""The batch route: open requests are written down, asked elsewhere, and read back."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote

from miko_clf.data.readers import SkipReport
from miko_clf.distil.batch_api import submit_parts
from miko_clf.distil.batch_files import (
    MAX_PART_BYTES,
    MAX_PART_LINES,
    BatchOutputs,
    BatchPart,
    OutputLine,
    PartEntry,
    encode_line,
    list_parts,
    name_new_parts,
    read_part_entries,
    read_part_model,
    remove_unfinished,
)
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.client import ServerDialect, TeacherClient, make_request_body
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.store import CallRow, KnowledgeBase
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.run import (
    PostStream,
    RunTerms,
    find_total,
    make_runner,
    place_posts,
    prepare_reading,
    prepare_run,
    run_scheduler,
)
from miko_clf.distil.scheduler import JobHalted, RunTally
from miko_clf.errors import PostError
from miko_clf.manifest import lock_folder
from miko_clf.progress import print_notice

_TRIES = 3  # times that a call is asked whose line was a passing error
_ASKED_TABLE = """
CREATE TABLE asked (
  key BLOB PRIMARY KEY, times INTEGER NOT NULL, part INTEGER NOT NULL, usd REAL NOT NULL
) WITHOUT ROWID"""
_ASK = """
INSERT INTO asked VALUES (?, 1, ?, ?)
ON CONFLICT DO UPDATE SET times = times + 1, part = excluded.part, usd = excluded.usd"""
# Written more often than answered by an error, and not answered otherwise.
_AWAITED = """
times > (SELECT COUNT(DISTINCT id) FROM lines WHERE lines.key = asked.key AND NOT good)
AND NOT EXISTS (SELECT 1 FROM lines WHERE lines.key = asked.key AND good)"""
_KEPT = "EXISTS (SELECT 1 FROM kb.calls WHERE kb.calls.key = asked.key)"


class WaveReport(NamedTuple):
    """How a wave ended: the parts it wrote with so many calls, and what is not answered yet.

    `awaited` counts calls, `waiting` are the parts they stand in. `strays` are answers that no
    post asked for, `stray` is the id of one. `unreadable` counts lines of output files that
    are no answers, `where` names one. `spent` is set where the budget ended the wave.
    """

    parts: tuple[Path, ...]
    calls: int
    awaited: int
    waiting: tuple[Path, ...]
    strays: int
    stray: str
    unreadable: int
    where: str
    spent: BudgetError | None

    def lines(self) -> list[str]:
        """Return what a person should know, a line each."""
        said = [f"written: {path}" for path in self.parts]
        if self.awaited:
            said.append(f"{self.awaited:,} calls in {len(self.waiting):,} parts wait for answers")
        if self.strays:
            said.append(f"{self.strays:,} answers that no post asked for, such as {self.stray}")
        if self.unreadable:
            said.append(f"{self.unreadable:,} lines are no answers, such as {self.where}")
        if self.spent:
            said.append(str(self.spent))
        return said


class BatchWave:
    """Stands in for paying, in one walk through all posts; use `with`.

    An answer that stands in an output file of the folder (`*.out.jsonl`, `*_output.jsonl`,
    `*_error.jsonl`) is kept and the post goes on; a call that no output holds is written into a
    part, unless it stands in one that waits for its answers, and the post is halted. A line with
    a passing error is asked again up to three times; with another the post ends as failed, and
    the next wave but one asks again. The ledger should count at the price of batches. A wave that
    reaches the budget ends there. `written` says what came of it, once the block is left.
    """

    def __init__(
        self,
        folder: Path,
        shelf: KnowledgeBase,
        ledger: BudgetLedger,
        tally: RunTally,
        dialects: Mapping[str, ServerDialect] | None = None,
        *,
        lines: int = MAX_PART_LINES,
        size: int = MAX_PART_BYTES,
        host: str = "batch",
    ) -> None:
        self.folder = folder
        self.shelf = shelf
        self.ledger = ledger
        self.tally = tally
        self.dialects = dialects or {}
        self.lines = lines
        self.size = size
        self.host = host
        self._open: dict[str, BatchPart] = {}
        self._done: list[Path] = []
        self._calls = 0
        self._stack = ExitStack()

    def __enter__(self) -> "BatchWave":
        with ExitStack() as stack:
            stack.enter_context(lock_folder(self.folder))
            remove_unfinished(self.folder)
            self._parts = list_parts(self.folder)
            self._names = name_new_parts(self.folder)
            self._db = _open_index(self.shelf.path)
            stack.callback(self._db.close)
            with self._db:
                self._db.execute("BEGIN")
                self._outputs = BatchOutputs(self.folder, self._db)
                self._load()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        with self._stack:
            for part in self._open.values():
                self._done.append(part.finish())
            spent = error if isinstance(error, BudgetError) else None
            self.written = self._written(spent, whole=error is None)
            (held,) = self._db.execute("SELECT TOTAL(usd) FROM asked").fetchone()
            self.ledger.reserved -= held
        return spent is not None

    async def __call__(self, call: Request) -> CallRow:
        """Return the answer from an output file, committed; else see that it is asked."""
        found = self._outputs.find(call.key)
        if (found is None or not found.good) and self._awaited(call.key):
            raise JobHalted
        if found is not None:
            row = await self._keep(call, found)
            if row is not None:
                return row
        row = await self._write(call)
        if row is None:
            raise JobHalted
        return row

    async def _keep(self, call: Request, found: OutputLine) -> CallRow | None:
        """Keep what a line says; None where the call is to be asked again."""
        reply, passing = self._outputs.reply(found, self.host)
        if reply.status == "failed" and self._told(call.key, found.id):
            return None
        usd = self.ledger.settle(self._released(call.key), call, reply.usage)
        self.tally.count(reply)
        row = await self.shelf.keep(call, reply, usd)
        return None if passing and found.failures < _TRIES else row

    async def _write(self, call: Request) -> CallRow | None:
        """Write a call into the part of its model; its row where it cannot be asked at all."""
        usd = self.ledger.reserve(call)
        dialect = self.dialects.get(call.model, ServerDialect())
        try:
            if any(turn.picture for turn in call.turns):  # reading and shrinking it takes a while
                asked = await asyncio.to_thread(make_request_body, call, dialect)
            else:
                asked = make_request_body(call, dialect)
        except PostError as error:
            self.ledger.reserved -= usd
            reply = Response(status="failed", reason=str(error), host=self.host)
            return await self.shelf.keep(call, reply, 0.0)
        self._add(call, encode_line(call.key, asked))
        self._db.execute(_ASK, (call.key, len(self._parts), usd))
        return None

    def _add(self, call: Request, line: bytes) -> None:
        part = self._open.get(call.model)
        if part and (part.lines == self.lines or part.size + len(line) > self.size):
            self._done.append(self._open.pop(call.model).finish())
            part = None
        if part is None:
            part = self._open[call.model] = BatchPart(next(self._names), call.model)
        try:
            part.add(line, PartEntry(call.key, self.ledger.expected(call)))
        except BaseException:
            del self._open[call.model]
            raise
        self._calls += 1

    def _load(self) -> None:
        """Take up what was written before; what of it is not settled is set aside of the budget."""
        self._db.execute(_ASKED_TABLE)
        for number, path in enumerate(self._parts):
            model = read_part_model(path)
            price = self.ledger.price
            rows = (
                (key, number, price(model, expected)) for key, expected in read_part_entries(path)
            )
            self._db.executemany(_ASK, rows)
        self._db.execute(f"UPDATE asked SET usd = 0 WHERE NOT ({_AWAITED}) AND {_KEPT}")
        (held,) = self._db.execute("SELECT TOTAL(usd) FROM asked").fetchone()
        self.ledger.reserved += held

    def _awaited(self, key: bytes) -> bool:
        say = f"SELECT 1 FROM asked WHERE key = ? AND {_AWAITED}"
        return self._db.execute(say, (key,)).fetchone() is not None

    def _told(self, key: bytes, name: str) -> bool:
        """Say whether a failure was read in an earlier wave already."""
        say = "SELECT 1 FROM calls WHERE key = ? AND status = 'failed' AND request = ?"
        return self.shelf.db.execute(say, (key, name)).fetchone() is not None

    def _released(self, key: bytes) -> float:
        """Return what was set aside for a call, which is from now on settled."""
        row = self._db.execute("SELECT usd FROM asked WHERE key = ?", (key,)).fetchone()
        self._db.execute("UPDATE asked SET usd = 0 WHERE key = ?", (key,))
        return float(row[0]) if row else 0.0

    def _written(self, spent: BudgetError | None, *, whole: bool) -> WaveReport:
        every = self._parts + self._done
        rows = self._db.execute(
            f"SELECT part, COUNT(*) FROM asked WHERE {_AWAITED} AND part < ? GROUP BY part",
            (len(self._parts),),
        ).fetchall()
        waiting = [every[number] for number, _ in rows] + self._done
        strays, stray = self._strays() if whole else (0, "")
        return WaveReport(
            tuple(self._done),
            self._calls,
            sum(count for _, count in rows) + self._calls,
            tuple(waiting),
            strays,
            stray,
            self._outputs.num_unreadable,
            self._outputs.unreadable,
            spent,
        )

    def _strays(self) -> tuple[int, str]:
        """Return how many answers found no post, and the id of one."""
        say = (
            "SELECT COUNT(DISTINCT key), MIN(HEX(key)) FROM lines "
            "WHERE NOT EXISTS (SELECT 1 FROM kb.calls WHERE kb.calls.key = lines.key)"
        )
        count, example = self._db.execute(say).fetchone()
        return count, (example or "").lower()


async def run_waves(
    walk: Callable[[], Awaitable[WaveReport]],
    send: Callable[[WaveReport], Awaitable[None]] | None,
) -> WaveReport:
    """Walk through all posts, have what is missing answered, and again, until nothing is missing.

    `walk` opens the shelf, walks within a `Wave` and returns what was written; the shelf is free
    while `send` waits. Without `send` one wave is all. Raises `SpentError` where the budget has
    no room for even one call more.
    """
    while True:
        written = await walk()
        if not written.awaited and written.spent:
            raise written.spent
        if not written.awaited or send is None:
            return written
        await send(written)


def _open_index(kb: Path) -> sqlite3.Connection:
    """Return a database in a temporary file, gone when it is closed, which sees the shelf's."""
    db = sqlite3.connect("", uri=True, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("ATTACH ? AS kb", (f"file:{quote(kb.absolute().as_posix())}?mode=ro",))
    return db


def distil_in_batches(
    posts: Path,
    kb: Path,
    plan: JobPlan,
    folder: Path,
    teacher: TeacherClient | None,
    terms: RunTerms | None = None,
    *,
    send: bool = False,
    report: SkipReport | None = None,
) -> tuple[RunTally, WaveReport]:
    """Read the answers in a folder, and write there what is to be asked next.

    With `send`, parts go through the Batch API of the teacher's server until every post has
    ended; without, one wave is written, and the same call goes on once its answers lie there.
    `teacher` is needed to send and to probe. Raises what `run.gather` raises.
    """
    terms = terms or RunTerms()
    read, plan = prepare_reading(posts, plan, terms, report)
    return asyncio.run(_distil_in_batches(read, kb, plan, folder, teacher, terms, send, report))


async def _distil_in_batches(
    read: Callable[[], PostStream],
    kb: Path,
    plan: JobPlan,
    folder: Path,
    teacher: TeacherClient | None,
    terms: RunTerms,
    send: bool,
    report: SkipReport | None,
) -> tuple[RunTally, WaveReport]:
    tallies: list[RunTally] = []

    async def walk() -> WaveReport:
        tallies.append(RunTally())
        again = len(tallies) > 1
        return await _run_wave(read(), kb, plan, folder, teacher, terms, report, tallies[-1], again)

    async def hand_over(written: WaveReport) -> None:
        assert teacher is not None
        with KnowledgeBase(kb) as shelf:
            spent = shelf.spent()
        ledger = BudgetLedger(
            terms.prices, plan.models, budget=terms.budget, spent=spent, batch=True
        )
        await submit_parts(written.waiting, teacher.client, ledger)

    try:
        written = await run_waves(walk, hand_over if send else None)
    finally:
        if teacher is not None:
            await teacher.close()
    return tallies[-1], written


async def _run_wave(
    found: PostStream,
    kb: Path,
    plan: JobPlan,
    folder: Path,
    teacher: TeacherClient | None,
    terms: RunTerms,
    report: SkipReport | None,
    tally: RunTally,
    again: bool,
) -> WaveReport:
    with KnowledgeBase(kb) as shelf:
        ledger, posts = await prepare_run(
            found, shelf, plan, teacher, terms, batch=True, again=again
        )
        dialects = teacher.dialects if teacher else {}
        host = teacher.host if teacher else "batch"
        with BatchWave(folder, shelf, ledger, tally, dialects, host=host) as wave:
            await run_scheduler(
                shelf,
                place_posts(shelf, posts, report),
                make_runner(plan),
                teacher,
                ledger,
                width=terms.width,
                total=find_total(found, terms),
                title=plan.task,
                pay=wave,
                tally=tally,
            )
        for line in wave.written.lines():
            print_notice(line)
        return wave.written
