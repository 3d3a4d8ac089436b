"""Intervals over resamples of posts: of a mean, and of what a change does to metrics."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from miko_clf import metrics
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.weighted import Weights, draw, measure

_LEVEL = 0.95
_SEED = 0


def mean_interval(values: Float[np.ndarray, " row"], num_resamples: int) -> Interval:
    """Return the mean of the rows and its percentile interval."""
    weights = _draw(len(values), num_resamples)
    return _around(weights @ values / len(values))


def differences(
    a: Float[np.ndarray, "row label"],
    b: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    threshold: float | None,
    names: Sequence[str],
    num_resamples: int,
) -> dict[str, Interval]:
    """Return each metric of the probabilities a minus that of b, on the same resamples."""
    weights = _draw(len(truth), num_resamples)
    found = [
        measure(
            each,
            truth,
            weights,
            positive=positive,
            decided=metrics.decide(each, positive=positive, threshold=threshold),
            names=names,
        )
        for each in (a, b)
    ]
    gaps = found[0] - found[1]  # (resample, metric)
    return {name: _around(column) for name, column in zip(names, gaps.T, strict=True)}


def _draw(num_rows: int, num_resamples: int) -> Weights:
    """Return the rows as they are, then how often each resample holds each of them."""
    drawn = draw(num_rows, num_resamples, np.random.default_rng(_SEED))
    return np.concatenate([np.ones((1, num_rows), dtype=drawn.dtype), drawn])


def _around(found: Float[np.ndarray, " resample"]) -> Interval:
    """Return the first value, and the percentiles of those of the rest that are defined."""
    value, sample = float(found[0]), found[1:]
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))
