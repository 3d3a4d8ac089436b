"""Probabilities for posts among which the positive class is more, or less, frequent."""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from miko_clf.bundle import Bundle, reaching
from miko_clf.errors import BundleError, MikoError
from miko_clf.serve.decision import Score

_NEAR = 1e-8  # of the share, between two steps of an estimate
_MOST_STEPS = 10_000
_HALVINGS = 40  # of the stretch where a bound of an estimate lies
_HALF_OF_CHI_SQUARED = 1.9207  # 95 % of one degree of freedom, halved
_Number = TypeVar("_Number", float, NDArray[np.float64])


class Estimate(NamedTuple):
    """The likeliest share of positives, and the shares between which 95 % intervals hold it."""

    share: float
    low: float
    high: float


class Prior:
    """The share of the positive class where posts come from, in place of the bundle's own.

    Saerens, Latinne & Decaestecker, Neural Computation 2002: the odds of every post are multiplied
    by the ratio of the two priors' odds, which is right where posts of each class are what they
    were and only their shares differ. Raises `MikoError` for a share that is none, or a bundle
    that does not answer one question of two labels.
    """

    def __init__(self, opened: Bundle, share: float) -> None:
        self.own, self.positive = own_prior(opened)
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
        moved = self.moved(positive_of(score, self.positive))
        (other,) = (name for name in score.probabilities if name != self.positive)
        changed: dict[str, object] = {
            "probabilities": {other: 1 - moved, self.positive: moved},
            "certain": None,
        }
        if self.fixed:
            changed["label"] = self.positive if moved >= reaching(threshold) else other
        else:
            changed["threshold"] = self.moved(threshold)
        return score.model_copy(update=changed)

    def moved(self, probability: float) -> float:
        """Return a probability of the positive class for this prior."""
        return _moved(probability, self.own, self.share)


def own_prior(opened: Bundle) -> tuple[float, str]:
    """Return the share that a bundle's probabilities stand for, and the class it is of.

    Raises `MikoError` where there is none to move away from.
    """
    fitted = opened.calibration
    fits = [(one.name, one.positive) for one in opened.questions] == [("", 1)]
    if not fits or fitted.positive is None:
        asked = "; ".join(one.line() for one in opened.questions)
        raise MikoError(f"a prior is of one question of two labels; this bundle answers {asked}")
    if fitted.prior is None:
        raise BundleError(
            f"{opened.path}: calibration.json has no prior, as its validation posts are too few "
            "or an earlier version wrote it; fit it again"
        )
    return fitted.prior, fitted.positive


def positive_of(score: Score, positive: str) -> float:
    """Return the probability of the positive class of a bundle that answers one question."""
    stated = score.probabilities[positive]
    assert isinstance(stated, float)
    return stated


def estimate_prior(probabilities: Iterable[float], own: float) -> Estimate:
    """Return the share of positives that is the likeliest of unlabelled posts, by EM.

    Saerens et al., 2002, equation 2.12. `probabilities` of the positive class stand for a share
    of `own`. The interval holds the shares that a likelihood-ratio test does not reject (Wilks,
    1938). Raises `MikoError` where there is no post.
    """
    stated = np.fromiter(probabilities, np.float64)
    if not len(stated):
        raise MikoError("there is no post to estimate a prior from; name a share")
    share = own
    for _ in range(_MOST_STEPS):
        before = share
        share = float(_moved(stated, own, before).mean().clip(_NEAR, 1 - _NEAR))
        if abs(share - before) < _NEAR:
            break
    low, high = (_bound(stated, own, share, end) for end in (_NEAR, 1 - _NEAR))
    return Estimate(share, low, high)


def _bound(stated: NDArray[np.float64], own: float, share: float, end: float) -> float:
    """Return how far towards `end` the likelihood, which is concave, stays near its maximum."""
    least = _likelihood(stated, own, share) - _HALF_OF_CHI_SQUARED
    if _likelihood(stated, own, end) >= least:
        return end
    inside, outside = share, end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if _likelihood(stated, own, middle) >= least:
            inside = middle
        else:
            outside = middle
    return inside


def _likelihood(stated: NDArray[np.float64], own: float, share: float) -> float:
    """Return the logarithm of the likelihood of a share, but for a constant."""
    each = stated * share / own + (1 - stated) * (1 - share) / (1 - own)
    return float(np.log(np.maximum(each, np.finfo(np.float64).tiny)).sum())


def _moved(probability: _Number, own: float, share: float) -> _Number:
    positive = probability * share / own
    return positive / (positive + (1 - probability) * (1 - share) / (1 - own))
