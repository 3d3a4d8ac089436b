"""How well one number tells two classes apart: the area under its ROC curve, with an interval."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 20
"""Rows that either class must have before an area is given."""
_Z = 1.959963985  # 95 %


class Area(NamedTuple):
    """The probability that a row of the class has the larger number, with its 95 % interval."""

    value: float
    low: float
    high: float

    def turned(self) -> "Area":
        """Return the area of the same number with its sign changed."""
        return Area(1 - self.value, 1 - self.high, 1 - self.low)

    def either_way(self) -> "Area":
        """Return the larger of this area and the turned one."""
        return self if self.value >= 0.5 else self.turned()


def area(numbers: NDArray[np.float64], inside: NDArray[np.bool_]) -> Area | None:
    """Return the AUROC of numbers for the class that `inside` marks; None with too few rows.

    Rows whose number is NaN are left out. The interval is that of DeLong et al. (Biometrics 1988)
    from ranks (Sun and Xu, 2014).
    """
    known = ~np.isnan(numbers)
    ones, others = numbers[known & inside], numbers[known & ~inside]
    if min(len(ones), len(others)) < FEWEST:
        return None
    both = _ranks(np.concatenate((ones, others)))
    above = (both[: len(ones)] - _ranks(ones)) / len(others)  # share of the others below each
    below = 1 - (both[len(ones) :] - _ranks(others)) / len(ones)
    value = float(above.mean())
    spread = np.sqrt(above.var(ddof=1) / len(ones) + below.var(ddof=1) / len(others))
    reach = float(_Z * spread)
    return Area(value, max(0.0, value - reach), min(1.0, value + reach))


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, those of equal numbers averaged."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks
