"""What a page is made of: escaped HTML, sections, tables, and figures as they are written."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from miko_clf.evaluate import formatting

_VOID = frozenset({"br", "img", "input", "meta"})
_SHAPES = frozenset({"circle", "line", "path", "rect"})
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Html:
    """Text that is markup already."""

    text: str

    def __str__(self) -> str:
        return self.text


Child = Html | str | int | None


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Return an element; text among its children and values of its attributes are escaped.

    `class_` and `for_` stand for `class` and `for`, `aria_label` for `aria-label`. An attribute
    that is None or False is left out, and one that is True stands bare.
    """
    start = name + "".join(_write_attribute(key, value) for key, value in attributes.items())
    if name in _SHAPES and not children:
        return Html(f"<{start}/>")
    if name in _VOID:
        return Html(f"<{start}>")
    return Html(f"<{start}>{join(children)}</{name}>")


def join(parts: Iterable[Child]) -> Html:
    """Return parts one after another; None is nothing."""
    texts = (
        part.text if isinstance(part, Html) else _escape(str(part))
        for part in parts
        if part is not None
    )
    return Html("".join(texts))


def _write_attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, float):  # a coordinate, of two decimals at most to keep drawings small
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f" {name}" if value is True else f' {name}="{_escape(str(value))}"'


def _escape(text: str) -> str:
    """Return text with no markup in it, and with a mark for what no page may hold."""
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


ReportFields = Mapping[str, Any]
ReportRows = Sequence[ReportFields]


class PageSection:
    """One part of the page; `name` is where a link leads to, `says` how to read what follows."""

    def __init__(self, name: str, title: str, says: str, *children: Child) -> None:
        self.name, self.title = name, title
        self.children = (make_note(says) if says else None, *children)

    def html(self) -> Html:
        """Return it under its heading."""
        head = tag("h2", self.title, id=self.name)
        return tag("section", head, *self.children, aria_labelledby=self.name)


def get_finding(report: ReportFields, name: str) -> Any:
    """Return one of the report's findings, or None where it has nothing in it."""
    return (report.get("findings") or {}).get(name) or None


def group_by_field(rows: ReportRows, key: str) -> dict[str, list[ReportFields]]:
    """Return rows under each value of one of their fields, in the order of its first row."""
    groups: dict[str, list[ReportFields]] = {}
    for row in rows:
        groups.setdefault(str(row.get(key)), []).append(row)
    return groups


def name_system_and_arm(report: ReportFields) -> str:
    """Say in which system and arm something was found, where the report has but one."""
    system, arm = get_finding(report, "system"), get_finding(report, "arm")
    if not system:
        return ""
    return f"Of `{system}`" + (f", arm `{arm}`. " if arm else ". ")


def name_level(report: ReportFields) -> str:
    """Return the level of the report's intervals in words."""
    return f"{100 * (report.get('level') or 0.95):g} %"


def split_shared_system(a: str, b: str) -> tuple[str, str, str]:
    """Return what two `system/arm` names share, then each without it."""
    (system, _, left), (other, _, right) = a.partition("/"), b.partition("/")
    return (system, left, right) if left and right and system == other else ("", a, b)


def make_note(text: str) -> Html:
    """Return a paragraph that says how to read what stands beside it."""
    return tag("p", mark_names(text), class_="note")


def mark_names(text: str) -> Html:
    """Return text in which what stands between backticks is set as a name."""
    parts = re.split(r"`([^`]+)`", text)
    return join(tag("code", part) if index % 2 else part for index, part in enumerate(parts))


def make_details(title: str, *children: Child) -> Html:
    """Return what is there for those who ask for it."""
    return tag("details", tag("summary", title), tag("div", *children, class_="inside"))


def make_facts(pairs: Sequence[tuple[str, Child]], kind: str = "facts") -> Html:
    """Return names with what they stand for."""
    return tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs), class_=kind)


def make_list(lines: Sequence[Child]) -> Html:
    """Return a list, a line each."""
    return tag("ul", *(tag("li", line) for line in lines))


def place_side_by_side(*charts: tuple[str, Html]) -> Html:
    """Return drawings side by side where there is room, each under its title."""
    figures = (tag("figure", tag("figcaption", title), chart) for title, chart in charts)
    return tag("div", *figures, class_="charts")


class TableColumn(NamedTuple):
    """The head of a column; `kind` is how its cells are set: `words`, `plot`, or figures."""

    title: Child
    kind: str = ""


RowCells = Sequence[Child]
TableColumns = Sequence[TableColumn | str]


class RowGroup(NamedTuple):
    """Rows under one head of their own."""

    title: str
    rows: Sequence[RowCells]


def make_table(
    caption: str, columns: TableColumns, body: Sequence[RowCells | RowGroup], kind: str = ""
) -> Html:
    """Return a table that scrolls by itself where it is wide; its caption is only heard.

    The first cell of each row is its head.
    """
    heads = [each if isinstance(each, TableColumn) else TableColumn(each) for each in columns]
    spoken = tag("span", "plot", class_="unseen")
    head = [
        tag("th", spoken if of == "plot" else None, title, scope="col", class_=of or None)
        for title, of in heads
    ]
    loose = [_make_row(each, heads) for each in body if not isinstance(each, RowGroup)]
    bodies = [tag("tbody", *loose)] if loose else []
    for group in (each for each in body if isinstance(each, RowGroup)):
        title = tag("th", tag("span", group.title), scope="rowgroup", colspan=len(heads))
        rows = (_make_row(row, heads) for row in group.rows)
        bodies.append(tag("tbody", tag("tr", title, class_="group"), *rows))
    top = tag("thead", tag("tr", *head))
    table = tag("table", tag("caption", caption), top, *bodies, class_=kind or None)
    return tag("div", table, class_="wide", tabindex=0, role="group", aria_label=caption)


def _make_row(cells: RowCells, columns: Sequence[TableColumn]) -> Html:
    first, *rest = cells
    further = zip(rest, columns[1:], strict=True)
    data = (tag("td", cell, class_=column.kind or None) for cell, column in further)
    return tag("tr", tag("th", first, scope="row"), *data)


UNDEFINED_FIGURE = "undefined"
NO_FIGURE = "\N{EN DASH}"


class Figure(NamedTuple):
    """A value and the bounds around it; what is undefined is NaN."""

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether there is a value to draw."""
        return not math.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval to draw."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        return (self.low > 0) - (self.high < 0) if self.bounded else 0


def read_real(value: Any) -> float:
    """Return a number as a float, and anything else as NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def read_figure(value: Any) -> Figure:
    """Return what `{value, low, high}` stands for (`mean` also), or a bare number, or null."""
    if not isinstance(value, Mapping):
        return Figure(read_real(value), math.nan, math.nan)
    centre = value.get("value", value.get("mean"))
    return Figure(read_real(centre), read_real(value.get("low")), read_real(value.get("high")))


def read_figure_of(row: ReportFields, key: str, name: str) -> Figure:
    """Return the figure called `name` among those under a field of a row."""
    return read_figure((row.get(key) or {}).get(name))


def read_figures(rows: ReportRows, key: str, names: Iterable[str]) -> list[Figure]:
    """Return the figures of these names under a field of every row."""
    return [read_figure_of(row, key, name) for row in rows for name in names]


def read_difference(row: ReportFields) -> Figure:
    """Return the figure of a difference, of one system each or over seeds."""
    return read_figure(row.get("interval", row))


def list_metrics(rows: ReportRows, key: str = "metrics") -> list[str]:
    """Return the names of the figures under a field of rows, each once."""
    return list(dict.fromkeys(name for row in rows for name in row.get(key) or {}))


def count_posts(report: ReportFields) -> int:
    """Return on how many posts the systems were measured."""
    return max((row.get("rows") or 0 for row in report.get("rows") or []), default=0)


def count_seeds(fields: ReportFields) -> Any:
    """Return from how many seeds trials were made, which may be listed."""
    seeds = fields.get("seeds")
    return len(seeds) if isinstance(seeds, list) else seeds


def title_metric(report: ReportFields, name: str) -> str:
    """Return what a metric is called where this is the report's positive class."""
    return formatting.get_metric_title(name, report.get("positive"))


def typeset_number(value: Any, places: int | None = 3, *, signed: bool = False) -> str:
    """Return one number with as many decimals and a true minus, or `undefined`."""
    number = read_real(value)
    if math.isnan(number):
        return UNDEFINED_FIGURE
    return typeset_minus(formatting.format_number(number, places, signed=signed))


def typeset_figure(figure: Figure, *, signed: bool = False) -> tuple[str, str]:
    """Return the value and, apart, its bounds in brackets."""
    value, _, bounds = formatting.format_interval(*figure, signed=signed).partition(" ")
    return typeset_minus(value), typeset_minus(bounds)


def typeset_share(part: float, whole: float) -> str:
    """Return a part of a whole in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else UNDEFINED_FIGURE


def typeset_percent(value: Any, places: int = 1) -> str:
    """Return a share in per cent, or `undefined`."""
    share = read_real(value)
    return UNDEFINED_FIGURE if math.isnan(share) else typeset_minus(f"{100 * share:.{places}f} %")


def typeset_p_value(value: Any) -> str:
    """Return a p-value: three decimals, or that it lies below .001."""
    p = read_real(value)
    if math.isnan(p):
        return UNDEFINED_FIGURE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def typeset_count(value: Any) -> str:
    """Return a whole number with its thousands apart, or `undefined`."""
    count = read_real(value)
    return UNDEFINED_FIGURE if math.isnan(count) else f"{count:,.0f}"


def typeset_minus(text: str) -> str:
    """Return figures with the minus sign that is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")
