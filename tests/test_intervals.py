"""Resamples, percentiles and Wilson's interval: those of plain code, and of statsmodels."""

import logging
import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from miko_clf.intervals import compute_percentile_interval, compute_wilson_bounds, draw_resamples


def test_resamples_of_rows_count_what_a_seeded_generator_draws() -> None:
    weights = draw_resamples(30, 100, 7)
    drawn = np.random.default_rng(7).integers(0, 30, (100, 30))
    assert weights[0].tolist() == [1] * 30
    assert weights[1:].tolist() == [np.bincount(row, minlength=30).tolist() for row in drawn]


def test_rows_of_a_group_are_drawn_as_often_as_each_other() -> None:
    groups = np.array([2, 0, 1, 1, 2, 2])
    weights = draw_resamples(6, 50, 0, groups)
    of_groups = draw_resamples(3, 50, 0)
    assert (weights == of_groups[:, groups]).all()


@pytest.mark.parametrize(("num_rows", "groups"), [(1, None), (4, np.zeros(4, dtype=int))])
def test_of_one_unit_nothing_is_drawn(num_rows: int, groups: np.ndarray | None) -> None:
    assert draw_resamples(num_rows, 50, 0, groups).tolist() == [[1] * num_rows]


def test_percentiles_are_of_the_resamples_that_are_defined(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sample = np.append(np.linspace(0, 1, 1001), [np.nan] * 9)
    found = compute_percentile_interval(0.5, sample)
    assert tuple(found) == pytest.approx((0.5, 0.025, 0.975))
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        compute_percentile_interval(0.5, sample, level=0.9, name="auroc")
    assert "auroc is undefined on 9 of 1010 resamples" in caplog.text
    assert all(map(math.isnan, compute_percentile_interval(np.nan, sample)))
    assert math.isnan(compute_percentile_interval(0.5, sample[-9:]).low)


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 12), (5, 12), (12, 12), (80, 200)])
def test_wilson_bounds_are_those_of_statsmodels_and_end_at_the_ends(count: int, total: int) -> None:
    low, high = compute_wilson_bounds(count / total, total)
    assert (low, high) == pytest.approx(proportion_confint(count, total, method="wilson"))
    assert (low == 0) == (count == 0)
    assert (high == 1) == (count == total)
    arrays = compute_wilson_bounds(np.array([count / total] * 2), np.array([total] * 2))
    assert [bound.tolist() for bound in arrays] == [[low] * 2, [high] * 2]
