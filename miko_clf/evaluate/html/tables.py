"""Tables whose cells know their heads, and that scroll by themselves where they are wide."""

from collections.abc import Sequence
from typing import NamedTuple

from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import Figure, typeset_figure, typeset_number
from miko_clf.evaluate.html.markup import Child, Html, join, tag
from miko_clf.evaluate.html.svg import Scale

RowCells = Sequence[Child]


class TableColumn(NamedTuple):
    """The head of a column; `kind` is how its cells are set: `words`, `plot`, or figures."""

    title: Child
    kind: str = ""


TableColumns = Sequence[TableColumn | str]


class RowGroup(NamedTuple):
    """Rows under one head of their own."""

    title: str
    rows: Sequence[RowCells]


def make_table(
    caption: str, columns: TableColumns, body: Sequence[RowCells | RowGroup], kind: str = ""
) -> Html:
    """Return a table; the first cell of each row is its head. `caption` is for those who listen."""
    known = [each if isinstance(each, TableColumn) else TableColumn(each) for each in columns]
    heads = (_make_head(each) for each in known)
    loose = [each for each in body if not isinstance(each, RowGroup)]
    groups = [each for each in body if isinstance(each, RowGroup)]
    parts = [tag("tbody", *(_make_row(each, known) for each in loose))] if loose else []
    parts += [_make_group(each, known) for each in groups]
    inside = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *heads)), *parts,
        class_=kind or None,
    )  # fmt: skip
    return tag("div", inside, class_="wide", tabindex=0, role="group", aria_label=caption)


def make_figure_cell(
    found: Figure, scale: Scale | None = None, *, signed: bool = False, spread: float | None = None
) -> Html:
    """Return a value above its interval, and below, where there is a scale, where they stand.

    `spread` is its standard deviation.
    """
    value, bounds = typeset_figure(found, signed=signed)
    shown = tag("small", bounds) if bounds else None
    line = svg.draw_hairline(found, scale) if scale is not None else None
    value += "" if spread is None else f" ± {typeset_number(spread)}"
    return tag("span", tag("span", value), " ", shown, line, class_="figure")


def make_details(title: str, *children: Child) -> Html:
    """Return what is there for those who ask for it."""
    return tag("details", tag("summary", title), tag("div", *children, class_="inside"))


def make_facts(pairs: Sequence[tuple[str, Child]], kind: str = "facts") -> Html:
    """Return names with what they stand for."""
    return tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs), class_=kind)


def make_list(lines: Sequence[Child]) -> Html:
    """Return a list, a line each."""
    return tag("ul", *(tag("li", each) for each in lines))


def _make_head(column: TableColumn) -> Html:
    told = tag("span", "plot", class_="unseen") if column.kind == "plot" else None
    return tag("th", told, column.title, scope="col", class_=column.kind or None)


def _make_group(group: RowGroup, columns: Sequence[TableColumn]) -> Html:
    head = tag("th", tag("span", group.title), scope="rowgroup", colspan=len(columns))
    rows = (_make_row(each, columns) for each in group.rows)
    return tag("tbody", tag("tr", head, class_="group"), *rows)


def _make_row(cells: RowCells, columns: Sequence[TableColumn]) -> Html:
    first, *rest = cells
    said = (
        tag("td", cell, class_=column.kind or None)
        for cell, column in zip(rest, columns[1:], strict=True)
    )
    return tag("tr", tag("th", first, scope="row"), join(said))
