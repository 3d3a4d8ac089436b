"""The metrics of every report, on rows as they are and on many resamples at once.

A resample is how often it holds each row. The figures are those of `metrics.classification` on the
rows repeated as often. Rows are sorted once and weights summed, so that a thousand resamples of
five seeds take half a second.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torchmetrics.functional.classification as measure
from jaxtyping import Bool, Float, Int
from torch import Tensor

from miko_clf.bundle import loosen_threshold
from miko_clf.intervals import ResampleWeights


class _Scored(NamedTuple):
    """Rows as torchmetrics takes them; `decision` is the class that was decided for."""

    probabilities: Tensor  # (row, label)
    truth: Tensor
    decision: Tensor
    positive: int | None
    bins: int

    @property
    def num_labels(self) -> int:
        return self.probabilities.shape[1]

    @property
    def lacks_a_class(self) -> bool:
        """Whether some class has nothing to be ranked above, or below."""
        return len(self.truth.unique()) < self.num_labels


def _accuracy(rows: _Scored) -> float:
    return float(measure.multiclass_accuracy(*_decided(rows), average="micro", validate_args=False))


def _macro_f1(rows: _Scored) -> float:
    return float(measure.multiclass_f1_score(*_decided(rows), average="macro", validate_args=False))


def _positive_f1(rows: _Scored) -> float:
    assert rows.positive is not None
    decided = torch.eq(rows.decision, rows.positive).long()
    true = torch.eq(rows.truth, rows.positive).long()
    if not (decided.any() or true.any()):
        return math.nan
    return float(measure.binary_f1_score(decided, true, validate_args=False))


def _auroc(rows: _Scored) -> float:
    return _ranking(rows, measure.binary_auroc, measure.multiclass_auroc)


def _average_precision(rows: _Scored) -> float:
    return _ranking(rows, measure.binary_average_precision, measure.multiclass_average_precision)


def _ece(rows: _Scored) -> float:
    return float(
        measure.multiclass_calibration_error(
            rows.probabilities,
            rows.truth,
            rows.num_labels,
            n_bins=rows.bins,
            norm="l1",
            validate_args=False,
        )
    )


def _decided(rows: _Scored) -> tuple[Tensor, Tensor, int]:
    return rows.decision, rows.truth, rows.num_labels


def _ranking(rows: _Scored, of_two: Callable[..., Tensor], of_many: Callable[..., Tensor]) -> float:
    if rows.lacks_a_class:
        return math.nan
    if rows.positive is None:
        given = (rows.probabilities, rows.truth, rows.num_labels)
        return float(of_many(*given, average="macro", validate_args=False))
    score = rows.probabilities[:, rows.positive]
    return float(of_two(score, torch.eq(rows.truth, rows.positive).long(), validate_args=False))


_MEASURES: dict[str, Callable[[_Scored], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "positive_f1": _positive_f1,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "ece": _ece,
}
METRIC_NAMES = tuple(_MEASURES)


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
        most_probable: Int[np.ndarray, " row"] = probabilities.argmax(1)
        return most_probable
    assert probabilities.shape[1] == 2, "a positive class needs exactly two classes"
    limit = loosen_threshold(np.asarray(0.5 if threshold is None else threshold))
    reached = probabilities[:, positive] >= limit
    return np.where(reached, positive, 1 - positive)


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
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")
    rows = _Scored(
        # torchmetrics takes anything above 1, be it by rounding, for logits
        torch.from_numpy(probabilities.clip(0, 1)),
        torch.from_numpy(truth),
        torch.from_numpy(decide_labels(probabilities, positive=positive, threshold=threshold)),
        positive,
        bins,
    )
    return {name: _MEASURES[name](rows) for name in list_metrics(positive) if name in names}


class _Held(NamedTuple):
    """Rows any number of whose labels may hold; `decision` is which of them are decided for."""

    probabilities: Tensor  # (row, label), as truth and decision
    truth: Tensor
    decision: Tensor
    bins: int

    def of(self, labels: Tensor) -> "_Held":
        """Return the columns of these labels alone."""
        return self._replace(
            probabilities=self.probabilities[:, labels],
            truth=self.truth[:, labels],
            decision=self.decision[:, labels],
        )


def _label_macro_f1(rows: _Held) -> float:
    known = rows.of((rows.truth | rows.decision).any(0))
    return _mean_over_labels(measure.multilabel_f1_score, known.decision, known.truth)


def _micro_f1(rows: _Held) -> float:
    if not (rows.truth | rows.decision).any():
        return math.nan
    given = (rows.decision.long(), rows.truth.long(), rows.truth.shape[1])
    return float(measure.multilabel_f1_score(*given, average="micro", validate_args=False))


def _label_auroc(rows: _Held) -> float:
    known = rows.of(rows.truth.any(0) & ~rows.truth.all(0))
    return _mean_over_labels(measure.multilabel_auroc, known.probabilities, known.truth)


def _mean_average_precision(rows: _Held) -> float:
    known = rows.of(rows.truth.any(0) & ~rows.truth.all(0))
    return _mean_over_labels(measure.multilabel_average_precision, known.probabilities, known.truth)


def _subset_accuracy(rows: _Held) -> float:
    return float(torch.eq(rows.decision, rows.truth).all(1).double().mean())


def _label_ece(rows: _Held) -> float:
    found = [
        measure.binary_calibration_error(
            stated.contiguous(), held.long(), n_bins=rows.bins, norm="l1", validate_args=False
        )
        for stated, held in zip(rows.probabilities.T, rows.truth.T, strict=True)
    ]
    return float(torch.stack(found).double().mean())


def _mean_over_labels(score: Callable[..., Tensor], said: Tensor, truth: Tensor) -> float:
    """Return the mean over labels, which torchmetrics takes for a vector where there is but one."""
    if not truth.shape[1]:
        return math.nan
    said = said.long() if said.dtype == torch.bool else said
    given = (said, truth.long(), truth.shape[1])
    return float(score(*given, average="macro", validate_args=False))


_LABEL_MEASURES: dict[str, Callable[[_Held], float]] = {
    "subset_accuracy": _subset_accuracy,
    "macro_f1": _label_macro_f1,
    "micro_f1": _micro_f1,
    "auroc": _label_auroc,
    "average_precision": _mean_average_precision,
    "ece": _label_ece,
}
LABEL_METRIC_NAMES = tuple(_LABEL_MEASURES)


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
    if not ((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all():  # also false for NaN
        raise ValueError("probabilities hold NaN or lie outside [0, 1]")
    limits = np.full(truth.shape[1], 0.5) if thresholds is None else np.asarray(thresholds)
    rows = _Held(
        torch.from_numpy(probabilities.clip(0, 1)),
        torch.from_numpy(truth.astype(bool)),
        torch.from_numpy(probabilities >= loosen_threshold(limits)),
        bins,
    )
    return {name: _LABEL_MEASURES[name](rows) for name in LABEL_METRIC_NAMES if name in names}


_Values = Float[np.ndarray, " resample"]
_Ranking = Callable[
    [Any, Any, ResampleWeights], tuple[_Values, _Values]
]  # the sum, and of how many
_CELLS = 8_000_000  # of weights that are worked on at a time


class _ResampledRows(NamedTuple):
    """Scored rows; `decided` and `truth` are indices of labels."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None
    bins: int
    strata: Int[np.ndarray, " row"]


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
    rows = _ResampledRows(probabilities.astype(np.float64), truth, decided, positive, bins, strata)
    wanted = list_metrics(positive) if names is None else names
    step = max(1, _CELLS // len(truth))
    parts = [
        np.stack(
            [_RESAMPLED_MEASURES[name](rows, weights[start : start + step]) for name in wanted],
            axis=1,
        )
        for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts)


def _resampled_accuracy(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    return _ratio(weights @ (rows.decided == rows.truth), weights.sum(1))


def _resampled_macro_f1(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    """Return the mean F1 over the labels that are true or decided somewhere in a resample."""
    each = [_resampled_f1(rows, weights, label) for label in range(rows.probabilities.shape[1])]
    total, seen = (np.array(part) for part in zip(*each, strict=True))
    return _ratio(np.where(seen > 0, total, 0).sum(0), (seen > 0).sum(0))


def _resampled_positive_f1(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    assert rows.positive is not None
    found, seen = _resampled_f1(rows, weights, rows.positive)
    return np.where(seen > 0, found, np.nan)


def _resampled_f1(
    rows: _ResampledRows, weights: ResampleWeights, label: int
) -> tuple[_Values, _Values]:
    """Return the F1 of a label, and how many rows are true or decided for it."""
    true, decided = rows.truth == label, rows.decided == label
    both, seen = weights @ (true & decided), weights @ true + weights @ decided
    return _ratio(2 * both, seen), seen


def _resampled_auroc(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    return _resampled_over_labels(rows, weights, _area)


def _resampled_average_precision(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    return _resampled_over_labels(rows, weights, _precision)


def _resampled_over_labels(
    rows: _ResampledRows, weights: ResampleWeights, of_two: _Ranking
) -> _Values:
    """Return what holds of the positive label, or the mean over labels where there is none."""
    labels = range(rows.probabilities.shape[1]) if rows.positive is None else [rows.positive]
    each = [_over_strata(rows, label, weights, of_two) for label in labels]
    counts = [weights @ (rows.truth == label) for label in range(rows.probabilities.shape[1])]
    lacks = (np.array(counts) == 0).any(0)
    return np.where(lacks, np.nan, np.mean(each, axis=0))


def _over_strata(
    rows: _ResampledRows, label: int, weights: ResampleWeights, of_two: _Ranking
) -> _Values:
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(rows.strata):
        here = rows.strata == stratum
        true = rows.truth[here] == label
        found = of_two(rows.probabilities[here, label], true, weights[:, here])
        total, count = total + found[0], count + found[1]
    return _ratio(total, count)


def _area(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: ResampleWeights
) -> tuple[_Values, _Values]:
    """Return how many pairs of a true row and another the scores order rightly, and all pairs."""
    yes, no = _tied(scores, true, weights)
    below = np.cumsum(no, axis=1) - no / 2  # half a win for a tie
    return (yes * below).sum(1), yes.sum(1) * no.sum(1)


def _precision(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: ResampleWeights
) -> tuple[_Values, _Values]:
    """Return the sum over true rows of the precision at their cut, and how many they are."""
    yes, no = (part[:, ::-1] for part in _tied(scores, true, weights))
    hits = np.cumsum(yes, axis=1)
    precision = _ratio(hits, hits + np.cumsum(no, axis=1))
    return (np.nan_to_num(precision) * yes).sum(1), yes.sum(1)


def _tied(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: ResampleWeights
) -> tuple[Float[np.ndarray, "resample score"], Float[np.ndarray, "resample score"]]:
    """Return the weight of true and of other rows at each distinct score, lowest first."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sorted_weights = weights[:, order].astype(np.float64)
    yes = np.add.reduceat(sorted_weights * true[order], starts, axis=1)
    return yes, np.add.reduceat(sorted_weights, starts, axis=1) - yes


def _resampled_ece(rows: _ResampledRows, weights: ResampleWeights) -> _Values:
    """Return the gap of confidence and accuracy over bins of equal width, by their rows."""
    confidence = rows.probabilities.max(1).astype(np.float32)
    right = rows.probabilities.argmax(1) == rows.truth
    edges = np.linspace(0, 1, rows.bins + 1, dtype=np.float32)
    places = np.searchsorted(edges, confidence, side="right") - 1
    held = np.eye(rows.bins + 1)[places]  # (row, bin)
    gaps = np.abs(weights @ (held * (confidence - right)[:, None])).sum(1)
    return _ratio(gaps, weights.sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is nothing."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


_RESAMPLED_MEASURES: dict[str, Callable[[_ResampledRows, ResampleWeights], _Values]] = {
    "accuracy": _resampled_accuracy,
    "macro_f1": _resampled_macro_f1,
    "positive_f1": _resampled_positive_f1,
    "auroc": _resampled_auroc,
    "average_precision": _resampled_average_precision,
    "ece": _resampled_ece,
}
