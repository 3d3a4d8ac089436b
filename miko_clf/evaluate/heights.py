"""Heights of the ROC curve and of the precision-recall curve over resamples of the rows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from miko_clf.evaluate.weighted import Weights

GRID = np.linspace(0, 1, 101)
"""Where along a curve its height is told: false-positive rates, or recalls."""

Heights = Float[np.ndarray, "resample place"]


class _Cuts(NamedTuple):
    """How many true and other rows reach each distinct score, highest score first."""

    hits: Float[np.ndarray, "resample cut"]
    misses: Float[np.ndarray, "resample cut"]


def heights(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    weights: Weights,
    *,
    positive: int | None,
    strata: Int[np.ndarray, " row"] | None = None,
) -> dict[str, Heights]:
    """Return the height of both curves at each place of `GRID`, for each resample.

    Of more than two labels each is told from the rest and the curve is their mean (vertical
    averaging; Fawcett 2006, section 8.2). Precision is that at the first cut whose recall is
    enough, for a straight line between cuts would flatter (Davis and Goadrich, 2006). Rows of
    different `strata` are not ranked among each other: the curve is the mean over strata, by their
    pairs of a true row and another, or by their true rows, so that it encloses the AUROC of
    `weighted.measure`. NaN where a resample lacks true rows, or others.
    """
    labels = range(probabilities.shape[1]) if positive is None else [positive]
    if strata is None:
        strata = np.zeros(len(truth), dtype=np.int64)
    found: dict[str, list[Heights]] = {name: [] for name in _CURVES}
    for label in labels:
        parts = [
            _cuts(probabilities[here, label], truth[here] == label, weights[:, here])
            for here in (strata == stratum for stratum in np.unique(strata))
        ]
        for name, (of_one, share) in _CURVES.items():
            found[name].append(_mean([of_one(each) for each in parts], [*map(share, parts)]))
    return {name: np.mean(each, axis=0) for name, each in found.items()}


def _mean(parts: list[Heights], shares: list[Float[np.ndarray, " resample"]]) -> Heights:
    """Return the mean over strata; one that has no curve has no share."""
    total = np.sum(shares, axis=0)[:, None]
    sums = np.sum(
        [np.where(share[:, None] > 0, part * share[:, None], 0)
         for part, share in zip(parts, shares, strict=True)], axis=0,
    )  # fmt: skip
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def _cuts(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: Weights
) -> _Cuts:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of rows that are tied
    hits = np.cumsum(weights[:, order] * true[order], axis=1)[:, last]
    misses = np.cumsum(weights[:, order] * ~true[order], axis=1)[:, last]
    return _Cuts(hits.astype(np.float64), misses.astype(np.float64))


def _roc(cuts: _Cuts) -> Heights:
    """Return the true-positive rates; NaN where a resample lacks true rows, or others."""
    return np.array([
        np.interp(GRID, np.append(0, misses) / misses[-1], np.append(0, hits) / hits[-1])
        if hits[-1] and misses[-1] else np.full(len(GRID), np.nan)
        for hits, misses in zip(*cuts, strict=True)
    ])  # fmt: skip


def _precision(cuts: _Cuts) -> Heights:
    """Return the precisions at the recalls; NaN where a resample lacks true rows, or others."""
    return np.array([
        _at_recalls(hits, misses) if hits[-1] and misses[-1] else np.full(len(GRID), np.nan)
        for hits, misses in zip(*cuts, strict=True)
    ])  # fmt: skip


def _at_recalls(
    hits: Float[np.ndarray, " cut"], misses: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " place"]:
    # hits are whole numbers: half a row asks for one, without which precision is undefined
    first = np.searchsorted(hits, np.maximum(GRID * hits[-1] - 1e-9, 0.5), side="left")
    precision: Float[np.ndarray, " place"] = hits[first] / (hits[first] + misses[first])
    return precision


def _pairs(cuts: _Cuts) -> Float[np.ndarray, " resample"]:
    return cuts.hits[:, -1] * cuts.misses[:, -1]


def _true(cuts: _Cuts) -> Float[np.ndarray, " resample"]:
    return np.where(cuts.misses[:, -1] > 0, cuts.hits[:, -1], 0)


_CURVES: dict[
    str, tuple[Callable[[_Cuts], Heights], Callable[[_Cuts], Float[np.ndarray, " resample"]]]
] = {"roc": (_roc, _pairs), "precision_recall": (_precision, _true)}
