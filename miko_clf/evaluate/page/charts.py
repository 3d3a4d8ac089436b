"""Drawings of curves by hand: a frame with two scales, and what is drawn into it."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.scale import Scale, label

_LINE = 14.0
"""The least distance of two labels, in units of the drawing (pixels on a phone)."""


class Point(NamedTuple):
    """A place on a curve, and the band around it."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


class Frame(NamedTuple):
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


def chart(name: str, title: str, says: str, frame: Frame, *parts: Child) -> Html:
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


def axes(frame: Frame, x_name: str, y_name: str) -> Html:
    """Draw grid lines with their numbers, and what each axis is of."""
    left, right = frame.left, frame.width - frame.right
    base = frame.height - frame.bottom
    ticks = frame.x.ticks(6), frame.y.ticks(6)
    parts = [
        tag("text", label(tick, ticks[0]), class_="tick", x=frame.across(tick), y=base + 15,
            text_anchor="middle")
        for tick in ticks[0]
    ]  # fmt: skip
    for tick in ticks[1]:
        at = frame.down(tick)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
        parts.append(
            tag(
                "text",
                label(tick, ticks[1]),
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


def line(frame: Frame, points: Iterable[Point], kind: str) -> Html:
    """Draw a curve, broken where it is undefined."""
    return tag("path", class_=f"line {kind}", d=_path(frame, ((each.x, each.y) for each in points)))


def steps(frame: Frame, points: Sequence[Point], kind: str) -> Html:
    """Draw a curve that keeps its height until the next point."""
    return line(frame, stepped(points), kind)


def stepped(points: Sequence[Point]) -> list[Point]:
    """Return points with, before each, one at its place and the height of the one before."""
    found = list(points[:1])
    for before, each in pairwise(points):
        found += [before._replace(x=each.x), each]
    return found


def band(frame: Frame, points: Iterable[Point], kind: str) -> Html | None:
    """Draw the band of a curve."""
    known = [each for each in points if not (math.isnan(each.low) or math.isnan(each.high))]
    if len(known) < 2:
        return None
    edge = [(each.x, each.high) for each in known] + [(each.x, each.low) for each in known[::-1]]
    return tag("path", class_=f"band {kind}", d=_path(frame, edge) + "Z")


def dots(frame: Frame, points: Iterable[Point], kind: str, size: float = 4) -> Html:
    """Draw a dot at each point, and its band as a whisker."""
    return join(_dot(frame, each, kind, size) for each in points if not math.isnan(each.y))


def labels(frame: Frame, named: Iterable[tuple[str, float, str]]) -> Html:
    """Write (text, height, kind) beside the right end of curves, kept apart from one another."""
    wanted = sorted((frame.down(y), text, kind) for text, y, kind in named if not math.isnan(y))
    places = _apart([each[0] for each in wanted], frame.top, frame.height - frame.bottom)
    x = frame.width - frame.right + 6
    return join(
        tag("text", text, class_=f"label {kind}", x=x, y=at + 4)
        for at, (_, text, kind) in zip(places, wanted, strict=True)
    )


def _dot(frame: Frame, point: Point, kind: str, size: float) -> Html:
    x = frame.across(point.x)
    whisker = None
    if not (math.isnan(point.low) or math.isnan(point.high)):
        whisker = tag("line", class_=f"whisker {kind}", x1=x, x2=x, y1=frame.down(point.low),
                      y2=frame.down(point.high))  # fmt: skip
    return join(
        (whisker, tag("circle", class_=f"dot {kind}", cx=x, cy=frame.down(point.y), r=size))
    )


def _path(frame: Frame, points: Iterable[tuple[float, float]]) -> str:
    found, pen = [], "M"
    for x, y in points:
        if math.isnan(y):
            pen = "M"
            continue
        found.append(f"{pen}{frame.across(x):.1f} {frame.down(y):.1f}")
        pen = "L"
    return "".join(found)


def _apart(wanted: Sequence[float], top: float, base: float) -> list[float]:
    """Return ascending places at least a line apart that stay above `base` while there is room."""
    found: list[float] = []
    for each in wanted:
        found.append(max(each, found[-1] + _LINE if found else top))
    floor = base
    for index in range(len(found) - 1, -1, -1):
        found[index] = min(found[index], floor)
        floor = found[index] - _LINE
    return found
