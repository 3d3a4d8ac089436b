"""The batch route: open requests are written down, asked elsewhere, and read back."""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from miko_clf.data.readers import SkipReport
from miko_clf.distil import batch_files
from miko_clf.distil.batch_api import submit_parts
from miko_clf.distil.batch_files import BatchOutputs, BatchPart, OutputLine, PartEntry
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.client import ServerDialect, TeacherClient, make_body
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import CallRow, KnowledgeBase
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.run import DistilRun, RunTerms, complete_plan, place_posts, read_plan_posts
from miko_clf.distil.scheduler import JobHalted, RunTally
from miko_clf.errors import PostError
from miko_clf.manifest import lock_folder
from miko_clf.progress import print_notice

_TRIES = 3  # times that a request is written whose line was a passing error
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
_FAILURE = "SELECT 1 FROM calls WHERE key = ? AND status = 'failed' AND request = ?"
_STRAYS = """
SELECT COUNT(DISTINCT key), LOWER(COALESCE(MIN(HEX(key)), '')) FROM lines
WHERE NOT EXISTS (SELECT 1 FROM kb.calls WHERE kb.calls.key = lines.key)"""
_KEPT = "EXISTS (SELECT 1 FROM kb.calls WHERE kb.calls.key = asked.key)"


def distil_in_batches(
    posts: Path,
    kb: Path,
    plan: JobPlan,
    folder: Path,
    client: TeacherClient | None,
    terms: RunTerms | None = None,
    *,
    send: bool = False,
    report: SkipReport | None = None,
) -> tuple[RunTally, "WaveReport"]:
    """Read the answers in a folder, and write there what is to be asked next.

    With `send`, parts go through the Batch API of the client's server until every post has
    ended; without, one wave is written, and the same call goes on once its answers lie there.
    `client` is needed to send and to probe. Raises what `run.distil_posts` raises.
    """
    terms = terms or RunTerms()
    plan = complete_plan(posts, plan, terms, report)
    return asyncio.run(_BatchRun(posts, kb, plan, folder, client, terms, report).run(send))


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
        lines = [f"written: {path}" for path in self.parts]
        if self.awaited:
            lines.append(f"{self.awaited:,} calls in {len(self.waiting):,} parts wait for answers")
        if self.strays:
            lines.append(f"{self.strays:,} answers that no post asked for, such as {self.stray}")
        if self.unreadable:
            lines.append(f"{self.unreadable:,} lines are no answers, such as {self.where}")
        if self.spent:
            lines.append(str(self.spent))
        return lines


@dataclass(frozen=True)
class _BatchRun:
    posts: Path
    kb: Path
    plan: JobPlan
    folder: Path
    client: TeacherClient | None
    terms: RunTerms
    report: SkipReport | None

    async def run(self, send: bool) -> tuple[RunTally, WaveReport]:
        """Go through all posts until nothing is missing; `BudgetError` where no call has room."""
        is_first = True
        try:
            while True:
                tally, wave = await self._run_wave(is_first)
                if not wave.awaited and wave.spent:
                    raise wave.spent
                if not wave.awaited or not send:
                    return tally, wave
                await self._submit(wave)
                is_first = False
        finally:
            if self.client is not None:
                await self.client.close()

    async def _run_wave(self, is_first: bool) -> tuple[RunTally, WaveReport]:
        terms, tally = self.terms, RunTally()
        stream = read_plan_posts(self.posts, self.plan, terms, self.report).cut(terms.limit)
        first, stream = stream.peek()
        with KnowledgeBase(self.kb) as store:
            run = DistilRun(store, JobRunner(self.plan), self.client, terms, batch=True)
            if is_first:
                await run.prepare(first, stream.total)
            rows = place_posts(store, stream.posts, self.report)
            wave = BatchWave(self.folder, store, run.ledger, tally)
            if self.client is not None:
                wave.dialects, wave.host = self.client.dialects, self.client.host
            with wave:
                await run.schedule(rows, stream.total, wave, tally)
        for line in wave.report.lines():
            print_notice(line)
        return tally, wave.report

    async def _submit(self, wave: WaveReport) -> None:
        """Have the parts answered; the knowledge base is free meanwhile."""
        assert self.client is not None
        with KnowledgeBase(self.kb) as store:
            run = DistilRun(store, JobRunner(self.plan), self.client, self.terms, batch=True)
        await submit_parts(wave.waiting, self.client.client, run.ledger)


@dataclass
class BatchWave:
    """Stands in for paying, while a run goes through all posts once; use `with`.

    An answer that stands in an output file of the folder (`*.out.jsonl`, `*_output.jsonl`,
    `*_error.jsonl`) is kept and the post goes on; a request that no output holds is written into
    a part, unless it stands in one that waits for its answers, and the post is halted. A line with
    a passing error is asked again up to three times; with another the post ends as failed, and
    the next wave but one asks again. The ledger should count at the price of batches. A wave that
    reaches the budget ends there. `report` says what came of it, once the block is left.
    """

    folder: Path
    store: KnowledgeBase
    ledger: BudgetLedger
    tally: RunTally
    dialects: Mapping[str, ServerDialect] = field(default_factory=dict)
    host: str = "batch"
    lines: int = batch_files.MAX_PART_LINES
    size: int = batch_files.MAX_PART_BYTES

    def __post_init__(self) -> None:
        self._open: dict[str, BatchPart] = {}
        self._done: list[Path] = []
        self._calls = 0
        self._stack = ExitStack()

    def __enter__(self) -> "BatchWave":
        with ExitStack() as stack:
            stack.enter_context(lock_folder(self.folder))
            batch_files.remove_unfinished(self.folder)
            self._parts = batch_files.list_parts(self.folder)
            self._names = batch_files.name_new_parts(self.folder)
            self._db = _open_index(self.store.path)
            stack.callback(self._db.close)
            with self._db:
                self._db.execute("BEGIN")
                self._outputs = BatchOutputs(self.folder, self._db)
                self._load_parts()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> bool:
        with self._stack:
            for part in self._open.values():
                self._done.append(part.finish())
            spent = error if isinstance(error, BudgetError) else None
            self.report = self._make_report(spent, whole=error is None)
            self.ledger.reserved -= self._sum_reserved()
        return spent is not None

    async def pay(self, request: Request) -> CallRow:
        """Return the answer from an output file, committed; else see that it is asked."""
        line = self._outputs.find(request.key)
        awaited = f"SELECT 1 FROM asked WHERE key = ? AND {_AWAITED}"
        if not (line and line.good) and self._db.execute(awaited, (request.key,)).fetchone():
            raise JobHalted
        row = await self._keep(request, line) if line else None
        row = row or await self._write(request)
        if row is None:
            raise JobHalted
        return row

    async def _keep(self, request: Request, line: OutputLine) -> CallRow | None:
        """Keep what a line says; None where the request is to be written again."""
        response, is_passing = self._outputs.read(line, self.host)
        known = (request.key, line.id)  # a failure that was read in an earlier wave already
        if response.status == "failed" and self.store.db.execute(_FAILURE, known).fetchone():
            return None
        reserved = self._release(request.key)
        usd = self.ledger.settle(reserved, request.model, response.usage)
        self.tally.count(response)
        row = await self.store.put_response(request, response, usd)
        return None if is_passing and line.failures < _TRIES else row

    async def _write(self, request: Request) -> CallRow | None:
        """Write a request into the part of its model; its row where it cannot be asked at all."""
        usd = self.ledger.reserve(request)
        try:
            body = await make_body(request, self.dialects)
        except PostError as error:
            self.ledger.reserved -= usd
            response = Response(status="failed", reason=str(error), host=self.host)
            return await self.store.put_response(request, response, 0.0)
        self._add_line(request, batch_files.encode_line(request.key, body))
        self._db.execute(_ASK, (request.key, len(self._parts), usd))
        return None

    def _add_line(self, request: Request, line: bytes) -> None:
        part = self._open.get(request.model)
        if part and (part.lines == self.lines or part.size + len(line) > self.size):
            self._done.append(self._open.pop(request.model).finish())
            part = None
        if part is None:
            part = self._open[request.model] = BatchPart(next(self._names), request.model)
        try:
            part.add(line, PartEntry(request.key, self.ledger.expect(request)))
        except BaseException:
            del self._open[request.model]
            raise
        self._calls += 1

    def _load_parts(self) -> None:
        """Take up what was written before; what of it is not settled is set aside of the budget."""
        self._db.execute(_ASKED_TABLE)
        for number, path in enumerate(self._parts):
            model = batch_files.read_part_model(path)
            rows = (
                (entry.key, number, self.ledger.price(model, entry.expected))
                for entry in batch_files.read_part_entries(path)
            )
            self._db.executemany(_ASK, rows)
        self._db.execute(f"UPDATE asked SET usd = 0 WHERE NOT ({_AWAITED}) AND {_KEPT}")
        self.ledger.reserved += self._sum_reserved()

    def _sum_reserved(self) -> float:
        (usd,) = self._db.execute("SELECT TOTAL(usd) FROM asked").fetchone()
        return float(usd)

    def _release(self, key: bytes) -> float:
        """Return what was set aside for a request, which is from now on settled."""
        row = self._db.execute("SELECT usd FROM asked WHERE key = ?", (key,)).fetchone()
        self._db.execute("UPDATE asked SET usd = 0 WHERE key = ?", (key,))
        return float(row[0]) if row else 0.0

    def _make_report(self, spent: BudgetError | None, *, whole: bool) -> WaveReport:
        rows = self._db.execute(
            f"SELECT part, COUNT(*) FROM asked WHERE {_AWAITED} AND part < ? GROUP BY part",
            (len(self._parts),),
        ).fetchall()
        waiting = [self._parts[number] for number, _ in rows]
        strays, stray = self._db.execute(_STRAYS).fetchone() if whole else (0, "")
        return WaveReport(
            tuple(self._done),
            self._calls,
            sum(count for _, count in rows) + self._calls,
            (*waiting, *self._done),
            strays,
            stray,
            self._outputs.num_unreadable,
            self._outputs.unreadable,
            spent,
        )


def _open_index(kb: Path) -> sqlite3.Connection:
    """Return a database in a temporary file, gone when closed, which sees the knowledge base's."""
    db = sqlite3.connect("", uri=True, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("ATTACH ? AS kb", (f"file:{quote(kb.absolute().as_posix())}?mode=ro",))
    return db
