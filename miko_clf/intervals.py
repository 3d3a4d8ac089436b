"""Intervals of figures: resamples of rows or of whole groups, their percentiles, and Wilson's."""

import logging
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

RowGroups = NDArray[np.int64] | None  # (row,) numbers from 0; rows of one are drawn together
ResampleWeights = NDArray[np.int64]  # (resample, row) how often each resample holds each row
NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)  # of 95 %, two-sided

_Numbers = TypeVar("_Numbers", float, np.ndarray)
_log = logging.getLogger(__name__)


class Interval(NamedTuple):
    """A figure on the rows as they are, and the bounds of the interval around it."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(np.nan, np.nan, np.nan)


def draw_resamples(
    num_rows: int, num_resamples: int, seed: int, groups: RowGroups = None
) -> ResampleWeights:
    """Return how often each bootstrap resample holds each row; the first are the rows as they are.

    Rows of one of the `groups` are drawn together: posts of a thread are alike (Field and Welsh,
    JRSS B 2007, the cluster bootstrap). Of a single row, or group, there is nothing to draw, and
    the rows as they are stand alone.
    """
    num_units = num_rows if groups is None else int(groups.max()) + 1
    num_drawn = num_resamples if num_units > 1 else 0
    drawn = np.random.default_rng(seed).integers(0, num_units, (num_drawn, num_units))
    places = drawn + num_units * np.arange(num_drawn)[:, None]
    counts = np.bincount(places.ravel(), minlength=num_drawn * num_units)
    weights = counts.reshape(num_drawn, num_units)
    weights = weights if groups is None else weights[:, groups]
    return np.concatenate([np.ones((1, num_rows), dtype=weights.dtype), weights])


def compute_percentile_interval(
    value: float, sample: NDArray[np.floating], level: float = 0.95, name: str = ""
) -> Interval:
    """Return `value` with the middle `level` of the resamples on which it is defined.

    Where the figure has a `name` the log says how many resamples were left out. The bounds are NaN
    where the value is, or no resample defines it.
    """
    defined = sample[~np.isnan(sample)]
    if name and len(defined) < len(sample):
        _log.warning(
            "%s is undefined on %d of %d resamples, which lack a class; they are left out",
            name,
            len(sample) - len(defined),
            len(sample),
        )
    if np.isnan(value) or not len(defined):
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def compute_wilson_bounds(share: _Numbers, count: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Return the bounds of Wilson's score interval (JASA 1927) at 95 %, within [0, 1].

    It takes the `count` rows as independent; a share of 0 is bounded by 0 and one of 1 by 1.
    """
    shrunk = 1 + NORMAL_QUANTILE**2 / count
    centre = (share + NORMAL_QUANTILE**2 / (2 * count)) / shrunk
    spread = (share * (1 - share) / count + NORMAL_QUANTILE**2 / (4 * count**2)) ** 0.5
    half = NORMAL_QUANTILE * spread / shrunk
    low: Any = np.where(share <= 0, 0.0, np.clip(centre - half, 0, 1))
    high: Any = np.where(share >= 1, 1.0, np.clip(centre + half, 0, 1))
    return low[()], high[()]  # a number where a number was given
