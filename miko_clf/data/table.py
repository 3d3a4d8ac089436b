"""The rows of one JSONL, CSV or Parquet file, each with the place where it stands."""

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Never

import pyarrow as pa
import pyarrow.parquet as pq

from miko_clf.data.row import KEYS, check_keys
from miko_clf.errors import PostError

SUFFIXES = (".jsonl", ".csv", ".parquet")
_BATCH = 64  # rows of Parquet in memory at a time: they may hold images
_BAD_CSV = "not valid CSV: a quote is not closed, or a cell is longer than 131,072 characters"
_JSON_CELLS = ("intentions", "key_information", "rationale")


class Row(NamedTuple):
    """The cells of a row or, where it could not be parsed, its fault."""

    where: str
    cells: Mapping[str, Any]
    fault: str = ""


def rows(path: Path, *, key: str = "id") -> Iterator[Row]:
    """Yield every row; columns must include `key`. A file with no row at all raises PostError."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    empty = True
    try:
        check_file(path)
        for row in readers[path.suffix.lower()](path, key):
            empty = False
            yield row
    except OSError as error:
        raise PostError(f"{path}: cannot be read: {error.strerror or 'input error'}") from error
    if empty:
        raise PostError(f"{path}: holds no posts")


def check_file(path: Path) -> None:
    """Raise PostError unless this is a file of posts with something in it."""
    kinds = "a .jsonl, .csv or .parquet file of posts is expected"
    if path.is_dir():
        raise PostError(f"{path}: is a folder; {kinds}")
    if not path.exists():
        raise PostError(f"{path}: there is no such file")
    if path.suffix.lower() not in SUFFIXES:
        raise PostError(f"{path}: unknown kind {path.suffix!r}; {kinds}")
    if path.stat().st_size == 0:
        raise PostError(f"{path}: the file is empty")


def json_object(text: str) -> dict[str, Any]:
    """Return the object that the text holds; PostError gives the reason alone."""
    value = _json(text)
    if not isinstance(value, dict):
        raise PostError(f"a JSON object is expected, not {_KINDS[type(value)]}")
    return value


def _jsonl(path: Path, key: str) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                row = Row(where, json_object(_text(line, first=number == 1)))
            except PostError as error:
                row = Row(where, {}, str(error))
            yield row


def _text(line: bytes, *, first: bool) -> str:
    try:
        text = (line.removeprefix(codecs.BOM_UTF8) if first else line).decode()
    except UnicodeDecodeError as error:
        raise PostError(f"byte {error.start + 1} of the line is not UTF-8") from None
    if not text.strip():
        raise PostError("the line is empty; every line holds one post")
    return text


_KINDS = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_no_constant)
        if "\\u" in text:  # the only way in for half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise PostError(f"not valid JSON at column {error.colno}") from None
    except UnicodeEncodeError:
        raise PostError(
            "half of a surrogate pair (\\ud800 to \\udfff) is not a character"
        ) from None
    except (ValueError, RecursionError):
        raise PostError("not valid JSON: a number is too long or the nesting too deep") from None
    return value


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PostError(f"key {twice!r} is given twice")
    return found


def _no_constant(word: str) -> Never:
    raise PostError(f"{word} is not JSON; write null for what is absent")


def _csv(path: Path, key: str) -> Iterator[Row]:
    with path.open("rb") as file:
        unreadable: list[int] = []
        reader = csv.reader(_decoded(file, unreadable), strict=True)
        header = _header(path, reader, unreadable, key)
        while True:
            where = f"{path}:{reader.line_num + 1}"
            try:
                row = Row(where, _record(header, next(reader), unreadable))
            except StopIteration:
                return
            except csv.Error:
                row = Row(where, {}, _BAD_CSV)
            except PostError as error:
                row = Row(where, {}, str(error))
            unreadable.clear()
            yield row


def _decoded(lines: Iterable[bytes], unreadable: list[int]) -> Iterator[str]:
    """Yield lines as text and note the number of each that is not UTF-8."""
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            unreadable.append(number)
            text = line.decode(errors="replace")
        yield text.removeprefix("\ufeff") if number == 1 else text


def _header(path: Path, reader: Iterator[list[str]], unreadable: list[int], key: str) -> list[str]:
    try:
        header = next(reader)
        if unreadable:
            raise PostError("the line is not UTF-8")
        _check_columns(header, key)
    except (csv.Error, PostError) as error:
        reason = str(error) if isinstance(error, PostError) else "not a valid CSV header"
        raise PostError(f"{path}:1: {reason}") from None
    return header


def _check_columns(names: list[str], key: str) -> None:
    check_keys(names, (key,))
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise PostError(f"column {twice!r} stands twice")
    if key not in names:
        raise PostError(f"column {key!r} is required; the columns are {str(names)[:200]}")


def _record(header: list[str], cells: list[str], unreadable: list[int]) -> dict[str, Any]:
    """Return the cells that are not empty, with the JSON in them parsed."""
    if unreadable:
        raise PostError(f"line {unreadable[0]} is not UTF-8")
    if not any(cell.strip() for cell in cells):
        raise PostError("the line is empty; every line holds one post")
    if len(cells) != len(header):
        raise PostError(f"{len(cells)} cells under {len(header)} columns")
    record: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    for name in KEYS:
        if str(record.get(name, "")).strip().lower() == "nan":
            raise PostError(f"{name} is {record[name]!r}; leave the cell empty where it is absent")
    return _with_json(record)


def _with_json(cells: dict[str, Any]) -> dict[str, Any]:
    for name in _JSON_CELLS:
        if isinstance(cells.get(name), str):
            cells[name] = _cell(name, cells[name])
    label = cells.get("label")
    if isinstance(label, str) and label.startswith(("[", "{")):
        cells["label"] = _cell("label", label)
    return cells


def _cell(name: str, text: str) -> Any:
    try:
        return _json(text)
    except PostError as error:
        raise PostError(f"{name}: {error}") from None


def _parquet(path: Path, key: str) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            try:
                _check_columns(names, key)
            except PostError as error:
                raise PostError(f"{path}: {error}") from None
            wanted = [name for name in names if name in (*KEYS, key)]
            number = 0
            for batch in file.iter_batches(_BATCH, columns=wanted):
                for cells in batch.to_pylist():
                    number += 1
                    yield _parquet_row(f"{path} row {number}", cells)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PostError(f"{path}: is not a readable Parquet file") from error


def _parquet_row(where: str, cells: dict[str, Any]) -> Row:
    try:
        return Row(where, _with_json(cells))
    except PostError as error:
        return Row(where, {}, str(error))
