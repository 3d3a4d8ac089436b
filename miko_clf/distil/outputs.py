"""The answers that a batch run wrote: found by key, read one at a time, however many there are."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.distil.call import Reply
from miko_clf.distil.faults import Fault, fault_of_status, words
from miko_clf.distil.reply import reply_of
from miko_clf.distil.watch import watched
from miko_clf.errors import DistilError

# vLLM's `-o` as we name it; the output and error files as OpenAI's page names them.
PATTERNS = ("*.out.jsonl", "*_output.jsonl", "*_error.jsonl")
_TABLE = "CREATE TABLE lines (key BLOB, good INTEGER, id TEXT, file INTEGER, at INTEGER)"


class Answered(NamedTuple):
    """The line that answers for a key. `failures` counts the lines that were errors, each once."""

    good: bool
    id: str
    failures: int
    file: int
    at: int


class Outputs:
    """An index of every line in the output files of a folder, kept in a temporary table of `db`.

    `unreadable` names the first line that is no such JSON, `num_unreadable` counts them. The
    last line of a file that is still being written is passed over.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self._db = db
        self.files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
        self.unreadable = ""
        self.num_unreadable = 0
        db.execute(_TABLE)
        rows = watched(self._rows(), None, "reading answers")
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("CREATE INDEX by_key ON lines (key)")

    def find(self, key: bytes) -> Answered | None:
        """Return the line that answers for a key: the last good one, or the last error."""
        found = self._db.execute(
            "SELECT good, id, file, at FROM lines WHERE key = ? ORDER BY good DESC, rowid DESC",
            (key,),
        ).fetchone()
        if found is None:
            return None
        good, name, file, at = found
        (failures,) = self._db.execute(
            "SELECT COUNT(DISTINCT id) FROM lines WHERE key = ? AND NOT good", (key,)
        ).fetchone()
        return Answered(bool(good), name, failures, file, at)

    def reply(self, answered: Answered, host: str) -> tuple[Reply, bool]:
        """Return what a line says, and whether asking again may help."""
        with self.files[answered.file].open("rb") as file:
            file.seek(answered.at)
            line = json.loads(file.readline())
        if answered.good:
            return _reply(line["response"]["body"], host), False
        fault = _fault(line)
        reply = Reply(
            raw=fault.raw,
            status="refused" if fault.kind == "refused" else "failed",
            reason=fault.reason,
            request=answered.id,
            host=host,
            tries=answered.failures,
        )
        return reply, fault.kind in ("transient", "limited")

    def _rows(self) -> Iterator[tuple[bytes, bool, str, int, int]]:
        """Yield key, whether it is an answer, its id, its file and where it begins there."""
        for number, path in enumerate(self.files):
            for at, line in _lines(path):
                row = _row(line)
                if row is not None:
                    yield *row, number, at
                elif line.endswith(b"\n"):
                    self.num_unreadable += 1
                    self.unreadable = self.unreadable or f"{path}: at byte {at}"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    at = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield at, line
                at += len(line)
    except OSError as error:
        raise DistilError(f"{path}: cannot be read: {error.strerror}") from None


def _row(line: bytes) -> tuple[bytes, bool, str] | None:
    try:
        found: Any = json.loads(line)
        name = str(found["custom_id"])
        response = found.get("response") or {}
        body = response.get("body")
        good = response.get("status_code") == 200 and not found.get("error")
        return _key(name), good and isinstance(body, dict), str(found.get("id") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _key(custom_id: str) -> bytes:
    """Return the key that an id spells; an id of someone else's stands for itself."""
    try:
        return bytes.fromhex(custom_id)
    except ValueError:
        return custom_id.encode()


def _reply(body: dict[str, Any], host: str) -> Reply:
    try:
        return reply_of(body, host)
    except ValueError:  # it was paid for all the same, and is read as it is
        return Reply(raw=json.dumps(body), host=host)


def _fault(line: dict[str, Any]) -> Fault:
    response = line.get("response") or {}
    status = response.get("status_code")
    error = line.get("error")
    said = " ".join((words(response.get("body")) or words(error)).split())[:300]
    if isinstance(status, int) and status >= 400:
        return fault_of_status(status, said)
    return Fault("transient", said or "no answer in the line")
