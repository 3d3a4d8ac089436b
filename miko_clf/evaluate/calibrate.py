"""Calibrators of logits: temperature, Platt, isotonic, and the share that probabilities mean."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit
from sklearn.isotonic import IsotonicRegression

from miko_clf.bundle import Knots, Platt

TEMPERATURES = (0.05, 20.0)
FEWEST_ROWS = 10
_SCALES = (1 / TEMPERATURES[1], 1 / TEMPERATURES[0])
_FARTHEST = 40.0  # a shift in logits past which a float64 probability no longer moves

Truth = Int[np.ndarray, " row"] | Int[np.ndarray, "row label"]


def fit_temperature(logits: Float[np.ndarray, "row label"], truth: Truth) -> float:
    """Return the T in `TEMPERATURES` that minimises the NLL of softmax(logits / T).

    Where `truth` is 1 for each label that holds, that of sigmoid(logits / T) over all labels.

    Guo et al., ICML 2017. Rows that say nothing of confidence give 1, which changes nothing: fewer
    than `FEWEST_ROWS`, one class only, equal logits, or every row right (the best T would be 0).
    Raises ValueError for logits that are not finite.
    """
    assert logits.ndim == 2
    if truth.ndim == 2:  # a sigmoid is the softmax over the logit and 0
        flat = logits.ravel()
        logits, truth = np.stack([np.zeros_like(flat), flat], axis=1), truth.ravel()
    assert truth.shape == logits.shape[:1]
    _check_finite(logits)
    if too_little(truth) or not np.ptp(logits, axis=1).any() or _all_right(logits, truth):
        return 1.0
    logits = logits.astype(np.float64)

    def nll(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scores[np.arange(len(truth)), truth].mean())

    # convex in 1/T (Boyd & Vandenberghe, 3.1.5), hence one minimum in log T
    found = minimize_scalar(nll, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x).clip(*TEMPERATURES))


def fit_platt(logits: Float[np.ndarray, "row label"], truth: Truth) -> Platt | None:
    """Return a factor and a shift for each logit that minimise the NLL, factors above 0.

    Of two labels it is Platt's sigmoid of the margin (1999), of more vector scaling (Guo et al.,
    ICML 2017); where `truth` is 1 for each label that holds, Platt's sigmoid for each. Factors
    stay within those of `TEMPERATURES`, so that rows which can be told apart have a best one.
    None where the rows say too little: fewer than `FEWEST_ROWS`, or a label that never, or
    always, holds. Raises ValueError for logits that are not finite.
    """
    _check_finite(logits)
    num_labels = logits.shape[1]
    held = truth if truth.ndim == 2 else np.eye(num_labels, dtype=np.int64)[truth]
    if any(too_little(column) for column in held.T):
        return None
    if truth.ndim == 2:
        fits = [_scaled(_beside_zero(m), t) for m, t in zip(logits.T, truth.T, strict=True)]
        scale, shift = zip(*((a[1], b[1]) for a, b in fits), strict=True)
    elif num_labels == 2:
        a, b = _scaled(_beside_zero(logits[:, 1] - logits[:, 0]), truth)
        scale, shift = (a[1], a[1]), tuple(b)
    else:
        scale, shift = map(tuple, _scaled(logits, truth))
    return Platt(scale=tuple(map(float, scale)), shift=tuple(map(float, shift)))


def fit_isotonic(
    margins: Float[np.ndarray, " row"], truth: Int[np.ndarray, " row"]
) -> Knots | None:
    """Return the line that never falls and is nearest to `truth` in the least squares.

    Zadrozny & Elkan, KDD 2002, by scikit-learn. Margins are told apart in float32, as a graph
    tells them apart. None where the rows say too little, as for `fit_platt`.
    """
    _check_finite(margins)
    if too_little(truth):
        return None
    seen = margins.astype(np.float32).astype(np.float64)
    line = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(seen, truth)
    return Knots(
        margins=tuple(line.X_thresholds_.tolist()),
        probabilities=tuple(line.y_thresholds_.clip(0, 1).tolist()),
    )


def stands_for(
    positive_probabilities: Float[np.ndarray, " row"], positive_truth: Bool[np.ndarray, " row"]
) -> float | None:
    """Return the share of the positive class that probabilities stand for.

    It is the prior from which moving to the rows' own share (Saerens et al., 2002) makes the mean
    probability that share: the share itself where Platt or isotonic was fitted, and another where
    training weighed the classes and a temperature could not undo it. None where the rows say too
    little.
    """
    if too_little(positive_truth):
        return None
    share = float(positive_truth.mean())
    with np.errstate(divide="ignore"):
        odds = logit(positive_probabilities.astype(np.float64))

    def gap(shift: float) -> float:
        return float(expit(odds + shift).mean()) - share

    if gap(-_FARTHEST) >= 0 or gap(_FARTHEST) <= 0:
        return share
    found = float(expit(logit(share) - brentq(gap, -_FARTHEST, _FARTHEST)))
    return found if 0 < found < 1 else share


def too_little(truth: Int[np.ndarray, " row"] | Bool[np.ndarray, " row"]) -> bool:
    """Say whether rows are fewer than `FEWEST_ROWS`, or all of one class."""
    return len(truth) < FEWEST_ROWS or bool((truth == truth[0]).all())


def _scaled(
    logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " label"], Float[np.ndarray, " label"]]:
    """Return the factors and shifts of the least NLL; the first shift is 0, as one is free."""
    logits = logits.astype(np.float64)
    num_rows, num_labels = logits.shape
    held = np.eye(num_labels)[truth]

    def nll(found: Float[np.ndarray, " both"]) -> tuple[float, Float[np.ndarray, " both"]]:
        scores = log_softmax(logits * found[:num_labels] + found[num_labels:], axis=1)
        off = (np.exp(scores) - held) / num_rows
        slopes = np.append((off * logits).sum(0), off.sum(0))
        return -float((scores * held).sum()) / num_rows, slopes

    start = np.append(np.ones(num_labels), np.zeros(num_labels))
    bounds = [_SCALES] * num_labels + [(0, 0)] + [(None, None)] * (num_labels - 1)
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    best = minimize(nll, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return best[:num_labels], best[num_labels:]


def _beside_zero(margin: Float[np.ndarray, " row"]) -> Float[np.ndarray, "row 2"]:
    """Return logits of two labels with this margin; a sigmoid is the softmax over it and 0."""
    return np.stack([np.zeros_like(margin), margin], axis=1)


def _check_finite(values: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("logits hold NaN or infinity")


def _all_right(logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]) -> bool:
    return bool((logits.argmax(1) == truth).all())
