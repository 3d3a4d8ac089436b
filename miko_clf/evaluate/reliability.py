"""Whether the probabilities mean what they say, before and after calibration, on a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from miko_clf import intervals, metrics
from miko_clf.bundle import Calibration, ConformalQuantiles, ThresholdFit
from miko_clf.evaluate.calibration import calibrate_question, select_conformal_labels
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.evaluate.thresholds import measure_threshold
from miko_clf.intervals import Interval

_NUM_BINS = 15
_LEVEL = 0.95

_Rows = Float[np.ndarray, "row label"]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of like probability: the mean of what was stated, and the share that came true."""

    stated: float
    true: float
    rows: int


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

    `ece` and `reliability` have `before` (the softmax of the bare logits) and `after`. `reached`
    is what the threshold gives on these rows, `on_validation` what it gave there.
    """

    method: str
    aim: str
    threshold: float | None
    ece: Mapping[str, Interval]
    reliability: Mapping[str, Sequence[ReliabilityBin]]
    prior: float | None
    reached: Mapping[str, float | bool | None] | None
    on_validation: Mapping[str, float | bool | None] | None
    conformal: Abstention | None


def measure_calibration(subject: SystemPredictions, num_resamples: int = 1000) -> CalibrationReport:
    """Return the findings of a subject in its usual arm.

    Intervals are those of the bootstrap over rows; before and after share their resamples. Bins
    are of the probability of the positive class or, where there are more than two, of the most
    probable one.
    """
    places = {one.name: place for place, one in enumerate(subject.opened.questions)}
    fitted = subject.opened.calibrations[places[subject.question.name]]
    logits = subject.predictor.logits(subject.arm)[:, subject.span]
    bare = Calibration(temperature=1, positive=fitted.positive, arm=fitted.arm, thresholds={})
    sides = {
        "before": calibrate_question(logits, subject.question, bare),
        "after": subject.probabilities,
    }
    random = np.random.default_rng(0)
    weights = intervals.draw_weights(len(subject.truth), num_resamples, random)
    return CalibrationReport(
        method=fitted.method,
        aim=fitted.aim.line(),
        threshold=subject.threshold,
        ece={side: _ece(rows, subject, weights) for side, rows in sides.items()},
        reliability={side: _bins(rows, subject) for side, rows in sides.items()},
        prior=fitted.prior,
        reached=_reached(subject, fitted),
        on_validation=_plain(fitted.reached.get(subject.arm)),
        conformal=_abstention(subject, fitted.conformal, weights),
    )


def _ece(rows: _Rows, subject: SystemPredictions, weights: intervals.ResampleWeights) -> Interval:
    with_whole = np.concatenate([np.ones_like(weights[:1]), weights])
    positive = subject.question.positive
    found = metrics.measure_resamples(
        rows, subject.truth, with_whole, positive=positive, names=["ece"]
    )
    return _interval(float(found[0, 0]), found[1:, 0])


def _interval(value: float, resampled: Float[np.ndarray, " resample"]) -> Interval:
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _bins(rows: _Rows, subject: SystemPredictions) -> list[ReliabilityBin]:
    positive = subject.question.positive
    if positive is None:
        said, true = rows.max(1), rows.argmax(1) == subject.truth
    else:
        said, true = rows[:, positive], subject.truth == positive
    places = np.digitize(said, np.linspace(0, 1, _NUM_BINS + 1)[1:-1])
    held = [places == place for place in np.unique(places)]
    return [
        ReliabilityBin(float(said[b].mean()), float(true[b].mean()), int(b.sum())) for b in held
    ]


def _reached(
    subject: SystemPredictions, fitted: Calibration
) -> Mapping[str, float | bool | None] | None:
    positive = subject.question.positive
    if positive is None or subject.threshold is None:
        return None
    rows, truth = subject.probabilities[:, positive], subject.truth == positive
    return _plain(measure_threshold(rows, truth, subject.threshold, fitted.aim))


def _plain(found: object) -> Mapping[str, float | bool | None] | None:
    return found.model_dump() if isinstance(found, ThresholdFit) else None


def _abstention(
    subject: SystemPredictions,
    fitted: ConformalQuantiles | None,
    weights: intervals.ResampleWeights,
) -> Abstention | None:
    if fitted is None or subject.arm not in fitted.quantiles:
        return None
    held = select_conformal_labels(subject.probabilities, fitted.quantiles[subject.arm])
    places: Int[np.ndarray, " row"] = np.arange(len(held))
    covered = held[places, subject.truth]
    unsure = ~(held[places, subject.decided] & (held.sum(1) == 1))
    coverage, abstained = (
        _interval(float(each.mean()), weights @ each / len(each)) for each in (covered, unsure)
    )
    return Abstention(fitted.level, coverage, abstained)
