"""One writer at a time: a lock on a file beside the one that is written."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from miko_clf.errors import DistilError


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the lock of a file; raises `DistilError` where another process has it.

    A process that is killed lets go of it by that.
    """
    where = path.with_name(f".{path.name}.lock")
    with _locked(path, where):
        try:
            yield
        finally:
            where.unlink(missing_ok=True)


def _locked(path: Path, where: Path) -> IO[str]:
    while True:
        lock = where.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DistilError(f"{path}: another process is writing there") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), where.stat()):
                return lock
        lock.close()  # it was let go, and unlinked, between opening and locking
