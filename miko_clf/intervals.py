"""Intervals of figures: resamples of rows or whole groups, percentiles, and Wilson's."""

import logging
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

RowGroups = Int[np.ndarray, " row"] | None  # numbers from 0; rows of one are drawn together

_log = logging.getLogger(__name__)

ResampleWeights = Int[np.ndarray, "resample row"]


def draw_weights(num_rows: int, num_resamples: int, random: np.random.Generator) -> ResampleWeights:
    """Return how often each of the bootstrap's resamples holds each row."""
    return count_draws(random.integers(0, num_rows, (num_resamples, num_rows)), num_rows)


def count_draws(rows: Int[np.ndarray, "resample drawn"], num_rows: int) -> ResampleWeights:
    """Return how often each resample of row numbers holds each row."""
    places = rows + num_rows * np.arange(len(rows))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(rows) * num_rows)
    return counts.reshape(len(rows), num_rows)


_Numbers = TypeVar("_Numbers", float, np.ndarray)


def compute_wilson_bounds(share: _Numbers, count: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Return the bounds of Wilson's score interval (JASA 1927) at 95 %."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    half = z * spread / (1 + z**2 / count)
    return centre - half, centre + half


class Interval(NamedTuple):
    """A metric on the rows as they are, and the interval that the bootstrap puts around it."""

    value: float
    low: float
    high: float


def compute_percentile_interval(
    name: str, value: float, sample: Float[np.ndarray, " resample"], level: float
) -> Interval:
    defined = sample[~np.isnan(sample)]
    if len(defined) < len(sample):
        _log.warning(
            "%s is undefined on %d of %d resamples, which lack a class; they are left out",
            name,
            len(sample) - len(defined),
            len(sample),
        )
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def draw_resamples(
    num_rows: int, num_resamples: int, seed: int, groups: Int[np.ndarray, " row"] | None = None
) -> ResampleWeights:
    """Return how often each resample holds each row; the first are the rows as they are.

    Rows of one of the `groups`, numbers from 0, are drawn together: posts of a thread are alike
    (Field and Welsh, JRSS B 2007, the cluster bootstrap).
    """
    random = np.random.default_rng(seed)
    if groups is None:
        drawn_rows = draw_weights(num_rows, num_resamples, random)
    else:
        drawn_rows = draw_weights(int(groups.max()) + 1, num_resamples, random)[:, groups]
    return np.concatenate([np.ones((1, num_rows), dtype=drawn_rows.dtype), drawn_rows])
