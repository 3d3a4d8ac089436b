"""Thresholds for a stated aim, fitted on validation rows only."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import confusion_matrix, confusion_matrix_at_thresholds

from miko_clf.bundle import TIE_TOLERANCE, ThresholdAim, ThresholdFit, loosen_threshold

FEWEST_FIT_ROWS = 10
_NUM_RESAMPLES = 200
_ROUNDING = 1e-12  # 7 rows of 100 are a share of .07, whatever a float64 makes of it

_Scores = Float[np.ndarray, " row"]
_Positive = Bool[np.ndarray, " row"] | Int[np.ndarray, " row"]


def lacks_evidence(truth: _Positive) -> bool:
    """Say whether rows are fewer than `FEWEST_FIT_ROWS`, or all of one class."""
    return len(truth) < FEWEST_FIT_ROWS or bool((truth == truth[0]).all())


def fit_threshold(
    positive_probabilities: _Scores, positive_truth: _Positive, aim: ThresholdAim | None = None
) -> float:
    """Return the threshold on the probability of the positive class that serves the aim best.

    For macro-F1 (the default) and the F1 of the positive class it is the mean over bootstrap
    resamples of each one's best threshold (bagging; Breiman 1996), because the best threshold of
    a few hundred rows chases their noise. For recall at a precision, under a cap of the
    false-positive rate or of the share of all rows (capacity), it is the one of the most recall
    among those that keep to it on these rows; where none does, one that no row reaches. For cost
    it is where both errors cost the same, whatever the rows (Elkan, IJCAI 2001). `positive_truth`
    is 1 for the positive class. Otherwise fewer than `FEWEST_FIT_ROWS` rows, or rows of one
    class, give .5.
    """
    aim = aim or ThresholdAim()
    truth = positive_truth.astype(np.int64)
    assert truth.shape == positive_probabilities.shape
    assert np.isin(truth, (0, 1)).all()
    if aim.name == "cost":
        assert aim.value is not None
        return aim.value
    if lacks_evidence(truth):
        return 0.5
    if aim.name in ("macro_f1", "f1"):
        return _bag_best_f1(positive_probabilities, truth, both=aim.name == "macro_f1")
    return _find_most_recall(positive_probabilities, truth, aim)


def fit_label_thresholds(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, "row label"],
    labels: Sequence[str],
    aim: ThresholdAim | None = None,
) -> dict[str, float]:
    """Return each label's threshold; macro-F1 is the mean of their F1, so each has its best F1."""
    own = get_label_aim(aim or ThresholdAim())
    columns = zip(labels, probabilities.T, truth.T, strict=True)
    return {label: fit_threshold(stated, holds, own) for label, stated, holds in columns}


def get_label_aim(aim: ThresholdAim) -> ThresholdAim:
    """Return what an aim over labels asks of each one."""
    return ThresholdAim(name="f1") if aim.name == "macro_f1" else aim


def measure_threshold(
    positive_probabilities: _Scores, positive_truth: _Positive, threshold: float, aim: ThresholdAim
) -> ThresholdFit:
    """Return what a threshold gives, and whether it meets the aim, as one without a number does."""
    truth = positive_truth.astype(np.int64)
    decided = (positive_probabilities >= loosen_threshold(threshold)).astype(np.int64)
    (tn, fp), (fn, tp) = confusion_matrix(truth, decided, labels=[0, 1]).tolist()
    precision, recall, rate = _divide(tp, tp + fp), _divide(tp, tp + fn), _divide(fp, fp + tn)
    value = 0.5 if aim.value is None else aim.value
    own, other = _divide(2 * tp, 2 * tp + fp + fn), _divide(2 * tn, 2 * tn + fp + fn)
    known = [f1 for f1 in (own, other) if f1 is not None]
    scores = {
        "macro_f1": sum(known) / len(known) if known else None,
        "f1": own,
        "cost": _divide(value * fp + (1 - value) * fn, len(truth)),
    }
    keeps_to_aim = {
        "recall_at_precision": precision is not None and precision >= value - _ROUNDING,
        "recall_at_false_positive_rate": rate is not None and rate <= value + _ROUNDING,
        "capacity": (tp + fp) / len(truth) <= value + _ROUNDING,
    }
    return ThresholdFit(
        score=scores.get(aim.name, recall),
        precision=precision,
        recall=recall,
        false_positive_rate=rate,
        met=keeps_to_aim[aim.name] and bool(recall) if aim.name in keeps_to_aim else True,
    )


def _divide(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _find_most_recall(scores: _Scores, truth: Int[np.ndarray, " row"], aim: ThresholdAim) -> float:
    tn, fp, _, tp, cuts = confusion_matrix_at_thresholds(truth, scores, pos_label=1)
    assert aim.value is not None
    if aim.name == "recall_at_precision":
        keeps_to_aim = tp / (tp + fp) >= aim.value - _ROUNDING
    elif aim.name == "capacity":
        keeps_to_aim = (tp + fp) / len(truth) <= aim.value + _ROUNDING
    else:
        keeps_to_aim = fp / (fp + tn) <= aim.value + _ROUNDING
    below = np.append(cuts[1:], -1.0)
    # no threshold takes one of two that are a tie
    parts_ties = loosen_threshold((cuts + below) / 2) > below
    hits = np.where(keeps_to_aim & parts_ties, tp, 0)
    if hits.any():
        return _halve_below(cuts, int(hits.argmax()))  # the first, and so the highest, of equals
    highest = float(scores.max())
    middle = (highest + 1) / 2
    return middle if highest < loosen_threshold(middle) else 1 + TIE_TOLERANCE


def _bag_best_f1(scores: _Scores, truth: Int[np.ndarray, " row"], *, both: bool) -> float:
    num_rows = len(truth)
    weights = np.random.default_rng(0).multinomial(
        num_rows, np.full(num_rows, 1 / num_rows), size=_NUM_RESAMPLES
    )  # (resample, row): how often the resample holds the row
    has_both = (weights @ truth > 0) & (weights @ (1 - truth) > 0)
    best = [_find_best_f1(scores, truth, row, both=both) for row in weights[has_both]]
    return float(np.mean(best)) if best else 0.5


def _find_best_f1(
    scores: _Scores, truth: Int[np.ndarray, " row"], weight: Int[np.ndarray, " row"], *, both: bool
) -> float:
    tn, fp, fn, tp, cuts = confusion_matrix_at_thresholds(
        truth, scores, pos_label=1, sample_weight=weight
    )
    score = tp / (2 * tp + fp + fn)
    if both:
        score = score + tn / (2 * tn + fp + fn)
    return _halve_below(cuts, int(score.argmax()))


def _halve_below(cuts: Float[np.ndarray, " cut"], place: int) -> float:
    """Return the middle between a cut and the next one below it, cuts falling."""
    cut = float(cuts[place])
    below = float(cuts[place + 1]) if place + 1 < len(cuts) else 0.0
    middle = (cut + below) / 2
    return middle if middle > below else cut
