"""Bootstrap intervals of metrics and of their paired differences on the same rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from miko_clf import intervals, metrics

DecisionThresholds = float | Sequence[float] | None  # of the positive class, or of each label
_Truth = Int[np.ndarray, " row"] | Int[np.ndarray, "row label"]


class MetricDifference(NamedTuple):
    """`metric` of `a` minus `metric` of `b` on the same rows."""

    a: str
    b: str
    metric: str
    interval: intervals.Interval


def bootstrap_scores(
    probabilities: Float[np.ndarray, "row label"],
    truth: _Truth,
    *,
    positive: int | None,
    threshold: DecisionThresholds = None,
    groups: intervals.RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, intervals.Interval]:
    """Return every metric with its percentile interval over rows, all from the same resamples.

    A resample on which a metric is undefined is left out of that metric, and the log says how many
    were. The bounds are NaN where the metric is undefined on the rows themselves or there is but
    one row. `truth` (row, label) is 1 for each label that holds, and `threshold` then has one for
    each. Rows of one of the `groups` are drawn together, as posts of a thread are alike.
    """
    one_holds = truth.ndim == 1
    names = metrics.list_metrics(positive) if one_holds else metrics.LABEL_METRIC_NAMES
    weights = intervals.draw_resamples(len(truth), num_resamples, seed, groups)
    values = _measure_draws(probabilities, truth, weights, positive, threshold, names)
    return {
        name: intervals.compute_percentile_interval(column[0], column[1:], level, name)
        for name, column in zip(names, values.T, strict=True)
    }


def bootstrap_paired_difference(
    a_probabilities: Float[np.ndarray, "row label"],
    b_probabilities: Float[np.ndarray, "row label"],
    truth: _Truth,
    *,
    positive: int | None,
    threshold: float | tuple[DecisionThresholds, DecisionThresholds] | None = None,
    groups: intervals.RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    metric: str = "macro_f1",
) -> intervals.Interval:
    """Return `metric` of a minus that of b on the same resamples; `threshold`: of both, or each."""
    assert a_probabilities.shape == b_probabilities.shape, "a pair needs the same rows"
    a_threshold, b_threshold = threshold if isinstance(threshold, tuple) else (threshold,) * 2
    weights = intervals.draw_resamples(len(truth), num_resamples, seed, groups)
    a = _measure_draws(a_probabilities, truth, weights, positive, a_threshold, [metric])
    b = _measure_draws(b_probabilities, truth, weights, positive, b_threshold, [metric])
    difference = (a - b)[:, 0]
    return intervals.compute_percentile_interval(difference[0], difference[1:], level, metric)


def _measure_draws(
    probabilities: Float[np.ndarray, "row label"],
    truth: _Truth,
    weights: intervals.ResampleWeights,
    positive: int | None,
    threshold: Any,
    names: Sequence[str],
) -> Float[np.ndarray, "resample metric"]:
    metrics.check_probabilities(probabilities)
    if truth.ndim == 2:
        return metrics.measure_label_resamples(
            probabilities, truth, weights, thresholds=threshold, names=names
        )
    decided = metrics.decide_labels(probabilities, positive=positive, threshold=threshold)
    return metrics.measure_resamples(
        probabilities, truth, weights, positive=positive, decided=decided, names=names
    )
