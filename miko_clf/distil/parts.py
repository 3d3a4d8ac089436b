"""Files of requests in the format of the OpenAI Batch API, which `vllm run-batch` reads too."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from miko_clf.distil.call import Usage
from miko_clf.errors import DistilError
from miko_clf.manifest import aside

LINES = 50_000  # requests a file, and bytes, that the Batch API takes at most
SIZE = 200_000_000
URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_NAME = re.compile(r"part-(\d{4,})\.jsonl")


class Asked(NamedTuple):
    """A call that stands in a part, and the tokens that it takes at most."""

    key: bytes
    expected: Usage


class Part:
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
        self._keys = self._open(_keys(path))
        self._keys.write(json.dumps(model).encode() + b"\n")

    def add(self, line: bytes, asked: Asked) -> None:
        """Add the line of a call."""
        key, expected = asked
        try:
            self._requests.write(line)
            self._keys.write(
                f"{key.hex()} {expected.prompt} {expected.completion}\n".encode("ascii")
            )
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
        beside = self._stack.enter_context(aside(path))
        return self._stack.enter_context(beside.open("wb"))


def line_of(key: bytes, body: dict[str, Any]) -> bytes:
    """Return the line of one request, with its line end."""
    request = {"custom_id": key.hex(), "method": "POST", "url": URL, "body": body}
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def parts(folder: Path) -> list[Path]:
    """Return the parts in a folder, in their order."""
    return sorted(path for path in folder.glob("part-*.jsonl") if _NAME.fullmatch(path.name))


def fresh(folder: Path) -> Iterator[Path]:
    """Yield names of parts under which nothing was ever written in the folder."""
    taken = (re.match(r"part-(\d{4,})", path.name) for path in folder.glob("part-*"))
    last = max((int(found.group(1)) for found in taken if found), default=0)
    return (folder / f"part-{number:04d}.jsonl" for number in count(last + 1))


def model_of(part: Path) -> str:
    """Return the model that a part asks; raises `DistilError`."""
    return str(json.loads(next(_lines(part))))


def asked_in(part: Path) -> Iterator[Asked]:
    """Yield the calls of a part; raises `DistilError`."""
    lines = _lines(part)
    next(lines)
    for line in lines:
        key, prompt, completion = line.split()
        yield Asked(bytes.fromhex(key), Usage(int(prompt), 0, int(completion)))


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".part-*"):
        path.unlink()


def _lines(part: Path) -> Iterator[str]:
    try:
        with _keys(part).open(encoding="ascii") as file:
            yield from file
    except OSError as error:
        raise DistilError(
            f"{_keys(part)}: cannot be read ({error.strerror}); it belongs to {part.name} and says "
            "what was asked there"
        ) from None


def _keys(part: Path) -> Path:
    return part.with_suffix(".keys")
