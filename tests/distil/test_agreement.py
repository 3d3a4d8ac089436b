"""Alpha, raw agreement and AC1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.distil.agreement import (
    compute_ac1,
    compute_alpha,
    compute_raw_agreement,
    measure_agreement,
)
from miko_clf.errors import DistilError

NONE = np.nan
# Four raters, twelve units, five values, with gaps: the worked example of Gwet (2014).
GWET = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, NONE],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 3],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
])  # fmt: skip


def simulated(raters: int, accuracy: float, prevalence: float, units: int) -> np.ndarray:
    """Return yes and no of raters who are right so often about something true so often."""
    random = np.random.default_rng(0)
    truth = random.random(units) < prevalence
    return np.where(random.random((raters, units)) < accuracy, truth, ~truth).astype(float)


def test_a_published_example_with_gaps_gives_its_published_figures() -> None:
    found = measure_agreement(GWET)
    assert (found.raters, found.units, found.ratings) == (4, 11, 41)
    assert found.raw == pytest.approx(0.81818, abs=1e-4)
    assert found.ac1 == pytest.approx(0.77544, abs=1e-4)
    assert found.alpha == pytest.approx(0.74342, abs=1e-4)


def test_alpha_collapses_where_nearly_all_is_plausible_and_ac1_does_not() -> None:
    found = measure_agreement(simulated(raters=5, accuracy=0.92, prevalence=0.9, units=4000))
    assert found.raw == pytest.approx(0.86, abs=0.02)
    assert found.alpha == pytest.approx(0.48, abs=0.03)
    assert found.ac1 == pytest.approx(0.81, abs=0.02)


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=12).filter(lambda row: len(set(row)) > 1),
    st.integers(2, 5),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_raters_who_always_agree_score_one(row: list[int], raters: int, level: str) -> None:
    table = np.array([row] * raters, dtype=float)
    table[0, 0] = NONE if raters > 2 else table[0, 0]
    found = measure_agreement(table, level=level)
    assert (found.alpha, found.raw, found.ac1) == (1.0, 1.0, 1.0)


@given(st.integers(0, 10_000))
def test_order_of_raters_and_of_units_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(0, 3, (4, 8)).astype(float)
    table[random.random(table.shape) < 0.2] = NONE
    table[:2, 0] = (0, 1)
    shuffled = table[random.permutation(4)][:, random.permutation(8)]
    assert measure_agreement(shuffled) == measure_agreement(table)


def test_raters_who_guess_agree_no_more_than_chance() -> None:
    found = measure_agreement(simulated(raters=5, accuracy=0.5, prevalence=0.5, units=4000))
    assert found.alpha == pytest.approx(0, abs=0.02)
    assert found.ac1 == pytest.approx(0, abs=0.02)


def test_one_value_throughout_leaves_alpha_undefined_and_is_full_agreement() -> None:
    found = measure_agreement([[1, 1, 1], [1, 1, 1]], values=(0, 1))
    assert (found.alpha, found.raw, found.ac1) == (None, 1.0, 1.0)


def test_near_misses_count_for_stars_and_not_for_names() -> None:
    near = np.array([[1, 2, 4, 5, 3], [2, 3, 5, 4, 3]], dtype=float)
    ordinal, nominal = compute_alpha(near, "ordinal"), compute_alpha(near)
    assert ordinal is not None
    assert nominal is not None
    assert ordinal > 0.5 > nominal
    assert compute_raw_agreement(near) == pytest.approx(0.2)


def test_values_that_nobody_chose_lower_what_chance_explains() -> None:
    table = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], dtype=float)
    assert compute_ac1(table, (0, 1, 2, 3, 4)) > compute_ac1(table, (0, 1))


def test_a_rating_that_may_not_be_given_is_refused() -> None:
    with pytest.raises(DistilError, match=r"hold \[.*7.*allowed are \[1, 2\]"):
        measure_agreement([[1, 7], [1, 2]], values=(1, 2))


def test_ratings_without_a_pair_are_refused() -> None:
    with pytest.raises(DistilError, match="two raters"):
        measure_agreement([[1, NONE], [NONE, 2]])
    with pytest.raises(DistilError, match="rater, unit"):
        measure_agreement([1, 2, 3])
