"""Thresholds: fitted on validation rows, they keep to their aim there or say that none does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from miko_clf import metrics
from miko_clf.bundle import Aim
from miko_clf.evaluate.thresholds import fit_label_thresholds, fit_threshold, reached

PRECISE = Aim(name="recall_at_precision", value=0.9)
CAPPED = Aim(name="recall_at_false_positive_rate", value=0.05)


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


@pytest.mark.parametrize("truth", [np.zeros(30, int), np.ones(30, int), np.array([0, 1, 1])])
def test_too_few_rows_or_one_class_leave_the_threshold_at_a_half(truth: np.ndarray) -> None:
    assert fit_threshold(np.linspace(0.1, 0.3, len(truth)), truth) == 0.5


@given(st.integers(0, 10**6), st.integers(10, 99), st.floats(0.3, 1), st.integers(1, 15))
@settings(deadline=None, max_examples=20)
def test_a_threshold_keeps_to_its_aim_with_the_most_recall_that_any_has(
    seed: int, num_rows: int, value: float, levels: int
) -> None:
    probabilities, truth = binormal(seed, num_rows)
    probabilities = np.round(probabilities * levels) / levels  # ties
    truth[:2] = 0, 1
    for aim in (
        Aim(name="recall_at_precision", value=value),
        Aim(name="recall_at_false_positive_rate", value=1 - value),
    ):
        found = reached(probabilities, truth, fit_threshold(probabilities, truth, aim), aim)
        others = [reached(probabilities, truth, cut, aim) for cut in np.unique(probabilities)]
        best = max((one.recall for one in others if one.met), default=0)
        assert found.recall == best
        assert found.met == (best > 0)


def test_an_aim_that_no_threshold_reaches_decides_for_no_row_and_is_said_to_be_unmet() -> None:
    probabilities, truth = np.linspace(0.1, 0.9, 20), (np.arange(20) < 10).astype(np.int64)
    for aim in (PRECISE, CAPPED):
        threshold = fit_threshold(probabilities, truth, aim)
        found = reached(probabilities, truth, threshold, aim)
        assert 0.9 < threshold < 1
        assert not found.met
        assert found.recall == found.false_positive_rate == 0


def test_no_row_reaches_the_cautious_threshold_even_where_one_is_certain() -> None:
    probabilities, truth = np.array([1.0, 0.2] * 10), np.array([0, 1] * 10)
    threshold = fit_threshold(probabilities, truth, PRECISE)
    assert not (probabilities >= threshold).any()


@pytest.mark.parametrize("costs", [(1, 1), (1, 4), (5, 1)])
def test_the_threshold_of_costs_is_the_cheapest_of_calibrated_probabilities(
    costs: tuple[float, float],
) -> None:
    probabilities, truth = binormal(0, 20000)
    aim = Aim(name="cost", value=costs[0] / sum(costs))
    threshold = fit_threshold(probabilities, truth, aim)

    def cost(limit: float) -> float:
        found = reached(probabilities, truth, limit, aim).score
        assert found is not None
        return found

    best = min(np.linspace(0.02, 0.98, 33), key=cost)
    assert threshold == pytest.approx(best, abs=0.05)
    decided = probabilities >= threshold
    false = costs[0] * (decided & (truth == 0)) + costs[1] * (~decided & (truth == 1))
    assert cost(threshold) == pytest.approx(false.mean() / sum(costs))


def test_what_was_reached_is_what_the_metrics_say() -> None:
    probabilities, truth = binormal(0, 300)
    found = reached(probabilities, truth, 0.4, Aim())
    assert found.score == pytest.approx(macro_f1(probabilities, truth, 0.4), abs=1e-6)
    decided = probabilities >= 0.4
    assert found.precision == pytest.approx(truth[decided].mean())
    assert found.recall == pytest.approx(decided[truth == 1].mean())
    assert found.false_positive_rate == pytest.approx(decided[truth == 0].mean())
    assert found.met


def test_every_label_keeps_to_the_aim_by_itself() -> None:
    pairs = [binormal(seed, 200) for seed in range(2)]
    probabilities, truth = (np.stack(each, axis=1) for each in zip(*pairs, strict=True))
    found = fit_label_thresholds(probabilities, truth, "ab", CAPPED)
    assert found == {
        name: fit_threshold(*pair, CAPPED) for name, pair in zip("ab", pairs, strict=True)
    }
