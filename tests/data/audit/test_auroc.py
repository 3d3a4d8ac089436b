"""The area under the curve with its interval, and runs of numbers found by neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from miko_clf.data.audit.auroc import fold_auroc, measure_auroc, measure_neighbour_auroc
from tests.support.audited_posts import FEW_EXAMPLES


@FEW_EXAMPLES
@given(st.lists(st.integers(0, 5), min_size=60, max_size=90), st.integers(20, 40))
def test_the_area_is_that_of_scikit_learn_and_turns_with_the_sign(
    values: list[int], ones: int
) -> None:
    numbers = np.array(values, dtype=np.float64)
    inside = np.arange(len(numbers)) < ones
    found, turned = measure_auroc(numbers, inside), measure_auroc(-numbers, inside)
    assert found
    assert turned
    assert found.value == pytest.approx(roc_auc_score(inside, numbers))
    assert found.low <= found.value <= found.high
    assert fold_auroc(found) == pytest.approx(fold_auroc(turned))


def test_the_interval_of_an_area_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    inside = np.arange(200) < 80
    truth = 0.7602  # of two normal distributions one standard deviation apart: Phi(1 / sqrt 2)
    held = 0
    for _ in range(400):
        found = measure_auroc(chance.normal(size=200) + inside, inside)
        held += bool(found and found.low <= truth <= found.high)
    assert 0.91 < held / 400 < 0.98


def test_too_few_rows_of_a_class_and_unknown_numbers_have_no_area() -> None:
    assert measure_auroc(np.arange(100.0), np.arange(100) < 19) is None
    numbers = np.where(np.arange(100) < 81, np.nan, 1.0)
    assert measure_auroc(numbers, np.arange(100) % 2 == 0) is None


def test_runs_of_numbers_are_found_by_neighbours_where_the_area_sees_nothing() -> None:
    numbers = np.arange(1000.0)
    inside = (np.arange(1000) // 50) % 2 == 0
    ids = [str(number) for number in range(1000)]
    plain, voted = measure_auroc(numbers, inside), measure_neighbour_auroc(numbers, inside, ids)
    assert plain
    assert voted
    assert fold_auroc(plain).value < 0.6
    assert voted.value > 0.9
    mixed = measure_neighbour_auroc(numbers, np.random.default_rng(0).random(1000) < 0.4, ids)
    assert mixed
    assert mixed.low < 0.5 < mixed.high
