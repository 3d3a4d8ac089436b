"""What every part of the page is made with: a section, its words, and the report's findings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from miko_clf.evaluate.page.markup import Child, Html, join, tag

Report = Mapping[str, Any]


class Section(NamedTuple):
    """One part of the page; `name` is where a link leads to."""

    name: str
    title: str
    body: Html

    def html(self) -> Html:
        """Return it under its heading."""
        head = tag("h2", self.title, id=self.name)
        return tag("section", head, self.body, aria_labelledby=self.name)


def section(name: str, title: str, *children: Child) -> Section:
    """Return a section of the page."""
    return Section(name, title, join(children))


def finding(report: Report, name: str) -> Any:
    """Return one of the report's findings, or None where it has nothing in it."""
    found = (report.get("findings") or {}).get(name)
    return found or None


def note(text: str) -> Html:
    """Return a paragraph that says how to read what stands beside it."""
    return tag("p", prose(text), class_="note")


def prose(text: str) -> Html:
    """Return text in which what stands between backticks is set as a name."""
    parts = re.split(r"`([^`]+)`", text)
    return join(tag("code", part) if index % 2 else part for index, part in enumerate(parts))


def whose(report: Report) -> str:
    """Say in which system and arm something was found, where the report has but one."""
    findings = report.get("findings") or {}
    system, arm = findings.get("system"), findings.get("arm")
    if not system:
        return ""
    return f"Of `{system}`" + (f", arm `{arm}`. " if arm else ". ")


def side_by_side(*charts: tuple[str, Html]) -> Html:
    """Return drawings side by side where there is room, each under its title."""
    shown = (tag("figure", tag("figcaption", title), drawn) for title, drawn in charts)
    return tag("div", *shown, class_="charts")


def level(report: Report) -> str:
    """Return the level of the report's intervals in words."""
    return f"{100 * (report.get('level') or 0.95):g} %"


def pair(a: str, b: str) -> tuple[str, str, str]:
    """Return what two `system/arm` names share, then each without it."""
    (one, _, left), (two, _, right) = a.partition("/"), b.partition("/")
    return (one, left, right) if left and right and one == two else ("", a, b)


def by(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return rows under each value of one of their fields, in the order of its first row."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row.get(key)), []).append(row)
    return found
