"""Whether the probabilities mean what they say, before and after calibration, on a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from miko_clf.bundle import Calibration, ConformalQuantiles, ThresholdFit
from miko_clf.evaluate.analysis.estimates import estimate_share
from miko_clf.evaluate.calibration import calibrate_question, select_conformal_labels
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.evaluate.thresholds import measure_threshold
from miko_clf.intervals import (
    Interval,
    ResampleWeights,
    compute_percentile_interval,
    draw_resamples,
)
from miko_clf.metrics import measure_resamples

NUM_BINS = 15
_NUM_DRAWS, _DRAWS_AT_ONCE = 1000, 50

_Rows = Float[np.ndarray, "row label"]


class ReliabilityBin(TypedDict):
    """Rows of like probability: the mean stated, the share that came true, its interval if grouped.

    Without groups the interval is Wilson's, which needs but these figures.
    """

    stated: float
    true: float
    rows: int
    low: NotRequired[float]
    high: NotRequired[float]


class CalibrationTest(NamedTuple):
    """The ECE that chance alone gives to probabilities that mean what they say.

    `expected` is its mean and `limit` what it stays under 95 times in 100; `p` is how often it is
    as large as the one measured, or larger.
    """

    expected: float
    limit: float
    p: float


@dataclass(frozen=True)
class Abstention:
    """Conformal sets on a split: how often they hold the label, and how many posts are unsure.

    Coverage is expected to be `level`; a post is abstained from where the decided label does not
    stand alone in its set.
    """

    level: float
    coverage: Interval
    abstained: Interval


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration and threshold, fitted on validation, give on the rows of a split.

    `ece`, `by_chance` and `reliability` have `before` (the softmax of the bare logits) and `after`.
    An ECE is above 0 on any sample, so its interval says nothing of 0; `by_chance` does. `reached`
    is what the threshold gives on these rows, `on_validation` what it gave there.
    """

    method: str
    aim: str
    threshold: float | None
    ece: Mapping[str, Interval]
    by_chance: Mapping[str, CalibrationTest]
    reliability: Mapping[str, Sequence[ReliabilityBin]]
    prior: float | None
    reached: Mapping[str, float | bool | None] | None
    on_validation: Mapping[str, float | bool | None] | None
    conformal: Abstention | None


def measure_calibration(
    predictions: SystemPredictions, num_resamples: int = 1000
) -> CalibrationReport:
    """Return what calibration gives in the usual arm of a system.

    Intervals are those of the bootstrap over posts, or whole groups of them; before and after share
    their resamples. Bins are of the probability of the positive class or, where there are more than
    two, of the most probable one.
    """
    names = [question.name for question in predictions.opened.questions]
    fitted = predictions.opened.calibrations[names.index(predictions.question.name)]
    logits = predictions.predictor.logits(predictions.arm)[:, predictions.span]
    bare = Calibration(temperature=1, positive=fitted.positive, arm=fitted.arm, thresholds={})
    sides = {
        "before": calibrate_question(logits, predictions.question, bare),
        "after": predictions.probabilities,
    }
    weights = draw_resamples(len(predictions.truth), num_resamples, 0, predictions.groups)
    fit = fitted.reached.get(predictions.arm)
    return CalibrationReport(
        method=fitted.method,
        aim=fitted.aim.line(),
        threshold=predictions.threshold,
        ece={side: _bound_ece(rows, predictions, weights) for side, rows in sides.items()},
        by_chance={
            side: compute_calibration_test(rows, predictions.truth) for side, rows in sides.items()
        },
        reliability={side: _list_bins(rows, predictions, weights) for side, rows in sides.items()},
        prior=fitted.prior,
        reached=_measure_reached(predictions, fitted),
        on_validation=fit.model_dump() if isinstance(fit, ThresholdFit) else None,
        conformal=_measure_abstention(predictions, fitted.conformal, weights),
    )


def compute_calibration_test(
    probabilities: _Rows, truth: Int[np.ndarray, " row"], seed: int = 0
) -> CalibrationTest:
    """Return what chance gives to the ECE if the most probable class is right as often as stated.

    Whether it is right is drawn anew from what was stated, 1,000 times (consistency resampling;
    Bröcker and Smith, Weather and Forecasting 2007). Rows count as independent, so among posts of
    one group the test finds too much.
    """
    stated = probabilities.max(1)
    bins = np.eye(NUM_BINS, dtype=np.float32)[find_bins(stated)]  # (row, bin)
    random, expected = np.random.default_rng(seed), stated @ bins

    def measure(right: Bool[np.ndarray, "draw row"]) -> Float[np.ndarray, " draw"]:
        gaps: Float[np.ndarray, " draw"] = np.abs(right.astype(np.float32) @ bins - expected)
        return gaps.sum(1) / len(stated)

    parts = [
        measure(random.random((_DRAWS_AT_ONCE, len(stated))) < stated)
        for _ in range(_NUM_DRAWS // _DRAWS_AT_ONCE)
    ]
    by_chance, (seen,) = np.concatenate(parts), measure((probabilities.argmax(1) == truth)[None])
    p = (1 + int((by_chance >= seen).sum())) / (1 + len(by_chance))
    return CalibrationTest(float(by_chance.mean()), float(np.quantile(by_chance, 0.95)), p)


def pair_with_truth(
    probabilities: _Rows,
    truth: Int[np.ndarray, " row"] | Int[np.ndarray, "row label"],
    positive: int | None,
) -> tuple[Float[np.ndarray, " stated"], Bool[np.ndarray, " stated"]]:
    """Return what was stated, and whether it came true.

    Of the class `positive`; where that is None, of the most probable one, and of every label where
    `truth` (row, label) says of each whether it holds.
    """
    if truth.ndim == 2:
        return probabilities.ravel(), truth.ravel() == 1
    if positive is None:
        return probabilities.max(1), probabilities.argmax(1) == truth
    return probabilities[:, positive], truth == positive


def find_bins(stated: Float[np.ndarray, " stated"]) -> Int[np.ndarray, " stated"]:
    """Return which of `NUM_BINS` bins of equal width each probability falls into."""
    return np.digitize(stated, np.linspace(0, 1, NUM_BINS + 1)[1:-1])


def _bound_ece(rows: _Rows, predictions: SystemPredictions, weights: ResampleWeights) -> Interval:
    positive = predictions.question.positive
    drawn = measure_resamples(rows, predictions.truth, weights, positive=positive, names=["ece"])
    return compute_percentile_interval(drawn[0, 0], drawn[1:, 0])


def _list_bins(
    rows: _Rows, predictions: SystemPredictions, weights: ResampleWeights
) -> list[ReliabilityBin]:
    groups, bins = predictions.groups, []
    stated, true = pair_with_truth(rows, predictions.truth, predictions.question.positive)
    places = find_bins(stated)
    for inside in (places == place for place in np.unique(places)):
        mean, share = float(stated[inside].mean()), float(true[inside].mean())
        row = ReliabilityBin(stated=mean, true=share, rows=int(inside.sum()))
        if groups is not None:
            _, row["low"], row["high"] = estimate_share(true, inside, weights, groups)
        bins.append(row)
    return bins


def _measure_reached(
    predictions: SystemPredictions, fitted: Calibration
) -> Mapping[str, float | bool | None] | None:
    positive = predictions.question.positive
    if positive is None or predictions.threshold is None:
        return None
    rows, truth = predictions.probabilities[:, positive], predictions.truth == positive
    return measure_threshold(rows, truth, predictions.threshold, fitted.aim).model_dump()


def _measure_abstention(
    predictions: SystemPredictions, fitted: ConformalQuantiles | None, weights: ResampleWeights
) -> Abstention | None:
    if fitted is None or predictions.arm not in fitted.quantiles:
        return None
    in_set = select_conformal_labels(predictions.probabilities, fitted.quantiles[predictions.arm])
    rows = np.arange(len(in_set))
    covered = in_set[rows, predictions.truth]
    unsure = ~(in_set[rows, predictions.decided] & (in_set.sum(1) == 1))
    drawn = [weights @ held / weights.sum(1) for held in (covered, unsure)]
    coverage, abstained = (compute_percentile_interval(share[0], share[1:]) for share in drawn)
    return Abstention(fitted.level, coverage, abstained)
