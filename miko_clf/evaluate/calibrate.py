"""Temperature and threshold, fitted on validation rows only."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix_at_thresholds

TEMPERATURES = (0.05, 20.0)
FEWEST_ROWS = 10
_NUM_RESAMPLES = 200


def fit_temperature(
    logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]
) -> float:
    """Return the T in `TEMPERATURES` that minimises the NLL of softmax(logits / T).

    Guo et al., ICML 2017. Rows that say nothing of confidence give 1, which changes nothing: fewer
    than `FEWEST_ROWS`, one class only, equal logits, or every row right (the best T would be 0).
    Raises ValueError for logits that are not finite.
    """
    assert logits.ndim == 2
    assert truth.shape == logits.shape[:1]
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    if _too_little(truth) or not np.ptp(logits, axis=1).any() or _all_right(logits, truth):
        return 1.0
    logits = logits.astype(np.float64)

    def nll(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scores[np.arange(len(truth)), truth].mean())

    # convex in 1/T (Boyd & Vandenberghe, 3.1.5), hence one minimum in log T
    found = minimize_scalar(nll, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x).clip(*TEMPERATURES))


def fit_threshold(
    positive_probabilities: Float[np.ndarray, " row"],
    positive_truth: Bool[np.ndarray, " row"] | Int[np.ndarray, " row"],
) -> float:
    """Return the threshold on the probability of the positive class for the best macro-F1.

    It is the mean over bootstrap resamples of each one's best threshold (bagging; Breiman 1996),
    because the best threshold of a few hundred rows chases their noise. `positive_truth` is 1 for
    the positive class. Fewer than `FEWEST_ROWS` rows, or rows of one class, give .5.
    """
    truth = positive_truth.astype(np.int64)
    assert truth.shape == positive_probabilities.shape
    assert np.isin(truth, (0, 1)).all()
    if _too_little(truth):
        return 0.5
    num_rows = len(truth)
    weights = np.random.default_rng(0).multinomial(
        num_rows, np.full(num_rows, 1 / num_rows), size=_NUM_RESAMPLES
    )  # (resample, row): how often the resample holds the row
    has_both = (weights @ truth > 0) & (weights @ (1 - truth) > 0)
    best = [_best_threshold(positive_probabilities, truth, row) for row in weights[has_both]]
    return float(np.mean(best)) if best else 0.5


def _best_threshold(
    scores: Float[np.ndarray, " row"],
    truth: Int[np.ndarray, " row"],
    weight: Int[np.ndarray, " row"],
) -> float:
    """Return the middle between the best cut's score and the next one below it."""
    tn, fp, fn, tp, cuts = confusion_matrix_at_thresholds(
        truth, scores, pos_label=1, sample_weight=weight
    )
    macro_f1 = tp / (2 * tp + fp + fn) + tn / (2 * tn + fp + fn)
    best = int(macro_f1.argmax())
    below = cuts[best + 1] if best + 1 < len(cuts) else 0.0
    return float(cuts[best] + below) / 2


def _too_little(truth: Int[np.ndarray, " row"]) -> bool:
    return len(truth) < FEWEST_ROWS or bool((truth == truth[0]).all())


def _all_right(logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]) -> bool:
    return bool((logits.argmax(1) == truth).all())
