"""From numbers to places: a line of numbers, its ticks, and where on it a value stands."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from miko_clf.evaluate.page.numbers import Figure


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
        for each in _steps(self.high - self.low):
            if self._count(each) < 2:
                break
            step = each
            if self._count(each) <= most:
                break
        first = math.ceil(self.low / step - 1e-9)
        return [(first + index) * step for index in range(self._count(step))]

    def _count(self, step: float) -> int:
        return math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9) + 1


def around(figures: Iterable[Figure], *also: float) -> Scale:
    """Return a stretch that holds all figures with their bounds, and `also`, with air beside."""
    known = [each for found in figures for each in found if not math.isnan(each)]
    known += also
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    air = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
    return Scale(low - air, high + air)


def within(figures: Iterable[Figure], least: float, most: float, *also: float) -> Scale:
    """Return a stretch around figures that cannot lie outside `least` to `most`."""
    found = around(figures, *also)
    return Scale(max(least, found.low), min(most, found.high))


def label(tick: float, ticks: list[float]) -> str:
    """Return a tick with as many decimals as its neighbours need to be told apart."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(tick) or 1.0)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{tick + 0.0:.{places}f}".replace("-", "\N{MINUS SIGN}")


def _steps(length: float) -> Iterable[float]:
    power = math.floor(math.log10(length)) - 2
    while True:
        yield from (factor * 10.0**power for factor in (1, 2, 5))
        power += 1
