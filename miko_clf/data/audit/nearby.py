"""What the posts with the nearest numbers say of a label: classes may come in runs of numbers."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.audit.area import Area, area

NEIGHBOURS = 25
_FOLDS = 5
_FEWEST_VALUES = 20  # fewer are classes of their own, and one area tells all of them


def nearby(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], ids: Sequence[str]
) -> Area | None:
    """Return the AUROC with which the 25 nearest numbers vote for a class, over held-out folds.

    The id of a post decides its fold, so that the order of posts is of no effect. None where
    there are few numbers or rows; a number that is NaN is left out.
    """
    known = ~np.isnan(numbers)
    if len(np.unique(numbers[known])) < _FEWEST_VALUES:
        return None
    folds = np.array([crc32(name.encode()) % _FOLDS for name in ids])
    votes = np.full(len(numbers), np.nan)
    for fold in range(_FOLDS):
        out, rest = known & (folds == fold), known & (folds != fold)
        if out.any() and rest.any():
            votes[out] = _votes(numbers[rest], inside[rest], numbers[out])
    return area(votes, inside)


def _votes(
    numbers: NDArray[np.float64], inside: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the class among the rows around each number, equal numbers together."""
    order = np.argsort(numbers)
    line = numbers[order]
    sums = np.concatenate(([0], np.cumsum(inside[order])))
    middle = (np.searchsorted(line, asked, "left") + np.searchsorted(line, asked, "right")) / 2
    first = np.clip(np.floor(middle - NEIGHBOURS / 2).astype(int), 0, len(line) - 1)
    last = np.clip(np.ceil(middle + NEIGHBOURS / 2).astype(int) - 1, 0, len(line) - 1)
    start = np.searchsorted(line, line[first], "left")
    stop = np.searchsorted(line, line[last], "right")
    shares: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return shares
