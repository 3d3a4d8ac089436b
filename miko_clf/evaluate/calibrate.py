"""Temperature and threshold, fitted on validation rows only."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix_at_thresholds

TEMPERATURES = (0.05, 20.0)
FEWEST_ROWS = 10
_NUM_RESAMPLES = 200


def fit_temperature(
    logits: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, " row"] | Int[np.ndarray, "row label"],
) -> float:
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
    *,
    both: bool = True,
) -> float:
    """Return the threshold on the probability of the positive class for the best macro-F1.

    Without `both` it is for the best F1 of the positive class alone.

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
    best = [
        _best_threshold(positive_probabilities, truth, row, both=both) for row in weights[has_both]
    ]
    return float(np.mean(best)) if best else 0.5


def fit_label_thresholds(
    probabilities: Float[np.ndarray, "row label"],
    truth: Int[np.ndarray, "row label"],
    labels: Sequence[str],
) -> dict[str, float]:
    """Return for each label the threshold of the best F1; macro-F1 over labels is their mean."""
    columns = zip(labels, probabilities.T, truth.T, strict=True)
    return {label: fit_threshold(stated, held, both=False) for label, stated, held in columns}


def _best_threshold(
    scores: Float[np.ndarray, " row"],
    truth: Int[np.ndarray, " row"],
    weight: Int[np.ndarray, " row"],
    *,
    both: bool,
) -> float:
    """Return the middle between the best cut's score and the next one below it."""
    tn, fp, fn, tp, cuts = confusion_matrix_at_thresholds(
        truth, scores, pos_label=1, sample_weight=weight
    )
    score = tp / (2 * tp + fp + fn)
    if both:
        score = score + tn / (2 * tn + fp + fn)
    best = int(score.argmax())
    below = cuts[best + 1] if best + 1 < len(cuts) else 0.0
    return float(cuts[best] + below) / 2


def _too_little(truth: Int[np.ndarray, " row"]) -> bool:
    return len(truth) < FEWEST_ROWS or bool((truth == truth[0]).all())


def _all_right(logits: Float[np.ndarray, "row label"], truth: Int[np.ndarray, " row"]) -> bool:
    return bool((logits.argmax(1) == truth).all())
