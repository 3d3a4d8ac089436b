"""What becomes of the metrics where posts change, or come from another set."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import tracks
from miko_clf.evaluate.page.heat import shade
from miko_clf.evaluate.page.markup import Child, tag
from miko_clf.evaluate.page.numbers import Figure, count, figure
from miko_clf.evaluate.page.scale import Scale, around
from miko_clf.evaluate.page.section import Report, Section, by, finding, note, section
from miko_clf.evaluate.page.tables import Column, Group, figure_cell, table


def robustness(report: Report) -> Section | None:
    """Return how the metrics move under each change of the posts."""
    rows = finding(report, "robustness")
    if not rows:
        return None
    names = list(dict.fromkeys(name for each in rows for name in each.get("metrics") or {}))
    scale = around([_difference(each, name) for each in rows for name in names], 0.0)
    told = any("changed" in each for each in rows)
    columns: list[Column | str] = ["change", "posts", *(["changed"] if told else [])]
    for name in names:
        called = words.title(name, report.get("positive"))
        columns += [called, Column(tracks.axis(scale), "plot"), Column("difference")]
    body = [
        Group(_change(change), [_cells(each, names, scale, told) for each in held])
        for change, held in by(rows, "change").items()
    ]
    says = "The difference is the metric on changed posts minus that on the posts as they are."
    return section(
        "robustness", "Robustness", note(says), table("Changed posts", columns, body, "bars")
    )


def matrix(report: Report) -> Section | None:
    """Return what a system that learned from one set scores on another."""
    found = finding(report, "matrix")
    if not found or not found.get("cells"):
        return None
    cells = {(str(c["train"]), str(c["test"])): c for c in found["cells"]}
    tests = list(dict.fromkeys(test for _, test in cells))
    known = [figure(cell.get("value")).value for cell in cells.values()]
    known = [each for each in known if each == each]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    body = [
        (train, *(_met(cells.get((train, test)), low, high) for test in tests))
        for train in dict.fromkeys(train for train, _ in cells)
    ]
    called = words.title(str(found.get("metric")), report.get("positive"))
    says = f"{called}: a row learned from one set, a column is the set it was measured on."
    columns = ["learned from", *(f"on {test}" for test in tests)]
    shown = table(f"{called} across data sets", columns, body, "heat")
    return section("matrix", "Across data sets", note(says), shown)


def _cells(
    each: Mapping[str, Any], names: Sequence[str], scale: Scale, told: bool
) -> Sequence[Child]:
    cells: list[Child] = [_level(each.get("level")), count(each.get("posts"))]
    cells += [count(each.get("changed"))] if told else []
    for name in names:
        moved = _difference(each, name)
        cells += [
            figure_cell(figure((each.get("metrics") or {}).get(name))),
            tracks.interval(moved, scale, mark=0.0),
            figure_cell(moved, signed=True),
        ]
    return cells


def _change(name: str) -> str:
    return "the posts as they are" if name == "none" else name.replace("_", " ")


def _level(found: Any) -> str:
    return "\N{EN DASH}" if found is None or found == "" else str(found)


def _difference(each: Mapping[str, Any], name: str) -> Figure:
    return figure((each.get("difference") or {}).get(name))


def _met(cell: Mapping[str, Any] | None, low: float, high: float) -> Child:
    if cell is None:
        return "\N{EN DASH}"
    found = figure(cell.get("value"))
    part = (found.value - low) / (high - low) if found.defined and high > low else 0.0
    posts = tag("small", f"{count(cell.get('posts'))} posts")
    return shade(tag("span", figure_cell(found), posts), part)
