"""Tests of two systems on the same rows agree with scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

from miko_clf.evaluate import significance
from miko_clf.evaluate.seeds import (
    SeedMetric,
    SeedPredictions,
    estimate_difference,
    measure_seeds,
)
from miko_clf.intervals import draw_resamples
from tests.support.predictions import subtract_seeds


def scored(positive: np.ndarray) -> SeedPredictions:
    """A seed that gives these probabilities to the second of two labels."""
    return SeedPredictions(np.stack([1 - positive, positive], axis=1), 0.5)


def right(truth: np.ndarray, share: float, seed: int) -> SeedPredictions:
    """A seed that is right of about that share of the rows."""
    random = np.random.default_rng(seed)
    said = np.where(random.random(len(truth)) < share, truth, 1 - truth)
    return scored(np.where(said == 1, 0.7, 0.3) + 0.2 * (random.random(len(truth)) - 0.5))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_lies_below_the_exact_test_by_half_of_what_was_seen(a: int, b: int) -> None:
    a_right = np.array([True] * a + [False] * b + [True, False])
    b_right = np.array([False] * a + [True] * b + [True, False])
    exact = exact_mcnemar([[1, a], [b, 1]], exact=True).pvalue
    seen = stats.binom.pmf(min(a, b), a + b, 0.5)
    expected = 1.0 if a == b else exact - seen
    assert significance.compute_mcnemar_p(a_right, b_right) == pytest.approx(expected)


def test_permutation_of_accuracy_agrees_with_scipy() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 60)
    a, b = right(truth, 0.85, 1), right(truth, 0.7, 2)
    hits = [(one.decided(1) == truth).astype(float) for one in (a, b)]
    expected = stats.permutation_test(
        hits,
        lambda x, y: x.mean() - y.mean(),
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).pvalue
    found = significance.compute_permutation_p(
        [a], [b], truth, positive=1, metric="accuracy", num_permutations=20_000
    )
    assert found == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("metric", "count"), [("accuracy", 200), ("macro_f1", 120), ("auroc", 120)]
)
def test_permutations_of_systems_that_are_alike_are_right_one_time_in_twenty(
    metric: str, count: int
) -> None:
    random, found = np.random.default_rng(0), []
    for seed in range(count):
        truth = random.integers(0, 2, 80)
        a, b = right(truth, 0.7, 2 * seed), right(truth, 0.7, 2 * seed + 1)
        p = significance.compute_permutation_p(
            [a], [b], truth, positive=1, metric=metric, num_permutations=199
        )
        found.append(p <= 0.05)
    low, high = stats.binom.interval(0.99, count, 0.05)
    assert low <= np.sum(found) <= high


def test_identical_predictions_give_p_of_one_and_an_interval_at_zero() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 80)
    seeds = [right(truth, 0.8, seed) for seed in range(3)]
    for metric in ("macro_f1", "auroc"):
        assert subtract_seeds(seeds, seeds, truth, metric)[:4] == (0, 0, 0, 1)
        assert (
            significance.compute_permutation_p(seeds, seeds, truth, positive=1, metric=metric) == 1
        )
    same = seeds[0].decided(1) == truth
    assert significance.compute_mcnemar_p(same, same) == 1


def test_holm_is_the_published_step_down_and_leaves_undefined_out() -> None:
    assert significance.adjust_holm([0.01, 0.04, np.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert np.isnan(significance.adjust_holm([0.01, np.nan])[1])
    assert significance.adjust_holm([0.01, np.nan])[0] == pytest.approx(0.01)
    assert significance.adjust_holm([]) == []


def test_the_p_value_and_the_interval_say_the_same() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        values = SeedMetric(random.normal(0.02, 0.01, 5), random.normal(0.02, 0.02, (200, 5)))
        found = estimate_difference(values)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_seeds_alone_are_judged_as_by_students_t() -> None:
    here = np.array([0.02, 0.05, 0.01, 0.04, 0.03])
    found = estimate_difference(
        SeedMetric(here, np.tile(here, (100, 1)))
    )  # rows that make no difference
    expected = stats.ttest_1samp(here, 0)
    bounds = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))


def test_rows_alone_have_the_width_of_the_bootstrap() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 300)
    one = right(truth, 0.8, 3)
    values = measure_seeds(
        [one] * 4, truth, draw_resamples(300, 2000, 0), positive=1, names=["accuracy"]
    )
    found = estimate_difference(values["accuracy"])
    hits = one.decided(1) == truth
    expected = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 300)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.05)


def test_folds_with_scales_of_their_own_leave_the_permutation_test_its_power() -> None:
    random = np.random.default_rng(3)
    truth, strata = random.integers(0, 2, 200), np.arange(200) % 5
    found = {}
    for apart in (0.0, 0.6):
        offsets = random.uniform(0, apart, (2, 5))
        a, b = (
            np.clip(0.15 + 0.1 * gain * truth + 0.06 * random.normal(size=200), 0.01, 0.39)
            + offsets[side][strata]
            for side, gain in enumerate((1.2, 0.3))
        )
        one, two = ([SeedPredictions(np.stack([1 - x, x], axis=1), 0.5, strata)] for x in (a, b))
        found[apart] = significance.compute_permutation_p(
            one, two, truth, positive=1, metric="auroc", num_permutations=300
        )
    assert max(found.values()) < 0.02


def test_rows_of_a_group_are_swapped_together() -> None:
    random, truth = np.random.default_rng(0), np.tile([0, 1], 60)
    groups = np.arange(120) // 6
    a, b = (np.repeat(random.random(20) < share, 6) for share in (0.8, 0.5))
    one, two = (
        [SeedPredictions(np.where((right == truth)[:, None], [0.1, 0.9], [0.9, 0.1]), 0.5)]
        for right in (a, b)
    )
    given = {"positive": 1, "metric": "accuracy", "num_permutations": 500}
    alone = significance.compute_permutation_p(one, two, truth, **given)
    together = significance.compute_permutation_p(one, two, truth, groups=groups, **given)
    assert alone < 0.02 < together
