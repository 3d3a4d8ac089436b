"""Systems and arms over seeds in one drawing: how they rank, and how their training went."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import charts
from miko_clf.evaluate.page.charts import Frame, Point
from miko_clf.evaluate.page.curves import NAMES, TOLD, UNIT
from miko_clf.evaluate.page.markup import Html, join, tag
from miko_clf.evaluate.page.numbers import Figure, figure, plain, real
from miko_clf.evaluate.page.scale import Scale, around
from miko_clf.evaluate.page.section import (
    Report,
    Section,
    finding,
    note,
    section,
    side_by_side,
)
from miko_clf.evaluate.page.tables import Column, figure_cell, folded, table

_KINDS = "abcdefgh"
_BANDED = 2  # more bands in one drawing hide each other
_SHOWN = ("loss", "macro_f1", "auroc")  # of a stage's validation
Rows = Sequence[Mapping[str, Any]]


def ranking(report: Report) -> Section | None:
    """Return both curves of every system and arm, at most eight in a drawing."""
    rows = [row for row in finding(report, "ranked") or [] if any(row.get(key) for key in NAMES)]
    if not rows:
        return None
    names = _names([(str(row.get("system")), str(row.get("arm"))) for row in rows])
    banded = "each" if len(rows) <= _BANDED else "the first"
    says = (
        "Each curve is the mean over seeds of the curves' heights. The band, drawn around "
        f"{banded}, is its 95 % interval at each place over other posts and other seeds."
    )
    parts: list[Html] = []
    named = list(zip(names, rows, strict=True))
    for start in range(0, len(named), len(_KINDS)):
        some = named[start : start + len(_KINDS)]
        drawn = [(NAMES[key][0], _overlay(f"ranked-{key}-{start}", key, some)) for key in NAMES]
        parts += [_legend([name for name, _ in some]), side_by_side(*drawn)]
    numbers = [_numbers(key, names, rows) for key in NAMES]
    return section(
        "ranked", "Ranking over seeds", note(says), *parts,
        folded("The curves as numbers", *numbers),
    )  # fmt: skip


def training(report: Report) -> Section | None:
    """Return the validation metrics of every trial over its steps, a colour for each arm."""
    found = finding(report, "training")
    if not found:
        return None
    each_of = [(str(each.get("system")), str(each.get("arm"))) for each in found]
    arms = list(dict.fromkeys(each_of))
    kinds = dict(zip(arms, _KINDS * (len(arms) // len(_KINDS) + 1), strict=False))
    stages = dict.fromkeys(line["stage"] for each in found for line in each["lines"])
    rows = []
    for stage in sorted(stages):  # reasoning comes before the task
        drawn = []
        for metric in _SHOWN:
            lines = [
                (kinds[arm], _points(each, stage, metric))
                for arm, each in zip(each_of, found, strict=True)
            ]
            known = [(kind, points) for kind, points in lines if points]
            if known:
                title = f"{words.title(metric, report.get('positive'))}, {stage} stage"
                drawn.append((title, _training(f"training-{stage}-{metric}", metric, known)))
        rows.append(side_by_side(*drawn))
    says = "A line is the validation of one trial, which also chose its epoch."
    return section("training", "Training over seeds", note(says), _legend(_names(arms)), *rows)


def _names(arms: Sequence[tuple[str, str]]) -> list[str]:
    """Return what tells arms apart: their system, their arm, or both."""
    systems, kinds = ({pair[at] for pair in arms} for at in (0, 1))
    if len(systems) == 1:
        return [arm for _, arm in arms]
    return [system if len(kinds) == 1 else f"{system}/{arm}" for system, arm in arms]


def _legend(names: Sequence[str]) -> Html:
    marks = (
        tag("li", tag("span", class_=f"mark {kind}", aria_hidden="true"), tag("code", name))
        for name, kind in zip(names, _KINDS * (len(names) // len(_KINDS) + 1), strict=False)
    )
    return tag("ul", *marks, class_="legend")


def _overlay(identity: str, key: str, some: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    title, across, up = NAMES[key]
    frame = Frame(UNIT, UNIT)
    lines, bands = [], []
    for place, (_, row) in enumerate(some):
        points = [Point(*(real(at.get(n)) for n in ("x", "y", "low", "high"))) for at in row[key]]
        if place == 0 or len(some) <= _BANDED:
            bands.append(charts.band(frame, points, _KINDS[place]))
        start = [Point(0.0, 0.0)] if key == "roc" and points else []
        lines.append(charts.line(frame, start + points, _KINDS[place]))
    chance = [Point(0.0, 0.0), Point(1.0, 1.0)] if key == "roc" else []
    return charts.chart(
        identity, f"{title} over seeds", "the table below has the figures", frame,
        charts.axes(frame, across, up), charts.line(frame, chance, "chance"), *bands, *lines,
    )  # fmt: skip


def _numbers(key: str, names: Sequence[str], rows: Rows) -> Html:
    title, across, up = NAMES[key]
    places = rows[0][key]
    step = max(1, (len(places) - 1) // TOLD)
    body = [
        (plain(at.get("x"), 2),
         *(figure_cell(figure({**row[key][n], "value": row[key][n].get("y")}))
           if row[key] else "" for row in rows))
        for n, at in list(enumerate(places))[::step]
    ]  # fmt: skip
    heads = [Column(across), *(Column(f"{up}, {name}") for name in names)]
    return table(f"{title} over seeds as numbers", heads, body)


def _points(trial: Mapping[str, Any], stage: str, metric: str) -> list[Point]:
    held = (line for line in trial["lines"] if line.get("stage") == stage)
    points = (Point(real(line.get("step")), real(line["validation"].get(metric))) for line in held)
    return [each for each in points if not (math.isnan(each.x) or math.isnan(each.y))]


def _training(identity: str, metric: str, lines: Sequence[tuple[str, list[Point]]]) -> Html:
    every = [point for _, points in lines for point in points]
    heights = [point.y for point in every]
    frame = Frame(
        Scale(0.0, max(point.x for point in every) or 1.0),
        around([Figure(min(heights), min(heights), max(heights))]), height=260,
    )  # fmt: skip
    says = f"{len(lines)} trials, from {min(heights):.3g} to {max(heights):.3g}"
    drawn = (
        join((charts.line(frame, points, f"thin {kind}"), charts.dots(frame, points, kind, 1.8)))
        for kind, points in lines
    )
    return charts.chart(
        identity, f"{metric.replace('_', ' ')} over steps", says, frame,
        charts.axes(frame, "step", "validation"), *drawn,
    )  # fmt: skip
