"""All metrics on many resamples of the same rows at once.

A resample is how often it holds each row. The figures are those of `metrics.classification` on the
rows repeated as often. Rows are sorted once and weights summed, so that a thousand resamples of
five seeds take half a second.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from miko_clf import metrics

Weights = Int[np.ndarray, "resample row"]
Values = Float[np.ndarray, " resample"]
Ranking = Callable[[Any, Any, Weights], tuple[Values, Values]]  # the sum, and of how many
_CELLS = 8_000_000  # of weights that are worked on at a time


class _Rows(NamedTuple):
    """Scored rows; `decided` and `truth` are indices of labels."""

    probabilities: Float[np.ndarray, "row label"]
    truth: Int[np.ndarray, " row"]
    decided: Int[np.ndarray, " row"]
    positive: int | None
    bins: int
    strata: Int[np.ndarray, " row"]


def draw(num_rows: int, num_resamples: int, random: np.random.Generator) -> Weights:
    """Return how often each of the bootstrap's resamples holds each row."""
    return counted(random.integers(0, num_rows, (num_resamples, num_rows)), num_rows)


def counted(rows: Int[np.ndarray, "resample drawn"], num_rows: int) -> Weights:
    """Return how often each resample of row numbers holds each row."""
    places = rows + num_rows * np.arange(len(rows))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(rows) * num_rows)
    return counts.reshape(len(rows), num_rows)


def measure(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    weights: Weights,
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
        decided = metrics.decide(probabilities, positive=positive)
    if strata is None:
        strata = np.zeros(len(truth), dtype=np.int64)
    rows = _Rows(probabilities.astype(np.float64), truth, decided, positive, bins, strata)
    wanted = metrics.names_for(positive) if names is None else names
    step = max(1, _CELLS // len(truth))
    parts = [
        np.stack([_MEASURES[name](rows, weights[start : start + step]) for name in wanted], axis=1)
        for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts)


def _accuracy(rows: _Rows, weights: Weights) -> Values:
    return _ratio(weights @ (rows.decided == rows.truth), weights.sum(1))


def _macro_f1(rows: _Rows, weights: Weights) -> Values:
    """Return the mean F1 over the labels that are true or decided somewhere in a resample."""
    each = [_f1(rows, weights, label) for label in range(rows.probabilities.shape[1])]
    total, seen = (np.array(part) for part in zip(*each, strict=True))
    return _ratio(np.where(seen > 0, total, 0).sum(0), (seen > 0).sum(0))


def _positive_f1(rows: _Rows, weights: Weights) -> Values:
    assert rows.positive is not None
    found, seen = _f1(rows, weights, rows.positive)
    return np.where(seen > 0, found, np.nan)


def _f1(rows: _Rows, weights: Weights, label: int) -> tuple[Values, Values]:
    """Return the F1 of a label, and how many rows are true or decided for it."""
    true, decided = rows.truth == label, rows.decided == label
    both, seen = weights @ (true & decided), weights @ true + weights @ decided
    return _ratio(2 * both, seen), seen


def _auroc(rows: _Rows, weights: Weights) -> Values:
    return _over_labels(rows, weights, _area)


def _average_precision(rows: _Rows, weights: Weights) -> Values:
    return _over_labels(rows, weights, _precision)


def _over_labels(rows: _Rows, weights: Weights, of_two: Ranking) -> Values:
    """Return what holds of the positive label, or the mean over labels where there is none."""
    labels = range(rows.probabilities.shape[1]) if rows.positive is None else [rows.positive]
    each = [_over_strata(rows, label, weights, of_two) for label in labels]
    counts = [weights @ (rows.truth == label) for label in range(rows.probabilities.shape[1])]
    lacks = (np.array(counts) == 0).any(0)
    return np.where(lacks, np.nan, np.mean(each, axis=0))


def _over_strata(rows: _Rows, label: int, weights: Weights, of_two: Ranking) -> Values:
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(rows.strata):
        here = rows.strata == stratum
        true = rows.truth[here] == label
        found = of_two(rows.probabilities[here, label], true, weights[:, here])
        total, count = total + found[0], count + found[1]
    return _ratio(total, count)


def _area(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: Weights
) -> tuple[Values, Values]:
    """Return how many pairs of a true row and another the scores order rightly, and all pairs."""
    yes, no = _tied(scores, true, weights)
    below = np.cumsum(no, axis=1) - no / 2  # half a win for a tie
    return (yes * below).sum(1), yes.sum(1) * no.sum(1)


def _precision(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: Weights
) -> tuple[Values, Values]:
    """Return the sum over true rows of the precision at their cut, and how many they are."""
    yes, no = (part[:, ::-1] for part in _tied(scores, true, weights))
    hits = np.cumsum(yes, axis=1)
    precision = _ratio(hits, hits + np.cumsum(no, axis=1))
    return (np.nan_to_num(precision) * yes).sum(1), yes.sum(1)


def _tied(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: Weights
) -> tuple[Float[np.ndarray, "resample score"], Float[np.ndarray, "resample score"]]:
    """Return the weight of true and of other rows at each distinct score, lowest first."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    sorted_weights = weights[:, order].astype(np.float64)
    yes = np.add.reduceat(sorted_weights * true[order], starts, axis=1)
    return yes, np.add.reduceat(sorted_weights, starts, axis=1) - yes


def _ece(rows: _Rows, weights: Weights) -> Values:
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


_MEASURES: dict[str, Callable[[_Rows, Weights], Values]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "positive_f1": _positive_f1,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "ece": _ece,
}
