"""One JSON object a line, as posts stand in `.jsonl`; and the JSON in the cells of other tables."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

from miko_clf.data.cells import RECORD_KEYS, TableRow
from miko_clf.data.text_lines import TextLine, read_text_lines
from miko_clf.errors import PostError, shorten_value

_JSON_KINDS = {
    list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip
_HALF = "half of a surrogate pair (\\ud800 to \\udfff)"
_MEND = f"{_HALF} was read as U+FFFD, the character for what is lost"
_PLAIN_KEYS = ("label", "targets")  # whose cells may be JSON or a plain name


class HalfSurrogateError(PostError):
    """A JSON text holds half of a surrogate pair; `mended` is its value with U+FFFD there."""

    def __init__(self, mended: Any) -> None:
        super().__init__(f"{_HALF} is not a character")
        self.mended = mended


def read_json_lines(path: Path) -> Iterator[TableRow]:
    """Yield a row for each line of a file that is not blank."""
    for number, line in enumerate(read_text_lines(path), 1):
        if line.text.strip() or line.fault:
            yield _parse_row(f"{path}:{number}", line)


def _parse_row(where: str, line: TextLine) -> TableRow:
    remarks = (line.remark,) if line.remark else ()
    if line.fault:
        return TableRow(where, {}, line.fault)
    try:
        return TableRow(where, parse_json_object(line.text), remarks=remarks)
    except HalfSurrogateError as error:
        mended = error.mended if isinstance(error.mended, dict) else {}
        return TableRow(where, mended, str(error), remarks, mend=_MEND if mended else "")
    except PostError as error:
        return TableRow(where, {}, str(error))


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the object that the text holds; PostError gives the reason alone."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise PostError(f"a JSON object is expected, not {_JSON_KINDS[type(value)]}")
    return value


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; PostError gives the reason alone.

    A key that is given twice, NaN and half of a surrogate pair are refused too.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise PostError(f"not valid JSON at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise PostError("not valid JSON: a number is too long or the nesting too deep") from None
    if "\\u" in text:  # the only way in for half a surrogate pair
        written = json.dumps(value, ensure_ascii=False)
        mended = re.sub("[\ud800-\udfff]", "\ufffd", written)
        if mended != written:
            raise HalfSurrogateError(json.loads(mended))
    return value


def parse_json_cells(cells: dict[str, Any]) -> dict[str, Any]:
    """Parse the JSON in the cells that may hold some; a label or target may be a plain name too."""
    for name in (*RECORD_KEYS, *_PLAIN_KEYS):
        text = cells.get(name)
        plain = name in _PLAIN_KEYS
        if not isinstance(text, str) or (plain and not text.startswith(("[", "{"))):
            continue
        try:
            cells[name] = parse_json(text)
        except PostError as error:
            raise PostError(f"{name}: {error}") from None
    return cells


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PostError(f"key {shorten_value(twice)} is given twice")
    return record


def _refuse_constant(word: str) -> Never:
    raise PostError(f"{word} is not JSON; write null for what is absent")
