"""Curves of ranking and of training, of one system or over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag

_CURVE_NAMES = {
    "roc": ("ROC", "false-positive rate", "true-positive rate"),
    "precision_recall": ("Precision and recall", "recall", "precision"),
}
_COLOURS = "abcdefgh"
_NUM_TABLE_STEPS = 10  # how many steps of a curve its table has
_MAX_BANDS = 2  # more bands in one drawing hide each other


def show_ranking(curves: ReportFields, report: ReportFields) -> PageSection | None:
    """Return the two curves with their bands."""
    keys = [key for key in _CURVE_NAMES if curves.get(key)]
    if not keys:
        return None
    rings = _find_operating_points(curves)
    says = markup.name_system_and_arm(report) + (
        "The band is where the curve of 95 of 100 resamples of the posts lies, at each place by "
        "itself. The dashed line is what chance gives"
        + ("; the ring is where the threshold decides." if rings else ".")
    )
    charts, tables = [], []
    for key in keys:
        title, across, up = _CURVE_NAMES[key]
        points = _read_curve(curves[key])
        x, y = (markup.typeset_number(number) for number in points[0][:2])
        texts = title, f"{up} {y} at {across} {x}; the table below has the rest"
        chance = _find_chance_line(key, curves)
        chart = _draw_curves(f"chart-{key}", texts, key, [points], chance, rings.get(key))
        area = (curves.get("area") or {}).get(key)
        figure = " ".join(markup.typeset_figure(markup.read_figure(area)))
        charts.append((title + (f", area {figure}" if area else ""), chart))
        tables.append(_make_curve_table(f"{title} as numbers", key, {up: curves[key]}, "narrow"))
    numbers = markup.make_details("The curves as numbers", *tables)
    return PageSection("curves", "Ranking", says, markup.place_side_by_side(*charts), numbers)


def show_seed_ranking(ranked: ReportRows, report: ReportFields) -> PageSection | None:
    """Return both curves of every system and arm, at most eight in a drawing."""
    rows = [row for row in ranked if any(row.get(key) for key in _CURVE_NAMES)]
    if not rows:
        return None
    names = _name_arms([(str(row.get("system")), str(row.get("arm"))) for row in rows])
    banded = "each" if len(rows) <= _MAX_BANDS else "the first"
    says = (
        "Each curve is the mean over seeds of the curves' heights. The band, drawn around "
        f"{banded}, is its 95 % interval at each place over other posts and other seeds."
    )
    parts: list[Html] = []
    for start in range(0, len(rows), len(_COLOURS)):
        drawn = slice(start, start + len(_COLOURS))
        charts = []
        for key, (title, _, _) in _CURVE_NAMES.items():
            curves = [_read_curve(row[key]) for row in rows[drawn]]
            chance = svg.DIAGONAL if key == "roc" else ()
            texts = f"{title} over seeds", "the table below has the figures"
            charts.append(
                (title, _draw_curves(f"ranked-{key}-{start}", texts, key, curves, chance))
            )
        parts += [_make_legend(names[drawn]), markup.place_side_by_side(*charts)]
    tables = []
    for key, (title, _, up) in _CURVE_NAMES.items():
        named = {f"{up}, {name}": row[key] for name, row in zip(names, rows, strict=True)}
        tables.append(_make_curve_table(f"{title} over seeds as numbers", key, named))
    numbers = markup.make_details("The curves as numbers", *tables)
    return PageSection("ranked", "Ranking over seeds", says, *parts, numbers)


def _read_curve(rows: ReportRows) -> list[svg.ChartPoint]:
    names = ("x", "y", "low", "high")
    return [svg.ChartPoint(*(markup.read_real(row.get(name)) for name in names)) for row in rows]


def _draw_curves(
    name: str,
    texts: tuple[str, str],
    key: str,
    curves: Sequence[list[svg.ChartPoint]],
    chance: Iterable[svg.ChartPoint],
    ring: svg.ChartPoint | None = None,
) -> Html:
    """Draw curves, each in its colour, with the bands of all or of the first.

    `texts` are the title and the description.
    """
    frame = svg.ChartFrame(svg.UNIT_SCALE, svg.UNIT_SCALE)
    start = [svg.ChartPoint(0.0, 0.0)] if key == "roc" else []
    banded = curves if len(curves) <= _MAX_BANDS else curves[:1]
    parts: list[Any] = [svg.draw_chart_line(frame, chance, "chance")]
    for points, kind in zip(banded, cycle(_COLOURS)):
        parts.append(svg.draw_chart_band(frame, points, kind))
    for points, kind in zip(curves, cycle(_COLOURS)):
        parts.append(svg.draw_chart_line(frame, start + points if points else [], kind))
    parts.append(svg.draw_chart_dots(frame, [ring], "ring", 5) if ring else None)
    return svg.draw_chart(name, *texts, frame, _CURVE_NAMES[key][1:], *parts)


def _find_operating_points(curves: ReportFields) -> dict[str, svg.ChartPoint]:
    """Return where the decisions stand on each curve, if there are two classes.

    The second class is the positive one.
    """
    counts = curves.get("confusion") or []
    if len(counts) != 2:
        return {}
    (tn, fp), (fn, tp) = counts
    if not (tn + fp and fn + tp and fp + tp):
        return {}
    recall = tp / (fn + tp)
    return {
        "roc": svg.ChartPoint(fp / (tn + fp), recall),
        "precision_recall": svg.ChartPoint(recall, tp / (fp + tp)),
    }


def _find_chance_line(key: str, curves: ReportFields) -> Sequence[svg.ChartPoint]:
    if key == "roc":
        return svg.DIAGONAL
    counts = curves.get("confusion") or []
    total = sum(map(sum, counts))
    if not total:
        return []
    level = sum(counts[1]) / total if len(counts) == 2 else 1 / len(counts)
    return [svg.ChartPoint(0.0, level), svg.ChartPoint(1.0, level)]


def _make_curve_table(
    caption: str, key: str, curves: Mapping[str, ReportRows], kind: str = ""
) -> Html:
    """Return the heights of curves, each under its name, at some places that all share."""
    places = next(filter(None, curves.values()), [])
    step = max(1, (len(places) - 1) // _NUM_TABLE_STEPS)
    body = [
        (markup.typeset_number(places[at].get("x"), 2),
         *(svg.make_figure_cell(markup.read_figure({**points[at], "value": points[at].get("y")}))
           if points else "" for points in curves.values()))
        for at in range(0, len(places), step)
    ]  # fmt: skip
    return markup.make_table(caption, [_CURVE_NAMES[key][1], *curves], body, kind)


def _name_arms(arms: Sequence[tuple[str, str]]) -> list[str]:
    """Return what tells arms apart: their system, their arm, or both."""
    systems, kinds = ({pair[at] for pair in arms} for at in (0, 1))
    if len(systems) == 1:
        return [arm for _, arm in arms]
    return [system if len(kinds) == 1 else f"{system}/{arm}" for system, arm in arms]


def _make_legend(names: Sequence[str]) -> Html:
    marks = (
        tag("li", tag("span", class_=f"mark {kind}", aria_hidden="true"), tag("code", name))
        for name, kind in zip(names, cycle(_COLOURS))
    )
    return tag("ul", *marks, class_="legend")


_SETTLED = ("probe", "ensemble")  # stages that no epoch trains
_OTHER_SCALES = ("loss", "ece")  # on scales of their own; both are in the table
_SEED_METRICS = ("loss", "macro_f1", "auroc")  # of a stage's validation


def show_training(curves: ReportFields, report: ReportFields) -> PageSection | None:
    """Return the curves of training, a pair of drawings a stage."""
    lines = curves.get("learning")
    if not lines:
        return None
    charts = _draw_paths(lines)
    for stage, of_stage in markup.group_by_field(lines, "stage").items():
        if stage in _SETTLED:
            continue  # one value, which the table has
        losses = {
            "training": _read_steps(of_stage, "loss", validation=False),
            "validation": _read_steps(of_stage, "loss"),
        }
        scores = {
            markup.title_metric(report, name): _read_steps(of_stage, name)
            for name in markup.list_metrics(of_stage, "validation")
            if name not in _OTHER_SCALES
        }
        for title, key, up, series in (
            ("Loss", "loss", "loss", losses),
            ("Validation", "scores", "metric", scores),
        ):
            known = {name: points for name, points in series.items() if points}
            if known:
                chart = _draw_training_chart(f"{key}-{stage}", up, known)
                charts.append((f"{title}, {stage} stage", chart))
    trained = any(line.get("stage") == "task" for line in lines)
    says = markup.name_system_and_arm(report)
    says += "Validation also chose the epoch." if trained else ""
    if any(line.get("fits") for line in lines):
        says += " Held-out training posts chose how strong the linear classifier's penalty is."
    table = _make_training_table(lines)
    return PageSection("learning", "Training", says, markup.place_side_by_side(*charts), table)


def _draw_paths(lines: ReportRows) -> list[tuple[str, Html]]:
    """Return a drawing a problem: the held-out loss of each member over its strength."""
    charts = []
    for number, fit in enumerate(fit for line in lines for fit in line.get("fits") or ()):
        members = {
            name: [
                svg.ChartPoint(math.log10(float(strength)), markup.read_real(loss))
                for strength, loss in losses.items()
            ]
            for name, losses in fit["losses"].items()
        }
        if members:
            across = "strength C, as a power of ten: less penalty to the right"
            chart = _draw_training_chart(f"path-{number}", "log loss", members, across)
            charts.append((f"Held-out loss, {fit['problem'] or 'linear classifier'}", chart))
    return charts


def show_seed_training(trials: ReportRows, report: ReportFields) -> PageSection:
    """Return the validation metrics of every trial over its steps, a colour for each arm."""
    arms = [(str(trial.get("system")), str(trial.get("arm"))) for trial in trials]
    colours = dict(zip(dict.fromkeys(arms), cycle(_COLOURS)))
    rows = []
    for stage in sorted({line["stage"] for trial in trials for line in trial["lines"]}):
        charts = []  # sorted, as reasoning comes before the task
        for metric in _SEED_METRICS:
            lines = []
            for arm, trial in zip(arms, trials, strict=True):
                of_stage = [line for line in trial["lines"] if line.get("stage") == stage]
                lines.append((colours[arm], _read_steps(of_stage, metric)))
            known = [(kind, points) for kind, points in lines if points]
            if known:
                chart = _overlay_training(f"training-{stage}-{metric}", metric, known)
                charts.append((f"{markup.title_metric(report, metric)}, {stage} stage", chart))
        rows.append(markup.place_side_by_side(*charts))
    says = "A line is the validation of one trial, which also chose its epoch."
    legend = _make_legend(_name_arms(list(colours)))
    return PageSection("training", "Training over seeds", says, legend, *rows)


def _read_steps(lines: ReportRows, name: str, *, validation: bool = True) -> list[svg.ChartPoint]:
    """Return a measure over the steps at which it is defined."""
    measures = [(line.get("validation") or {}) if validation else line for line in lines]
    points = (
        svg.ChartPoint(markup.read_real(line.get("step")), markup.read_real(each.get(name)))
        for line, each in zip(lines, measures, strict=True)
    )
    return [point for point in points if point.defined]


def _fit_training_frame(
    curves: Iterable[list[svg.ChartPoint]], right: float = 14
) -> svg.ChartFrame:
    points = [point for curve in curves for point in curve]
    steps, heights = [point.x for point in points], [point.y for point in points]
    y = svg.fit_scale([], min(heights), max(heights))
    x = svg.Scale(min(0.0, *steps), max(max(steps), 0.0) or float(min(steps) >= 0))
    return svg.ChartFrame(x, y, right=right, height=260)


def _draw_training_chart(
    name: str, up: str, series: Mapping[str, list[svg.ChartPoint]], across: str = "step"
) -> Html:
    """Draw series with their names beside their ends."""
    frame = _fit_training_frame(series.values(), right=20 + 7.2 * max(map(len, series)))
    colours = dict(zip(series, cycle(_COLOURS)))
    parts = [svg.draw_chart_line(frame, points, colours[key]) for key, points in series.items()]
    parts += [
        svg.draw_chart_dots(frame, points, colours[key], 2.5)
        for key, points in series.items()
        if len(points) <= 40
    ]
    ends = [(key, points[-1].y, colours[key]) for key, points in series.items()]
    parts.append(svg.draw_chart_labels(frame, ends))
    says = "; ".join(f"{key} from {p[0].y:.3g} to {p[-1].y:.3g}" for key, p in series.items())
    name = "".join(letter if letter.isalnum() else "-" for letter in name)
    over = "steps" if across == "step" else across.partition(",")[0]
    return svg.draw_chart(name, f"{up} over {over}", says, frame, (across, up), *parts)


def _overlay_training(
    name: str, metric: str, lines: Sequence[tuple[str, list[svg.ChartPoint]]]
) -> Html:
    """Draw the lines of all trials, thin, in the colours of their arms."""
    frame = _fit_training_frame(points for _, points in lines)
    heights = [point.y for _, points in lines for point in points]
    drawn = []
    for kind, points in lines:
        drawn.append(svg.draw_chart_line(frame, points, f"thin {kind}"))
        drawn.append(svg.draw_chart_dots(frame, points, kind, 1.8))
    title = f"{metric.replace('_', ' ')} over steps"
    says = f"{len(lines)} trials, from {min(heights):.3g} to {max(heights):.3g}"
    return svg.draw_chart(name, title, says, frame, ("step", "validation"), *drawn)


def _make_training_table(lines: ReportRows) -> Html | None:
    validated = [line for line in lines if line.get("validation")]
    names = markup.list_metrics(validated, "validation")
    if not names:
        return None
    body = [
        (f"{line.get('stage')}, step {line.get('step')}",
         *(markup.typeset_number(line["validation"].get(name)) for name in names))
        for line in validated
    ]  # fmt: skip
    heads = ["when", *(name.replace("_", " ") for name in names)]
    table = markup.make_table("Validation over steps", heads, body)
    return markup.make_details("Validation as numbers", table)
