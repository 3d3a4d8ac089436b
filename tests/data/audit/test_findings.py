"""A look-up scores what answering train's labels scores, and is a leak beyond chance."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miko_clf.data.audit.findings import score_lookup
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
