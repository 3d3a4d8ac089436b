"""The files of the Batch API: parts of requests written, outputs of answers read."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from miko_clf.distil.response import (
    Response,
    ServerFault,
    TokenUsage,
    classify_status,
    parse_completion,
    read_error_body,
)
from miko_clf.errors import DistilError
from miko_clf.manifest import write_atomically
from miko_clf.progress import show_progress

MAX_PART_LINES = 50_000  # requests a file, and bytes, that the Batch API takes at most
MAX_PART_BYTES = 200_000_000
BATCH_URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_PART_NAME = re.compile(r"part-(\d{4,})\.jsonl")


class PartEntry(NamedTuple):
    """A request that stands in a part, and the tokens that it takes at most."""

    key: bytes
    expected: TokenUsage


class BatchPart:
    """A file of requests to one model while it is written; `finish` gives it its name.

    Beside `part-0001.jsonl` stands `part-0001.keys`: the model, then a key with its expected
    prompt and completion tokens a line, so that nobody has to read gigabytes of pictures to know
    what was asked. Raises `BundleError` where the place cannot be written.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.model = model
        self.size = 0
        self.lines = 0
        self._stack = ExitStack()
        # The list is closed, and renamed, first: a part never stands there without it.
        self._requests = self._open(path)
        self._keys = self._open(path.with_suffix(".keys"))
        self._keys.write(json.dumps(model).encode() + b"\n")

    def add(self, line: bytes, entry: PartEntry) -> None:
        """Add the line of a request."""
        key, expected = entry
        try:
            self._requests.write(line)
            self._keys.write(f"{key.hex()} {expected.prompt} {expected.completion}\n".encode())
        except OSError as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self.size += len(line)
        self.lines += 1

    def finish(self) -> Path:
        """Flush the file to disk, give it its name, and return that."""
        self._stack.close()
        return self.path

    def _open(self, path: Path) -> Any:
        beside = self._stack.enter_context(write_atomically(path))
        return self._stack.enter_context(beside.open("wb"))


def encode_line(key: bytes, body: dict[str, Any]) -> bytes:
    """Return the line of one request, with its line end."""
    request = {"custom_id": key.hex(), "method": "POST", "url": BATCH_URL, "body": body}
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def list_parts(folder: Path) -> list[Path]:
    """Return the parts in a folder, in their order."""
    return sorted(path for path in folder.glob("part-*.jsonl") if _PART_NAME.fullmatch(path.name))


def name_new_parts(folder: Path) -> Iterator[Path]:
    """Yield names of parts under which nothing was ever written in the folder."""
    taken = (re.match(r"part-(\d{4,})", path.name) for path in folder.glob("part-*"))
    last = max((int(name.group(1)) for name in taken if name), default=0)
    return (folder / f"part-{number:04d}.jsonl" for number in count(last + 1))


def read_part_model(part: Path) -> str:
    """Return the model that a part asks; raises `DistilError`."""
    return str(json.loads(next(_read_key_lines(part))))


def read_part_entries(part: Path) -> Iterator[PartEntry]:
    """Yield the requests of a part; raises `DistilError`."""
    lines = _read_key_lines(part)
    next(lines)
    for line in lines:
        key, prompt, completion = line.split()
        yield PartEntry(bytes.fromhex(key), TokenUsage(int(prompt), 0, int(completion)))


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".part-*"):
        path.unlink()


def _read_key_lines(part: Path) -> Iterator[str]:
    path = part.with_suffix(".keys")
    try:
        with path.open(encoding="ascii") as file:
            yield from file
    except OSError as error:
        raise DistilError(
            f"{path}: cannot be read ({error.strerror}); it belongs to {part.name} and says "
            "what was asked there"
        ) from None


# vLLM's `-o` as we name it; the output and error files as OpenAI's page names them.
_OUTPUT_PATTERNS = ("*.out.jsonl", "*_output.jsonl", "*_error.jsonl")
_LINES_TABLE = "CREATE TABLE lines (key BLOB, good INTEGER, id TEXT, file INTEGER, at INTEGER)"


class OutputLine(NamedTuple):
    """The line that answers for a key. `failures` counts the lines that were errors, each once."""

    good: bool
    id: str
    failures: int
    file: int
    at: int


class BatchOutputs:
    """An index of every line in the output files of a folder, kept in a temporary table of `db`.

    `unreadable` names the first line that is no such JSON, `num_unreadable` counts them. The
    last line of a file that is still being written is passed over.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self._db = db
        self.files = sorted({path for pattern in _OUTPUT_PATTERNS for path in folder.glob(pattern)})
        self.unreadable = ""
        self.num_unreadable = 0
        db.execute(_LINES_TABLE)
        rows = show_progress(self._list_rows(), "reading answers")
        db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("CREATE INDEX by_key ON lines (key)")

    def find(self, key: bytes) -> OutputLine | None:
        """Return the line that answers for a key: the last good one, or the last error."""
        row = self._db.execute(
            "SELECT good, id, file, at FROM lines WHERE key = ? ORDER BY good DESC, rowid DESC",
            (key,),
        ).fetchone()
        if row is None:
            return None
        good, name, file, at = row
        (failures,) = self._db.execute(
            "SELECT COUNT(DISTINCT id) FROM lines WHERE key = ? AND NOT good", (key,)
        ).fetchone()
        return OutputLine(bool(good), name, failures, file, at)

    def read(self, output: OutputLine, host: str) -> tuple[Response, bool]:
        """Return what a line says, and whether asking again may help."""
        with self.files[output.file].open("rb") as file:
            file.seek(output.at)
            line = json.loads(file.readline())
        if output.good:
            body = line["response"]["body"]
            try:
                return parse_completion(body, host), False
            except ValueError:  # it was paid for all the same, and is read as it is
                return Response(raw=json.dumps(body), host=host), False
        fault = _parse_fault(line)
        response = fault.make_response(host, output.failures)._replace(request=output.id)
        return response, fault.kind in ("transient", "limited")

    def _list_rows(self) -> Iterator[tuple[bytes, bool, str, int, int]]:
        """Yield key, whether it is an answer, its id, its file and where it begins there."""
        for number, path in enumerate(self.files):
            for at, line in _read_output_lines(path):
                row = _parse_line(line)
                if row is not None:
                    yield *row, number, at
                elif line.endswith(b"\n"):
                    self.num_unreadable += 1
                    self.unreadable = self.unreadable or f"{path}: at byte {at}"


def _read_output_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    at = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield at, line
                at += len(line)
    except OSError as error:
        raise DistilError(f"{path}: cannot be read: {error.strerror}") from None


def _parse_line(text: bytes) -> tuple[bytes, bool, str] | None:
    try:
        line: Any = json.loads(text)
        name = str(line["custom_id"])
        response = line.get("response") or {}
        body = response.get("body")
        good = response.get("status_code") == 200 and not line.get("error")
        return _decode_key(name), good and isinstance(body, dict), str(line.get("id") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _decode_key(custom_id: str) -> bytes:
    """Return the key that an id spells; an id of someone else's stands for itself."""
    try:
        return bytes.fromhex(custom_id)
    except ValueError:
        return custom_id.encode()


def _parse_fault(line: dict[str, Any]) -> ServerFault:
    response = line.get("response") or {}
    status = response.get("status_code")
    message = read_error_body(response.get("body")) or read_error_body(line.get("error"))
    text = " ".join(message.split())[:300]
    if isinstance(status, int) and status >= 400:
        return classify_status(status, text)
    return ServerFault("transient", text or "no answer in the line")
