"""Tables whose every cell knows its heads, and that scroll by themselves where they are wide."""

from collections.abc import Sequence
from typing import NamedTuple

from miko_clf.evaluate.page import tracks
from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.numbers import Figure, plain, split
from miko_clf.evaluate.page.scale import Scale

Cells = Sequence[Child]
Columns = Sequence["Column | str"]


class Column(NamedTuple):
    """The head of a column; `kind` is how its cells are set: `words`, `plot`, or figures."""

    title: Child
    kind: str = ""


class Group(NamedTuple):
    """Rows under one head of their own."""

    title: str
    rows: Sequence[Cells]


def table(caption: str, columns: Columns, body: Sequence[Cells | Group], kind: str = "") -> Html:
    """Return a table; the first cell of each row is its head. `caption` is for those who listen."""
    known = [each if isinstance(each, Column) else Column(each) for each in columns]
    heads = (_head(each) for each in known)
    loose = [each for each in body if not isinstance(each, Group)]
    groups = [each for each in body if isinstance(each, Group)]
    parts = [tag("tbody", *(_row(each, known) for each in loose))] if loose else []
    parts += [_group(each, known) for each in groups]
    inside = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *heads)), *parts,
        class_=kind or None,
    )  # fmt: skip
    return tag("div", inside, class_="wide", tabindex=0, role="group", aria_label=caption)


def figure_cell(
    found: Figure, scale: Scale | None = None, *, signed: bool = False, spread: float | None = None
) -> Html:
    """Return a value above its interval, and below, where there is a scale, where they stand.

    `spread` is its standard deviation.
    """
    value, bounds = split(found, signed=signed)
    shown = tag("small", bounds) if bounds else None
    line = tracks.hair(found, scale) if scale is not None else None
    value += "" if spread is None else f" ± {plain(spread)}"
    return tag("span", tag("span", value), " ", shown, line, class_="figure")


def folded(title: str, *children: Child) -> Html:
    """Return what is there for those who ask for it."""
    return tag("details", tag("summary", title), tag("div", *children, class_="inside"))


def facts(pairs: Sequence[tuple[str, Child]], kind: str = "facts") -> Html:
    """Return names with what they stand for."""
    return tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs), class_=kind)


def items(lines: Sequence[Child]) -> Html:
    """Return a list, a line each."""
    return tag("ul", *(tag("li", each) for each in lines))


def _head(column: Column) -> Html:
    told = tag("span", "plot", class_="unseen") if column.kind == "plot" else None
    return tag("th", told, column.title, scope="col", class_=column.kind or None)


def _group(group: Group, columns: Sequence[Column]) -> Html:
    head = tag("th", tag("span", group.title), scope="rowgroup", colspan=len(columns))
    rows = (_row(each, columns) for each in group.rows)
    return tag("tbody", tag("tr", head, class_="group"), *rows)


def _row(cells: Cells, columns: Sequence[Column]) -> Html:
    first, *rest = cells
    said = (
        tag("td", cell, class_=column.kind or None)
        for cell, column in zip(rest, columns[1:], strict=True)
    )
    return tag("tr", tag("th", first, scope="row"), join(said))
