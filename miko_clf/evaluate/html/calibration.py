"""Whether the probabilities mean what they say, before and after they were calibrated."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.html import svg
from miko_clf.evaluate.html.figures import (
    read_figure,
    read_real,
    typeset_count,
    typeset_number,
    typeset_percent,
)
from miko_clf.evaluate.html.markup import (
    Child,
    Html,
    PageSection,
    ReportFields,
    get_finding,
    make_note,
    make_section,
    place_side_by_side,
    tag,
)
from miko_clf.evaluate.html.svg import ChartFrame, ChartPoint, Scale
from miko_clf.evaluate.html.tables import make_details, make_facts, make_figure_cell, make_table
from miko_clf.intervals import compute_wilson_bounds

_UNIT = Scale(0.0, 1.0)
_HISTOGRAM_HEIGHT = 52  # height of the histogram below


def show_calibration(report: ReportFields) -> PageSection | None:
    """Return the reliability of stated probabilities, and what decides."""
    found = get_finding(report, "calibration")
    if not found:
        return None
    held = {name: rows for name, rows in (found.get("reliability") or {}).items() if rows}
    most = max((read_real(row.get("rows")) for rows in held.values() for row in rows), default=1.0)
    drawn = [
        (_title_diagram(name, found), _draw_diagram(name, rows, most))
        for name, rows in held.items()
    ]
    says = (
        "On the dashed line a probability means what it says. Whiskers are 95 % Wilson intervals "
        "of the share; below stands how many posts each bin holds."
    )
    numbers = make_details(
        "The bins as numbers", *(_make_bin_table(name, rows) for name, rows in held.items())
    )
    return make_section(
        "calibration", "Calibration and decisions", make_facts(_list_facts(found)),
        make_note(says) if held else None, place_side_by_side(*drawn) if held else None,
        numbers if held else None, *_show_reached(found),
    )  # fmt: skip


def _list_facts(found: Mapping[str, Any]) -> list[tuple[str, Child]]:
    shown: list[tuple[str, Child]] = []
    if found.get("method"):
        shown.append(("method", _write_setting(found["method"])))
    if found.get("aim"):
        shown.append(("aim of the threshold", _write_setting(found["aim"])))
    if found.get("threshold") is not None:
        shown.append(("threshold", typeset_number(found["threshold"])))
    for name, each in (found.get("ece") or {}).items():
        shown.append((f"ECE {name}", make_figure_cell(read_figure(each))))
    if found.get("prior") is not None:
        shown.append(("prior of the positive class", typeset_percent(found["prior"])))
    band = found.get("conformal")
    if band:
        asked = f"coverage, {typeset_percent(band.get('level'), 0)} asked for"
        shown.append((asked, make_figure_cell(read_figure(band.get("coverage")))))
        shown.append(("abstained", make_figure_cell(read_figure(band.get("abstained")))))
    return shown


def _show_reached(found: Mapping[str, Any]) -> list[Html]:
    """Return what the threshold gives on these posts beside what it gave on validation."""
    sides = {"these posts": found.get("reached"), "validation": found.get("on_validation")}
    known = {name: each for name, each in sides.items() if each}
    if not known:
        return []
    names = list(dict.fromkeys(name for each in known.values() for name in each))
    body = [
        (name, *(_write_setting(each.get(key)) for key in names)) for name, each in known.items()
    ]
    columns = ["on", *(name.replace("_", " ") for name in names)]
    shown = make_table("What the threshold gives", columns, body)
    return [tag("h3", "What the threshold gives"), shown]


def _write_setting(found: Any) -> str:
    """Return a setting that may be a name or an object of names and numbers."""
    if isinstance(found, Mapping):
        if "name" in found:
            value = found.get("value")
            return _write_setting(found["name"]) + (
                "" if value is None else f", {typeset_number(value)}"
            )
        return ", ".join(
            f"{key} {_write_setting(each)}" for key, each in found.items() if each is not None
        )
    if isinstance(found, bool):
        return "yes" if found else "no"
    if found is None or isinstance(found, float):
        return typeset_number(found)
    return str(found).replace("_", " ")


def _title_diagram(name: str, found: Mapping[str, Any]) -> str:
    ece = read_figure((found.get("ece") or {}).get(name))
    return name.capitalize() + (f", ECE {typeset_number(ece.value)}" if ece.defined else "")


def _draw_diagram(name: str, rows: Sequence[Mapping[str, Any]], most: float) -> Html:
    frame = ChartFrame(_UNIT, _UNIT, height=350, bottom=40 + _HISTOGRAM_HEIGHT)
    points = [_read_bin(row) for row in rows]
    kind = "b" if name == "before" else "a"
    says = f"{len(rows)} bins; the table below has their numbers"
    return svg.draw_chart(
        f"reliability-{name}", f"Reliability {name} calibration", says, frame,
        svg.draw_chart_axes(frame, "stated probability", "share that is true"),
        _draw_histogram(frame, rows, most),
        svg.draw_chart_line(frame, [ChartPoint(0.0, 0.0), ChartPoint(1.0, 1.0)], "chance"),
        svg.draw_chart_line(frame, points, kind), svg.draw_chart_dots(frame, points, kind),
    )  # fmt: skip


def _read_bin(row: Mapping[str, Any]) -> ChartPoint:
    stated, true, rows = (read_real(row.get(key)) for key in ("stated", "true", "rows"))
    if math.isnan(true) or not rows > 0:
        return ChartPoint(stated, true)
    low, high = compute_wilson_bounds(min(1.0, max(0.0, true)), rows)
    return ChartPoint(stated, true, low, high)


def _draw_histogram(frame: ChartFrame, rows: Sequence[Mapping[str, Any]], most: float) -> Html:
    base, width = frame.height - 24, 12.0
    bars = []
    for row in rows:
        stated, held = read_real(row.get("stated")), read_real(row.get("rows"))
        if not (math.isnan(stated) or math.isnan(held)):
            tall = (_HISTOGRAM_HEIGHT - 16) * held / most
            bars.append(
                tag("rect", class_="held", x=frame.across(stated) - width / 2, y=base - tall,
                    width=width, height=tall)
            )  # fmt: skip
    return tag("g", *bars)


def _make_bin_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    body = [
        (
            typeset_number(row.get("stated")),
            typeset_number(row.get("true")),
            typeset_count(row.get("rows")),
        )
        for row in rows
    ]
    caption = f"Reliability {name} calibration as numbers"
    return make_table(caption, [f"stated, {name}", "true", "posts"], body, "narrow")
