"""Estimates on some posts, each with its interval: metrics, error rates, means, changes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest

from miko_clf import intervals, metrics
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval, ResampleWeights, draw_weights
from miko_clf.metrics import measure_resamples

NUM_RESAMPLES = 1000
_LEVEL = 0.95
BOOTSTRAPPED_METRICS = ("macro_f1", "auroc")
"""Metrics whose interval is a bootstrap's; that of a rate is Wilson's (1927), which holds at 0."""


class DecidedPosts(NamedTuple):
    """Posts with their answers: probabilities (row, label), and what was decided of each."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None

    def of(self, rows: Bool[np.ndarray, " row"] | Int[np.ndarray, " some"]) -> "DecidedPosts":
        """Return these rows alone."""
        return self._replace(
            probabilities=self.probabilities[rows],
            truth=self.truth[rows],
            decided=self.decided[rows],
        )


def decide_posts(subject: SystemPredictions) -> DecidedPosts:
    """Return the posts of a subject as it judges them."""
    return DecidedPosts(
        subject.probabilities, subject.truth, subject.decided, subject.question.positive
    )


def measure_posts(
    rows: DecidedPosts, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return accuracy, macro-F1, AUROC and, with a positive class, both error rates.

    The interval of accuracy and of the error rates is Wilson's, of macro-F1 and AUROC the
    percentile bootstrap's; a resample that lacks a class is left out of AUROC. What the rows
    leave undefined is NaN.
    """
    hits = int((rows.decided == rows.truth).sum())
    drawn = intervals.draw_weights(len(rows.truth), num_resamples, np.random.default_rng(seed))
    found = {
        "accuracy": estimate_share(hits, len(rows.truth)),
        **bootstrap_decided_posts(rows, drawn),
    }
    if rows.positive is None:
        return found
    others = rows.truth != rows.positive
    return {
        **found,
        "false_positive_rate": estimate_error_rate(rows, others),
        "false_negative_rate": estimate_error_rate(rows, ~others),
    }


def bootstrap_decided_posts(
    rows: DecidedPosts,
    drawn: intervals.ResampleWeights,
    names: tuple[str, ...] = BOOTSTRAPPED_METRICS,
) -> dict[str, Interval]:
    """Return the metrics of `names` with their percentile interval over the resamples.

    Bounds are NaN where no resample differs from the rows, as with few rows that are all ranked
    rightly: such resamples say nothing of other posts.
    """
    values = measure_on_resamples(rows, np.ones((1, len(rows.truth)), dtype=np.int64), names)[0]
    samples = measure_on_resamples(rows, drawn, names).T
    found = {
        name: bound_by_percentiles(float(value), sample)
        for name, value, sample in zip(names, values, samples, strict=True)
    }
    return {
        name: one if one.low < one.high else Interval(one.value, np.nan, np.nan)
        for name, one in found.items()
    }


def measure_on_resamples(
    rows: DecidedPosts,
    drawn: intervals.ResampleWeights,
    names: tuple[str, ...] = BOOTSTRAPPED_METRICS,
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics of `names` on every resample."""
    return metrics.measure_resamples(
        rows.probabilities,
        rows.truth,
        drawn,
        positive=rows.positive,
        decided=rows.decided,
        names=names,
    )


def bound_by_percentiles(value: float, sample: Float[np.ndarray, " resample"]) -> Interval:
    """Return a value and the percentiles of its resamples, of those on which it is defined."""
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))


def estimate_share(count: int, total: int) -> Interval:
    """Return a share and its Wilson score interval, NaN where there is nothing to share."""
    if not total:
        return Interval(np.nan, np.nan, np.nan)
    low, high = binomtest(count, total).proportion_ci(_LEVEL, method="wilson")
    return Interval(count / total, float(low), float(high))


def subtract_shares(one: Interval, other: Interval) -> Interval:
    """Return the difference of two shares of different posts, from their Wilson intervals.

    Newcombe (Statistics in Medicine 1998), method 10.
    """
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, low, high)


def estimate_error_rate(rows: DecidedPosts, among: Bool[np.ndarray, " row"]) -> Interval:
    """Return the share of wrongly decided rows among some."""
    wrong = among & (rows.decided != rows.truth)
    return estimate_share(int(wrong.sum()), int(among.sum()))


_DIFFERENCE_LEVEL = 0.95
_SEED = 0


def bootstrap_mean(values: Float[np.ndarray, " row"], num_resamples: int) -> Interval:
    """Return the mean of the rows and its percentile interval."""
    weights = _draw_after_whole(len(values), num_resamples)
    return _bound_after_whole(weights @ values / len(values))


def bootstrap_metric_changes(
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
    weights = _draw_after_whole(len(truth), num_resamples)
    found = [
        measure_resamples(
            each,
            truth,
            weights,
            positive=positive,
            decided=metrics.decide_labels(each, positive=positive, threshold=threshold),
            names=names,
        )
        for each in (a, b)
    ]
    gaps = found[0] - found[1]  # (resample, metric)
    return {name: _bound_after_whole(column) for name, column in zip(names, gaps.T, strict=True)}


def _draw_after_whole(num_rows: int, num_resamples: int) -> ResampleWeights:
    """Return the rows as they are, then how often each resample holds each of them."""
    drawn = draw_weights(num_rows, num_resamples, np.random.default_rng(_SEED))
    return np.concatenate([np.ones((1, num_rows), dtype=drawn.dtype), drawn])


def _bound_after_whole(found: Float[np.ndarray, " resample"]) -> Interval:
    """Return the first value, and the percentiles of those of the rest that are defined."""
    value, sample = float(found[0]), found[1:]
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - _DIFFERENCE_LEVEL) / 2, (1 + _DIFFERENCE_LEVEL) / 2])
    return Interval(value, float(low), float(high))
