"""Temperature and threshold: fitted on validation rows, sane where those say little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit, softmax

from miko_clf import metrics
from miko_clf.evaluate.calibrate import TEMPERATURES, fit_temperature, fit_threshold


def calibrated(seed: int, num_rows: int, num_labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose softmax is the chance with which each class was drawn."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(num_rows, num_labels))
    chance = softmax(logits, axis=1).cumsum(1)
    return logits, (random.random((num_rows, 1)) > chance[:, :-1]).sum(1)


def binormal(seed: int, num_rows: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return positive probabilities, AUROC .88 and off by `shift` logits, of 35 % positives."""
    random = np.random.default_rng(seed)
    truth = (random.random(num_rows) < 0.35).astype(np.int64)
    separation = 1.66
    seen = random.normal(size=num_rows) + separation * truth
    return expit(separation * seen - separation**2 / 2 + logit(0.35) + shift), truth


def macro_f1(positive_probabilities: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    probabilities = np.stack([1 - positive_probabilities, positive_probabilities], axis=1)
    return metrics.classification(
        probabilities, truth, positive=1, threshold=threshold, names=["macro_f1"]
    )["macro_f1"]


def nll(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    return -float(log_softmax(logits / temperature, axis=1)[np.arange(len(truth)), truth].mean())


@given(st.integers(0, 10**6), st.floats(0.2, 8))
@settings(deadline=None, max_examples=30)
def test_temperature_never_changes_which_class_is_most_probable(seed: int, scale: float) -> None:
    logits, truth = calibrated(seed, 40)
    temperature = fit_temperature(scale * logits, truth)
    scaled = softmax(scale * logits / temperature, axis=1)
    assert (scaled.argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_temperature_recovers_by_how_much_logits_were_stretched(scale: float) -> None:
    logits, truth = calibrated(0, 4000)
    assert fit_temperature(scale * logits, truth) == pytest.approx(scale, rel=0.06)


@given(st.integers(0, 10**6), st.floats(0.05, 20))
@settings(deadline=None, max_examples=30)
def test_no_other_temperature_gives_a_lower_nll(seed: int, other: float) -> None:
    logits, truth = calibrated(seed, 60)
    best = fit_temperature(logits, truth)
    assert nll(logits, truth, best) <= nll(logits, truth, other) + 1e-6


@pytest.mark.parametrize(
    ("logits", "truth"),
    [
        (np.eye(2)[[0, 1] * 10] * 9.0, np.array([0, 1] * 10)),
        (np.tile([[3.0, 0.0], [0.0, 3.0]], (10, 1)), np.zeros(20, int)),
        (np.array([[5.0, 0.0], [4.0, 1.0]]), np.array([1, 0])),
        (np.zeros((20, 2)), np.array([0, 1] * 10)),
    ],
    ids=["every row right", "one class", "two rows", "equal logits"],
)
def test_rows_that_say_nothing_of_confidence_leave_it_alone(
    logits: np.ndarray, truth: np.ndarray
) -> None:
    assert fit_temperature(logits, truth) == 1.0


def test_logits_that_are_always_wrong_get_the_largest_temperature() -> None:
    logits = np.eye(2)[[0, 1] * 10] * 9.0
    found = fit_temperature(logits, np.array([1, 0] * 10))
    assert found == pytest.approx(TEMPERATURES[1], rel=1e-3)
    assert found <= TEMPERATURES[1]


def test_logits_of_any_size_give_a_finite_temperature() -> None:
    logits, truth = calibrated(1, 50)
    assert fit_temperature(1e4 * logits, truth) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        fit_temperature(np.full((20, 2), np.nan), np.array([0, 1] * 10))


def test_a_fitted_threshold_scores_better_on_new_rows_than_a_half_or_the_best_cut() -> None:
    unseen, unseen_truth = binormal(999, 20000, shift=-1.0)
    scores = []
    for seed in range(8):
        validation, truth = binormal(seed, 177, shift=-1.0)
        best_cut = max(np.unique(validation), key=lambda cut: macro_f1(validation, truth, cut))
        rules = (fit_threshold(validation, truth), best_cut, 0.5)
        scores.append([macro_f1(unseen, unseen_truth, each) for each in rules])
    fitted, best_cut, half = np.mean(scores, axis=0)
    assert fitted > best_cut
    assert fitted > half + 0.05


@given(st.integers(0, 10**6), st.integers(10, 60))
@settings(deadline=None, max_examples=4)
def test_a_threshold_comes_out_the_same_every_time_and_lies_within_the_probabilities(
    seed: int, num_rows: int
) -> None:
    probabilities, truth = binormal(seed, num_rows)
    truth[:2] = 0, 1
    found = fit_threshold(probabilities, truth)
    assert 0 < found < probabilities.max()
    assert fit_threshold(probabilities, truth) == found


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=5)
def test_a_threshold_separates_what_can_be_separated(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.arange(60) % 2
    probabilities = np.where(truth == 1, 0.3, 0.1) + 0.05 * random.random(60)
    assert macro_f1(probabilities, truth, fit_threshold(probabilities, truth)) == 1


def test_no_fit_changes_the_arrays_it_is_given() -> None:
    logits, truth = calibrated(2, 50, num_labels=2)
    probabilities = softmax(logits, axis=1)[:, 1]
    kept = logits.copy(), truth.copy(), probabilities.copy()
    fit_temperature(logits, truth)
    fit_threshold(probabilities, truth)
    for before, after in zip(kept, (logits, truth, probabilities), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("truth", [np.zeros(30, int), np.ones(30, int), np.array([0, 1, 1])])
def test_too_few_rows_or_one_class_leave_the_threshold_at_a_half(truth: np.ndarray) -> None:
    assert fit_threshold(np.linspace(0.1, 0.3, len(truth)), truth) == 0.5
