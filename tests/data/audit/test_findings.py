"""Look-ups and AUROCs score what they say, with intervals that hold the truth."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from miko_clf.data.audit.findings import (
    fold_auroc,
    measure_auroc,
    measure_neighbour_auroc,
    score_lookup,
)
from tests.support.audited_posts import FEW_EXAMPLES


def test_a_look_up_scores_what_answering_trains_label_scores() -> None:
    known = [("a", "bad"), ("b", "good"), ("c", "good"), ("c", "bad"), ("d", "good"), (None, "bad")]
    known += [(f"x{row}", "good") for row in range(4)]
    asked = [("a", "bad"), ("b", "bad"), ("c", "good"), ("z", "good"), (None, "bad")]
    found = score_lookup("text", "test", known, asked)
    assert found
    assert (found.rows, found.found, found.right) == (5, 3, 2)
    assert (found.accuracy, found.majority) == (0.6, 0.4)
    assert found.gain == pytest.approx(0.2)
    assert not found.leak


def test_a_look_up_is_a_leak_where_its_gain_is_beyond_chance() -> None:
    known = [(row, "bad" if row % 2 else "good") for row in range(100)]
    asked = [(row, "bad" if row % 2 else "good") for row in range(50, 150)]
    flipped = [(row, "good" if row % 2 else "bad") for row in range(50, 150)]
    assert (found := score_lookup("text", "test", known, asked))
    assert found.leak
    assert (found := score_lookup("text", "test", known, flipped))
    assert not found.leak
    assert score_lookup("text", "test", known, []) is None


@FEW_EXAMPLES
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab")), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("ab")), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_a_look_up_does_not_depend_on_the_order_of_posts(
    known: list[tuple[int, str]], asked: list[tuple[int, str]], chance: random.Random
) -> None:
    found = score_lookup("text", "test", known, asked)
    shuffled = chance.sample(known, len(known)), chance.sample(asked, len(asked))
    assert found == score_lookup("text", "test", *shuffled)


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
