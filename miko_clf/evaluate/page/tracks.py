"""Small drawings that fill a table's cell: an interval, a bar, a strip of dots, the axis of all.

Places are shares of the width, so a drawing is as wide as its cell and its text never scales.
The numbers stand in the next cell, so readers of the screen aloud are spared the drawing.
"""

from collections.abc import Iterable, Sequence

from miko_clf.evaluate.page.markup import Child, Html, join, tag
from miko_clf.evaluate.page.numbers import Figure
from miko_clf.evaluate.page.scale import Scale, label

_HEIGHT = 24
_MIDDLE = _HEIGHT // 2


def interval(
    found: Figure, scale: Scale, *, mark: float | None = None, signed: bool = True
) -> Html:
    """Draw a dot and its interval; full where `signed` and all of it lies on one side of 0."""
    if not found.defined:
        return _svg(_grid(scale, mark))
    side = {1: "up", -1: "down", 0: "even"}[found.sign] if signed else "up"
    whisker = None
    if found.bounded:
        ends = (_place(scale, found.low), _place(scale, found.high))
        whisker = tag("line", class_="whisker", x1=ends[0], x2=ends[1], y1=_MIDDLE, y2=_MIDDLE)
    dot = tag("circle", class_="dot", cx=_place(scale, found.value), cy=_MIDDLE, r=4.5)
    return _svg(_grid(scale, mark), tag("g", whisker, dot, class_=side))


def bar(found: Figure, scale: Scale) -> Html:
    """Draw a bar from 0, with the interval of its end."""
    if not found.defined:
        return _svg(_grid(scale, 0.0))
    start, end = sorted((scale.part(0.0), scale.part(found.value)))
    side = "down" if found.value < 0 else "up"
    body = tag("rect", class_="beam", x=f"{100 * start:.2f}%", y=6,
               width=f"{100 * (end - start):.2f}%", height=12, rx=2)  # fmt: skip
    whisker = None
    if found.bounded:
        ends = (_place(scale, found.low), _place(scale, found.high))
        whisker = tag("line", class_="over", x1=ends[0], x2=ends[1], y1=_MIDDLE, y2=_MIDDLE)
    return _svg(_grid(scale, 0.0), tag("g", body, whisker, class_=side))


def strip(values: Sequence[float], scale: Scale, mark: float | None = 0.0) -> Html:
    """Draw one faint dot a value, so that where they crowd is dark."""
    dots = (
        tag("circle", class_="grain", cx=_place(scale, each), cy=5 + 7 * (index % 3), r=2.5)
        for index, each in enumerate(values)
    )
    return _svg(_grid(scale, mark), join(dots))


def hair(found: Figure, scale: Scale) -> Html | None:
    """Draw an interval as a hair line with a dot, for under a figure."""
    if not found.bounded:
        return None
    ends = (_place(scale, found.low), _place(scale, found.high))
    return tag(
        "svg",
        tag("line", class_="ground", x1="0", x2="100%", y1=4, y2=4),
        tag("line", class_="whisker", x1=ends[0], x2=ends[1], y1=4, y2=4),
        tag("circle", class_="dot", cx=_place(scale, found.value), cy=4, r=3),
        class_="hair up",
        aria_hidden="true",
    )


def axis(scale: Scale) -> Html:
    """Draw the ticks of a column of tracks."""
    ticks = scale.ticks(3)
    texts = (
        tag(
            "text",
            label(tick, ticks),
            x=_place(scale, tick),
            y=12,
            text_anchor=_anchor(scale, tick),
        )
        for tick in ticks
    )
    return tag("svg", join(texts), class_="axis", aria_hidden="true")


def _grid(scale: Scale, mark: float | None) -> Html:
    lines: Iterable[Child] = (
        tag("line", class_="grid", x1=at, x2=at, y1=0, y2=_HEIGHT)
        for at in (_place(scale, tick) for tick in scale.ticks(3))
    )
    if mark is None:
        return join(lines)
    at = _place(scale, mark)
    return join((*lines, tag("line", class_="mark", x1=at, x2=at, y1=0, y2=_HEIGHT)))


def _svg(*parts: Child) -> Html:
    return tag("svg", *parts, class_="track", aria_hidden="true")


def _place(scale: Scale, value: float) -> str:
    return f"{100 * scale.part(value):.2f}%"


def _anchor(scale: Scale, tick: float) -> str:
    part = scale.part(tick)
    return "start" if part < 0.04 else "end" if part > 0.96 else "middle"
