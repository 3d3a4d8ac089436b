"""Tables on stdout that stay readable on a narrow screen and in a pipe."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

_MAX_UNWRAPPED = 30  # columns that a cell takes before it is wrapped between words


def make_text_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> Table:
    """Return a table of plain texts; the columns numbered in `left` hold words, others figures."""
    table = Table(title=title or None)
    for number, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if number in left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table, its caption and an empty line; one that is too wide becomes several.

    Each of them begins with the first column and holds as many others as fit, so that no figure
    and no word is broken. Nothing is printed of a table without rows.
    """
    if not table.row_count:
        return
    console = console or Console()
    lead, *widths = [_measure_column(column, console) for column in table.columns]
    parts: list[list[int]] = [[0]]
    room = console.width - lead
    for number, width in enumerate(widths, 1):
        if width > room and parts[-1] != [0]:
            parts.append([0])
            room = console.width - lead
        parts[-1].append(number)
        room -= width
    for numbers in parts:
        title = table.title if numbers is parts[0] else None
        console.print(_select_columns(table, numbers, title), soft_wrap=False)
        if numbers is parts[-1] and table.caption:
            console.print(table.caption, highlight=False)
        console.print()


def _measure_column(column: Column, console: Console) -> int:
    sizes = [console.measure(cell) for cell in (column.header, *column.cells)]
    unbroken = max(size.minimum for size in sizes)
    return min(max(size.maximum for size in sizes), max(unbroken, _MAX_UNWRAPPED)) + 2


def _select_columns(table: Table, numbers: Sequence[int], title: object) -> Table:
    """Return a table of some columns of another, without its caption."""
    part = Table(
        title=str(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number in numbers:
        column = table.columns[number]
        part.add_column(column.header, justify=column.justify, overflow="fold")
    for cells in zip(*(table.columns[number].cells for number in numbers), strict=True):
        part.add_row(*cells)
    return part
