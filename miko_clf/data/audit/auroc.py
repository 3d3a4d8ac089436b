"""How well a number, or the vote of its neighbours, tells a class from the rest: AUROC."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from miko_clf.intervals import NORMAL_QUANTILE, Interval

MIN_MARK_AUROC = 0.55
"""AUROC from which a mark, a missing part or a class named in a text is a shortcut."""
_MIN_CLASS_ROWS = 20
"""Rows that either class must have before an AUROC is given."""
_NUM_NEIGHBOURS = 25
_NUM_FOLDS = 5
_MIN_DISTINCT_VALUES = 20  # fewer are classes of their own, and one AUROC tells all of them


def measure_auroc(numbers: NDArray[np.float64], inside: NDArray[np.bool_]) -> Interval | None:
    """Return the AUROC of numbers for the class that `inside` marks; None with too few rows.

    Rows whose number is NaN are left out. The 95 % interval is that of DeLong et al. (Biometrics
    1988) from ranks (Sun and Xu, 2014).
    """
    known = ~np.isnan(numbers)
    ones, others = numbers[known & inside], numbers[known & ~inside]
    if min(len(ones), len(others)) < _MIN_CLASS_ROWS:
        return None
    ranks = _rank_numbers(np.concatenate((ones, others)))
    above = (ranks[: len(ones)] - _rank_numbers(ones)) / len(others)  # share of others below each
    below = 1 - (ranks[len(ones) :] - _rank_numbers(others)) / len(ones)
    value = float(above.mean())
    spread = np.sqrt(above.var(ddof=1) / len(ones) + below.var(ddof=1) / len(others))
    reach = float(NORMAL_QUANTILE * spread)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def flip_auroc(auroc: Interval) -> Interval:
    """Return the AUROC of the same number with its sign changed."""
    return Interval(1 - auroc.value, 1 - auroc.high, 1 - auroc.low)


def fold_auroc(auroc: Interval) -> Interval:
    """Return the AUROC the way round in which it is 0.5 or more."""
    return auroc if auroc.value >= 0.5 else flip_auroc(auroc)


def _rank_numbers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, those of equal numbers averaged."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def measure_neighbour_auroc(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], ids: Sequence[str]
) -> Interval | None:
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
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the class among the rows around each point, equal numbers together."""
    order = np.argsort(numbers)
    line = numbers[order]
    sums = np.concatenate(([0], np.cumsum(inside[order])))
    middle = (np.searchsorted(line, points, "left") + np.searchsorted(line, points, "right")) / 2
    first = np.clip(np.floor(middle - _NUM_NEIGHBOURS / 2).astype(int), 0, len(line) - 1)
    last = np.clip(np.ceil(middle + _NUM_NEIGHBOURS / 2).astype(int) - 1, 0, len(line) - 1)
    start = np.searchsorted(line, line[first], "left")
    stop = np.searchsorted(line, line[last], "right")
    shares: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return shares
