"""Whether probabilities mean what they say, and what the decisions come to."""

import math
from collections.abc import Mapping
from typing import Any

from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag
from miko_clf.intervals import compute_wilson_bounds

_HISTOGRAM_HEIGHT = 52


def show_calibration(calibration: ReportFields, report: ReportFields) -> PageSection:
    """Return the reliability of stated probabilities, and what decides."""
    reliability = calibration.get("reliability") or {}
    bins = {name: rows for name, rows in reliability.items() if rows}
    parts: list[Html] = [markup.make_facts(_list_calibration_facts(calibration))]
    if by_chance := _describe_chance(calibration):
        parts.append(markup.make_note(by_chance))
    if bins:
        in_groups = any("low" in row for rows in bins.values() for row in rows)
        kind = ", posts of one group drawn as one" if in_groups else " (Wilson)"
        says = (
            "On the dashed line a probability means what it says. Whiskers are 95 % intervals "
            f"of the share{kind}; below stands how many posts each bin holds."
        )
        most = max(markup.read_real(row.get("rows")) for rows in bins.values() for row in rows)
        charts = []
        for name, rows in bins.items():
            ece = markup.read_figure_of(calibration, "ece", name)
            stated = f", ECE {markup.typeset_number(ece.value)}" if ece.defined else ""
            charts.append((name.capitalize() + stated, _draw_diagram(name, rows, most)))
        tables = (_make_bin_table(name, rows) for name, rows in bins.items())
        numbers = markup.make_details("The bins as numbers", *tables)
        parts += [markup.make_note(says), markup.place_side_by_side(*charts), numbers]
    parts += _show_reached(calibration)
    return PageSection("calibration", "Calibration and decisions", "", *parts)


def _describe_chance(calibration: ReportFields) -> str:
    """Say what ECE posts would give whose stated probabilities came true as often as stated."""
    parts = []
    for name, chance in (calibration.get("by_chance") or {}).items():
        mean, limit = (markup.typeset_number(chance[key]) for key in ("expected", "limit"))
        p = markup.typeset_p_value(chance["p"])
        p = p if p.startswith("<") else f"= {p}"
        parts.append(f"{mean} {name} calibration (under {limit} in 95 of 100 samples; p {p})")
    if not parts:
        return ""
    return (
        "An ECE is above 0 on any sample. Chance alone gives probabilities that mean what they say "
        f"an ECE of {' and of '.join(parts)}."
    )


def _list_calibration_facts(calibration: ReportFields) -> list[tuple[str, markup.Child]]:
    facts: list[tuple[str, markup.Child]] = []
    for key in ("method", "aim", "threshold"):
        if calibration.get(key) not in (None, ""):
            title = "aim of the threshold" if key == "aim" else key
            facts.append((title, _write_setting(calibration[key])))
    for name, ece in (calibration.get("ece") or {}).items():
        facts.append((f"ECE {name}", svg.make_figure_cell(markup.read_figure(ece))))
    if calibration.get("prior") is not None:
        facts.append(("prior of the positive class", markup.typeset_percent(calibration["prior"])))
    band = calibration.get("conformal")
    if band:
        title = f"coverage, {markup.typeset_percent(band.get('level'), 0)} asked for"
        facts.append((title, svg.make_figure_cell(markup.read_figure(band.get("coverage")))))
        facts.append(("abstained", svg.make_figure_cell(markup.read_figure(band.get("abstained")))))
    return facts


def show_review_desk(rows: ReportRows, report: ReportFields) -> PageSection | None:
    """Return what people find who look at the likeliest posts, a row a capacity."""
    if not rows:
        return None
    scale = svg.UNIT_SCALE
    says = (
        f"{markup.name_system_and_arm(report)}People look at the posts that are likeliest to be "
        f"positive, as many as they can. Precision is the share of positives among these, missed "
        "the share of all positives that nobody sees; lift is how many times more positives they "
        "see than among as many posts drawn by chance. The threshold plays no part; the recipe's "
        "decision.aim: capacity fits one for a capacity."
    )
    columns: list[Any] = [
        "looked at", "posts", svg.make_track_column(scale), "precision", "missed", "lift"
    ]  # fmt: skip
    body: list[Any] = []
    for row in rows:
        precision = markup.read_figure(row.get("precision"))
        cells = (
            svg.make_figure_cell(markup.read_figure(row.get(key)))
            for key in ("precision", "missed", "lift")
        )
        body.append(
            (f"{markup.typeset_percent(row.get('capacity'), 0)} of all",
             markup.typeset_count(row.get("reviewed")),
             svg.draw_interval_track(precision, scale, signed=False), *cells)
        )  # fmt: skip
    table = markup.make_table(
        "What a review desk finds, the dot is precision", columns, body, "bars"
    )
    return PageSection("desk", "At a review desk", says, tag("div", table))


def _draw_diagram(name: str, rows: ReportRows, most: float) -> Html:
    bottom = 40 + _HISTOGRAM_HEIGHT
    frame = svg.ChartFrame(svg.UNIT_SCALE, svg.UNIT_SCALE, height=350, bottom=bottom)
    points = [_read_bin(row) for row in rows]
    kind = "b" if name == "before" else "a"
    return svg.draw_chart(
        f"reliability-{name}",
        f"Reliability {name} calibration",
        f"{len(rows)} bins; the table below has their numbers",
        frame,
        ("stated probability", "share that is true"),
        _draw_histogram(frame, rows, most),
        svg.draw_chart_line(frame, svg.DIAGONAL, "chance"),
        svg.draw_chart_line(frame, points, kind),
        svg.draw_chart_dots(frame, points, kind),
    )


def _read_bin(row: ReportFields) -> svg.ChartPoint:
    stated, true, count = (markup.read_real(row.get(key)) for key in ("stated", "true", "rows"))
    if math.isnan(true) or not count > 0:
        return svg.ChartPoint(stated, true)
    if "low" in row:  # of posts in groups
        bounds = markup.read_real(row["low"]), markup.read_real(row.get("high"))
        return svg.ChartPoint(stated, true, *bounds)
    return svg.ChartPoint(stated, true, *compute_wilson_bounds(min(1.0, max(0.0, true)), count))


def _draw_histogram(frame: svg.ChartFrame, rows: ReportRows, most: float) -> Html:
    base, width = frame.height - 24, 12.0
    bars = []
    for row in rows:
        bar = svg.ChartPoint(markup.read_real(row.get("stated")), markup.read_real(row.get("rows")))
        if bar.defined:
            tall, left = (_HISTOGRAM_HEIGHT - 16) * bar.y / most, frame.across(bar.x) - width / 2
            bars.append(tag("rect", class_="held", x=left, y=base - tall, width=width, height=tall))
    return tag("g", *bars)


def _make_bin_table(name: str, rows: ReportRows) -> Html:
    body = []
    for row in rows:
        stated, true = (markup.typeset_number(row.get(key)) for key in ("stated", "true"))
        body.append((stated, true, markup.typeset_count(row["rows"])))
    caption = f"Reliability {name} calibration as numbers"
    return markup.make_table(caption, [f"stated, {name}", "true", "posts"], body, "narrow")


def _show_reached(calibration: ReportFields) -> list[Html]:
    """Return what the threshold gives on these posts beside what it gave on validation."""
    sides = (("these posts", "reached"), ("validation", "on_validation"))
    known = [(name, calibration[key]) for name, key in sides if calibration.get(key)]
    if not known:
        return []
    keys = list(dict.fromkeys(key for _, settings in known for key in settings))
    body = [(name, *(_write_setting(reached.get(key)) for key in keys)) for name, reached in known]
    columns = ["on", *(key.replace("_", " ") for key in keys)]
    table = markup.make_table("What the threshold gives", columns, body)
    return [tag("h3", "What the threshold gives"), table]


def _write_setting(setting: Any) -> str:
    """Return a setting that may be a name or an object of names and numbers."""
    if isinstance(setting, Mapping):
        if "name" in setting:
            value = setting.get("value")
            rest = "" if value is None else f", {markup.typeset_number(value)}"
            return _write_setting(setting["name"]) + rest
        known = {key: value for key, value in setting.items() if value is not None}
        return ", ".join(f"{key} {_write_setting(value)}" for key, value in known.items())
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if setting is None or isinstance(setting, float):
        return markup.typeset_number(setting)
    return str(setting).replace("_", " ")


def show_confusion(curves: ReportFields, report: ReportFields) -> PageSection | None:
    """Return how labels and decisions meet."""

    counts, labels = curves.get("confusion"), curves.get("labels")
    if not counts or not labels:
        return None
    columns = ["labelled", *(f"decided {label}" for label in labels), "posts"]
    body = []
    for label, row in zip(labels, counts, strict=True):
        cells = (_make_confusion_cell(count, sum(row)) for count in row)
        body.append((label, *cells, markup.typeset_count(sum(row))))
    says = "A row holds the posts of one label; shares and shades are of that row."
    table = markup.make_table("Labels against decisions", columns, body, "heat")
    return PageSection("confusion", "Confusion", says, table)


def _make_confusion_cell(count: int, total: int) -> Html:
    share = tag("small", markup.typeset_share(count, total))
    cell = markup.join((markup.typeset_count(count), " ", share))
    return svg.shade_cell(cell, count / total if total else 0.0)
