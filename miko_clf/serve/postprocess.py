"""Probabilities to decisions: labels by threshold, conformal certainty, a changed prior."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miko_clf import bundle
from miko_clf.bundle import Bundle, Calibration, Threshold, loosen_threshold
from miko_clf.data.post import ClassNames, Label, Record
from miko_clf.errors import BundleError, MikoError
from miko_clf.questions import Question, Questions

_CONVERGED = 1e-8  # of the share, between two steps of an estimate
_MOST_STEPS = 10_000
_HALVINGS = 40  # of the stretch where a bound of an estimate lies
_HALF_OF_CHI_SQUARED = 1.9207  # 95 % of one degree of freedom, halved
_Number = TypeVar("_Number", float, NDArray[np.float64])


class Score(Record):
    """What the model says of a post.

    `arm` is what stood for the author's intention: those given (`with`), the model's own guess
    (`student`) or nothing (`without`). Of two labels the second is decided where its probability
    is at or above `threshold`, a rounding aside; of more, the most probable. Where any number of
    labels may hold `label` lists those at or above their thresholds. Where there are tasks label,
    probabilities and threshold are objects with an entry for each. `truncated` says that some text
    was longer than the model reads. `certain` says whether the label stands alone in the post's
    conformal set; it is left out where the bundle has none. `text_source`, `text` and
    `text_confidence` are there where the text was read off the picture.
    """

    id: str
    label: Label
    probabilities: Mapping[str, float] | Mapping[str, Mapping[str, float]]
    threshold: Threshold | Mapping[str, Threshold | None] | None
    arm: str
    truncated: bool
    certain: bool | Mapping[str, bool | None] | None = Field(
        default=None, exclude_if=bundle.is_none
    )
    text_source: Literal["ocr"] | None = Field(default=None, exclude_if=bundle.is_none)
    text: str | None = Field(default=None, exclude_if=bundle.is_none)
    text_confidence: float | None = Field(default=None, exclude_if=bundle.is_none)


class Decision(NamedTuple):
    """The answer to one question, the probability of each label, and where the limits lie."""

    label: ClassNames
    probabilities: Mapping[str, float]
    threshold: Threshold | None
    certain: bool | None


def make_decision(
    row: NDArray[np.float32], questions: Questions, calibrations: Sequence[Calibration], arm: str
) -> dict[str, Any]:
    """Return the fields of a `Decision` on a post, by task where the questions have names."""
    decisions = {
        question.name: _decide_question(row[span], question, calibration, arm)
        for (question, span), calibration in zip(questions.spans(), calibrations, strict=True)
    }
    if list(decisions) == [""]:
        return decisions[""]._asdict()
    fields = {
        key: {task: getattr(decision, key) for task, decision in decisions.items()}
        for key in Decision._fields
    }
    silent = all(certain is None for certain in fields["certain"].values())
    return fields | {"certain": None} if silent else fields


def lacks_threshold(questions: Questions, calibrations: Sequence[Calibration], arm: str) -> bool:
    """Say whether an arm lacks a threshold that `make_decision` needs."""
    for question, calibration in zip(questions, calibrations, strict=True):
        threshold = calibration.thresholds.get(arm)
        if question.kind == "many":
            if not isinstance(threshold, Mapping) or not threshold.keys() >= set(question.labels):
                return True
        elif question.positive is not None and not isinstance(threshold, float):
            return True
    return False


def _decide_question(
    row: NDArray[np.float32], question: Question, calibration: Calibration, arm: str
) -> Decision:
    names, threshold = question.labels, calibration.thresholds.get(arm)
    probabilities = {name: float(p) for name, p in zip(names, row, strict=True)}
    label: ClassNames
    if isinstance(threshold, Mapping):
        threshold = {name: threshold[name] for name in names}
        label = tuple(n for n in names if probabilities[n] >= loosen_threshold(threshold[n]))
    elif question.positive is None or threshold is None:
        label, threshold = names[int(row.argmax())], None
    else:
        label = names[int(probabilities[names[1]] >= loosen_threshold(threshold))]
    certain = None  # or whether the label is alone in the conformal set
    if calibration.conformal is not None and arm in calibration.conformal.quantiles:
        least = bundle.bound_conformal_set(calibration.conformal.quantiles[arm])
        certain = [name for name, p in probabilities.items() if p >= least] == [label]
    return Decision(label, probabilities, threshold, certain)


class PriorEstimate(NamedTuple):
    """The likeliest share of positives, and the shares between which 95 % intervals hold it."""

    share: float
    low: float
    high: float


class PriorCorrection:
    """The share of the positive class where posts come from, in place of the bundle's own.

    Saerens, Latinne & Decaestecker, Neural Computation 2002: the odds of every post are multiplied
    by the ratio of the two priors' odds, which is right where posts of each class are what they
    were and only their shares differ. Raises `MikoError` for a share that is none, or a bundle
    that does not answer one question of two labels.
    """

    def __init__(self, opened: Bundle, share: float) -> None:
        self.own, self.positive = read_prior(opened)
        if not 0 < share < 1:
            raise MikoError(f"a prior of {share:g} cannot be; name a share between 0 and 1")
        self.share = share
        self.fixed = opened.calibration.aim.name == "cost"

    def correct(self, score: Score) -> Score:
        """Return the score of a post for this prior.

        The threshold moves with the odds, so that the same posts are decided for as before, at
        the recall and false-positive rate that it was chosen for. Where it follows from the costs
        of errors it stays, and the decision moves. Whether a score is certain is not said, as
        conformal sets hold what they promise on posts like those of validation alone.
        """
        threshold = score.threshold
        assert isinstance(threshold, float)
        moved = move_prior(get_positive_probability(score, self.positive), self.own, self.share)
        (other,) = (name for name in score.probabilities if name != self.positive)
        update: dict[str, object] = {
            "probabilities": {other: 1 - moved, self.positive: moved},
            "certain": None,
        }
        if self.fixed:
            update["label"] = self.positive if moved >= loosen_threshold(threshold) else other
        else:
            update["threshold"] = move_prior(threshold, self.own, self.share)
        return score.model_copy(update=update)


def read_prior(opened: Bundle) -> tuple[float, str]:
    """Return the share that a bundle's probabilities stand for, and the class it is of.

    Raises `MikoError` where there is none to move away from.
    """
    calibration = opened.calibration
    fits = [(question.name, question.positive) for question in opened.questions] == [("", 1)]
    if not fits or calibration.positive is None:
        answers = "; ".join(question.line() for question in opened.questions)
        raise MikoError(f"a prior is of one question of two labels; this bundle answers {answers}")
    if calibration.prior is None:
        raise BundleError(
            f"{opened.path}: calibration.json has no prior, as its validation posts are too few "
            "or an earlier version wrote it; fit it again"
        )
    return calibration.prior, calibration.positive


def get_positive_probability(score: Score, positive: str) -> float:
    """Return the probability of the positive class of a bundle that answers one question."""
    probability = score.probabilities[positive]
    assert isinstance(probability, float)
    return probability


def estimate_prior(probabilities: Iterable[float], own: float) -> PriorEstimate:
    """Return the share of positives that is the likeliest of unlabelled posts, by EM.

    Saerens et al., 2002, equation 2.12. `probabilities` of the positive class stand for a share
    of `own`. The interval holds the shares that a likelihood-ratio test does not reject (Wilks,
    1938). Raises `MikoError` where there is no post.
    """
    known, share = np.fromiter(probabilities, np.float64), own
    if not len(known):
        raise MikoError("there is no post to estimate a prior from; name a share")
    for _ in range(_MOST_STEPS):
        before = share
        share = float(move_prior(known, own, before).mean().clip(_CONVERGED, 1 - _CONVERGED))
        if abs(share - before) < _CONVERGED:
            break
    low, high = (_find_bound(known, own, share, end) for end in (_CONVERGED, 1 - _CONVERGED))
    return PriorEstimate(share, low, high)


def _find_bound(probabilities: NDArray[np.float64], own: float, share: float, end: float) -> float:
    """Return how far towards `end` the likelihood, which is concave, stays near its maximum."""

    def log_likelihood(share: float) -> float:  # but for a constant
        likelihood = probabilities * share / own + (1 - probabilities) * (1 - share) / (1 - own)
        return float(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).sum())

    least = log_likelihood(share) - _HALF_OF_CHI_SQUARED
    if log_likelihood(end) >= least:
        return end
    inside, outside = share, end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if log_likelihood(middle) >= least:
            inside = middle
        else:
            outside = middle
    return inside


def move_prior(probability: _Number, own: float, share: float) -> _Number:
    """Return a probability of positives that stood for a share of `own`, now for `share`."""
    positive = probability * share / own
    return positive / (positive + (1 - probability) * (1 - share) / (1 - own))
