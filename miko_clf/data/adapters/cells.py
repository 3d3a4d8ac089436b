"""Rows and cells of published files: delimited text, JSON lists, and what stands in them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.data.row import post_of
from miko_clf.data.table import Row
from miko_clf.errors import PostError

_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif"))
_TYPE: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


def delimited(file: Path, delimiter: str, columns: Iterable[str] = ()) -> Iterator[Row]:
    """Yield the rows of delimited text by column name; quotes may hold delimiters and lines.

    Raises PostError for a file that lacks one of `columns`.
    """
    table = _table(file, delimiter)
    where, header = next(table, (str(file), []))
    missing = [name for name in columns if name not in header]
    if missing:
        raise PostError(f"{where}: column {missing[0]!r} is required; there is {header!r:.200}")
    for place, cells in table:
        if len(cells) == len(header):
            yield Row(place, dict(zip(header, cells, strict=True)))
        else:
            yield Row(place, {}, f"{len(cells)} cells under {len(header)} columns")


def bare(file: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line of delimited text that has no header."""
    yield from _table(file, delimiter)


def _table(file: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter)
            while True:
                where = f"{file}:{reader.line_num + 1}"
                cells = next(reader, None)
                if cells is None:
                    return
                if cells:
                    yield where, [cell.strip() for cell in cells]
    except UnicodeDecodeError:
        raise PostError(f"{file}: is not UTF-8") from None
    except csv.Error as error:
        raise PostError(f"{where}: {error}") from None
    except OSError as error:
        raise PostError(f"{file}: cannot be read: {error.strerror}") from error


def numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each line."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{file}:{number}", line
    except UnicodeDecodeError:
        raise PostError(f"{file}: is not UTF-8") from None
    except OSError as error:
        raise PostError(f"{file}: cannot be read: {error.strerror}") from error


def document(file: Path) -> Any:
    """Return what a JSON file holds; PostError where it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise PostError(f"{file}: is not UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno} of line {error.lineno}"
        raise PostError(f"{file}: not valid JSON at {place}: {error.msg}") from None
    except OSError as error:
        raise PostError(f"{file}: cannot be read: {error.strerror}") from error


def listed(file: Path) -> Iterator[Row]:
    """Yield the objects of a JSON list."""
    found = document(file)
    if not isinstance(found, list):
        raise PostError(f"{file}: a JSON list is expected")
    for number, cells in enumerate(found, 1):
        where = f"{file} row {number}"
        if isinstance(cells, dict):
            yield Row(where, cells)
        else:
            yield Row(where, {}, "a JSON object is expected")


def without(
    table: Iterable[Row],
    reason: Callable[[Mapping[str, Any]], str],
    left: SkipReport,
    report: SkipReport | None,
) -> Iterator[Row]:
    """Yield the rows for which there is no reason to leave them out, and record the others."""
    for row in table:
        why = "" if row.fault else reason(row.cells)
        if not why:
            yield row
            continue
        left.add(row.where, why)
        if report is not None:
            report.add(row.where, why)


def cell(cells: Mapping[str, Any], name: str, kind: type = str) -> Any:
    """Return a cell, which must be of a kind."""
    value = cells.get(name)
    if not isinstance(value, kind):
        raise PostError(f"{name} must be {_TYPE[kind]}, not {value!r:.60}")
    return value


def coded(cells: Mapping[str, Any], name: str, names: Mapping[str, str]) -> str:
    """Return the class that a cell stands for; `1`, `1.0` and 1 are the same code."""
    value = cells.get(name)
    code = str(value).strip().removesuffix(".0")
    if code not in names:
        raise PostError(f"{name} must be {' or '.join(names)}, not {value!r:.60}")
    return names[code]


def post(image: Path | None, **fields: Any) -> Post:
    """Return the post with these fields; PostError, without the place, for what is no post."""
    return post_of({**fields, "image": None if image is None else str(image)}, Path())


def pictures(folder: Path) -> Path | None:
    """Return the folder if a picture lies in it."""
    if folder.is_dir() and any(file.suffix.lower() in _PICTURES for file in folder.iterdir()):
        return folder
    return None


def no_pictures(folder: Path) -> str:
    """Return the note that posts are read without their pictures."""
    return f"no pictures lie in {folder.name}/, so posts are read as text alone"
