"""How well posts are ranked and decided: ROC, precision and recall, the confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.page import charts
from miko_clf.evaluate.page.charts import Frame, Point
from miko_clf.evaluate.page.heat import shade
from miko_clf.evaluate.page.markup import Html, join, tag
from miko_clf.evaluate.page.numbers import count, figure, plain, real, share, split
from miko_clf.evaluate.page.scale import Scale
from miko_clf.evaluate.page.section import (
    Report,
    Section,
    finding,
    note,
    section,
    side_by_side,
    whose,
)
from miko_clf.evaluate.page.tables import Column, figure_cell, folded, table

UNIT = Scale(0.0, 1.0)
NAMES = {
    "roc": ("ROC", "false-positive rate", "true-positive rate"),
    "precision_recall": ("Precision and recall", "recall", "precision"),
}
TOLD = 10  # how many steps of a curve its table has


def ranking(report: Report) -> Section | None:
    """Return the two curves with their bands."""
    found = finding(report, "curves") or {}
    shown = [name for name in NAMES if found.get(name)]
    if not shown:
        return None
    says = (
        f"{whose(report)}The band is where the curve of 95 of 100 resamples of the posts lies, at "
        "each place by itself. The dashed line is what chance gives"
        + ("; the ring is where the threshold decides." if operating(found) else ".")
    )
    drawn = ((NAMES[name][0] + _area(found, name), _curve(name, found)) for name in shown)
    return section(
        "curves", "Ranking", note(says), side_by_side(*drawn),
        folded("The curves as numbers", *(_numbers(name, found[name]) for name in shown)),
    )  # fmt: skip


def confusion(report: Report) -> Section | None:
    """Return how labels and decisions meet."""
    found = finding(report, "curves") or {}
    cells, labels = found.get("confusion"), found.get("labels")
    if not cells or not labels:
        return None
    totals = [sum(row) for row in cells]
    columns = ["labelled", *(f"decided {label}" for label in labels), "posts"]
    body = [
        (label, *(_cell(each, total) for each in row), count(total))
        for label, row, total in zip(labels, cells, totals, strict=True)
    ]
    says = "A row holds the posts of one label; shares and shades are of that row."
    return section(
        "confusion",
        "Confusion",
        note(says),
        table("Labels against decisions", columns, body, "heat"),
    )


def operating(found: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return false-positive rate, recall and precision as decided, where there are two classes.

    The second class is the positive one.
    """
    cells = found.get("confusion") or []
    if len(cells) != 2:
        return None
    (tn, fp), (fn, tp) = cells
    if not (tn + fp and fn + tp and fp + tp):
        return None
    return fp / (tn + fp), tp / (fn + tp), tp / (fp + tp)


def _curve(name: str, found: Mapping[str, Any]) -> Html:
    title, across, up = NAMES[name]
    frame = Frame(UNIT, UNIT)
    points = _points(found[name])
    stands = operating(found)
    ring = None
    if stands:
        spot = Point(stands[0], stands[1]) if name == "roc" else Point(stands[1], stands[2])
        ring = charts.dots(frame, [spot], "ring", 5)
    says = (
        f"{up} {plain(points[0].y)} at {across} {plain(points[0].x)}; the table below has the rest"
    )
    start = [Point(0.0, 0.0)] if name == "roc" else []
    return charts.chart(
        f"chart-{name}", title, says, frame, charts.axes(frame, across, up),
        charts.line(frame, _chance(name, found), "chance"),
        charts.band(frame, points, "a"), charts.line(frame, start + points, "a"), ring,
    )  # fmt: skip


def _chance(name: str, found: Mapping[str, Any]) -> list[Point]:
    if name == "roc":
        return [Point(0.0, 0.0), Point(1.0, 1.0)]
    cells = found.get("confusion") or []
    total = sum(map(sum, cells))
    if not total:
        return []
    level = sum(cells[1]) / total if len(cells) == 2 else 1 / len(cells)
    return [Point(0.0, level), Point(1.0, level)]


def _area(found: Mapping[str, Any], name: str) -> str:
    area = (found.get("area") or {}).get(name)
    if not area:
        return ""
    return f", area {' '.join(split(figure(area)))}"


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [Point(*(real(row.get(key)) for key in ("x", "y", "low", "high"))) for row in rows]


def _numbers(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    title, across, up = NAMES[name]
    step = max(1, (len(rows) - 1) // TOLD)
    body = [
        (plain(row.get("x"), 2), figure_cell(figure({**row, "value": row.get("y")})))
        for row in rows[::step]
    ]
    return table(f"{title} as numbers", [Column(across), Column(up)], body, "narrow")


def _cell(each: int, total: int) -> Html:
    part = each / total if total else 0.0
    text = join((count(each), " ", tag("small", share(each, total))))
    return shade(text, part)
