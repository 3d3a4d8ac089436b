"""Intervals of resampled rows: they narrow with rows, pair systems and keep groups together."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miko_clf import metrics
from miko_clf.evaluate.bootstrap import bootstrap_paired_difference, bootstrap_scores
from tests.support.predictions import draw_probabilities


def test_an_interval_holds_the_value_and_narrows_with_more_rows() -> None:
    few, many = (
        bootstrap_scores(*draw_probabilities(1, num_rows, 2), positive=1, num_resamples=200)
        for num_rows in (40, 640)
    )
    for name in ("accuracy", "macro_f1", "positive_f1", "auroc", "average_precision"):
        assert few[name].low < few[name].value < few[name].high
        assert many[name].high - many[name].low < few[name].high - few[name].low


def test_the_interval_of_accuracy_is_near_the_normal_one() -> None:
    probabilities, truth = draw_probabilities(2, 300, 2)
    accuracy = bootstrap_scores(probabilities, truth, positive=1, num_resamples=400)["accuracy"]
    half = 1.96 * math.sqrt(accuracy.value * (1 - accuracy.value) / 300)
    assert accuracy.low == pytest.approx(accuracy.value - half, abs=0.012)
    assert accuracy.high == pytest.approx(accuracy.value + half, abs=0.012)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    probabilities, truth = draw_probabilities(3, 60, 2)
    first, again, other = (
        bootstrap_scores(probabilities, truth, positive=1, num_resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["macro_f1"].value == other["macro_f1"].value
    assert first != other


@pytest.mark.parametrize("num_labels", [2, 3, 0], ids=["two classes", "three", "many labels"])
def test_posts_that_a_thread_repeats_are_drawn_together(num_labels: int) -> None:
    a, truth = draw_probabilities(14, 60, num_labels or 2)
    b = draw_probabilities(15, 60, num_labels or 2)[0]
    if not num_labels:
        truth = np.stack([truth, 1 - truth], 1)
    positive = 1 if num_labels == 2 else None
    thrice, threads = ([np.tile(each, (3, 1)) for each in (a, b)], np.tile(np.arange(60), 3))
    repeated = np.concatenate([truth] * 3)

    once = bootstrap_scores(a, truth, positive=positive, num_resamples=40)
    found = bootstrap_scores(
        thrice[0], repeated, positive=positive, groups=threads, num_resamples=40
    )
    for name, interval in once.items():
        assert found[name] == pytest.approx(interval, nan_ok=True), name

    gap = bootstrap_paired_difference(a, b, truth, positive=positive, num_resamples=40)
    assert gap.low < gap.high
    assert bootstrap_paired_difference(
        *thrice, repeated, positive=positive, groups=threads, num_resamples=40
    ) == pytest.approx(gap)  # fmt: skip


def test_a_resample_without_a_class_is_left_out_of_auroc_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probabilities, _ = draw_probabilities(4, 6, 2)
    truth = np.array([0, 0, 0, 0, 0, 1])
    auroc = bootstrap_scores(probabilities, truth, positive=1, num_resamples=200)["auroc"]
    assert all(map(math.isfinite, auroc))
    assert any(line.startswith("auroc is undefined on") for line in caplog.messages)
    assert not any(line.startswith("accuracy") for line in caplog.messages)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_an_undefined_metric_has_no_interval(num_rows: int) -> None:
    probabilities, _ = draw_probabilities(5, num_rows, 2)
    found = bootstrap_scores(probabilities, np.zeros(num_rows, int), positive=1, num_resamples=20)
    assert all(map(math.isnan, found["auroc"]))
    assert math.isfinite(found["accuracy"].value)


def test_every_metric_of_354_rows_takes_under_ten_seconds() -> None:
    start = time.process_time()
    bootstrap_scores(*draw_probabilities(6, 354, 2), positive=1, num_resamples=250)
    assert 4 * (time.process_time() - start) < 10


@given(st.integers(0, 10**6), st.sampled_from(metrics.METRIC_NAMES))
@settings(deadline=None, max_examples=12)
def test_identical_predictions_differ_by_exactly_zero(seed: int, metric: str) -> None:
    probabilities, truth = draw_probabilities(seed, 30, 2)
    found = bootstrap_paired_difference(
        probabilities, probabilities.copy(), truth, positive=1, metric=metric, num_resamples=20
    )
    assert found == (0, 0, 0)


def test_a_difference_turns_its_sign_when_the_pair_is_swapped() -> None:
    a, truth = draw_probabilities(7, 80, 2)
    b = draw_probabilities(8, 80, 2)[0]
    one = bootstrap_paired_difference(
        a, b, truth, positive=1, threshold=(0.3, 0.6), num_resamples=100
    )
    two = bootstrap_paired_difference(
        b, a, truth, positive=1, threshold=(0.6, 0.3), num_resamples=100
    )
    assert one.value != 0
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))


def test_a_known_gain_is_found() -> None:
    blind, truth = draw_probabilities(9, 200, 2)
    sighted = 0.5 * blind + 0.5 * np.eye(2)[truth]
    for metric in ("macro_f1", "auroc"):
        assert bootstrap_paired_difference(
            sighted, blind, truth, positive=1, metric=metric, num_resamples=200
        ).low > 0.05  # fmt: skip


def test_pairing_narrows_the_interval_of_two_systems_that_err_alike() -> None:
    a, truth = draw_probabilities(10, 200, 2)
    b = a.copy()
    b[:5] = b[:5, ::-1]
    paired = bootstrap_paired_difference(a, b, truth, positive=1, num_resamples=200)
    alone = bootstrap_scores(a, truth, positive=1, num_resamples=200)["macro_f1"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
