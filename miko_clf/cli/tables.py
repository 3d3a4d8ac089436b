"""What commands print: tables that fit the screen, or one JSON document with `--json`."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from miko_clf.cli.parser import Parser

_LOOKS: Any = {
    "title_justify": "left",
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "padding": (0, 1, 0, 0),
}


def add_json_option(parser: Parser) -> None:
    say = "print one JSON document, of the same figures, and nothing else on stdout"
    parser.add_argument("--json", action="store_true", help=say)


def print_json(value: Any) -> None:
    """Print plain values, and pydantic models among them."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_dump_model))


def _dump_model(value: Any) -> Any:
    return value.model_dump(mode="json")


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of plain texts: the first column is what a row is about, others figures."""
    table = Table(title=title or None, **_LOOKS)
    for number, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table on stdout; one that is too wide becomes several, below each other.

    Each of them begins with the first column and holds as many others as fit, so that no figure
    is broken.
    """
    console = console or Console()
    lead, *others = [
        _measure_column(table, number, console) for number in range(len(table.columns))
    ]
    blocks: list[list[int]] = [[0]]
    room = console.width - lead
    for number, width in enumerate(others, 1):
        if width > room and blocks[-1] != [0]:
            blocks.append([0])
            room = console.width - lead
        blocks[-1].append(number)
        room -= width
    for block in blocks:
        console.print(_select_columns(table, block))
        console.print()
        table.title = None
    if table.caption:
        console.print(table.caption, highlight=False)


def _measure_column(table: Table, number: int, console: Console) -> int:
    column = table.columns[number]
    return max(console.measure(cell).maximum for cell in (column.header, *column.cells)) + 2


def _select_columns(table: Table, numbers: Sequence[int]) -> Table:
    """Return a table of some columns of another, without its caption."""
    part = Table(title=table.title, **_LOOKS)
    for number in numbers:
        column = table.columns[number]
        part.add_column(column.header, justify=column.justify, overflow="fold")
    for cells in zip(*(table.columns[number].cells for number in numbers), strict=True):
        part.add_row(*cells)
    return part
