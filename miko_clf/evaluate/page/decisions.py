"""Whether the probabilities mean what they say, before and after they were calibrated."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from miko_clf.evaluate.page import charts
from miko_clf.evaluate.page.charts import Frame, Point
from miko_clf.evaluate.page.markup import Child, Html, tag
from miko_clf.evaluate.page.numbers import count, figure, percent, plain, real
from miko_clf.evaluate.page.scale import Scale
from miko_clf.evaluate.page.section import Report, Section, finding, note, section, side_by_side
from miko_clf.evaluate.page.tables import facts, figure_cell, folded, table
from miko_clf.evaluate.proportion import wilson

_UNIT = Scale(0.0, 1.0)
_ROOM = 52  # height of the histogram below


def calibration(report: Report) -> Section | None:
    """Return the reliability of stated probabilities, and what decides."""
    found = finding(report, "calibration")
    if not found:
        return None
    held = {name: rows for name, rows in (found.get("reliability") or {}).items() if rows}
    most = max((real(row.get("rows")) for rows in held.values() for row in rows), default=1.0)
    drawn = [(_title(name, found), _diagram(name, rows, most)) for name, rows in held.items()]
    says = (
        "On the dashed line a probability means what it says. Whiskers are 95 % Wilson intervals "
        "of the share; below stands how many posts each bin holds."
    )
    numbers = folded("The bins as numbers", *(_numbers(name, rows) for name, rows in held.items()))
    return section(
        "calibration", "Calibration and decisions", facts(_facts(found)),
        note(says) if held else None, side_by_side(*drawn) if held else None,
        numbers if held else None, *_reached(found),
    )  # fmt: skip


def _facts(found: Mapping[str, Any]) -> list[tuple[str, Child]]:
    shown: list[tuple[str, Child]] = []
    if found.get("method"):
        shown.append(("method", _words(found["method"])))
    if found.get("aim"):
        shown.append(("aim of the threshold", _words(found["aim"])))
    if found.get("threshold") is not None:
        shown.append(("threshold", plain(found["threshold"])))
    for name, each in (found.get("ece") or {}).items():
        shown.append((f"ECE {name}", figure_cell(figure(each))))
    if found.get("prior") is not None:
        shown.append(("prior of the positive class", percent(found["prior"])))
    band = found.get("conformal")
    if band:
        asked = f"coverage, {percent(band.get('level'), 0)} asked for"
        shown.append((asked, figure_cell(figure(band.get("coverage")))))
        shown.append(("abstained", figure_cell(figure(band.get("abstained")))))
    return shown


def _reached(found: Mapping[str, Any]) -> list[Html]:
    """Return what the threshold gives on these posts beside what it gave on validation."""
    sides = {"these posts": found.get("reached"), "validation": found.get("on_validation")}
    known = {name: each for name, each in sides.items() if each}
    if not known:
        return []
    names = list(dict.fromkeys(name for each in known.values() for name in each))
    body = [(name, *(_words(each.get(key)) for key in names)) for name, each in known.items()]
    columns = ["on", *(name.replace("_", " ") for name in names)]
    shown = table("What the threshold gives", columns, body)
    return [tag("h3", "What the threshold gives"), shown]


def _words(found: Any) -> str:
    """Return a setting that may be a name or an object of names and numbers."""
    if isinstance(found, Mapping):
        if "name" in found:
            value = found.get("value")
            return _words(found["name"]) + ("" if value is None else f", {plain(value)}")
        return ", ".join(f"{key} {_words(each)}" for key, each in found.items() if each is not None)
    if isinstance(found, bool):
        return "yes" if found else "no"
    if found is None or isinstance(found, float):
        return plain(found)
    return str(found).replace("_", " ")


def _title(name: str, found: Mapping[str, Any]) -> str:
    ece = figure((found.get("ece") or {}).get(name))
    return name.capitalize() + (f", ECE {plain(ece.value)}" if ece.defined else "")


def _diagram(name: str, rows: Sequence[Mapping[str, Any]], most: float) -> Html:
    frame = Frame(_UNIT, _UNIT, height=350, bottom=40 + _ROOM)
    points = [_point(row) for row in rows]
    kind = "b" if name == "before" else "a"
    says = f"{len(rows)} bins; the table below has their numbers"
    return charts.chart(
        f"reliability-{name}", f"Reliability {name} calibration", says, frame,
        charts.axes(frame, "stated probability", "share that is true"),
        _histogram(frame, rows, most),
        charts.line(frame, [Point(0.0, 0.0), Point(1.0, 1.0)], "chance"),
        charts.line(frame, points, kind), charts.dots(frame, points, kind),
    )  # fmt: skip


def _point(row: Mapping[str, Any]) -> Point:
    stated, true, rows = (real(row.get(key)) for key in ("stated", "true", "rows"))
    if math.isnan(true) or not rows > 0:
        return Point(stated, true)
    low, high = wilson(min(1.0, max(0.0, true)), rows)
    return Point(stated, true, low, high)


def _histogram(frame: Frame, rows: Sequence[Mapping[str, Any]], most: float) -> Html:
    base, width = frame.height - 24, 12.0
    bars = []
    for row in rows:
        stated, held = real(row.get("stated")), real(row.get("rows"))
        if not (math.isnan(stated) or math.isnan(held)):
            tall = (_ROOM - 16) * held / most
            bars.append(
                tag("rect", class_="held", x=frame.across(stated) - width / 2, y=base - tall,
                    width=width, height=tall)
            )  # fmt: skip
    return tag("g", *bars)


def _numbers(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    body = [
        (plain(row.get("stated")), plain(row.get("true")), count(row.get("rows"))) for row in rows
    ]
    caption = f"Reliability {name} calibration as numbers"
    return table(caption, [f"stated, {name}", "true", "posts"], body, "narrow")
