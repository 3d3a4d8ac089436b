"""The batch route: what is not answered yet is written down, to be asked anywhere, and read."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote

from miko_clf.distil.call import Call, Reply
from miko_clf.distil.dialect import Dialect, body
from miko_clf.distil.gather import Halted, Tally
from miko_clf.distil.money import Ledger, SpentError
from miko_clf.distil.outputs import Answered, Outputs
from miko_clf.distil.parts import (
    LINES,
    SIZE,
    Asked,
    Part,
    asked_in,
    fresh,
    line_of,
    model_of,
    parts,
    sweep,
)
from miko_clf.distil.shelf import Row, Shelf
from miko_clf.errors import PostError
from miko_clf.manifest import alone

TRIES = 3  # times that a call is asked whose line was a passing error
_TABLE = """
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


class Written(NamedTuple):
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
    spent: SpentError | None

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


class Wave:
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
        shelf: Shelf,
        ledger: Ledger,
        tally: Tally,
        dialects: Mapping[str, Dialect] | None = None,
        *,
        lines: int = LINES,
        size: int = SIZE,
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
        self._open: dict[str, Part] = {}
        self._done: list[Path] = []
        self._calls = 0
        self._stack = ExitStack()

    def __enter__(self) -> "Wave":
        with ExitStack() as stack:
            stack.enter_context(alone(self.folder))
            sweep(self.folder)
            self._parts = parts(self.folder)
            self._names = fresh(self.folder)
            self._db = _index(self.shelf.path)
            stack.callback(self._db.close)
            with self._db:
                self._db.execute("BEGIN")
                self._outputs = Outputs(self.folder, self._db)
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
            spent = error if isinstance(error, SpentError) else None
            self.written = self._written(spent, whole=error is None)
            (held,) = self._db.execute("SELECT TOTAL(usd) FROM asked").fetchone()
            self.ledger.reserved -= held
        return spent is not None

    async def __call__(self, call: Call) -> Row:
        """Return the answer from an output file, committed; else see that it is asked."""
        found = self._outputs.find(call.key)
        if (found is None or not found.good) and self._awaited(call.key):
            raise Halted
        if found is not None:
            row = await self._keep(call, found)
            if row is not None:
                return row
        row = await self._write(call)
        if row is None:
            raise Halted
        return row

    async def _keep(self, call: Call, found: Answered) -> Row | None:
        """Keep what a line says; None where the call is to be asked again."""
        reply, passing = self._outputs.reply(found, self.host)
        if reply.status == "failed" and self._told(call.key, found.id):
            return None
        usd = self.ledger.settle(self._released(call.key), call, reply.usage)
        self.tally.count(reply)
        row = await self.shelf.keep(call, reply, usd)
        return None if passing and found.failures < TRIES else row

    async def _write(self, call: Call) -> Row | None:
        """Write a call into the part of its model; its row where it cannot be asked at all."""
        usd = self.ledger.reserve(call)
        dialect = self.dialects.get(call.model, Dialect())
        try:
            if any(turn.picture for turn in call.turns):  # reading and shrinking it takes a while
                asked = await asyncio.to_thread(body, call, dialect)
            else:
                asked = body(call, dialect)
        except PostError as error:
            self.ledger.reserved -= usd
            reply = Reply(status="failed", reason=str(error), host=self.host)
            return await self.shelf.keep(call, reply, 0.0)
        self._add(call, line_of(call.key, asked))
        self._db.execute(_ASK, (call.key, len(self._parts), usd))
        return None

    def _add(self, call: Call, line: bytes) -> None:
        part = self._open.get(call.model)
        if part and (part.lines == self.lines or part.size + len(line) > self.size):
            self._done.append(self._open.pop(call.model).finish())
            part = None
        if part is None:
            part = self._open[call.model] = Part(next(self._names), call.model)
        try:
            part.add(line, Asked(call.key, self.ledger.expected(call)))
        except BaseException:
            del self._open[call.model]
            raise
        self._calls += 1

    def _load(self) -> None:
        """Take up what was written before; what of it is not settled is set aside of the budget."""
        self._db.execute(_TABLE)
        for number, path in enumerate(self._parts):
            model = model_of(path)
            price = self.ledger.price
            rows = ((key, number, price(model, expected)) for key, expected in asked_in(path))
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

    def _written(self, spent: SpentError | None, *, whole: bool) -> Written:
        every = self._parts + self._done
        rows = self._db.execute(
            f"SELECT part, COUNT(*) FROM asked WHERE {_AWAITED} AND part < ? GROUP BY part",
            (len(self._parts),),
        ).fetchall()
        waiting = [every[number] for number, _ in rows] + self._done
        strays, stray = self._strays() if whole else (0, "")
        return Written(
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


async def in_waves(
    walk: Callable[[], Awaitable[Written]],
    send: Callable[[Written], Awaitable[None]] | None,
) -> Written:
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


def _index(kb: Path) -> sqlite3.Connection:
    """Return a database in a temporary file, gone when it is closed, which sees the shelf's."""
    db = sqlite3.connect("", uri=True, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("ATTACH ? AS kb", (f"file:{quote(kb.absolute().as_posix())}?mode=ro",))
    return db
