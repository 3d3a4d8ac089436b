"""Metrics are those of scikit-learn, undefined where they must be, alike on many resamples."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional import classification as oracle

from miko_clf import intervals, metrics
from tests.support.predictions import draw_probabilities


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
    probabilities, truth = draw_probabilities(seed, num_rows, 2)
    score, true = probabilities[:, positive], truth == positive

    found = metrics.measure_classification(
        probabilities, truth, positive=positive, threshold=threshold
    )

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
    probabilities, truth = draw_probabilities(seed, num_rows, num_labels)

    found = metrics.measure_classification(probabilities, truth, positive=None)

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
    found = metrics.measure_classification(probabilities, truth, positive=None, bins=bins)["ece"]
    assert found == pytest.approx(ece_by_hand(probabilities, truth, bins), abs=1e-6)


def test_ece_does_not_move_with_the_threshold() -> None:
    probabilities, truth = draw_probabilities(0, 50, 2)
    low, high = (
        metrics.measure_classification(probabilities, truth, positive=1, threshold=threshold)
        for threshold in (0.2, 0.8)
    )
    assert low["ece"] == high["ece"]
    assert low["accuracy"] != high["accuracy"]


def test_a_probability_at_the_threshold_is_positive() -> None:
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49]])
    assert metrics.decide_labels(probabilities, positive=1).tolist() == [1, 0]
    assert metrics.decide_labels(probabilities, positive=0, threshold=0.51).tolist() == [1, 0]


@pytest.mark.parametrize("only", [0, 1])
def test_ranking_metrics_are_nan_when_the_truth_holds_one_class(only: int) -> None:
    probabilities, _ = draw_probabilities(0, 8, 2)
    found = metrics.measure_classification(probabilities, np.full(8, only), positive=1)
    assert math.isnan(found["auroc"])
    assert math.isnan(found["average_precision"])
    assert 0 <= found["accuracy"] <= 1


def test_f1_of_a_class_neither_true_nor_decided_is_nan() -> None:
    found = metrics.measure_classification(np.array([[0.9, 0.1]] * 3), np.zeros(3, int), positive=1)
    assert math.isnan(found["positive_f1"])


def test_macro_auroc_is_nan_while_a_class_has_no_rows() -> None:
    probabilities, truth = draw_probabilities(0, 9, 3)
    kept = truth < 2
    found = metrics.measure_classification(probabilities[kept], truth[kept], positive=None)
    assert math.isnan(found["auroc"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.5, -0.2])
def test_a_probability_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        metrics.measure_classification(np.array([[wrong, 0.5]]), np.array([0]), positive=1)


def test_a_probability_a_rounding_above_one_is_not_taken_for_a_logit() -> None:
    exact = np.array([[0.0, 1.0], [0.4, 0.6], [0.8, 0.2], [0.9, 0.1]])
    truth = np.array([1, 0, 1, 0])
    rounded = exact * (1 + 1e-9)
    assert rounded.max() > 1
    assert metrics.measure_classification(rounded, truth, positive=1) == pytest.approx(
        metrics.measure_classification(exact, truth, positive=1), abs=1e-6
    )


def rows(num_labels: int, num_rows: int, tied: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, in tenths if tied, and labels that know nothing of them."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(num_labels), num_rows)
    if tied:
        probabilities = np.round(probabilities, 1)
        probabilities[:, 0] = np.clip(1 - probabilities[:, 1:].sum(1), 0, 1)
    return probabilities, random.integers(0, num_labels, num_rows)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 4), st.integers(12, 60), st.booleans(), st.integers(0, 10**6))
def test_every_metric_of_one_label_is_that_of_torchmetrics(
    num_labels: int, num_rows: int, tied: bool, seed: int
) -> None:
    probabilities, truth = rows(num_labels, num_rows, tied, seed)
    truth[:num_labels] = np.arange(num_labels)
    positive = 1 if num_labels == 2 else None
    stated, true = torch.from_numpy(probabilities), torch.from_numpy(truth)
    decided = torch.from_numpy(metrics.decide_labels(probabilities, positive=positive))
    told = {
        "accuracy": oracle.multiclass_accuracy(decided, true, num_labels, average="micro"),
        "macro_f1": oracle.multiclass_f1_score(decided, true, num_labels, average="macro"),
        "auroc": oracle.multiclass_auroc(stated, true, num_labels),
        "average_precision": oracle.multiclass_average_precision(stated, true, num_labels),
        "ece": oracle.multiclass_calibration_error(stated, true, num_labels, n_bins=15),
    }
    if positive is not None:
        told["positive_f1"] = oracle.binary_f1_score(decided, true)
        told["auroc"] = oracle.binary_auroc(stated[:, 1], true)
        told["average_precision"] = oracle.binary_average_precision(stated[:, 1], true)
    found = metrics.measure_classification(probabilities, truth, positive=positive)
    assert set(found) == set(told) == set(metrics.list_metrics(positive))
    assert found == pytest.approx({name: float(value) for name, value in told.items()}, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 4), st.integers(12, 60), st.booleans(), st.integers(0, 10**6))
def test_every_metric_of_many_labels_is_that_of_torchmetrics(
    num_labels: int, num_rows: int, tied: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    probabilities = np.round(random.random((num_rows, num_labels)), 1 if tied else 9)
    truth = random.integers(0, 2, (num_rows, num_labels))
    truth[:2] = [[0], [1]]
    stated, true = torch.from_numpy(probabilities), torch.from_numpy(truth)
    decided = torch.from_numpy((probabilities >= 0.5).astype(np.int64))
    columns = [(stated[:, label].contiguous(), true[:, label]) for label in range(num_labels)]

    def mean(score: Any, pairs: Any, **settings: Any) -> float:
        return float(torch.stack([score(*pair, **settings) for pair in pairs]).double().mean())

    told = {
        "subset_accuracy": oracle.multilabel_exact_match(decided, true, num_labels),
        "macro_f1": mean(oracle.binary_f1_score, zip(decided.T, true.T, strict=True)),
        "micro_f1": oracle.binary_f1_score(decided.ravel(), true.ravel()),
        "auroc": mean(oracle.binary_auroc, columns),
        "average_precision": mean(oracle.binary_average_precision, columns),
        "ece": mean(oracle.binary_calibration_error, columns, n_bins=15),
    }
    found = metrics.measure_multilabel(probabilities, truth)
    assert tuple(found) == tuple(told) == metrics.LABEL_METRIC_NAMES
    assert found == pytest.approx({name: float(value) for name, value in told.items()}, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(2, 60), st.booleans(), st.integers(0, 10**6))
def test_each_resample_has_the_metrics_of_its_rows_repeated(
    num_labels: int, num_rows: int, tied: bool, seed: int
) -> None:
    probabilities, truth = rows(num_labels, num_rows, tied, seed)
    positive = 1 if num_labels == 2 else None
    threshold = 0.4 if num_labels == 2 else None
    weights = intervals.draw_resamples(num_rows, 4, seed)
    decided = metrics.decide_labels(probabilities, positive=positive, threshold=threshold)
    found = metrics.measure_resamples(
        probabilities, truth, weights, positive=positive, decided=decided
    )
    for row, values in zip(weights, found, strict=True):
        held = np.repeat(np.arange(num_rows), row)
        expected = metrics.measure_classification(
            probabilities[held], truth[held], positive=positive, threshold=threshold
        )
        np.testing.assert_allclose(values, list(expected.values()), atol=1e-6)


def test_resamples_worked_on_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, truth = rows(2, 50, False, 0)
    weights = intervals.draw_resamples(50, 31, 0)
    whole = metrics.measure_resamples(probabilities, truth, weights, positive=1)
    monkeypatch.setattr(metrics, "_CELLS", 200)
    np.testing.assert_array_equal(
        metrics.measure_resamples(probabilities, truth, weights, positive=1), whole
    )


def test_a_resample_is_as_large_as_the_rows() -> None:
    weights = intervals.draw_resamples(30, 100, 0)
    assert (weights.sum(1) == 30).all()
    assert weights.mean() == 1


def test_a_row_is_ranked_among_those_of_its_stratum() -> None:
    probabilities, truth = rows(2, 90, False, 3)
    strata = np.arange(90) % 3
    whole = np.ones((1, 90), dtype=int)
    (found,) = metrics.measure_resamples(
        probabilities, truth, whole, positive=1, strata=strata, names=["auroc"]
    )[:, 0]
    pairs = wins = 0.0
    for stratum in range(3):
        held = strata == stratum
        yes, no = (probabilities[held & (truth == label), 1] for label in (1, 0))
        wins += (yes[:, None] > no).sum() + (yes[:, None] == no).sum() / 2
        pairs += len(yes) * len(no)
    assert found == pytest.approx(wins / pairs)


def test_resamples_of_many_labels_have_the_metrics_of_their_rows_repeated() -> None:
    random = np.random.default_rng(0)
    probabilities = np.round(random.random((25, 3)), 1)
    truth = (random.random((25, 3)) < 0.2).astype(int)
    weights = intervals.draw_resamples(25, 40, 0)
    found = metrics.measure_label_resamples(probabilities, truth, weights, thresholds=(0.3, 0.5, 1))
    for row, values in zip(weights, found, strict=True):
        held = np.repeat(np.arange(25), row)
        expected = metrics.measure_multilabel(
            probabilities[held], truth[held], thresholds=(0.3, 0.5, 1)
        )
        np.testing.assert_allclose(values, list(expected.values()), atol=1e-9)
