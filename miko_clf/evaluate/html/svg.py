"""Drawings by hand: scales, charts of curves, and small tracks that fill a table's cell.

Places are shares of the width, so a drawing is as wide as its cell and its text never scales.
The numbers stand in the next cell, so readers of the screen aloud are spared the drawing.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from miko_clf.evaluate.html.figures import Figure
from miko_clf.evaluate.html.markup import Child, Html, join, tag


class Scale(NamedTuple):
    """A stretch of the number line."""

    low: float
    high: float

    def part(self, value: float) -> float:
        """Return how far along `value` stands, 0 to 1; what lies outside stands at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, most: int = 5) -> list[float]:
        """Return round numbers, 1, 2 or 5 times a power of ten apart: two at least, some `most`."""
        step = 0.0
        for each in _step_sizes(self.high - self.low):
            if self._count(each) < 2:
                break
            step = each
            if self._count(each) <= most:
                break
        first = math.ceil(self.low / step - 1e-9)
        return [(first + index) * step for index in range(self._count(step))]

    def _count(self, step: float) -> int:
        return math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9) + 1


def fit_scale(figures: Iterable[Figure], *also: float) -> Scale:
    """Return a stretch that holds all figures with their bounds, and `also`, with air beside."""
    known = [each for found in figures for each in found if not math.isnan(each)]
    known += also
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
    return Scale(low - air, high + air)


def fit_scale_within(figures: Iterable[Figure], least: float, most: float, *also: float) -> Scale:
    """Return a stretch around figures that cannot lie outside `least` to `most`."""
    found = fit_scale(figures, *also)
    return Scale(max(least, found.low), min(most, found.high))


def label_tick(tick: float, ticks: list[float]) -> str:
    """Return a tick with as many decimals as its neighbours need to be told apart."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(tick) or 1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{tick + 0.0:.{places}f}".replace("-", "\N{MINUS SIGN}")


def _step_sizes(length: float) -> Iterable[float]:
    power = math.floor(math.log10(length)) - 2
    while True:
        yield from (factor * 10.0**power for factor in (1, 2, 5))
        power += 1


_LABEL_DISTANCE = 14.0
"""The least distance of two labels, in units of the drawing (pixels on a phone)."""


class ChartPoint(NamedTuple):
    """A place on a curve, and the band around it."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


class ChartFrame(NamedTuple):
    """The room of a drawing and the scales along its sides; `right` is kept for labels."""

    x: Scale
    y: Scale
    width: float = 360
    height: float = 300
    left: float = 50
    right: float = 14
    top: float = 12
    bottom: float = 40

    def across(self, x: float) -> float:
        """Return where `x` stands from the left."""
        return self.left + self.x.part(x) * (self.width - self.left - self.right)

    def down(self, y: float) -> float:
        """Return where `y` stands from the top."""
        return self.height - self.bottom - self.y.part(y) * (self.height - self.top - self.bottom)


def draw_chart(name: str, title: str, says: str, frame: ChartFrame, *parts: Child) -> Html:
    """Return a drawing with a title and a description; `name` is its own on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", says, id=f"{name}-desc"),
        *parts,
        class_="chart",
        role="img",
        viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def draw_chart_axes(frame: ChartFrame, x_name: str, y_name: str) -> Html:
    """Draw grid lines with their numbers, and what each axis is of."""
    left, right = frame.left, frame.width - frame.right
    base = frame.height - frame.bottom
    ticks = frame.x.ticks(6), frame.y.ticks(6)
    parts = [
        tag("text", label_tick(tick, ticks[0]), class_="tick", x=frame.across(tick), y=base + 15,
            text_anchor="middle")
        for tick in ticks[0]
    ]  # fmt: skip
    for tick in ticks[1]:
        at = frame.down(tick)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(
            tag(
                "text",
                label_tick(tick, ticks[1]),
                class_="tick",
                x=left - 6,
                y=at + 4,
                text_anchor="end",
            )
        )
    middle, centre = (left + right) / 2, (frame.top + base) / 2
    below = tag("text", x_name, class_="name", x=middle, y=frame.height - 6, text_anchor="middle")
    beside = tag("text", y_name, class_="name", x=0, y=0, text_anchor="middle",
                 transform=f"translate(11 {centre:.1f}) rotate(-90)")  # fmt: skip
    return join((*parts, below, beside))


def draw_chart_line(frame: ChartFrame, points: Iterable[ChartPoint], kind: str) -> Html:
    """Draw a curve, broken where it is undefined."""
    return tag(
        "path", class_=f"line {kind}", d=_trace_path(frame, ((each.x, each.y) for each in points))
    )


def draw_chart_steps(frame: ChartFrame, points: Sequence[ChartPoint], kind: str) -> Html:
    """Draw a curve that keeps its height until the next point."""
    return draw_chart_line(frame, _insert_steps(points), kind)


def _insert_steps(points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """Return points with, before each, one at its place and the height of the one before."""
    found = list(points[:1])
    for before, each in pairwise(points):
        found += [before._replace(x=each.x), each]
    return found


def draw_chart_band(frame: ChartFrame, points: Iterable[ChartPoint], kind: str) -> Html | None:
    """Draw the band of a curve."""
    known = [each for each in points if not (math.isnan(each.low) or math.isnan(each.high))]
    if len(known) < 2:
        return None
    edge = [(each.x, each.high) for each in known] + [(each.x, each.low) for each in known[::-1]]
    return tag("path", class_=f"band {kind}", d=_trace_path(frame, edge) + "Z")


def draw_chart_dots(
    frame: ChartFrame, points: Iterable[ChartPoint], kind: str, size: float = 4
) -> Html:
    """Draw a dot at each point, and its band as a whisker."""
    return join(
        _draw_chart_dot(frame, each, kind, size) for each in points if not math.isnan(each.y)
    )


def draw_chart_labels(frame: ChartFrame, named: Iterable[tuple[str, float, str]]) -> Html:
    """Write (text, height, kind) beside the right end of curves, kept apart from one another."""
    wanted = sorted((frame.down(y), text, kind) for text, y, kind in named if not math.isnan(y))
    places = _keep_apart([each[0] for each in wanted], frame.top, frame.height - frame.bottom)
    x = frame.width - frame.right + 6
    return join(
        tag("text", text, class_=f"label {kind}", x=x, y=at + 4)
        for at, (_, text, kind) in zip(places, wanted, strict=True)
    )


def _draw_chart_dot(frame: ChartFrame, point: ChartPoint, kind: str, size: float) -> Html:
    x = frame.across(point.x)
    whisker = None
    if not (math.isnan(point.low) or math.isnan(point.high)):
        whisker = tag("line", class_=f"whisker {kind}", x1=x, x2=x, y1=frame.down(point.low),
                      y2=frame.down(point.high))  # fmt: skip
    return join(
        (whisker, tag("circle", class_=f"dot {kind}", cx=x, cy=frame.down(point.y), r=size))
    )


def _trace_path(frame: ChartFrame, points: Iterable[tuple[float, float]]) -> str:
    found, pen = [], "M"
    for x, y in points:
        if math.isnan(y):
            pen = "M"
            continue
        found.append(f"{pen}{frame.across(x):.1f} {frame.down(y):.1f}")
        pen = "L"
    return "".join(found)


def _keep_apart(wanted: Sequence[float], top: float, base: float) -> list[float]:
    """Return ascending places at least a line apart that stay above `base` while there is room."""
    found: list[float] = []
    for each in wanted:
        found.append(max(each, found[-1] + _LABEL_DISTANCE if found else top))
    floor = base
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], floor)
        floor = found[index] - _LABEL_DISTANCE
    return found


_TRACK_HEIGHT = 24
_TRACK_MIDDLE = _TRACK_HEIGHT // 2


def draw_interval_track(
    found: Figure, scale: Scale, *, mark: float | None = None, signed: bool = True
) -> Html:
    """Draw a dot and its interval; full where `signed` and all of it lies on one side of 0."""
    if not found.defined:
        return _make_track(_draw_track_grid(scale, mark))
    side = {1: "up", -1: "down", 0: "even"}[found.sign] if signed else "up"
    whisker = None
    if found.bounded:
        ends = (_place_value(scale, found.low), _place_value(scale, found.high))
        whisker = tag(
            "line", class_="whisker", x1=ends[0], x2=ends[1], y1=_TRACK_MIDDLE, y2=_TRACK_MIDDLE
        )
    dot = tag("circle", class_="dot", cx=_place_value(scale, found.value), cy=_TRACK_MIDDLE, r=4.5)
    return _make_track(_draw_track_grid(scale, mark), tag("g", whisker, dot, class_=side))


def draw_bar_track(found: Figure, scale: Scale) -> Html:
    """Draw a bar from 0, with the interval of its end."""
    if not found.defined:
        return _make_track(_draw_track_grid(scale, 0.0))
    start, end = sorted((scale.part(0.0), scale.part(found.value)))
    side = "down" if found.value < 0 else "up"
    body = tag("rect", class_="beam", x=f"{100 * start:.2f}%", y=6,
               width=f"{100 * (end - start):.2f}%", height=12, rx=2)  # fmt: skip
    whisker = None
    if found.bounded:
        ends = (_place_value(scale, found.low), _place_value(scale, found.high))
        whisker = tag(
            "line", class_="over", x1=ends[0], x2=ends[1], y1=_TRACK_MIDDLE, y2=_TRACK_MIDDLE
        )
    return _make_track(_draw_track_grid(scale, 0.0), tag("g", body, whisker, class_=side))


def draw_dot_track(values: Sequence[float], scale: Scale, mark: float | None = 0.0) -> Html:
    """Draw one faint dot a value, so that where they crowd is dark."""
    dots = (
        tag("circle", class_="grain", cx=_place_value(scale, each), cy=5 + 7 * (index % 3), r=2.5)
        for index, each in enumerate(values)
    )
    return _make_track(_draw_track_grid(scale, mark), join(dots))


def draw_hairline(found: Figure, scale: Scale) -> Html | None:
    """Draw an interval as a hair line with a dot, for under a figure."""
    if not found.bounded:
        return None
    ends = (_place_value(scale, found.low), _place_value(scale, found.high))
    return tag(
        "svg",
        tag("line", class_="ground", x1="0", x2="100%", y1=4, y2=4),
        tag("line", class_="whisker", x1=ends[0], x2=ends[1], y1=4, y2=4),
        tag("circle", class_="dot", cx=_place_value(scale, found.value), cy=4, r=3),
        class_="hair up",
        aria_hidden="true",
    )


def draw_track_axis(scale: Scale) -> Html:
    """Draw the ticks of a column of tracks."""
    ticks = scale.ticks(3)
    texts = (
        tag(
            "text",
            label_tick(tick, ticks),
            x=_place_value(scale, tick),
            y=12,
            text_anchor=_anchor_tick(scale, tick),
        )
        for tick in ticks
    )
    return tag("svg", join(texts), class_="axis", aria_hidden="true")


def _draw_track_grid(scale: Scale, mark: float | None) -> Html:
    lines: Iterable[Child] = (
        tag("line", class_="grid", x1=at, x2=at, y1=0, y2=_TRACK_HEIGHT)
        for at in (_place_value(scale, tick) for tick in scale.ticks(3))
    )
    if mark is None:
        return join(lines)
    at = _place_value(scale, mark)
    return join((*lines, tag("line", class_="mark", x1=at, x2=at, y1=0, y2=_TRACK_HEIGHT)))


def _make_track(*parts: Child) -> Html:
    return tag("svg", *parts, class_="track", aria_hidden="true")


def _place_value(scale: Scale, value: float) -> str:
    return f"{100 * scale.part(value):.2f}%"


def _anchor_tick(scale: Scale, tick: float) -> str:
    part = scale.part(tick)
    return "start" if part < 0.04 else "end" if part > 0.96 else "middle"


_SHADES = 7


def shade_cell(child: Child, part: float) -> Html:
    """Return what a cell holds on a ground of one of seven shades; `part` is from 0 to 1."""
    step = min(_SHADES - 1, max(0, int(part * _SHADES)))
    return tag("span", child, class_=f"shade s{step}")
