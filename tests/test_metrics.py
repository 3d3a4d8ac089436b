"""Metrics, their intervals, and the baselines that a system has to beat."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from miko_clf import metrics
from miko_clf.evaluate.baselines import majority, tfidf_logistic
from miko_clf.evaluate.interval import bootstrap, paired_difference


def drawn(seed: int, num_rows: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, with ties, that know something of the truth, which has every class."""
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(num_rows) % num_labels)
    scores = random.normal(size=(num_rows, num_labels)) + np.eye(num_labels)[truth]
    probabilities = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)
    return probabilities / probabilities.sum(1, keepdims=True), truth


def ece_by_hand(probabilities: np.ndarray, truth: np.ndarray, bins: int) -> float:
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    gaps = [abs((confidence - right)[place == each].sum()) for each in range(bins)]
    return sum(gaps) / len(truth)


@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 1))
@settings(deadline=None, max_examples=25)
def test_two_class_metrics_are_those_of_scikit_learn(
    seed: int, num_rows: int, threshold: float, positive: int
) -> None:
    probabilities, truth = drawn(seed, num_rows, 2)
    score, true = probabilities[:, positive], truth == positive

    found = metrics.classification(probabilities, truth, positive=positive, threshold=threshold)

    decided = score >= threshold
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(true, decided),
            "macro_f1": reference.f1_score(true, decided, average="macro", zero_division=0),
            "positive_f1": reference.f1_score(true, decided, zero_division=0),
            "auroc": reference.roc_auc_score(true, score),
            "average_precision": reference.average_precision_score(true, score),
            "ece": found["ece"],
        },
        abs=1e-6,
    )


@given(st.integers(0, 10**6), st.integers(6, 60), st.integers(3, 5))
@settings(deadline=None, max_examples=25)
def test_metrics_of_many_classes_are_those_of_scikit_learn(
    seed: int, num_rows: int, num_labels: int
) -> None:
    probabilities, truth = drawn(seed, num_rows, num_labels)

    found = metrics.classification(probabilities, truth, positive=None)

    decided, one_hot = probabilities.argmax(1), np.eye(num_labels)[truth]
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(truth, decided),
            "macro_f1": reference.f1_score(truth, decided, average="macro", zero_division=0),
            "auroc": reference.roc_auc_score(one_hot, probabilities, average="macro"),
            "average_precision": reference.average_precision_score(one_hot, probabilities),
            "ece": found["ece"],
        },
        abs=1e-6,
    )


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_ece_is_the_gap_of_the_most_probable_class_in_equal_bins(
    seed: int, num_labels: int, bins: int
) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(num_labels), size=50)
    truth = random.integers(0, num_labels, size=50)
    found = metrics.classification(probabilities, truth, positive=None, bins=bins)["ece"]
    assert found == pytest.approx(ece_by_hand(probabilities, truth, bins), abs=1e-6)


def test_ece_does_not_move_with_the_threshold() -> None:
    probabilities, truth = drawn(0, 50, 2)
    low, high = (
        metrics.classification(probabilities, truth, positive=1, threshold=threshold)
        for threshold in (0.2, 0.8)
    )
    assert low["ece"] == high["ece"]
    assert low["accuracy"] != high["accuracy"]


def test_a_probability_at_the_threshold_is_positive() -> None:
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49]])
    assert metrics.decide(probabilities, positive=1).tolist() == [1, 0]
    assert metrics.decide(probabilities, positive=0, threshold=0.51).tolist() == [1, 0]


@pytest.mark.parametrize("only", [0, 1])
def test_ranking_metrics_are_nan_when_the_truth_holds_one_class(only: int) -> None:
    probabilities, _ = drawn(0, 8, 2)
    found = metrics.classification(probabilities, np.full(8, only), positive=1)
    assert math.isnan(found["auroc"])
    assert math.isnan(found["average_precision"])
    assert 0 <= found["accuracy"] <= 1


def test_f1_of_a_class_neither_true_nor_decided_is_nan() -> None:
    found = metrics.classification(np.array([[0.9, 0.1]] * 3), np.zeros(3, int), positive=1)
    assert math.isnan(found["positive_f1"])


def test_macro_auroc_is_nan_while_a_class_has_no_rows() -> None:
    probabilities, truth = drawn(0, 9, 3)
    kept = truth < 2
    found = metrics.classification(probabilities[kept], truth[kept], positive=None)
    assert math.isnan(found["auroc"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.5, -0.2])
def test_a_probability_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        metrics.classification(np.array([[wrong, 0.5]]), np.array([0]), positive=1)


def test_a_probability_a_rounding_above_one_is_not_taken_for_a_logit() -> None:
    exact = np.array([[0.0, 1.0], [0.4, 0.6], [0.8, 0.2], [0.9, 0.1]])
    truth = np.array([1, 0, 1, 0])
    rounded = exact * (1 + 1e-9)
    assert rounded.max() > 1
    assert metrics.classification(rounded, truth, positive=1) == pytest.approx(
        metrics.classification(exact, truth, positive=1), abs=1e-6
    )


def test_an_interval_holds_the_value_and_narrows_with_more_rows() -> None:
    few, many = (
        bootstrap(*drawn(1, num_rows, 2), positive=1, num_resamples=200) for num_rows in (40, 640)
    )
    for name in ("accuracy", "macro_f1", "positive_f1", "auroc", "average_precision"):
        assert few[name].low < few[name].value < few[name].high
        assert many[name].high - many[name].low < few[name].high - few[name].low


def test_the_interval_of_accuracy_is_near_the_normal_one() -> None:
    probabilities, truth = drawn(2, 300, 2)
    accuracy = bootstrap(probabilities, truth, positive=1, num_resamples=400)["accuracy"]
    half = 1.96 * math.sqrt(accuracy.value * (1 - accuracy.value) / 300)
    assert accuracy.low == pytest.approx(accuracy.value - half, abs=0.012)
    assert accuracy.high == pytest.approx(accuracy.value + half, abs=0.012)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    probabilities, truth = drawn(3, 60, 2)
    first, again, other = (
        bootstrap(probabilities, truth, positive=1, num_resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["macro_f1"].value == other["macro_f1"].value
    assert first != other


@pytest.mark.parametrize("num_labels", [2, 3, 0], ids=["two classes", "three", "many labels"])
def test_posts_that_a_thread_repeats_are_drawn_together(num_labels: int) -> None:
    a, truth = drawn(14, 60, num_labels or 2)
    b = drawn(15, 60, num_labels or 2)[0]
    if not num_labels:
        truth = np.stack([truth, 1 - truth], 1)
    positive = 1 if num_labels == 2 else None
    thrice, threads = ([np.tile(each, (3, 1)) for each in (a, b)], np.tile(np.arange(60), 3))
    repeated = np.concatenate([truth] * 3)

    once = bootstrap(a, truth, positive=positive, num_resamples=40)
    found = bootstrap(thrice[0], repeated, positive=positive, groups=threads, num_resamples=40)
    for name, interval in once.items():
        assert found[name] == pytest.approx(interval, nan_ok=True), name

    gap = paired_difference(a, b, truth, positive=positive, num_resamples=40)
    assert gap.low < gap.high
    assert paired_difference(
        *thrice, repeated, positive=positive, groups=threads, num_resamples=40
    ) == pytest.approx(gap)  # fmt: skip


def test_a_resample_without_a_class_is_left_out_of_auroc_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    probabilities, _ = drawn(4, 6, 2)
    truth = np.array([0, 0, 0, 0, 0, 1])
    auroc = bootstrap(probabilities, truth, positive=1, num_resamples=200)["auroc"]
    assert all(map(math.isfinite, auroc))
    assert any(line.startswith("auroc is undefined on") for line in caplog.messages)
    assert not any(line.startswith("accuracy") for line in caplog.messages)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_an_undefined_metric_has_no_interval(num_rows: int) -> None:
    probabilities, _ = drawn(5, num_rows, 2)
    found = bootstrap(probabilities, np.zeros(num_rows, int), positive=1, num_resamples=20)
    assert all(map(math.isnan, found["auroc"]))
    assert math.isfinite(found["accuracy"].value)


def test_every_metric_of_354_rows_takes_under_ten_seconds() -> None:
    start = time.process_time()
    bootstrap(*drawn(6, 354, 2), positive=1, num_resamples=250)
    assert 4 * (time.process_time() - start) < 10


@given(st.integers(0, 10**6), st.sampled_from(metrics.NAMES))
@settings(deadline=None, max_examples=12)
def test_identical_predictions_differ_by_exactly_zero(seed: int, metric: str) -> None:
    probabilities, truth = drawn(seed, 30, 2)
    found = paired_difference(
        probabilities, probabilities.copy(), truth, positive=1, metric=metric, num_resamples=20
    )
    assert found == (0, 0, 0)


def test_a_difference_turns_its_sign_when_the_pair_is_swapped() -> None:
    a, truth = drawn(7, 80, 2)
    b = drawn(8, 80, 2)[0]
    one = paired_difference(a, b, truth, positive=1, threshold=(0.3, 0.6), num_resamples=100)
    two = paired_difference(b, a, truth, positive=1, threshold=(0.6, 0.3), num_resamples=100)
    assert one.value != 0
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))


def test_a_known_gain_is_found() -> None:
    blind, truth = drawn(9, 200, 2)
    sighted = 0.5 * blind + 0.5 * np.eye(2)[truth]
    for metric in ("macro_f1", "auroc"):
        assert paired_difference(
            sighted, blind, truth, positive=1, metric=metric, num_resamples=200
        ).low > 0.05  # fmt: skip


def test_pairing_narrows_the_interval_of_two_systems_that_err_alike() -> None:
    a, truth = drawn(10, 200, 2)
    b = a.copy()
    b[:5] = b[:5, ::-1]
    paired = paired_difference(a, b, truth, positive=1, num_resamples=200)
    alone = bootstrap(a, truth, positive=1, num_resamples=200)["macro_f1"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_the_majority_baseline_decides_for_the_commonest_class() -> None:
    probabilities = majority(np.array([2, 2, 0]), 4, 5)
    assert probabilities.shape == (5, 4)
    assert probabilities[0].tolist() == [1 / 3, 0, 2 / 3, 0]


def test_tfidf_learns_which_words_go_with_a_class() -> None:
    texts = ["a bright sunny day", "sunny and warm", "dark cold rain", "rain and wind"] * 3
    truth = np.array([0, 0, 2, 2] * 3)
    probabilities = tfidf_logistic(texts, truth, ["SUNNY warm", "cold rain", "unseen"], 3)
    assert probabilities.argmax(1)[:2].tolist() == [0, 2]
    assert probabilities[:, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.parametrize(
    ("texts", "truth"),
    [
        (["one"], [0]),
        (["one word", "two terms"], [0, 1]),
        (["", "?"], [0, 1]),
        (["a b"] * 3, [1] * 3),
    ],
)
def test_tfidf_survives_data_too_small_to_learn_from(texts: list[str], truth: list[int]) -> None:
    probabilities = tfidf_logistic(texts, np.array(truth), ["one", ""], 2)
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)
