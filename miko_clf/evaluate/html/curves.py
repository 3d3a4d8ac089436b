"""Curves of ranking and of training, of one system or over seeds, and the confusion."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate import formatting
from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import (
    Figure,
    read_figure,
    read_real,
    typeset_count,
    typeset_figure,
    typeset_number,
    typeset_share,
)
from miko_clf.evaluate.html.markup import (
    Html,
    PageSection,
    ReportFields,
    get_finding,
    group_by_field,
    join,
    make_note,
    make_section,
    name_system_and_arm,
    place_side_by_side,
    tag,
)
from miko_clf.evaluate.html.svg import ChartFrame, ChartPoint, Scale, fit_scale, shade_cell
from miko_clf.evaluate.html.tables import TableColumn, make_details, make_figure_cell, make_table

_UNIT = Scale(0.0, 1.0)
_CURVE_NAMES = {
    "roc": ("ROC", "false-positive rate", "true-positive rate"),
    "precision_recall": ("Precision and recall", "recall", "precision"),
}
_NUM_TABLE_STEPS = 10  # how many steps of a curve its table has


def show_ranking(report: ReportFields) -> PageSection | None:
    """Return the two curves with their bands."""
    found = get_finding(report, "curves") or {}
    shown = [name for name in _CURVE_NAMES if found.get(name)]
    if not shown:
        return None
    says = (
        f"{name_system_and_arm(report)}The band is where the curve of 95 of 100 resamples of the posts lies, at "
        "each place by itself. The dashed line is what chance gives"
        + ("; the ring is where the threshold decides." if _find_operating_point(found) else ".")
    )
    drawn = (
        (_CURVE_NAMES[name][0] + _name_area(found, name), _draw_curve(name, found))
        for name in shown
    )
    return make_section(
        "curves", "Ranking", make_note(says), place_side_by_side(*drawn),
        make_details("The curves as numbers", *(_make_curve_table(name, found[name]) for name in shown)),
    )  # fmt: skip


def show_confusion(report: ReportFields) -> PageSection | None:
    """Return how labels and decisions meet."""
    found = get_finding(report, "curves") or {}
    cells, labels = found.get("confusion"), found.get("labels")
    if not cells or not labels:
        return None
    totals = [sum(row) for row in cells]
    columns = ["labelled", *(f"decided {label}" for label in labels), "posts"]
    body = [
        (label, *(_make_confusion_cell(each, total) for each in row), typeset_count(total))
        for label, row, total in zip(labels, cells, totals, strict=True)
    ]
    says = "A row holds the posts of one label; shares and shades are of that row."
    return make_section(
        "confusion",
        "Confusion",
        make_note(says),
        make_table("Labels against decisions", columns, body, "heat"),
    )


def _find_operating_point(found: Mapping[str, Any]) -> tuple[float, float, float] | None:
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


def _draw_curve(name: str, found: Mapping[str, Any]) -> Html:
    title, across, up = _CURVE_NAMES[name]
    frame = ChartFrame(_UNIT, _UNIT)
    points = _read_curve(found[name])
    stands = _find_operating_point(found)
    ring = None
    if stands:
        spot = (
            ChartPoint(stands[0], stands[1]) if name == "roc" else ChartPoint(stands[1], stands[2])
        )
        ring = svg.draw_chart_dots(frame, [spot], "ring", 5)
    says = f"{up} {typeset_number(points[0].y)} at {across} {typeset_number(points[0].x)}; the table below has the rest"
    start = [ChartPoint(0.0, 0.0)] if name == "roc" else []
    return svg.draw_chart(
        f"chart-{name}", title, says, frame, svg.draw_chart_axes(frame, across, up),
        svg.draw_chart_line(frame, _find_chance_line(name, found), "chance"),
        svg.draw_chart_band(frame, points, "a"), svg.draw_chart_line(frame, start + points, "a"), ring,
    )  # fmt: skip


def _find_chance_line(name: str, found: Mapping[str, Any]) -> list[ChartPoint]:
    if name == "roc":
        return [ChartPoint(0.0, 0.0), ChartPoint(1.0, 1.0)]
    cells = found.get("confusion") or []
    total = sum(map(sum, cells))
    if not total:
        return []
    level = sum(cells[1]) / total if len(cells) == 2 else 1 / len(cells)
    return [ChartPoint(0.0, level), ChartPoint(1.0, level)]


def _name_area(found: Mapping[str, Any], name: str) -> str:
    area = (found.get("area") or {}).get(name)
    if not area:
        return ""
    return f", area {' '.join(typeset_figure(read_figure(area)))}"


def _read_curve(rows: Sequence[Mapping[str, Any]]) -> list[ChartPoint]:
    return [
        ChartPoint(*(read_real(row.get(key)) for key in ("x", "y", "low", "high"))) for row in rows
    ]


def _make_curve_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    title, across, up = _CURVE_NAMES[name]
    step = max(1, (len(rows) - 1) // _NUM_TABLE_STEPS)
    body = [
        (
            typeset_number(row.get("x"), 2),
            make_figure_cell(read_figure({**row, "value": row.get("y")})),
        )
        for row in rows[::step]
    ]
    return make_table(f"{title} as numbers", [TableColumn(across), TableColumn(up)], body, "narrow")


def _make_confusion_cell(each: int, total: int) -> Html:
    part = each / total if total else 0.0
    text = join((typeset_count(each), " ", tag("small", typeset_share(each, total))))
    return shade_cell(text, part)


_LEARNING_KINDS = "abcdefgh"
_OTHER_SCALES = ("loss", "ece")  # on scales of their own; both are in the table
_TrainingLines = Sequence[Mapping[str, Any]]


def show_training(report: ReportFields) -> PageSection | None:
    """Return the curves of training, a pair of drawings a stage."""
    lines = (get_finding(report, "curves") or {}).get("learning")
    if not lines:
        return None
    drawn = []
    for stage, each in group_by_field(lines, "stage").items():
        losses, scores = _read_losses(each), _read_scores(each, report.get("positive"))
        if losses:
            drawn.append(
                (f"Loss, {stage} stage", _draw_training_chart(f"loss-{stage}", "loss", losses))
            )
        if scores:
            drawn.append(
                (
                    f"Validation, {stage} stage",
                    _draw_training_chart(f"scores-{stage}", "metric", scores),
                )
            )
    says = f"{name_system_and_arm(report)}Validation also chose the epoch."
    return make_section(
        "learning",
        "Training",
        make_note(says),
        place_side_by_side(*drawn),
        _make_training_table(lines),
    )


def _read_losses(lines: _TrainingLines) -> dict[str, list[ChartPoint]]:
    train = [ChartPoint(read_real(each.get("step")), read_real(each.get("loss"))) for each in lines]
    return _keep_defined({"training": train, "validation": _read_validation(lines, "loss")})


def _read_scores(lines: _TrainingLines, positive: str | None) -> dict[str, list[ChartPoint]]:
    names = dict.fromkeys(name for each in lines for name in each.get("validation") or {})
    return _keep_defined(
        {
            formatting.get_metric_title(name, positive): _read_validation(lines, name)
            for name in names
            if name not in _OTHER_SCALES
        }
    )


def _read_validation(lines: _TrainingLines, name: str) -> list[ChartPoint]:
    return [
        ChartPoint(read_real(each.get("step")), read_real((each.get("validation") or {}).get(name)))
        for each in lines
    ]


def _keep_defined(series: Mapping[str, list[ChartPoint]]) -> dict[str, list[ChartPoint]]:
    """Return the points that are defined, of the series that have any."""
    held = {
        name: [p for p in points if p.x == p.x and p.y == p.y] for name, points in series.items()
    }
    return {name: points for name, points in held.items() if points}


def _draw_training_chart(name: str, up: str, series: Mapping[str, list[ChartPoint]]) -> Html:
    """Draw series with their names beside their ends."""
    every = [point for points in series.values() for point in points]
    steps, heights = [point.x for point in every], [point.y for point in every]
    frame = ChartFrame(
        Scale(min(0.0, *steps), max(steps) or 1.0),
        fit_scale([Figure(min(heights), max(heights), max(heights))]),
        right=20 + 7.2 * max(map(len, series)), height=260,
    )  # fmt: skip
    kinds = dict(
        zip(series, _LEARNING_KINDS * (len(series) // len(_LEARNING_KINDS) + 1), strict=False)
    )
    parts = [svg.draw_chart_line(frame, points, kinds[key]) for key, points in series.items()]
    parts += [
        svg.draw_chart_dots(frame, points, kinds[key], 2.5)
        for key, points in series.items()
        if len(points) <= 40
    ]
    ends = [(key, points[-1].y, kinds[key]) for key, points in series.items()]
    says = "; ".join(
        f"{key} from {each[0].y:.3g} to {each[-1].y:.3g}" for key, each in series.items()
    )
    identity = "".join(each if each.isalnum() else "-" for each in name)
    return svg.draw_chart(
        identity, f"{up} over steps", says, frame, svg.draw_chart_axes(frame, "step", up), *parts,
        svg.draw_chart_labels(frame, ends),
    )  # fmt: skip


def _make_training_table(lines: _TrainingLines) -> Html | None:
    held = [each for each in lines if each.get("validation")]
    names = list(dict.fromkeys(name for each in held for name in each["validation"]))
    if not names:
        return None
    body = [
        (f"{each.get('stage')}, step {each.get('step')}",
         *(typeset_number(each["validation"].get(name)) for name in names))
        for each in held
    ]  # fmt: skip
    heads = ["when", *(name.replace("_", " ") for name in names)]
    return make_details("Validation as numbers", make_table("Validation over steps", heads, body))


_CURVE_KINDS = "abcdefgh"
_MAX_BANDS = 2  # more bands in one drawing hide each other
_SEED_METRICS = ("loss", "macro_f1", "auroc")  # of a stage's validation
_RankedRows = Sequence[Mapping[str, Any]]


def show_seed_ranking(report: ReportFields) -> PageSection | None:
    """Return both curves of every system and arm, at most eight in a drawing."""
    rows = [
        row
        for row in get_finding(report, "ranked") or []
        if any(row.get(key) for key in _CURVE_NAMES)
    ]
    if not rows:
        return None
    names = _name_arms([(str(row.get("system")), str(row.get("arm"))) for row in rows])
    banded = "each" if len(rows) <= _MAX_BANDS else "the first"
    says = (
        "Each curve is the mean over seeds of the curves' heights. The band, drawn around "
        f"{banded}, is its 95 % interval at each place over other posts and other seeds."
    )
    parts: list[Html] = []
    named = list(zip(names, rows, strict=True))
    for start in range(0, len(named), len(_CURVE_KINDS)):
        some = named[start : start + len(_CURVE_KINDS)]
        drawn = [
            (_CURVE_NAMES[key][0], _overlay_curves(f"ranked-{key}-{start}", key, some))
            for key in _CURVE_NAMES
        ]
        parts += [_make_legend([name for name, _ in some]), place_side_by_side(*drawn)]
    numbers = [_make_overlay_table(key, names, rows) for key in _CURVE_NAMES]
    return make_section(
        "ranked", "Ranking over seeds", make_note(says), *parts,
        make_details("The curves as numbers", *numbers),
    )  # fmt: skip


def show_seed_training(report: ReportFields) -> PageSection | None:
    """Return the validation metrics of every trial over its steps, a colour for each arm."""
    found = get_finding(report, "training")
    if not found:
        return None
    each_of = [(str(each.get("system")), str(each.get("arm"))) for each in found]
    arms = list(dict.fromkeys(each_of))
    kinds = dict(zip(arms, _CURVE_KINDS * (len(arms) // len(_CURVE_KINDS) + 1), strict=False))
    stages = dict.fromkeys(line["stage"] for each in found for line in each["lines"])
    rows = []
    for stage in sorted(stages):  # reasoning comes before the task
        drawn = []
        for metric in _SEED_METRICS:
            lines = [
                (kinds[arm], _read_trial(each, stage, metric))
                for arm, each in zip(each_of, found, strict=True)
            ]
            known = [(kind, points) for kind, points in lines if points]
            if known:
                title = (
                    f"{formatting.get_metric_title(metric, report.get('positive'))}, {stage} stage"
                )
                drawn.append(
                    (title, _overlay_training(f"training-{stage}-{metric}", metric, known))
                )
        rows.append(place_side_by_side(*drawn))
    says = "A line is the validation of one trial, which also chose its epoch."
    return make_section(
        "training", "Training over seeds", make_note(says), _make_legend(_name_arms(arms)), *rows
    )


def _name_arms(arms: Sequence[tuple[str, str]]) -> list[str]:
    """Return what tells arms apart: their system, their arm, or both."""
    systems, kinds = ({pair[at] for pair in arms} for at in (0, 1))
    if len(systems) == 1:
        return [arm for _, arm in arms]
    return [system if len(kinds) == 1 else f"{system}/{arm}" for system, arm in arms]


def _make_legend(names: Sequence[str]) -> Html:
    marks = (
        tag("li", tag("span", class_=f"mark {kind}", aria_hidden="true"), tag("code", name))
        for name, kind in zip(
            names, _CURVE_KINDS * (len(names) // len(_CURVE_KINDS) + 1), strict=False
        )
    )
    return tag("ul", *marks, class_="legend")


def _overlay_curves(identity: str, key: str, some: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    title, across, up = _CURVE_NAMES[key]
    frame = ChartFrame(_UNIT, _UNIT)
    lines, bands = [], []
    for place, (_, row) in enumerate(some):
        points = [
            ChartPoint(*(read_real(at.get(n)) for n in ("x", "y", "low", "high")))
            for at in row[key]
        ]
        if place == 0 or len(some) <= _MAX_BANDS:
            bands.append(svg.draw_chart_band(frame, points, _CURVE_KINDS[place]))
        start = [ChartPoint(0.0, 0.0)] if key == "roc" and points else []
        lines.append(svg.draw_chart_line(frame, start + points, _CURVE_KINDS[place]))
    chance = [ChartPoint(0.0, 0.0), ChartPoint(1.0, 1.0)] if key == "roc" else []
    return svg.draw_chart(
        identity, f"{title} over seeds", "the table below has the figures", frame,
        svg.draw_chart_axes(frame, across, up), svg.draw_chart_line(frame, chance, "chance"), *bands, *lines,
    )  # fmt: skip


def _make_overlay_table(key: str, names: Sequence[str], rows: _RankedRows) -> Html:
    title, across, up = _CURVE_NAMES[key]
    places = rows[0][key]
    step = max(1, (len(places) - 1) // _NUM_TABLE_STEPS)
    body = [
        (typeset_number(at.get("x"), 2),
         *(make_figure_cell(read_figure({**row[key][n], "value": row[key][n].get("y")}))
           if row[key] else "" for row in rows))
        for n, at in list(enumerate(places))[::step]
    ]  # fmt: skip
    heads = [TableColumn(across), *(TableColumn(f"{up}, {name}") for name in names)]
    return make_table(f"{title} over seeds as numbers", heads, body)


def _read_trial(trial: Mapping[str, Any], stage: str, metric: str) -> list[ChartPoint]:
    held = (line for line in trial["lines"] if line.get("stage") == stage)
    points = (
        ChartPoint(read_real(line.get("step")), read_real(line["validation"].get(metric)))
        for line in held
    )
    return [each for each in points if not (math.isnan(each.x) or math.isnan(each.y))]


def _overlay_training(
    identity: str, metric: str, lines: Sequence[tuple[str, list[ChartPoint]]]
) -> Html:
    every = [point for _, points in lines for point in points]
    heights = [point.y for point in every]
    frame = ChartFrame(
        Scale(0.0, max(point.x for point in every) or 1.0),
        fit_scale([Figure(min(heights), min(heights), max(heights))]), height=260,
    )  # fmt: skip
    says = f"{len(lines)} trials, from {min(heights):.3g} to {max(heights):.3g}"
    drawn = (
        join(
            (
                svg.draw_chart_line(frame, points, f"thin {kind}"),
                svg.draw_chart_dots(frame, points, kind, 1.8),
            )
        )
        for kind, points in lines
    )
    return svg.draw_chart(
        identity, f"{metric.replace('_', ' ')} over steps", says, frame,
        svg.draw_chart_axes(frame, "step", "validation"), *drawn,
    )  # fmt: skip
