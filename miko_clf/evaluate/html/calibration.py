"""Whether probabilities mean what they say, and what the decisions come to."""

import math
from collections.abc import Mapping
from typing import Any

from miko_clf.evaluate.html import markup, svg
from miko_clf.evaluate.html.markup import Html, PageSection, ReportFields, ReportRows, tag
from miko_clf.intervals import compute_wilson_bounds

_HISTOGRAM_HEIGHT = 52


def show_calibration(report: ReportFields) -> PageSection | None:
    """Return the reliability of stated probabilities, and what decides."""
    calibration = markup.get_finding(report, "calibration")
    if not calibration:
        return None
    reliability = calibration.get("reliability") or {}
    bins = {name: rows for name, rows in reliability.items() if rows}
    parts: list[Html] = [markup.make_facts(_list_calibration_facts(calibration))]
    if bins:
        says = (
            "On the dashed line a probability means what it says. Whiskers are 95 % Wilson "
            "intervals of the share; below stands how many posts each bin holds."
        )
        most = max(markup.read_real(row.get("rows")) for rows in bins.values() for row in rows)
        charts = (
            (_title_diagram(name, calibration), _draw_diagram(name, rows, most))
            for name, rows in bins.items()
        )
        tables = (_make_bin_table(name, rows) for name, rows in bins.items())
        numbers = markup.make_details("The bins as numbers", *tables)
        parts += [markup.make_note(says), markup.place_side_by_side(*charts), numbers]
    parts += _show_reached(calibration)
    return PageSection("calibration", "Calibration and decisions", *parts)


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


def _title_diagram(name: str, calibration: ReportFields) -> str:
    ece = markup.read_figure_of(calibration, "ece", name)
    return name.capitalize() + (f", ECE {markup.typeset_number(ece.value)}" if ece.defined else "")


def _draw_diagram(name: str, rows: ReportRows, most: float) -> Html:
    frame = svg.ChartFrame(
        svg.UNIT_SCALE, svg.UNIT_SCALE, height=350, bottom=40 + _HISTOGRAM_HEIGHT
    )
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
    body = [
        (
            *(markup.typeset_number(row.get(key)) for key in ("stated", "true")),
            markup.typeset_count(row["rows"]),
        )
        for row in rows
    ]
    caption = f"Reliability {name} calibration as numbers"
    return markup.make_table(caption, [f"stated, {name}", "true", "posts"], body, "narrow")


def _show_reached(calibration: ReportFields) -> list[Html]:
    """Return what the threshold gives on these posts beside what it gave on validation."""
    sides = {
        "these posts": calibration.get("reached"),
        "validation": calibration.get("on_validation"),
    }
    known = {name: settings for name, settings in sides.items() if settings}
    if not known:
        return []
    keys = list(dict.fromkeys(key for settings in known.values() for key in settings))
    body = [
        (name, *(_write_setting(settings.get(key)) for key in keys))
        for name, settings in known.items()
    ]
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


def show_confusion(report: ReportFields) -> PageSection | None:
    """Return how labels and decisions meet."""
    curves = markup.get_finding(report, "curves") or {}
    counts, labels = curves.get("confusion"), curves.get("labels")
    if not counts or not labels:
        return None
    columns = ["labelled", *(f"decided {label}" for label in labels), "posts"]
    body = [
        (
            label,
            *(_make_confusion_cell(count, sum(row)) for count in row),
            markup.typeset_count(sum(row)),
        )
        for label, row in zip(labels, counts, strict=True)
    ]
    says = "A row holds the posts of one label; shares and shades are of that row."
    table = markup.make_table("Labels against decisions", columns, body, "heat")
    return PageSection("confusion", "Confusion", says, table)


def _make_confusion_cell(count: int, total: int) -> Html:
    share = tag("small", markup.typeset_share(count, total))
    return svg.shade_cell(
        markup.join((markup.typeset_count(count), " ", share)), count / total if total else 0.0
    )
