"""Bootstrap intervals of metrics and of their paired differences on the same rows."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from miko_clf import intervals, metrics
from miko_clf.intervals import Interval, RowGroups, compute_percentile_interval

_Truth = Int[np.ndarray, " row"] | Int[np.ndarray, "row label"]
DecisionThresholds = float | Sequence[float] | None  # of the positive class, or of each label


def _bootstrap_statistic(
    statistic: Callable[[Int[np.ndarray, " row"]], Float[np.ndarray, " metric"]],
    names: Sequence[str],
    groups: RowGroups,
    num_rows: int,
    num_resamples: int,
    seed: int,
    level: float,
) -> dict[str, Interval]:
    """Return the percentile interval of each metric that `statistic` computes from row numbers."""
    values = statistic(np.arange(num_rows))
    members = _list_group_rows(groups, num_rows)
    if len(members) < 2:
        bare = zip(names, values, strict=True)
        return {name: Interval(float(value), np.nan, np.nan) for name, value in bare}
    with warnings.catch_warnings():
        # scipy warns of an undefined resample; `_percentile` leaves those out and logs it
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (np.arange(len(members)),),
            lambda numbers: statistic(np.concatenate([members[each] for each in numbers])),
            n_resamples=num_resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # (metric, resample)
    return {
        name: compute_percentile_interval(name, float(value), sample, level)
        for name, value, sample in zip(names, values, drawn, strict=True)
    }


def _list_group_rows(groups: RowGroups, num_rows: int) -> list[Int[np.ndarray, " member"]]:
    if groups is None:
        return list(np.arange(num_rows)[:, None])
    return [np.flatnonzero(groups == number) for number in range(int(groups.max()) + 1)]


def _measure_draws(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    positive: int | None,
    threshold: Any,
    names: Sequence[str],
    groups: RowGroups,
    num_resamples: int,
    seed: int,
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics on the rows as they are, then on each resample of them."""
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")
    units = len(truth) if groups is None else int(groups.max()) + 1
    weights = intervals.draw_resamples(len(truth), num_resamples if units > 1 else 0, seed, groups)
    decided = metrics.decide_labels(probabilities, positive=positive, threshold=threshold)
    return metrics.measure_resamples(
        probabilities, truth, weights, positive=positive, decided=decided, names=names
    )


def _bound_metrics(
    drawn: Float[np.ndarray, "resample metric"], names: Sequence[str], level: float
) -> dict[str, Interval]:
    return {
        name: compute_percentile_interval(name, float(values[0]), values[1:], level)
        for name, values in zip(names, drawn.T, strict=True)
    }


def bootstrap_scores(
    probabilities: Float[np.ndarray, "row label"],
    truth: _Truth,
    *,
    positive: int | None,
    threshold: DecisionThresholds = None,
    groups: RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return every metric with its percentile interval over rows, all from the same resamples.

    A resample on which a metric is undefined is left out of that metric, and the log says how many
    were. The bounds are NaN where the metric is undefined on the rows themselves or there is but
    one row. `truth` (row, label) is 1 for each label that holds, and `threshold` then has one for
    each. Rows of one of the `groups` are drawn together, as posts of a thread are alike.
    """
    if truth.ndim == 1:
        assert threshold is None or isinstance(threshold, float)
        names = metrics.list_metrics(positive)
        return _bound_metrics(
            _measure_draws(
                probabilities, truth, positive, threshold, names, groups, num_resamples, seed
            ),
            names,
            level,
        )
    names = metrics.LABEL_METRIC_NAMES

    def statistic(rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, " metric"]:
        assert not isinstance(threshold, float)
        scores = metrics.measure_multilabel(probabilities[rows], truth[rows], thresholds=threshold)
        return np.array(list(scores.values()))

    return _bootstrap_statistic(statistic, names, groups, len(truth), num_resamples, seed, level)


def bootstrap_paired_difference(
    a_probabilities: Float[np.ndarray, "row label"],
    b_probabilities: Float[np.ndarray, "row label"],
    truth: _Truth,
    *,
    positive: int | None,
    threshold: float | tuple[DecisionThresholds, DecisionThresholds] | None = None,
    groups: RowGroups = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    metric: str = "macro_f1",
) -> Interval:
    """Return `metric` of a minus `metric` of b, both on the same rows of every resample.

    `threshold` is one for both or one for each; `groups` are as `bootstrap` takes them.
    """
    assert a_probabilities.shape == b_probabilities.shape, "a pair needs the same rows"
    a_threshold, b_threshold = threshold if isinstance(threshold, tuple) else (threshold,) * 2
    if truth.ndim == 1:
        a, b = (
            _measure_draws(
                probabilities, truth, positive, limit, [metric], groups, num_resamples, seed
            )
            for probabilities, limit in (
                (a_probabilities, a_threshold),
                (b_probabilities, b_threshold),
            )
        )
        return _bound_metrics(a - b, [metric], level)[metric]

    def score(
        probabilities: Float[np.ndarray, "row label"],
        rows: Int[np.ndarray, " row"],
        threshold: DecisionThresholds,
    ) -> float:
        assert not isinstance(threshold, float)
        said, held = probabilities[rows], truth[rows]
        return metrics.measure_multilabel(said, held, thresholds=threshold, names=[metric])[metric]

    def statistic(rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, " metric"]:
        difference = score(a_probabilities, rows, a_threshold)
        return np.array([difference - score(b_probabilities, rows, b_threshold)])

    found = _bootstrap_statistic(
        statistic, [metric], groups, len(truth), num_resamples, seed, level
    )
    return found[metric]


class MetricDifference(NamedTuple):
    """`metric` of `a` minus `metric` of `b` on the same rows."""

    a: str
    b: str
    metric: str
    interval: Interval
