"""How training went: the losses and the validation metrics of each stage over its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import words
from miko_clf.evaluate.page import charts
from miko_clf.evaluate.page.charts import Frame, Point
from miko_clf.evaluate.page.markup import Html
from miko_clf.evaluate.page.numbers import Figure, plain, real
from miko_clf.evaluate.page.scale import Scale, around
from miko_clf.evaluate.page.section import (
    Report,
    Section,
    by,
    finding,
    note,
    section,
    side_by_side,
    whose,
)
from miko_clf.evaluate.page.tables import folded, table

_KINDS = "abcdefgh"
_APART = ("loss", "ece")  # on scales of their own; both are in the table
Lines = Sequence[Mapping[str, Any]]


def learning(report: Report) -> Section | None:
    """Return the curves of training, a pair of drawings a stage."""
    lines = (finding(report, "curves") or {}).get("learning")
    if not lines:
        return None
    drawn = []
    for stage, each in by(lines, "stage").items():
        losses, scores = _losses(each), _scores(each, report.get("positive"))
        if losses:
            drawn.append((f"Loss, {stage} stage", _chart(f"loss-{stage}", "loss", losses)))
        if scores:
            drawn.append(
                (f"Validation, {stage} stage", _chart(f"scores-{stage}", "metric", scores))
            )
    says = f"{whose(report)}Validation also chose the epoch."
    return section("learning", "Training", note(says), side_by_side(*drawn), _numbers(lines))


def _losses(lines: Lines) -> dict[str, list[Point]]:
    train = [Point(real(each.get("step")), real(each.get("loss"))) for each in lines]
    return _known({"training": train, "validation": _series(lines, "loss")})


def _scores(lines: Lines, positive: str | None) -> dict[str, list[Point]]:
    names = dict.fromkeys(name for each in lines for name in each.get("validation") or {})
    return _known(
        {words.title(name, positive): _series(lines, name) for name in names if name not in _APART}
    )


def _series(lines: Lines, name: str) -> list[Point]:
    return [
        Point(real(each.get("step")), real((each.get("validation") or {}).get(name)))
        for each in lines
    ]


def _known(series: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    """Return the points that are defined, of the series that have any."""
    held = {
        name: [p for p in points if p.x == p.x and p.y == p.y] for name, points in series.items()
    }
    return {name: points for name, points in held.items() if points}


def _chart(name: str, up: str, series: Mapping[str, list[Point]]) -> Html:
    """Draw series with their names beside their ends."""
    every = [point for points in series.values() for point in points]
    steps, heights = [point.x for point in every], [point.y for point in every]
    frame = Frame(
        Scale(min(0.0, *steps), max(steps) or 1.0),
        around([Figure(min(heights), max(heights), max(heights))]),
        right=20 + 7.2 * max(map(len, series)), height=260,
    )  # fmt: skip
    kinds = dict(zip(series, _KINDS * (len(series) // len(_KINDS) + 1), strict=False))
    parts = [charts.line(frame, points, kinds[key]) for key, points in series.items()]
    parts += [
        charts.dots(frame, points, kinds[key], 2.5)
        for key, points in series.items()
        if len(points) <= 40
    ]
    ends = [(key, points[-1].y, kinds[key]) for key, points in series.items()]
    says = "; ".join(
        f"{key} from {each[0].y:.3g} to {each[-1].y:.3g}" for key, each in series.items()
    )
    identity = "".join(each if each.isalnum() else "-" for each in name)
    return charts.chart(
        identity, f"{up} over steps", says, frame, charts.axes(frame, "step", up), *parts,
        charts.labels(frame, ends),
    )  # fmt: skip


def _numbers(lines: Lines) -> Html | None:
    held = [each for each in lines if each.get("validation")]
    names = list(dict.fromkeys(name for each in held for name in each["validation"]))
    if not names:
        return None
    body = [
        (f"{each.get('stage')}, step {each.get('step')}",
         *(plain(each["validation"].get(name)) for name in names))
        for each in held
    ]  # fmt: skip
    heads = ["when", *(name.replace("_", " ") for name in names)]
    return folded("Validation as numbers", table("Validation over steps", heads, body))
