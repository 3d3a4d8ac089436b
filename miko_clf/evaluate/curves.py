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
from miko_clf.intervals import Interval, ResampleWeights, draw_resamples, draw_weights

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
    found: dict[str, list[_Heights]] = {name: [] for name in _CURVES}
    for label in labels:
        parts = [
            _cuts(probabilities[here, label], truth[here] == label, weights[:, here])
            for here in (strata == stratum for stratum in np.unique(strata))
        ]
        for name, (of_one, share) in _CURVES.items():
            found[name].append(
                _mean_over_strata([of_one(each) for each in parts], [*map(share, parts)])
            )
    return {name: np.mean(each, axis=0) for name, each in found.items()}


def _mean_over_strata(
    parts: list[_Heights], shares: list[Float[np.ndarray, " resample"]]
) -> _Heights:
    """Return the mean over strata; one that has no curve has no share."""
    total = np.sum(shares, axis=0)[:, None]
    sums = np.sum(
        [np.where(share[:, None] > 0, part * share[:, None], 0)
         for part, share in zip(parts, shares, strict=True)], axis=0,
    )  # fmt: skip
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def _cuts(
    scores: Float[np.ndarray, " row"], true: Bool[np.ndarray, " row"], weights: ResampleWeights
) -> _Cuts:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of rows that are tied
    hits = np.cumsum(weights[:, order] * true[order], axis=1)[:, last]
    misses = np.cumsum(weights[:, order] * ~true[order], axis=1)[:, last]
    return _Cuts(hits.astype(np.float64), misses.astype(np.float64))


def _roc(cuts: _Cuts) -> _Heights:
    """Return the true-positive rates; NaN where a resample lacks true rows, or others."""
    return np.array([
        np.interp(CURVE_GRID, np.append(0, misses) / misses[-1], np.append(0, hits) / hits[-1])
        if hits[-1] and misses[-1] else np.full(len(CURVE_GRID), np.nan)
        for hits, misses in zip(*cuts, strict=True)
    ])  # fmt: skip


def _precision_recall(cuts: _Cuts) -> _Heights:
    """Return the precisions at the recalls; NaN where a resample lacks true rows, or others."""
    return np.array([
        _at_recalls(hits, misses) if hits[-1] and misses[-1] else np.full(len(CURVE_GRID), np.nan)
        for hits, misses in zip(*cuts, strict=True)
    ])  # fmt: skip


def _at_recalls(
    hits: Float[np.ndarray, " cut"], misses: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " place"]:
    # hits are whole numbers: half a row asks for one, without which precision is undefined
    first = np.searchsorted(hits, np.maximum(CURVE_GRID * hits[-1] - 1e-9, 0.5), side="left")
    precision: Float[np.ndarray, " place"] = hits[first] / (hits[first] + misses[first])
    return precision


def _pairs(cuts: _Cuts) -> Float[np.ndarray, " resample"]:
    return cuts.hits[:, -1] * cuts.misses[:, -1]


def _true(cuts: _Cuts) -> Float[np.ndarray, " resample"]:
    return np.where(cuts.misses[:, -1] > 0, cuts.hits[:, -1], 0)


_CURVES: dict[
    str, tuple[Callable[[_Cuts], _Heights], Callable[[_Cuts], Float[np.ndarray, " resample"]]]
] = {"roc": (_roc, _pairs), "precision_recall": (_precision_recall, _true)}

_LOSSES = 200  # points of a stage's training loss that are kept


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
    subject: SystemPredictions, *, num_resamples: int = 1000, seed: int = 0
) -> SystemCurves:
    """Return the curves of a system with their bands, 95 % at each place by itself.

    Bands are percentiles over bootstrap resamples of the `heights`. Half a second for 1000
    resamples of 354.
    """
    truth, said = subject.truth, subject.probabilities
    weights = draw_weights(len(truth), num_resamples, np.random.default_rng(seed))
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    positive, labels = subject.question.positive, list(subject.question.labels)
    found = measure_curve_heights(said, truth, weights, positive=positive)
    metrics = bootstrap_scores(
        said, truth, positive=positive, num_resamples=num_resamples, seed=seed
    )
    return SystemCurves(
        roc=_band(found["roc"]),
        precision_recall=_band(found["precision_recall"]),
        area={"roc": metrics["auroc"], "precision_recall": metrics["average_precision"]},
        confusion=_confusion(truth, subject.decided, len(labels)),
        labels=labels,
        learning=read_training_log(subject.opened.path / bundle.METRICS_FILE),
    )


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, of each stage at most 200 that hold but a loss."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    kept: list[dict[str, Any]] = []
    for stage in dict.fromkeys(line.get("stage") for line in lines):
        here = [line for line in lines if line.get("stage") == stage]
        bare = [line for line in here if not line.get("validation")]
        thin = {id(line) for line in bare[:: -(-len(bare) // _LOSSES) or 1]}
        kept += [line for line in here if line.get("validation") or id(line) in thin]
    return kept


def _confusion(
    truth: Int[np.ndarray, " row"], decided: Int[np.ndarray, " row"], num_labels: int
) -> list[list[int]]:
    found: list[list[int]] = confusion_matrix(truth, decided, labels=range(num_labels)).tolist()
    return found


def _band(found: _Heights) -> list[CurvePoint]:
    """Return the curve of the rows as they are, which come first, and its band."""
    if np.isnan(found[0]).any():
        return []
    value, drawn = found[0], found[1:][~np.isnan(found[1:]).any(1)]
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0) if len(drawn) else [value * np.nan] * 2
    rows = zip(
        CURVE_GRID.tolist(), value.tolist(), *(map(float, each) for each in bounds), strict=True
    )
    return [CurvePoint(*row) for row in rows]


_NUM_RESAMPLES = 200  # a band takes a variance from them, no quantile


def measure_seed_curves(
    arms: Sequence[SeedArm],
    truth: Int[np.ndarray, " row"],
    *,
    positive: int | None,
    groups: Int[np.ndarray, " row"] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return, for each system and arm, its points (x, y, low, high) of both curves.

    The mean over seeds at each place of `heights.GRID`, with the 95 % interval that `seeds.gap`
    gives it there. A curve that some seed does not have is empty. A tenth of a second a seed and
    arm for 354 rows.
    """
    weights = draw_resamples(len(truth), _NUM_RESAMPLES, seed, groups)
    return [
        {
            "system": arm.system,
            "arm": arm.arm,
            **_curves_of_arm(arm.seeds, truth, weights, positive),
        }
        for arm in arms
    ]


def _curves_of_arm(
    seeds: Sequence[SeedPredictions],
    truth: Int[np.ndarray, " row"],
    weights: Int[np.ndarray, "resample row"],
    positive: int | None,
) -> dict[str, list[dict[str, float]]]:
    every = [
        measure_curve_heights(
            one.probabilities, truth, weights, positive=positive, strata=one.strata
        )
        for one in seeds
    ]
    found = {}
    for name in every[0]:
        values = np.stack([each[name] for each in every], axis=1)  # (resample, seed, place)
        defined = not np.isnan(values[0]).any()
        found[name] = (
            [_point_over_seeds(x, values[..., at]) for at, x in enumerate(CURVE_GRID)]
            if defined
            else []
        )
    return found


def _point_over_seeds(x: float, values: np.ndarray) -> dict[str, float]:
    """Return a place of a curve from its heights, (resample, seed), the rows as they are first."""
    at = summarise_metric(SeedMetric(values[0], values[1:]))
    named = {"x": x, "y": at.mean, "low": at.low, "high": at.high}
    return {name: round(float(each), 4) for name, each in named.items()}
