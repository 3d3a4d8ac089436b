"""Drawings by hand: scales, charts of curves, and small tracks that fill a table's cell.

Places in a track are shares of the width, so it is as wide as its cell and its text never scales.
The numbers stand in the next cell, so readers of the screen aloud are spared the drawing.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import count, pairwise
from typing import NamedTuple

from miko_clf.evaluate.html.markup import (
    Child,
    Figure,
    Html,
    TableColumn,
    join,
    tag,
    typeset_figure,
    typeset_minus,
    typeset_number,
)


class Scale(NamedTuple):
    """A stretch of the number line."""

    low: float
    high: float

    def part(self, value: float) -> float:
        """Return how far along `value` stands, 0 to 1; what lies outside stands at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, most: int = 5) -> list[float]:
        """Return round numbers, 1, 2 or 5 times a power of ten apart: two at least, some `most`."""
        power = math.floor(math.log10(self.high - self.low)) - 2
        step = 0.0
        for size in (factor * 10.0 ** (power + n) for n in count() for factor in (1, 2, 5)):
            if self._count(size) < 2:
                break
            step = size
            if self._count(size) <= most:
                break
        first = math.ceil(self.low / step - 1e-9)
        return [(first + index) * step for index in range(self._count(step))]

    def _count(self, step: float) -> int:
        return math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9) + 1


UNIT_SCALE = Scale(0.0, 1.0)


def fit_scale(figures: Iterable[Figure], *also: float) -> Scale:
    """Return a stretch that holds all figures with their bounds, and `also`, with air beside."""
    values = [value for figure in figures for value in figure if not math.isnan(value)]
    values += also
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
    return Scale(low - air, high + air)


def fit_unit_scale(figures: Iterable[Figure], *also: float) -> Scale:
    """Return a stretch around figures that cannot lie outside 0 to 1."""
    scale = fit_scale(figures, *also)
    return Scale(max(0.0, scale.low), min(1.0, scale.high))


def label_tick(tick: float, ticks: list[float]) -> str:
    """Return a tick with as many decimals as its neighbours need to be told apart."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(tick) or 1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return typeset_minus(f"{tick + 0.0:.{places}f}")


_LABEL_DISTANCE = 14.0  # least distance of two labels, in units of the drawing


class ChartPoint(NamedTuple):
    """A place on a curve, and the band around it."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan

    @property
    def defined(self) -> bool:
        """Whether it has a place."""
        return not (math.isnan(self.x) or math.isnan(self.y))


DIAGONAL = (ChartPoint(0.0, 0.0), ChartPoint(1.0, 1.0))


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


def draw_chart(
    name: str, title: str, says: str, frame: ChartFrame, axes: tuple[str, str], *parts: Child
) -> Html:
    """Return a drawing with a title, a description and the names of its axes, across and up.

    `name` is its own on the page.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", says, id=f"{name}-desc"),
        _draw_chart_axes(frame, *axes),
        *parts,
        class_="chart",
        role="img",
        viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def _draw_chart_axes(frame: ChartFrame, x_name: str, y_name: str) -> Html:
    """Draw grid lines with their numbers, and what each axis is of."""
    left, right = frame.left, frame.width - frame.right
    base = frame.height - frame.bottom
    x_ticks, y_ticks = frame.x.ticks(6), frame.y.ticks(6)
    parts = [
        _write_tick(label_tick(tick, x_ticks), frame.across(tick), base + 15, "middle")
        for tick in x_ticks
    ]
    for tick in y_ticks:
        at = frame.down(tick)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(_write_tick(label_tick(tick, y_ticks), left - 6, at + 4, "end"))
    turned = f"translate(11 {(frame.top + base) / 2:.1f}) rotate(-90)"
    return join((
        *parts,
        _write_axis_name(x_name, (left + right) / 2, frame.height - 6),
        _write_axis_name(y_name, 0, 0, transform=turned),
    ))  # fmt: skip


def _write_tick(text: str, x: float, y: float, anchor: str) -> Html:
    return tag("text", text, class_="tick", x=x, y=y, text_anchor=anchor)


def _write_axis_name(text: str, x: float, y: float, transform: str | None = None) -> Html:
    return tag("text", text, class_="name", x=x, y=y, text_anchor="middle", transform=transform)


def draw_chart_line(frame: ChartFrame, points: Iterable[ChartPoint], kind: str) -> Html:
    """Draw a curve, broken where it is undefined."""
    path = _trace_path(frame, ((point.x, point.y) for point in points))
    return tag("path", class_=f"line {kind}", d=path)


def draw_chart_band(frame: ChartFrame, points: Iterable[ChartPoint], kind: str) -> Html | None:
    """Draw the band of a curve."""
    known = [p for p in points if not (math.isnan(p.low) or math.isnan(p.high))]
    if len(known) < 2:
        return None
    edge = [(p.x, p.high) for p in known] + [(p.x, p.low) for p in known[::-1]]
    return tag("path", class_=f"band {kind}", d=_trace_path(frame, edge) + "Z")


def draw_chart_dots(
    frame: ChartFrame, points: Iterable[ChartPoint], kind: str, size: float = 4
) -> Html:
    """Draw a dot at each point, and its band as a whisker."""
    return join(_draw_chart_dot(frame, p, kind, size) for p in points if not math.isnan(p.y))


def draw_chart_labels(frame: ChartFrame, named: Iterable[tuple[str, float, str]]) -> Html:
    """Write (text, height, kind) beside the right end of curves, kept apart from one another."""
    labels = sorted((frame.down(y), text, kind) for text, y, kind in named if not math.isnan(y))
    places = _keep_apart(
        [wanted for wanted, _, _ in labels], frame.top, frame.height - frame.bottom
    )
    x = frame.width - frame.right + 6
    return join(
        tag("text", text, class_=f"label {kind}", x=x, y=at + 4)
        for at, (_, text, kind) in zip(places, labels, strict=True)
    )


def _draw_chart_dot(frame: ChartFrame, point: ChartPoint, kind: str, size: float) -> Html:
    x = frame.across(point.x)
    whisker = None
    if not (math.isnan(point.low) or math.isnan(point.high)):
        low, high = frame.down(point.low), frame.down(point.high)
        whisker = tag("line", class_=f"whisker {kind}", x1=x, x2=x, y1=low, y2=high)
    dot = tag("circle", class_=f"dot {kind}", cx=x, cy=frame.down(point.y), r=size)
    return join((whisker, dot))


def _trace_path(frame: ChartFrame, points: Iterable[tuple[float, float]]) -> str:
    steps, pen = [], "M"
    for x, y in points:
        if math.isnan(y):
            pen = "M"
            continue
        steps.append(f"{pen}{frame.across(x):.1f} {frame.down(y):.1f}")
        pen = "L"
    return "".join(steps)


def _keep_apart(wanted: Sequence[float], top: float, base: float) -> list[float]:
    """Return ascending places at least a line apart that stay above `base` while there is room."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + _LABEL_DISTANCE if places else top))
    floor = base
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], floor)
        floor = places[index] - _LABEL_DISTANCE
    return places


_TRACK_HEIGHT = 24
_TRACK_MIDDLE = _TRACK_HEIGHT // 2


def draw_interval_track(
    figure: Figure, scale: Scale, *, mark: float | None = None, signed: bool = True
) -> Html:
    """Draw a dot and its interval; full where `signed` and all of it lies on one side of 0."""
    if not figure.defined:
        return _make_track(scale, mark)
    side = {1: "up", -1: "down", 0: "even"}[figure.sign] if signed else "up"
    whisker = _draw_whisker(figure, scale, "whisker")
    dot = _draw_dot(figure.value, scale, "dot", _TRACK_MIDDLE, 4.5)
    return _make_track(scale, mark, tag("g", whisker, dot, class_=side))


def draw_bar_track(figure: Figure, scale: Scale) -> Html:
    """Draw a bar from 0, with the interval of its end."""
    if not figure.defined:
        return _make_track(scale, 0.0)
    start, end = sorted((scale.part(0.0), scale.part(figure.value)))
    x, width = f"{100 * start:.2f}%", f"{100 * (end - start):.2f}%"
    bar = tag("rect", class_="beam", x=x, y=6, width=width, height=12, rx=2)
    side = "down" if figure.value < 0 else "up"
    return _make_track(scale, 0.0, tag("g", bar, _draw_whisker(figure, scale, "over"), class_=side))


def draw_dot_track(values: Sequence[float], scale: Scale, mark: float | None = 0.0) -> Html:
    """Draw one faint dot a value, so that where they crowd is dark."""
    rows = (5, 12, 19)
    dots = (_draw_dot(v, scale, "grain", rows[n % 3], 2.5) for n, v in enumerate(values))
    return _make_track(scale, mark, *dots)


def make_track_column(scale: Scale) -> TableColumn:
    """Return the head of a column of tracks: their scale with its ticks."""
    ticks = scale.ticks(3)
    texts = (
        tag("text", label_tick(tick, ticks), x=_place(scale, tick), y=12,
            text_anchor=_anchor_tick(scale, tick))
        for tick in ticks
    )  # fmt: skip
    return TableColumn(tag("svg", *texts, class_="axis", aria_hidden="true"), "plot")


def make_figure_cell(
    figure: Figure, scale: Scale | None = None, *, signed: bool = False, spread: float | None = None
) -> Html:
    """Return a value above its interval, and below, where there is a scale, where they stand.

    `spread` is its standard deviation.
    """
    value, bounds = typeset_figure(figure, signed=signed)
    small = tag("small", bounds) if bounds else None
    line = _draw_hairline(figure, scale) if scale is not None else None
    value += "" if spread is None else f" ± {typeset_number(spread)}"
    return tag("span", tag("span", value), " ", small, line, class_="figure")


def _draw_hairline(figure: Figure, scale: Scale) -> Html | None:
    """Draw an interval as a hair line with a dot, for under a figure."""
    if not figure.bounded:
        return None
    return tag(
        "svg",
        tag("line", class_="ground", x1="0", x2="100%", y1=4, y2=4),
        _draw_whisker(figure, scale, "whisker", 4),
        _draw_dot(figure.value, scale, "dot", 4, 3),
        class_="hair up",
        aria_hidden="true",
    )


def _make_track(scale: Scale, mark: float | None, *parts: Child) -> Html:
    """Return drawings on a grid, with a line at `mark`."""
    lines = [("grid", tick) for tick in scale.ticks(3)]
    lines += [] if mark is None else [("mark", mark)]
    grid = (
        tag("line", class_=kind, x1=_place(scale, at), x2=_place(scale, at), y1=0, y2=_TRACK_HEIGHT)
        for kind, at in lines
    )
    return tag("svg", *grid, *parts, class_="track", aria_hidden="true")


def _draw_whisker(
    figure: Figure, scale: Scale, kind: str, height: float = _TRACK_MIDDLE
) -> Html | None:
    """Draw the interval of a figure, where it has one."""
    if not figure.bounded:
        return None
    low, high = _place(scale, figure.low), _place(scale, figure.high)
    return tag("line", class_=kind, x1=low, x2=high, y1=height, y2=height)


def _draw_dot(value: float, scale: Scale, kind: str, height: float, size: float) -> Html:
    return tag("circle", class_=kind, cx=_place(scale, value), cy=height, r=size)


def _place(scale: Scale, value: float) -> str:
    return f"{100 * scale.part(value):.2f}%"


def _anchor_tick(scale: Scale, tick: float) -> str:
    part = scale.part(tick)
    return "start" if part < 0.04 else "end" if part > 0.96 else "middle"


_SHADES = 7


def shade_cell(child: Child, part: float) -> Html:
    """Return what a cell holds on a ground of one of seven shades; `part` is from 0 to 1."""
    step = min(_SHADES - 1, max(0, int(part * _SHADES)))
    return tag("span", child, class_=f"shade s{step}")
