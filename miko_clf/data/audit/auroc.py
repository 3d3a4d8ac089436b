"""How well a number, or the vote of its neighbours, tells a class from the rest: AUROC."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

MIN_MARK_AUROC = 0.55

_MIN_CLASS_ROWS = 20
"""Rows that either class must have before an area is given."""
_Z = 1.959963985  # 95 %


class Auroc(NamedTuple):
    """The probability that a row of the class has the larger number, with its 95 % interval."""

    value: float
    low: float
    high: float

    def turned(self) -> "Auroc":
        """Return the area of the same number with its sign changed."""
        return Auroc(1 - self.value, 1 - self.high, 1 - self.low)

    def either_way(self) -> "Auroc":
        """Return the larger of this area and the turned one."""
        return self if self.value >= 0.5 else self.turned()


def measure_auroc(numbers: NDArray[np.float64], inside: NDArray[np.bool_]) -> Auroc | None:
    """Return the AUROC of numbers for the class that `inside` marks; None with too few rows.

    Rows whose number is NaN are left out. The interval is that of DeLong et al. (Biometrics 1988)
    from ranks (Sun and Xu, 2014).
    """
    known = ~np.isnan(numbers)
    ones, others = numbers[known & inside], numbers[known & ~inside]
    if min(len(ones), len(others)) < _MIN_CLASS_ROWS:
        return None
    both = _rank_numbers(np.concatenate((ones, others)))
    above = (both[: len(ones)] - _rank_numbers(ones)) / len(
        others
    )  # share of the others below each
    below = 1 - (both[len(ones) :] - _rank_numbers(others)) / len(ones)
    value = float(above.mean())
    spread = np.sqrt(above.var(ddof=1) / len(ones) + below.var(ddof=1) / len(others))
    reach = float(_Z * spread)
    return Auroc(value, max(0.0, value - reach), min(1.0, value + reach))


def _rank_numbers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, those of equal numbers averaged."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


_NUM_NEIGHBOURS = 25
_NUM_FOLDS = 5
_MIN_DISTINCT_VALUES = 20  # fewer are classes of their own, and one area tells all of them


def measure_neighbour_auroc(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], ids: Sequence[str]
) -> Auroc | None:
    """Return the AUROC with which the 25 nearest numbers vote for a class, over held-out folds.

    The id of a post decides its fold, so that the order of posts is of no effect. None where
    there are few numbers or rows; a number that is NaN is left out.
    """
    known = ~np.isnan(numbers)
    if len(np.unique(numbers[known])) < _MIN_DISTINCT_VALUES:
        return None
    folds = np.array([crc32(name.encode()) % _NUM_FOLDS for name in ids])
    votes = np.full(len(numbers), np.nan)
    for fold in range(_NUM_FOLDS):
        out, rest = known & (folds == fold), known & (folds != fold)
        if out.any() and rest.any():
            votes[out] = _vote_by_neighbours(numbers[rest], inside[rest], numbers[out])
    return measure_auroc(votes, inside)


def _vote_by_neighbours(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the class among the rows around each number, equal numbers together."""
    order = np.argsort(numbers)
    line = numbers[order]
    sums = np.concatenate(([0], np.cumsum(inside[order])))
    middle = (np.searchsorted(line, asked, "left") + np.searchsorted(line, asked, "right")) / 2
    first = np.clip(np.floor(middle - _NUM_NEIGHBOURS / 2).astype(int), 0, len(line) - 1)
    last = np.clip(np.ceil(middle + _NUM_NEIGHBOURS / 2).astype(int) - 1, 0, len(line) - 1)
    start = np.searchsorted(line, line[first], "left")
    stop = np.searchsorted(line, line[last], "right")
    shares: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return shares
