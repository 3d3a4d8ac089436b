"""One commit at a time; what is handed in while the disk is busy goes into the next."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from miko_clf.errors import DistilError

_BALLAST_BYTES = (
    8 << 20
)  # bytes held beside the file and let go once, so that a full disk loses nothing

_COMPANY_SECONDS = 0.02  # seconds

_Act = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[_Act, asyncio.Future[None]]


class CommitWriter:
    """Commits acts on a database, flushed to disk, in the order in which they were given.

    `full` is set once the disk was full: what was under way could be written still, and nothing
    more should be begun.
    """

    def __init__(self, connection: sqlite3.Connection, ballast: Path) -> None:
        self._connection = connection
        self._ballast = ballast
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shelf")
        self._waiting: list[_Waiting] = []
        self._busy: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._urgent = False
        self.full = False
        self.num_commits = 0
        try:
            ballast.write_bytes(bytes(_BALLAST_BYTES))  # zeros that are really there, unlike a hole
        except OSError:
            ballast.unlink(missing_ok=True)
            raise

    async def do(self, act: _Act, *, patient: bool = False) -> None:
        """Return once the act is committed; raises `DistilError` where it cannot be.

        A patient act waits a moment for company, so that one commit serves several.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((act, done))
        if not patient:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(_COMPANY_SECONDS, self._begin)
        await done

    def close(self) -> None:
        """Wait for the last commit, and let the ballast go."""
        self._thread.shutdown()
        self._ballast.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Commit what waits as soon as the disk is free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._urgent = True
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while self._urgent:
            self._urgent = False
            now, self._waiting = self._waiting, []
            fault = await self._tried(now)
            if fault and len(now) > 1:  # one that cannot be written is to cost no other
                for each in now:
                    _notify([each], await self._tried([each]))
            else:
                _notify(now, fault)

    async def _tried(self, waiting: list[_Waiting]) -> DistilError | None:
        try:
            await self._commit([act for act, _ in waiting])
        except Exception as fault:  # whoever waits must hear of it, whatever it is
            return DistilError(f"the knowledge base cannot be written: {fault}")
        return None

    async def _commit(self, acts: list[_Act]) -> None:
        try:
            await self._transact(acts)
        except sqlite3.OperationalError as error:
            if "full" not in str(error) or not self._ballast.exists():
                raise
            self._ballast.unlink()
            self.full = True
            await self._transact(acts)

    async def _transact(self, acts: list[_Act]) -> None:
        """Act here, and wait for the disk in the thread.

        The acts are many steps of microseconds; in a thread each would first wait for the
        interpreter, which a busy loop hands over every five milliseconds.
        """
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            for act in acts:
                act(db)
            await asyncio.get_running_loop().run_in_executor(self._thread, db.commit)
        except BaseException:
            db.rollback()
            raise
        self.num_commits += 1


def _notify(waiting: list[_Waiting], fault: DistilError | None) -> None:
    for _, done in waiting:
        if not done.cancelled():
            done.set_exception(fault) if fault else done.set_result(None)
