"""Logistic regression: the optimum itself, a strength that held-out groups chose, honest shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from miko_clf.train.logistic_regression import (
    LinearWeights,
    choose_strength,
    compute_log_loss,
    draw_folds,
    fit_weights,
    stack_members,
)


def make_rows(num_rows: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of which the first few tell the class, weakly."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(num_rows) % num_classes)
    features = rng.normal(size=(num_rows, 8))
    features[np.arange(num_rows), truth] += 1.0
    return features, truth


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_weights_are_where_the_penalised_loss_is_least(
    num_classes: int, balanced: bool
) -> None:
    features, truth = make_rows(90, num_classes)
    truth[:20] = 0  # so that classes differ in size
    strength = 0.3
    fitted = fit_weights(features, truth, strength, balanced=balanced)
    counts = np.bincount(truth)
    weigh = len(truth) / (num_classes * counts[truth]) if balanced else np.ones(len(truth))

    def penalised(weights: LinearWeights) -> float:
        loss = -log_softmax(weights.score(features), axis=1)[np.arange(len(truth)), truth]
        # Of two classes one weight decides, twice what each is given here.
        own = weights.coefficients if num_classes > 2 else 2 * weights.coefficients[1:]
        return float(weigh @ loss + (own**2).sum() / (2 * strength))

    rng, least = np.random.default_rng(1), penalised(fitted)
    for _ in range(20):
        step = rng.normal(size=fitted.coefficients.shape) * 0.02
        moved = step - step.mean(0)  # of two classes mirrored, as the fitted ones are
        for sign in (1, -1):
            other = fitted._replace(coefficients=fitted.coefficients + sign * moved)
            assert penalised(other) > least


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=40), st.integers(0, 99))
def test_folds_part_no_group_and_hold_out_every_row_once(groups: list[int], seed: int) -> None:
    truth = np.random.default_rng(seed).integers(0, 2, len(groups))
    folds = draw_folds(truth, np.array(groups), seed)
    held_out = [row for _, held in folds for row in held]
    assert not folds or sorted(held_out) == list(range(len(groups)))
    for fit, held in folds:
        assert not {groups[row] for row in fit} & {groups[row] for row in held}
        assert set(truth[fit]) == set(truth)


def test_rows_of_one_group_are_too_few_for_folds() -> None:
    assert draw_folds(np.array([0, 1, 0, 1]), np.zeros(4, dtype=int), 0) == []


def test_held_out_rows_want_a_strong_penalty_for_noise_and_a_weak_one_for_what_tells() -> None:
    features, truth = make_rows(200, 2)
    noise = np.random.default_rng(2).normal(size=(200, 60))
    folds = draw_folds(truth, np.arange(200), 0)
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    of_noise = choose_strength(lambda _: noise, truth, folds, strengths, balanced=True)
    telling = choose_strength(lambda _: features * 3, truth, folds, strengths, balanced=True)
    assert of_noise.strength == 1e-4
    assert telling.strength >= 1e-2
    assert of_noise.losses[1e-4] == min(of_noise.losses.values())


def test_a_held_out_row_is_scored_by_weights_that_never_saw_it() -> None:
    features, truth = make_rows(60, 2)
    features = np.concatenate([features, np.eye(60) * 50], axis=1)  # a row knows itself
    folds = draw_folds(truth, np.arange(60), 0)
    choice = choose_strength(lambda _: features, truth, folds, (10.0,), balanced=True)
    assert roc_auc_score(truth, choice.held_out[:, 1] - choice.held_out[:, 0]) < 0.95
    seen = fit_weights(features, truth, 10.0, balanced=True).score(features)
    assert roc_auc_score(truth, seen[:, 1] - seen[:, 0]) == 1.0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_member_that_tells_nothing_counts_nothing(num_classes: int) -> None:
    rng = np.random.default_rng(3)
    truth = np.arange(300) % num_classes
    telling = rng.normal(size=(300, num_classes)) + np.eye(num_classes)[truth] * 1.5
    noise = rng.normal(size=(300, num_classes)) - 0.02 * np.eye(num_classes)[truth]
    own, none = stack_members([telling, noise], truth, balanced=True)
    assert own > 0.5
    assert none == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999))
def test_stacked_members_lose_no_more_than_the_best_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(80) % 2)
    members = [
        rng.normal(size=(80, 2)) + np.eye(2)[truth] * worth for worth in rng.uniform(0, 1, 3)
    ]
    shares = stack_members(members, truth, balanced=True)
    stacked = compute_log_loss(np.tensordot(shares, members, 1), truth, balanced=True)
    slack = 1e-4 * 3  # the penalty that keeps shares finite
    assert stacked <= min(compute_log_loss(m, truth, balanced=True) for m in members) + slack


def test_balanced_loss_is_the_mean_over_classes_of_their_mean_loss() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(10, 2)), np.array([0] * 8 + [1] * 2)
    losses = -np.log(softmax(scores, axis=1)[np.arange(10), truth])
    wanted = (losses[:8].mean() + losses[8:].mean()) / 2
    assert compute_log_loss(scores, truth, balanced=True) == pytest.approx(wanted)
    assert compute_log_loss(scores, truth, balanced=False) == pytest.approx(losses.mean())
