"""ROC, precision-recall and training curves, of one system and of systems over seeds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import confusion_matrix

from miko_clf import bundle
from miko_clf.evaluate.bootstrap import bootstrap_scores
from miko_clf.evaluate.comparison import SeedArm
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.evaluate.seeds import SeedMetric, SeedPredictions, summarise_metric
from miko_clf.intervals import (
    Interval,
    ResampleWeights,
    RowGroups,
    compute_percentile_interval,
    draw_resamples,
)

_MAX_LOSSES = 200  # points of a stage's training loss that are kept
_NUM_SEED_RESAMPLES = 200  # a band over seeds takes a variance from them, no quantile
CURVE_GRID = np.linspace(0, 1, 101)
"""Where along a curve its height is told: false-positive rates, or recalls."""

_Heights = Float[np.ndarray, "resample place"]


class _Cuts(NamedTuple):
    """How many true and other rows reach each distinct score, highest score first."""

    hits: Float[np.ndarray, "resample cut"]
    misses: Float[np.ndarray, "resample cut"]


def measure_curve_heights(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"],
    weights: ResampleWeights,
    *,
    positive: int | None,
    strata: Int[np.ndarray, " row"] | None = None,
) -> dict[str, _Heights]:
    """Return the height of both curves at each place of `CURVE_GRID`, for each resample.

    Of more than two labels each is told from the rest and the curve is their mean (vertical
    averaging; Fawcett 2006, section 8.2). Precision is that at the first cut whose recall is
    enough, for a straight line between cuts would flatter (Davis and Goadrich, 2006). Rows of
    different `strata` are not ranked among each other: the curve is the mean over strata, by their
    pairs of a true row and another, or by their true rows, so that it encloses the AUROC of
    `measure_resamples`. NaN where a resample lacks true rows, or others.
    """
    labels = range(probabilities.shape[1]) if positive is None else [positive]
    if strata is None:
        strata = np.zeros(len(truth), dtype=np.int64)
    heights: dict[str, list[_Heights]] = {name: [] for name in _CURVES}
    for label in labels:
        parts = [
            _count_at_cuts(probabilities[here, label], truth[here] == label, weights[:, here])
            for here in (strata == stratum for stratum in np.unique(strata))
        ]
        for name, (draw, share) in _CURVES.items():
            curves = [_draw_defined(cuts, draw) for cuts in parts]
            heights[name].append(_mean_over_strata(curves, [*map(share, parts)]))
    return {name: np.mean(of_labels, axis=0) for name, of_labels in heights.items()}


def _mean_over_strata(
    parts: list[_Heights], shares: list[Float[np.ndarray, " resample"]]
) -> _Heights:
    """Return the mean over strata; one that has no curve has no share."""
    total = np.sum(shares, axis=0)[:, None]
    pairs = [(part, share[:, None]) for part, share in zip(parts, shares, strict=True)]
    sums = np.sum([np.where(share > 0, part * share, 0) for part, share in pairs], axis=0)
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def _count_at_cuts(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: ResampleWeights
) -> _Cuts:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of rows that are tied
    hits = np.cumsum(weights[:, order] * true[order], axis=1)[:, last]
    misses = np.cumsum(weights[:, order] * ~true[order], axis=1)[:, last]
    return _Cuts(hits.astype(np.float64), misses.astype(np.float64))


def _draw_defined(cuts: _Cuts, draw: Callable[..., Float[np.ndarray, " place"]]) -> _Heights:
    """Return each resample's curve; NaN where it lacks true rows, or others."""
    undefined = np.full(len(CURVE_GRID), np.nan)
    return np.array(
        [
            draw(hits, misses) if hits[-1] and misses[-1] else undefined
            for hits, misses in zip(*cuts, strict=True)
        ]
    )


def _find_hit_rate(
    hits: Float[np.ndarray, " cut"], misses: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " place"]:
    return np.interp(CURVE_GRID, np.append(0, misses) / misses[-1], np.append(0, hits) / hits[-1])


def _find_precision(
    hits: Float[np.ndarray, " cut"], misses: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " place"]:
    # hits are whole numbers: half a row asks for one, without which precision is undefined
    first = np.searchsorted(hits, np.maximum(CURVE_GRID * hits[-1] - 1e-9, 0.5), side="left")
    return hits[first] / (hits[first] + misses[first])


# what draws a curve, and what share a stratum has in it: its pairs, or its true rows
_CURVES: dict[str, tuple[Callable[..., np.ndarray], Callable[[_Cuts], np.ndarray]]] = {
    "roc": (_find_hit_rate, lambda cuts: cuts.hits[:, -1] * cuts.misses[:, -1]),
    "precision_recall": (
        _find_precision,
        lambda cuts: np.where(cuts.misses[:, -1] > 0, cuts.hits[:, -1], 0),
    ),
}


@dataclass(frozen=True)
class CurvePoint:
    """The height of a curve at `x`, and the bounds that the bootstrap puts around it there."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class SystemCurves:
    """Curves of one system on labelled posts; `confusion` (label, decided) counts posts.

    `learning` are lines of the bundle's `metrics.jsonl`, with the training losses thinned.
    """

    roc: list[CurvePoint]
    precision_recall: list[CurvePoint]
    area: dict[str, Interval]
    confusion: list[list[int]]
    labels: list[str]
    learning: list[dict[str, Any]]


def measure_curves(
    predictions: SystemPredictions, *, num_resamples: int = 1000, seed: int = 0
) -> SystemCurves:
    """Return the curves of a system with their bands, 95 % at each place by itself.

    Bands are percentiles over bootstrap resamples of posts, or whole groups of them. Half a second
    for 1000 resamples of 354.
    """
    truth, probabilities, groups = predictions.truth, predictions.probabilities, predictions.groups
    positive, labels = predictions.question.positive, list(predictions.question.labels)
    weights = draw_resamples(len(truth), num_resamples, seed, groups)
    heights = measure_curve_heights(probabilities, truth, weights, positive=positive)
    metrics = bootstrap_scores(
        probabilities,
        truth,
        positive=positive,
        groups=groups,
        num_resamples=num_resamples,
        seed=seed,
    )
    return SystemCurves(
        roc=_bound_curve(heights["roc"]),
        precision_recall=_bound_curve(heights["precision_recall"]),
        area={"roc": metrics["auroc"], "precision_recall": metrics["average_precision"]},
        confusion=confusion_matrix(truth, predictions.decided, labels=range(len(labels))).tolist(),
        labels=labels,
        learning=read_training_log(predictions.opened.path / bundle.METRICS_FILE),
    )


def _bound_curve(heights: _Heights) -> list[CurvePoint]:
    """Return the curve of the rows, which come first, and its band over resamples that have one."""
    if np.isnan(heights[0]).any():
        return []
    resampled = heights[1:][~np.isnan(heights[1:]).any(1)]
    bands = map(compute_percentile_interval, heights[0], resampled.T)
    return [CurvePoint(x, *band) for x, band in zip(CURVE_GRID.tolist(), bands, strict=True)]


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, of each stage at most 200 that hold but a loss."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    thinned: list[dict[str, Any]] = []
    for stage in dict.fromkeys(line.get("stage") for line in lines):
        here = [line for line in lines if line.get("stage") == stage]
        bare = [line for line in here if not line.get("validation")]
        thin = {id(line) for line in bare[:: -(-len(bare) // _MAX_LOSSES) or 1]}
        thinned += [line for line in here if line.get("validation") or id(line) in thin]
    return thinned


def measure_seed_curves(
    arms: Sequence[SeedArm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: RowGroups = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return, for each system and arm, its points (x, y, low, high) of both curves.

    The mean over seeds at each place of `CURVE_GRID`, with the 95 % interval of
    `summarise_metric` there. A curve that some seed does not have is empty. A tenth of a second a
    seed and arm for 354 rows.
    """
    weights = draw_resamples(len(truth), _NUM_SEED_RESAMPLES, seed, groups)
    return [
        {"system": arm.system, "arm": arm.arm, **_average(arm.seeds, truth, weights, positive)}
        for arm in arms
    ]


def _average(
    seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    weights: ResampleWeights,
    positive: int | None,
) -> dict[str, list[dict[str, float]]]:
    of_seeds = [
        measure_curve_heights(s.probabilities, truth, weights, positive=positive, strata=s.strata)
        for s in seeds
    ]
    curves = {}
    for name in _CURVES:
        heights = np.stack([curve[name] for curve in of_seeds], axis=1)  # (resample, seed, place)
        defined = not np.isnan(heights[0]).any()
        places = enumerate(CURVE_GRID if defined else ())
        curves[name] = [_average_point(x, heights[..., at]) for at, x in places]
    return curves


def _average_point(x: float, heights: Float[np.ndarray, "resample seed"]) -> dict[str, float]:
    """Return a place of a curve from its heights, the rows as they are first."""
    at = summarise_metric(SeedMetric(heights[0], heights[1:]))
    point = {"x": x, "y": at.mean, "low": at.low, "high": at.high}
    return {name: round(float(value), 4) for name, value in point.items()}
