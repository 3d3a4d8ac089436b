"""One thread that commits; what is handed in while it is busy goes into its next commit."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from miko_clf.errors import DistilError

BALLAST = 8 << 20  # bytes held beside the file and let go once, so that a full disk loses nothing

Act = Callable[[sqlite3.Connection], Any]


class Writer:
    """Commits acts on a database, flushed to disk, in the order in which they were given.

    `full` is set once the disk was full: what was under way could be written still, and nothing
    more should be begun.
    """

    def __init__(self, connection: sqlite3.Connection, ballast: Path) -> None:
        self._connection = connection
        self._ballast = ballast
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shelf")
        self._waiting: list[tuple[Act, asyncio.Future[None]]] = []
        self._busy: asyncio.Task[None] | None = None
        self.full = False
        self.num_commits = 0
        try:
            ballast.write_bytes(bytes(BALLAST))  # zeros that are really there, unlike a hole
        except OSError:
            ballast.unlink(missing_ok=True)
            raise

    async def do(self, act: Act) -> None:
        """Return once the act is committed; raises `DistilError` where it cannot be."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((act, done))
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._drain())
        await done

    def close(self) -> None:
        """Wait for the last commit, and let the ballast go."""
        self._thread.shutdown()
        self._ballast.unlink(missing_ok=True)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            now, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._thread, self._commit, [act for act, _ in now])
            except Exception as fault:  # whoever waits must hear of it, whatever it is
                error = DistilError(f"the knowledge base cannot be written: {fault}")
            for _, done in now:
                if not done.cancelled():
                    done.set_exception(error) if error else done.set_result(None)

    def _commit(self, acts: list[Act]) -> None:
        try:
            self._transact(acts)
        except sqlite3.OperationalError as error:
            if "full" not in str(error) or not self._ballast.exists():
                raise
            self._ballast.unlink()
            self.full = True
            self._transact(acts)

    def _transact(self, acts: list[Act]) -> None:
        with self._connection:  # commits, or rolls back
            self._connection.execute("BEGIN IMMEDIATE")
            for act in acts:
                act(self._connection)
        self.num_commits += 1
