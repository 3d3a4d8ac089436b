"""Rows of CSV: comma, semicolon or tab between cells, which may be of any length."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from miko_clf.data.cells import TableRow, check_columns
from miko_clf.data.json_lines import parse_json_cells
from miko_clf.data.text_lines import read_text_lines
from miko_clf.errors import PostError

# The library's own limit of 131,072 characters, which one cell of JSON may well pass, is one for
# the whole process and can only be raised there.
csv.field_size_limit(2**31 - 1)

_DELIMITERS = (",", ";", "\t")
_CR_LINE = re.compile(r"[^\r]*\r\n?|[^\r]+")
_FAULTS = {
    "unexpected end of data": "a quote is not closed, so nothing after it can be read",
    "new-line character seen in unquoted field": "a carriage return stands outside quotes",
}


class _Lines:
    """The text of lines, with what was at fault or assumed of those since it was last cleared."""

    def __init__(self, path: Path) -> None:
        self.faults: list[str] = []
        self.remarks: list[str] = []
        self._lines = self._read(path)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self, path: Path) -> Iterator[str]:
        for number, line in enumerate(read_text_lines(path), 1):
            if line.fault:
                self.faults.append(line.fault.replace("the line", f"line {number}"))
            if line.remark:
                self.remarks.append(line.remark)
            yield line.text

    def clear(self) -> None:
        self.faults.clear()
        self.remarks.clear()


def read_csv(path: Path, key: str) -> Iterator[TableRow]:
    """Yield the rows of a CSV file that are not blank; its header must hold the column `key`."""
    lines = _Lines(path)
    number, delimiter, first = _skip_to_header(lines, key)
    texts: Iterator[str] = chain([first], lines)
    if "\r" in first.rstrip("\r\n"):  # as Excel for old Macs ends lines
        texts = (part for text in texts for part in _CR_LINE.findall(text))
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if lines.faults:
            raise PostError(lines.faults[0])
        check_columns(header, key)
    except (csv.Error, PostError) as error:
        reason = str(error) if isinstance(error, PostError) else "not a valid CSV header"
        raise PostError(f"{path}:{number + 1}: {reason}") from None
    while True:
        lines.clear()
        where = f"{path}:{number + reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            known = (said for start, said in _FAULTS.items() if str(error).startswith(start))
            yield TableRow(where, {}, f"not valid CSV: {next(known, error)}")
            continue
        if lines.faults or any(cell.strip() for cell in cells):
            yield _parse_row(where, header, cells, lines)


def _skip_to_header(lines: _Lines, key: str) -> tuple[int, str, str]:
    """Return how many lines stand above the header, what is between its columns, and it itself.

    Excel writes and reads `sep=;` above a header; blank lines say nothing.
    """
    told = ""
    for number, text in enumerate(lines):
        if text[:4].lower() == "sep=":
            told = text[4:5]
        elif text.strip():
            return number, told or _choose_delimiter(text, key), text
    return 0, ",", ""


def _choose_delimiter(header: str, key: str) -> str:
    """Return what stands between the columns of a header: what makes `key` one, else the commonest.

    Commas in the names of columns would deceive a count of them alone.
    """
    line = header.lstrip("\r").partition("\r")[0].rstrip("\n")
    for delimiter in _DELIMITERS:
        names = next(csv.reader([line], delimiter=delimiter), [])
        if len(names) > 1 and key in names:
            return delimiter
    return max(_DELIMITERS, key=line.count)


def _parse_row(where: str, header: list[str], cells: list[str], lines: _Lines) -> TableRow:
    """Return the cells that are not empty, with the JSON in them parsed."""
    if lines.faults:
        return TableRow(where, {}, lines.faults[0])
    if len(cells) != len(header):
        return TableRow(where, {}, f"{len(cells)} cells under {len(header)} columns")
    record: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    try:
        return TableRow(where, parse_json_cells(record), remarks=tuple(set(lines.remarks)))
    except PostError as error:
        return TableRow(where, {}, str(error))
