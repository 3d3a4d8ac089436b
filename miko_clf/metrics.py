"""The metrics of every report, on rows as they are and on many resamples at once, in NumPy.

A resample is how often it holds each row, and the rows as they are hold each once. Scores are
sorted once and weights summed, so that a thousand resamples of five seeds take half a second.
torchmetrics, which has no weights, is what the tests compare every figure with.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from miko_clf.bundle import loosen_threshold
from miko_clf.intervals import ResampleWeights

METRIC_NAMES = ("accuracy", "macro_f1", "positive_f1", "auroc", "average_precision", "ece")
LABEL_METRIC_NAMES = (
    "subset_accuracy",
    "macro_f1",
    "micro_f1",
    "auroc",
    "average_precision",
    "ece",
)  # where any number of labels may hold
_CELLS = 8_000_000  # of weights that are worked on at a time

_Values = Float[np.ndarray, " resample"]
_Mask = Bool[np.ndarray, " row"]
_Scores = Float[np.ndarray, " row"]
_Ranking = Callable[[_Scores, _Mask, ResampleWeights], tuple[_Values, _Values]]
"""Returns a sum over rows, or pairs of them, and of how many it is."""


class _Rows(NamedTuple):
    """Scored rows; `decided` and `truth` are indices of labels."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None
    bins: int
    strata: Int[np.ndarray, " row"]

    @property
    def num_labels(self) -> int:
        return self.probabilities.shape[1]


class _LabelRows(NamedTuple):
    """Rows any number of whose labels may hold; `decided` is which of them are decided for."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Bool[np.ndarray, "row label"]
    decided: Bool[np.ndarray, "row label"]
    bins: int


def list_metrics(positive: int | None) -> tuple[str, ...]:
    """Return the metrics that exist with, or without, a positive class."""
    return tuple(name for name in METRIC_NAMES if name != "positive_f1" or positive is not None)


def decide_labels(
    probabilities: Float[np.ndarray, "row label"],
    *,
    positive: int | None,
    threshold: float | Float[np.ndarray, " row"] | None = None,
) -> Int[np.ndarray, " row"]:
    """Return the class each row is decided for.

    With a `positive` class of two: that class where its probability reaches `threshold` (.5 if
    none is given), which may be one for each row; a tie does, as `bundle.reaching` says. Without
    one: the most probable class.
    """
    if positive is None:
        assert threshold is None, "a threshold needs a positive class"
        return probabilities.argmax(1)
    assert probabilities.shape[1] == 2, "a positive class needs exactly two classes"
    limit = loosen_threshold(np.asarray(0.5 if threshold is None else threshold))
    return np.where(probabilities[:, positive] >= limit, positive, 1 - positive)


def check_probabilities(probabilities: Float[np.ndarray, "row label"]) -> None:
    """Raise `ValueError` for probabilities outside [0, 1], but for rounding, and for NaN."""
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")


def measure_classification(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    threshold: float | None = None,
    bins: int = 15,
    names: Collection[str] = METRIC_NAMES,
) -> dict[str, float]:
    """Return the metrics in `names`; one that the rows leave undefined is NaN, never a number.

    With a `positive` class: its F1, AUROC and average precision. Without: `positive_f1` is absent
    and AUROC and average precision are the mean over classes, one against the rest; they are NaN
    unless `truth` holds every class. Macro-F1 is the mean over the classes that are true or decided
    somewhere. ECE is of the confidence of the most probable class, in `bins` equal-width bins, and
    so does not depend on `threshold`. Raises ValueError for probabilities outside [0, 1].
    """
    assert probabilities.ndim == 2
    assert truth.shape == probabilities.shape[:1]
    assert len(truth)
    check_probabilities(probabilities)
    wanted = [name for name in list_metrics(positive) if name in names]
    values = measure_resamples(
        probabilities,
        truth,
        np.ones((1, len(truth)), dtype=np.int64),
        positive=positive,
        decided=decide_labels(probabilities, positive=positive, threshold=threshold),
        bins=bins,
        names=wanted,
    )
    return dict(zip(wanted, values[0].tolist(), strict=True))


def measure_multilabel(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, "row label"],
    *,
    thresholds: Sequence[float] | None = None,
    bins: int = 15,
    names: Collection[str] = LABEL_METRIC_NAMES,
) -> dict[str, float]:
    """Return the metrics in `names` of rows any number of whose labels may hold.

    A label is decided for where its probability reaches its threshold (.5 if none are given).
    Macro-F1 is the mean over the labels that are true or decided somewhere, AUROC and average
    precision the mean over those that hold in some rows and not in others, ECE over all. Subset
    accuracy counts the rows that are right in every label. What the rows leave undefined is NaN.
    Raises ValueError for probabilities outside [0, 1].
    """
    assert probabilities.shape == truth.shape
    assert len(truth)
    check_probabilities(probabilities)
    wanted = [name for name in LABEL_METRIC_NAMES if name in names]
    whole = np.ones((1, len(truth)), dtype=np.int64)
    values = measure_label_resamples(
        probabilities, truth, whole, thresholds=thresholds, bins=bins, names=wanted
    )
    return dict(zip(wanted, values[0].tolist(), strict=True))


def measure_resamples(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    weights: ResampleWeights,
    *,
    positive: int | None,
    decided: Int[np.ndarray, " row"] | None = None,
    strata: Int[np.ndarray, " row"] | None = None,
    bins: int = 15,
    names: Sequence[str] | None = None,
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics of `names` (all that exist by default) on each resample.

    `decided` is the label that each row is decided for, by default at .5, or the most probable.
    Where the rows stand in several `strata`, such as the folds of a cross-validation, AUROC and
    average precision rank a row among those of its own (Forman and Scholz, SIGKDD Explorations
    2010). NaN where a resample leaves a metric undefined.
    """
    if decided is None:
        decided = decide_labels(probabilities, positive=positive)
    if strata is None:
        strata = np.zeros(len(truth), dtype=np.int64)
    rows = _Rows(probabilities.astype(np.float64), truth, decided, positive, bins, strata)
    wanted = list_metrics(positive) if names is None else names
    return _measure_in_parts(rows, weights, [_MEASURES[name] for name in wanted])


def measure_label_resamples(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, "row label"],
    weights: ResampleWeights,
    *,
    thresholds: Sequence[float] | None = None,
    bins: int = 15,
    names: Sequence[str] = LABEL_METRIC_NAMES,
) -> Float[np.ndarray, "resample metric"]:
    """Return the metrics (or NaN) on each resample of rows any number of whose labels may hold."""
    limits = np.full(truth.shape[1], 0.5) if thresholds is None else np.asarray(thresholds)
    decided = probabilities >= loosen_threshold(limits)
    rows = _LabelRows(probabilities.astype(np.float64), truth == 1, decided, bins)
    return _measure_in_parts(rows, weights, [_LABEL_MEASURES[name] for name in names])


def _measure_in_parts(
    rows: Any, weights: ResampleWeights, measures: Sequence[Callable[[Any, Any], _Values]]
) -> Float[np.ndarray, "resample metric"]:
    step = max(1, _CELLS // weights.shape[1])
    parts = [weights[start : start + step] for start in range(0, len(weights), step)]
    return np.concatenate(
        [np.stack([measure(rows, part) for measure in measures], axis=1) for part in parts]
    )


def _accuracy(rows: _Rows, weights: ResampleWeights) -> _Values:
    return _ratio(weights @ (rows.decided == rows.truth), weights.sum(1))


def _macro_f1(rows: _Rows, weights: ResampleWeights) -> _Values:
    """Return the mean F1 over the labels that are true or decided somewhere in a resample."""
    labels = range(rows.num_labels)
    return _mean_of_defined([_f1(rows.truth == n, rows.decided == n, weights) for n in labels])


def _positive_f1(rows: _Rows, weights: ResampleWeights) -> _Values:
    assert rows.positive is not None
    return _f1(rows.truth == rows.positive, rows.decided == rows.positive, weights)


def _ece(rows: _Rows, weights: ResampleWeights) -> _Values:
    confidence = rows.probabilities.max(1).astype(np.float32)  # the bins of torchmetrics
    return _calibration_gap(confidence, rows.probabilities.argmax(1) == rows.truth, weights, rows)


def _rank_labels(rows: _Rows, weights: ResampleWeights, rank: _Ranking) -> _Values:
    """Return what holds of the positive label, or the mean over labels where there is none."""
    labels = range(rows.num_labels) if rows.positive is None else [rows.positive]
    values = [_rank_in_strata(rows, label, weights, rank) for label in labels]
    counts = [weights @ (rows.truth == label) for label in range(rows.num_labels)]
    lacks_label = (np.array(counts) == 0).any(0)
    return np.where(lacks_label, np.nan, np.mean(values, axis=0))


def _rank_in_strata(rows: _Rows, label: int, weights: ResampleWeights, rank: _Ranking) -> _Values:
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(rows.strata):
        here = rows.strata == stratum
        true = rows.truth[here] == label
        part, of_how_many = rank(rows.probabilities[here, label], true, weights[:, here])
        total, count = total + part, count + of_how_many
    return _ratio(total, count)


def _subset_accuracy(rows: _LabelRows, weights: ResampleWeights) -> _Values:
    return _ratio(weights @ (rows.decided == rows.truth).all(1), weights.sum(1))


def _label_macro_f1(rows: _LabelRows, weights: ResampleWeights) -> _Values:
    columns = zip(rows.truth.T, rows.decided.T, strict=True)
    return _mean_of_defined([_f1(true, decided, weights) for true, decided in columns])


def _micro_f1(rows: _LabelRows, weights: ResampleWeights) -> _Values:
    both = weights @ (rows.truth & rows.decided).sum(1)
    return _ratio(2 * both, weights @ (rows.truth.sum(1) + rows.decided.sum(1)))


def _label_ece(rows: _LabelRows, weights: ResampleWeights) -> _Values:
    columns = zip(rows.probabilities.T, rows.truth.T, strict=True)
    return np.mean([_calibration_gap(*column, weights, rows) for column in columns], axis=0)


def _rank_each_label(rows: _LabelRows, weights: ResampleWeights, rank: _Ranking) -> _Values:
    """Return the mean over the labels that hold in some rows of a resample and not in others."""
    values = []
    for scores, true in zip(rows.probabilities.T, rows.truth.T, strict=True):
        ranked = _ratio(*rank(scores, true, weights))
        values.append(np.where((weights @ true > 0) & (weights @ ~true > 0), ranked, np.nan))
    return _mean_of_defined(values)


def _f1(true: _Mask, decided: _Mask, weights: ResampleWeights) -> _Values:
    """Return the F1 of a label, NaN where no row is true or decided for it."""
    return _ratio(2 * (weights @ (true & decided)), weights @ true + weights @ decided)


def _count_wins(scores: _Scores, true: _Mask, weights: ResampleWeights) -> tuple[_Values, _Values]:
    """Return how many pairs of a true row and another the scores order rightly, and all pairs."""
    yes, no = _weigh_scores(scores, true, weights)
    below = np.cumsum(no, axis=1) - no / 2  # half a win for a tie
    return (yes * below).sum(1), yes.sum(1) * no.sum(1)


def _sum_precision(
    scores: _Scores, true: _Mask, weights: ResampleWeights
) -> tuple[_Values, _Values]:
    """Return the sum over true rows of the precision at their cut, and how many they are."""
    yes, no = (part[:, ::-1] for part in _weigh_scores(scores, true, weights))
    hits = np.cumsum(yes, axis=1)
    precision = _ratio(hits, hits + np.cumsum(no, axis=1))
    return (np.nan_to_num(precision) * yes).sum(1), yes.sum(1)


def _weigh_scores(
    scores: _Scores, true: _Mask, weights: ResampleWeights
) -> tuple[Float[np.ndarray, "resample score"], Float[np.ndarray, "resample score"]]:
    """Return the weight of true and of other rows at each distinct score, lowest first."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sorted_weights = weights[:, order].astype(np.float64)
    yes = np.add.reduceat(sorted_weights * true[order], starts, axis=1)
    return yes, np.add.reduceat(sorted_weights, starts, axis=1) - yes


def _calibration_gap(
    stated: _Scores, right: _Mask, weights: ResampleWeights, rows: _Rows | _LabelRows
) -> _Values:
    """Return the gap of what is stated and what is right over bins of equal width."""
    edges = np.linspace(0, 1, rows.bins + 1, dtype=stated.dtype)
    places = np.searchsorted(edges, stated.clip(0, 1), side="right") - 1
    in_bin = np.eye(rows.bins + 1)[places]  # a bin of its own for 1 itself
    gaps = np.abs(weights @ (in_bin * (stated - right)[:, None])).sum(1)
    return _ratio(gaps, weights.sum(1))


def _mean_of_defined(values: Sequence[_Values]) -> _Values:
    """Return the mean over labels of what is defined in each resample."""
    table = np.array(values)
    defined = ~np.isnan(table)
    return _ratio(np.where(defined, table, 0).sum(0), defined.sum(0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is nothing."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


_MEASURES: dict[str, Callable[[_Rows, ResampleWeights], _Values]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "positive_f1": _positive_f1,
    "auroc": partial(_rank_labels, rank=_count_wins),
    "average_precision": partial(_rank_labels, rank=_sum_precision),
    "ece": _ece,
}
_LABEL_MEASURES: dict[str, Callable[[_LabelRows, ResampleWeights], _Values]] = {
    "subset_accuracy": _subset_accuracy,
    "macro_f1": _label_macro_f1,
    "micro_f1": _micro_f1,
    "auroc": partial(_rank_each_label, rank=_count_wins),
    "average_precision": partial(_rank_each_label, rank=_sum_precision),
    "ece": _label_ece,
}
