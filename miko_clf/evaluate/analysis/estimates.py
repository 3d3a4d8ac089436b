"""Estimates on some posts, each with its interval: metrics, shares, means and changes."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import (
    UNDEFINED,
    Interval,
    ResampleWeights,
    RowGroups,
    compute_percentile_interval,
    compute_wilson_bounds,
    draw_resamples,
)
from miko_clf.metrics import decide_labels, measure_resamples

NUM_RESAMPLES = 1000
BOOTSTRAPPED_METRICS = ("macro_f1", "auroc")
"""Metrics whose interval is a bootstrap's; that of a share is Wilson's (1927), which holds at 0."""

RowMask = Bool[np.ndarray, " row"]


class DecidedPosts(NamedTuple):
    """Posts with their answers: probabilities (row, label), and what was decided of each."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None
    groups: RowGroups = None

    @property
    def wrong(self) -> RowMask:
        """Which posts are decided wrongly."""
        return self.decided != self.truth

    def of(self, rows: RowMask | Int[np.ndarray, " some"]) -> "DecidedPosts":
        """Return these rows alone."""
        groups = self.groups
        return self._replace(
            probabilities=self.probabilities[rows],
            truth=self.truth[rows],
            decided=self.decided[rows],
            groups=None if groups is None else np.unique(groups[rows], return_inverse=True)[1],
        )


def decide_posts(predictions: SystemPredictions) -> DecidedPosts:
    """Return the posts as the system judges them."""
    return DecidedPosts(
        predictions.probabilities,
        predictions.truth,
        predictions.decided,
        predictions.question.positive,
        predictions.groups,
    )


def measure_posts(
    rows: DecidedPosts, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return accuracy, macro-F1, AUROC and, of a positive class, error rates; NaN if undefined."""
    weights = draw_resamples(len(rows.truth), num_resamples, seed, rows.groups)
    every = np.ones(len(rows.truth), dtype=bool)
    accuracy = estimate_share(~rows.wrong, every, weights, rows.groups)
    measured = {"accuracy": accuracy, **bootstrap_decided_posts(rows, weights)}
    if rows.positive is None:
        return measured
    negative = rows.truth != rows.positive
    for kind, among in (("positive", negative), ("negative", ~negative)):
        measured[f"false_{kind}_rate"] = estimate_share(rows.wrong, among, weights, rows.groups)
    return measured


def bootstrap_decided_posts(
    rows: DecidedPosts, weights: ResampleWeights, names: Sequence[str] = BOOTSTRAPPED_METRICS
) -> dict[str, Interval]:
    """Return the metrics of `names` with their percentile interval over the resamples."""
    return drop_still_bounds(bound_columns(names, measure_on_resamples(rows, weights, names)))


def drop_still_bounds(bounded: Mapping[str, Interval]) -> dict[str, Interval]:
    """Return the intervals, the bounds NaN where no resample differs from the rows.

    So it is with few rows that are all ranked rightly: such resamples say nothing of other posts.
    """
    return {
        name: interval if interval.low < interval.high else UNDEFINED._replace(value=interval.value)
        for name, interval in bounded.items()
    }


def measure_on_resamples(
    rows: DecidedPosts, weights: ResampleWeights, names: Sequence[str] = BOOTSTRAPPED_METRICS
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics of `names` on every resample."""
    return measure_resamples(
        rows.probabilities,
        rows.truth,
        weights,
        positive=rows.positive,
        decided=rows.decided,
        names=names,
    )


def bound_columns(
    names: Sequence[str], values: Float[np.ndarray, "resample metric"]
) -> dict[str, Interval]:
    """Return each column's interval; the first row is of the posts as they are."""
    return {
        name: compute_percentile_interval(column[0], column[1:])
        for name, column in zip(names, values.T, strict=True)
    }


def estimate_share(
    hits: RowMask, among: RowMask, weights: ResampleWeights, groups: RowGroups
) -> Interval:
    """Return the share of hits `among` some rows, NaN where there are none.

    The interval is Wilson's where no two are of one group, else that of `bound_clustered_share`.
    """
    total = int(among.sum())
    if not total:
        return UNDEFINED
    num_units = total if groups is None else len(np.unique(groups[among]))
    if num_units < total:
        return bound_clustered_share(hits & among, among, weights, num_units)
    share = int((hits & among).sum()) / total
    return Interval(share, *compute_wilson_bounds(share, total))


def bound_clustered_share(
    hits: np.ndarray, totals: np.ndarray, weights: ResampleWeights, num_units: int
) -> Interval:
    """Return all hits over all totals, and the percentiles of that on resamples of whole units.

    No resample differs where every row is a hit, or none: there it is Wilson's over the units.
    """
    with np.errstate(invalid="ignore"):  # a resample may hold none of the rows
        shares = (weights @ hits) / (weights @ totals)
    share = float(shares[0])
    if share in (0.0, 1.0):
        return Interval(share, *compute_wilson_bounds(share, num_units))
    return compute_percentile_interval(share, shares[1:])


def estimate_share_gap(
    hits: RowMask, one: RowMask, other: RowMask, weights: ResampleWeights, groups: RowGroups
) -> Interval:
    """Return the share of hits among `one` minus that among `other`.

    Where rows have groups the interval is of both shares on the same resamples. Without, and where
    a share is 0 or 1 on all of them, it is made of the intervals of both: Newcombe (Statistics in
    Medicine 1998), method 10.
    """
    a, b = (estimate_share(hits, rows, weights, groups) for rows in (one, other))
    value = a.value - b.value
    if groups is not None and not {a.value, b.value} & {0.0, 1.0}:
        with np.errstate(invalid="ignore"):
            of_one, of_other = (
                (weights[1:] @ (hits & rows)) / (weights[1:] @ rows) for rows in (one, other)
            )
        return compute_percentile_interval(value, of_one - of_other)
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, low, high)


def bootstrap_mean(
    values: Float[np.ndarray, " row"], num_resamples: int, groups: RowGroups
) -> Interval:
    """Return the mean of the rows and its percentile interval."""
    weights = draw_resamples(len(values), num_resamples, 0, groups)
    means = weights @ values / weights.sum(1)
    return compute_percentile_interval(means[0], means[1:])


def bootstrap_metric_changes(
    a: Float[np.ndarray, "row label"],
    b: Float[np.ndarray, "row label"],
    predictions: SystemPredictions,
    names: Sequence[str],
    num_resamples: int,
) -> dict[str, Interval]:
    """Return each metric of the probabilities a minus that of b, on the same resamples."""
    weights = draw_resamples(len(predictions.truth), num_resamples, 0, predictions.groups)
    positive = predictions.question.positive
    of_a, of_b = (
        measure_resamples(
            probabilities,
            predictions.truth,
            weights,
            positive=positive,
            decided=decide_labels(
                probabilities, positive=positive, threshold=predictions.threshold
            ),
            names=names,
        )
        for probabilities in (a, b)
    )
    return bound_columns(names, of_a - of_b)
