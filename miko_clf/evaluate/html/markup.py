"""HTML as values, escaped on its way in, and the sections that a page is made of."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

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
    said = "".join(_write_attribute(key, value) for key, value in attributes.items())
    if name in _SHAPES and not children:
        return Html(f"<{name}{said}/>")
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def join(parts: Iterable[Child]) -> Html:
    """Return parts one after another; None is nothing."""
    return Html("".join(_write_child(part) for part in parts if part is not None))


def _write_attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_escape(_shorten_number(value))}"'


def _write_child(part: Child) -> str:
    return part.text if isinstance(part, Html) else _escape(str(part))


def _shorten_number(value: str | int | float) -> str:
    """Return a coordinate with two decimals at most, so that drawings stay small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    """Return text with no markup in it, and with a mark for what no page may hold."""
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


ReportFields = Mapping[str, Any]


class PageSection(NamedTuple):
    """One part of the page; `name` is where a link leads to."""

    name: str
    title: str
    body: Html

    def html(self) -> Html:
        """Return it under its heading."""
        head = tag("h2", self.title, id=self.name)
        return tag("section", head, self.body, aria_labelledby=self.name)


def make_section(name: str, title: str, *children: Child) -> PageSection:
    """Return a section of the page."""
    return PageSection(name, title, join(children))


def get_finding(report: ReportFields, name: str) -> Any:
    """Return one of the report's findings, or None where it has nothing in it."""
    found = (report.get("findings") or {}).get(name)
    return found or None


def make_note(text: str) -> Html:
    """Return a paragraph that says how to read what stands beside it."""
    return tag("p", mark_names(text), class_="note")


def mark_names(text: str) -> Html:
    """Return text in which what stands between backticks is set as a name."""
    parts = re.split(r"`([^`]+)`", text)
    return join(tag("code", part) if index % 2 else part for index, part in enumerate(parts))


def name_system_and_arm(report: ReportFields) -> str:
    """Say in which system and arm something was found, where the report has but one."""
    findings = report.get("findings") or {}
    system, arm = findings.get("system"), findings.get("arm")
    if not system:
        return ""
    return f"Of `{system}`" + (f", arm `{arm}`. " if arm else ". ")


def place_side_by_side(*charts: tuple[str, Html]) -> Html:
    """Return drawings side by side where there is room, each under its title."""
    shown = (tag("figure", tag("figcaption", title), drawn) for title, drawn in charts)
    return tag("div", *shown, class_="charts")


def name_level(report: ReportFields) -> str:
    """Return the level of the report's intervals in words."""
    return f"{100 * (report.get('level') or 0.95):g} %"


def split_shared_system(a: str, b: str) -> tuple[str, str, str]:
    """Return what two `system/arm` names share, then each without it."""
    (one, _, left), (two, _, right) = a.partition("/"), b.partition("/")
    return (one, left, right) if left and right and one == two else ("", a, b)


def group_by_field(
    rows: Sequence[Mapping[str, Any]], key: str
) -> dict[str, list[Mapping[str, Any]]]:
    """Return rows under each value of one of their fields, in the order of its first row."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row.get(key)), []).append(row)
    return found
