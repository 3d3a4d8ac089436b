"""The lines of a text file, in the encoding that the file is in."""

import codecs
import io
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from miko_clf.errors import PostError

_WIDE_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_ASSUMED_ENCODING = "cp1252"
_REMARK = (
    "read as Windows-1252, which is assumed of what is not UTF-8; save the file as UTF-8 to be sure"
)


class TextLine(NamedTuple):
    """A line, its end included, and why it cannot be read or what was assumed of it."""

    text: str
    fault: str = ""
    remark: str = ""


def read_text_lines(path: Path) -> Iterator[TextLine]:
    """Yield the lines of a file in UTF-8, UTF-16 or UTF-32; only a line feed ends one.

    A line that is not UTF-8 is taken for Windows-1252 where such lines are no fewer than those of
    UTF-8 that hold more than ASCII, and is at fault in a file that is plainly UTF-8.
    """
    with path.open("rb") as file:
        wide = _find_wide_encoding(file.read(4))
        file.seek(0)
        decoded = _decode_wide(file, wide, path) if wide else _decode_narrow(file, path)
        with closing(decoded) as lines:  # before the file is, where not all of it is read
            for number, line in enumerate(lines):
                bare = line.text.removeprefix("\ufeff") if number == 0 else line.text
                yield line._replace(text=bare)


def _find_wide_encoding(head: bytes) -> str | None:
    """Return the encoding of more than a byte a character that the first four bytes show."""
    marked = next((name for mark, name in _WIDE_MARKS.items() if head.startswith(mark)), None)
    if marked or len(head) < 2:
        return marked
    nulls = head[0] == 0, head[1] == 0  # every table begins with ASCII
    return {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get(nulls)


def _decode_wide(
    file: io.BufferedReader, encoding: str, path: Path
) -> Generator[TextLine, None, None]:
    lines = io.TextIOWrapper(file, encoding, errors="surrogatepass", newline="\n")
    try:
        for text in lines:
            half = any("\ud800" <= character <= "\udfff" for character in text)
            yield TextLine(text, f"the line is not {encoding[:6].upper()}" if half else "")
    except UnicodeDecodeError:
        raise PostError(f"{path}: ends within a character of {encoding[:6].upper()}") from None
    finally:
        lines.detach()


def _decode_narrow(file: io.BufferedReader, path: Path) -> Generator[TextLine, None, None]:
    assumed: bool | None = None
    for line in file:
        try:
            yield TextLine(line.decode())
        except UnicodeDecodeError as error:
            assumed = _is_mostly_narrow(path) if assumed is None else assumed
            yield _decode_doubtful(line, error.start + 1, assumed)


def _decode_doubtful(line: bytes, place: int, assumed: bool) -> TextLine:
    """Return a line that is not UTF-8 from a byte on, read as something else where assumed."""
    try:
        if assumed:
            return TextLine(line.decode(_ASSUMED_ENCODING), remark=_REMARK)
    except UnicodeDecodeError:
        fault = f"byte {place} of the line is not UTF-8, and the line not Windows-1252"
        return TextLine(line.decode(errors="replace"), fault)
    return TextLine(line.decode(errors="replace"), f"byte {place} of the line is not UTF-8")


def _is_mostly_narrow(path: Path) -> bool:
    """Say whether of the lines that are not ASCII no more are UTF-8 than are not."""
    balance = 0
    with path.open("rb") as file:
        for line in file:
            if line.isascii():
                continue
            try:
                line.decode()
                balance -= 1
            except UnicodeDecodeError:
                balance += 1
    return balance >= 0
