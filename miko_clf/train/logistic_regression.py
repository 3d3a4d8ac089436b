"""Logistic regression fitted to its optimum, its strength chosen by grouped cross-validation."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

NUM_FOLDS = 4
_PATIENCE = 2  # weaker strengths in a row that are tried beyond the best one
_MAX_ITERATIONS = 2000
_STACK_PENALTY = 1e-4  # on the squares of shares, so that rows which can be told apart have a best

Rows = Int[np.ndarray, " row"]
Scores = Float[np.ndarray, "row class"]
# Features of every row, scaled as the given rows say: what is held out says nothing of the scale.
Design = Callable[[Rows], Any]
Folds = Sequence[tuple[Rows, Rows]]


class LinearWeights(NamedTuple):
    """Weights of each class over the features of a design, and a constant."""

    coefficients: Float[np.ndarray, "class feature"]
    intercepts: Float[np.ndarray, " class"]

    def score(self, features: Any) -> Scores:
        """Return the logits of rows, dense or sparse."""
        return np.asarray(features @ self.coefficients.T) + self.intercepts


class StrengthChoice(NamedTuple):
    """The inverse penalty C that held-out rows prefer, and what they score by it.

    `losses` are the mean log losses of all that were tried, from the strongest penalty on.
    """

    strength: float
    held_out: Scores
    losses: dict[float, float]


def draw_folds(truth: Rows, groups: Rows, seed: int) -> Folds:
    """Return up to `NUM_FOLDS` folds (rows to fit, rows held out) that part no group.

    Each has every class among the rows to fit. None at all where the rows are too few for two.
    """
    classes = np.unique(truth)
    for num_folds in range(NUM_FOLDS, 1, -1):
        if num_folds > min(np.bincount(truth).max(), len(np.unique(groups))):
            continue
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class with fewer rows than folds
            folds = list(splitter.split(np.zeros(len(truth)), truth, groups))
        if all(len(held) and len(np.unique(truth[fit])) == len(classes) for fit, held in folds):
            return folds
    return []


def fit_weights(features: Any, truth: Rows, strength: float, *, balanced: bool) -> LinearWeights:
    """Return the weights of the least penalised log loss, by L-BFGS.

    Of two classes one weight decides, which is shared out evenly between them. `balanced` gives
    every class the same weight in all.
    """
    model = LogisticRegression(
        C=strength,
        class_weight="balanced" if balanced else None,
        max_iter=_MAX_ITERATIONS,
        tol=1e-5,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty is nearly flat there
        model.fit(features, truth)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(coefficients) == 1:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    return LinearWeights(coefficients, intercepts)


def choose_strength(
    design: Design, truth: Rows, folds: Folds, strengths: Sequence[float], *, balanced: bool
) -> StrengthChoice:
    """Return the strength of the least log loss over held-out rows, from the strongest penalty on.

    The path ends once the loss has not fallen for a while: what comes after is dearer and worse.
    """
    designs = [design(fit) for fit, _ in folds]
    losses: dict[float, float] = {}
    best = StrengthChoice(strengths[0], np.zeros((len(truth), 2)), losses)
    waited = 0
    for strength in sorted(strengths):
        scores = np.zeros((len(truth), int(truth.max()) + 1))
        for features, (fit, held) in zip(designs, folds, strict=True):
            weights = fit_weights(features[fit], truth[fit], strength, balanced=balanced)
            scores[held] = weights.score(features[held])
        losses[strength] = compute_log_loss(scores, truth, balanced=balanced)
        if losses[strength] <= min(losses.values()):
            best, waited = StrengthChoice(strength, scores, losses), 0
        else:
            waited += 1
            if waited > _PATIENCE:
                break
    return best


def stack_members(
    members: Sequence[Scores], truth: Rows, *, balanced: bool
) -> Float[np.ndarray, " member"]:
    """Return what each member's scores count, none below 0, by the log loss of held-out rows.

    Stacking (Wolpert, 1992) with shares that are not negative (Breiman, 1996): a member that
    tells nothing beside the others counts nothing.
    """
    stacked = np.stack(members)  # (member, row, class)
    weights = _weigh_rows(truth, stacked.shape[2], balanced=balanced)
    own = np.arange(len(truth)), truth

    def loss(shares: Float[np.ndarray, " member"]) -> tuple[float, Float[np.ndarray, " member"]]:
        logs = log_softmax(np.tensordot(shares, stacked, 1), axis=1)
        expected = (np.exp(logs) * stacked).sum(2)  # (member, row)
        slopes = (weights * (expected - stacked[(slice(None), *own)])).sum(1)
        penalty = _STACK_PENALTY * float(shares @ shares)
        return -float(weights @ logs[own]) + penalty, slopes + 2 * _STACK_PENALTY * shares

    start = np.full(len(members), 1 / len(members))
    bounds = [(0, None)] * len(members)
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x


def compute_log_loss(scores: Scores, truth: Rows, *, balanced: bool) -> float:
    """Return the mean log loss of logits, each class weighing alike where `balanced`."""
    weights = _weigh_rows(truth, scores.shape[1], balanced=balanced)
    return -float(weights @ log_softmax(scores, axis=1)[np.arange(len(truth)), truth])


def _weigh_rows(truth: Rows, num_classes: int, *, balanced: bool) -> Float[np.ndarray, " row"]:
    if not balanced:
        return np.full(len(truth), 1 / len(truth))
    counts = np.bincount(truth, minlength=num_classes)
    return 1 / (counts[truth] * np.count_nonzero(counts))
