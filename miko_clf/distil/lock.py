"""One writer at a time: a lock on a file beside the one that is written."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from miko_clf.errors import DistilError


def claimed(path: Path) -> IO[str]:
    """Return the lock of a file, held until it is closed; raises `DistilError` if another has it.

    Unlink it before it is closed; a process that is killed lets it go by that.
    """
    where = path.with_name(f".{path.name}.lock")
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
