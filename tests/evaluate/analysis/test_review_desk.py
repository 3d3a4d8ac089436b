"""What a desk of so many people finds: counted by hand, shared where probabilities are equal."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from miko_clf.evaluate.analysis.review_desk import ReviewLoad, measure_review_desk
from miko_clf.questions import Question


def review(stated: list[float], truth: list[int], capacity: float, **more: Any) -> ReviewLoad:
    chances = np.array(stated)
    predictions = SimpleNamespace(
        question=Question(labels=("fine", "harmful")),
        truth=np.array(truth),
        probabilities=np.stack([1 - chances, chances], axis=1),
        groups=more.get("groups"),
    )
    [load] = measure_review_desk(cast(Any, predictions), [capacity], more.get("draws", 50))
    return load


def test_what_is_found_and_missed_is_counted_among_the_likeliest() -> None:
    truth = [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    load = review(np.linspace(0.95, 0.05, 20).tolist(), truth, 0.25)
    assert load.reviewed == 5
    assert load.precision.value == pytest.approx(3 / 5)
    assert load.missed.value == pytest.approx(1 / 4)
    assert load.lift.value == pytest.approx(3 / 5 / (4 / 20))
    assert load.precision.low < 0.6 < load.precision.high


def test_posts_of_one_probability_are_each_looked_at_in_part() -> None:
    load = review([0.9] * 4 + [0.5] * 16, [1] * 4 + [1] * 4 + [0] * 12, 0.5)
    assert load.reviewed == 10
    assert load.precision.value == pytest.approx((4 + 6 * 4 / 16) / 10)


def test_the_order_of_posts_that_are_equally_likely_does_not_matter() -> None:
    truth = np.array([1] * 4 + [0] * 16)
    loads = [review([0.5] * 20, shuffled.tolist(), 0.3) for shuffled in (truth, truth[::-1])]
    assert loads[0].precision.value == pytest.approx(loads[1].precision.value) == 0.2
    assert loads[0].lift.value == pytest.approx(1)


def test_intervals_of_a_desk_hold_what_other_posts_would_give() -> None:
    random, held, runs = np.random.default_rng(0), 0, 100
    for _ in range(runs):
        logit = random.normal(size=300)
        truth = (random.random(300) < 1 / (1 + np.exp(-2 * logit))).astype(int)
        load = review((1 / (1 + np.exp(-logit))).tolist(), truth.tolist(), 0.2, draws=200)
        held += load.precision.low <= _EXPECTED <= load.precision.high
    assert held >= 88  # 95 are expected


def _draw_many() -> float:
    random = np.random.default_rng(1)
    logit = random.normal(size=400_000)
    chance = 1 / (1 + np.exp(-2 * logit))
    return float(chance[logit >= np.quantile(logit, 0.8)].mean())


_EXPECTED = _draw_many()


def test_a_capacity_of_hardly_a_post_is_left_out() -> None:
    predictions = SimpleNamespace(
        question=Question(labels=("fine", "harmful")),
        truth=np.array([0, 1] * 20),
        probabilities=np.full((40, 2), 0.5),
        groups=None,
    )
    assert measure_review_desk(cast(Any, predictions), [0.01, 0.5], 10)[0].capacity == 0.5
