"""Calibrators: sane where rows say little, of use on others; conformal sets that hold."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from miko_clf import metrics
from miko_clf.bundle import Calibration, load_bundle
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import TaskLabels
from miko_clf.evaluate.calibration import (
    TEMPERATURE_BOUNDS,
    _fit_question,
    calibrate_logits,
    calibrate_question,
    choose_calibration,
    fit_calibrations,
    fit_isotonic,
    fit_platt,
    fit_prior,
    fit_temperature,
    select_conformal_labels,
)
from miko_clf.evaluate.predictions import Predictor
from miko_clf.questions import Question, make_single_choice
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.sections import DecisionSection

TWO = Question(labels=("no", "yes"))
METHODS = ("temperature", "platt", "isotonic")


def calibrated(seed: int, num_rows: int, num_labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose softmax is the chance with which each class was drawn."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(num_rows, num_labels))
    chance = softmax(logits, axis=1).cumsum(1)
    return logits, (random.random((num_rows, 1)) > chance[:, :-1]).sum(1)


def miscalibrated(seed: int, world: int, num_rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of two labels, wrong in a way that `world` draws: stretch, shift and bend."""
    way, random = np.random.default_rng(world), np.random.default_rng([world, seed])
    scale, shift, bend = np.exp(way.uniform(-1.4, 1.4)), way.uniform(-1, 1), way.uniform(0.6, 1.6)
    margin = 1.5 * random.normal(size=num_rows) - 0.7
    truth = (random.random(num_rows) < expit(margin)).astype(np.int64)
    bent = np.sign(margin) * np.abs(margin) ** (bend if world % 4 == 3 else 1)
    both = random.normal(size=num_rows)
    return np.stack([both, both + scale * bent + shift * (world % 2)], axis=1), truth


def fitted(method: str, logits: np.ndarray, truth: np.ndarray) -> Calibration:
    """Return what a method makes of logits of two labels."""
    bare = Calibration(temperature=1, positive="yes", arm="with", thresholds={})
    if method == "platt":
        return bare.model_copy(update={"platt": fit_platt(logits, truth)})
    if method == "isotonic":
        knots = fit_isotonic(logits[:, 1] - logits[:, 0], truth)
        return bare.model_copy(update={"isotonic": (knots,)})
    return bare.model_copy(update={"temperature": fit_temperature(logits, truth)})


def ece(given: Calibration, logits: np.ndarray, truth: np.ndarray) -> float:
    probabilities = calibrate_question(logits, TWO, given)
    return metrics.measure_classification(probabilities, truth, positive=1, names=["ece"])["ece"]


def nll(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    return -float(log_softmax(logits / temperature, axis=1)[np.arange(len(truth)), truth].mean())


@given(st.integers(0, 10**6), st.floats(0.2, 8))
@settings(deadline=None, max_examples=30)
def test_temperature_never_changes_which_class_is_most_probable(seed: int, scale: float) -> None:
    logits, truth = calibrated(seed, 40)
    temperature = fit_temperature(scale * logits, truth)
    scaled = softmax(scale * logits / temperature, axis=1)
    assert (scaled.argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_temperature_recovers_by_how_much_logits_were_stretched(scale: float) -> None:
    logits, truth = calibrated(0, 4000)
    assert fit_temperature(scale * logits, truth) == pytest.approx(scale, rel=0.06)


@given(st.integers(0, 10**6), st.floats(0.05, 20))
@settings(deadline=None, max_examples=30)
def test_no_other_temperature_gives_a_lower_nll(seed: int, other: float) -> None:
    logits, truth = calibrated(seed, 60)
    best = fit_temperature(logits, truth)
    assert nll(logits, truth, best) <= nll(logits, truth, other) + 1e-6


@pytest.mark.parametrize(
    ("logits", "truth"),
    [
        (np.eye(2)[[0, 1] * 10] * 9.0, np.array([0, 1] * 10)),
        (np.tile([[3.0, 0.0], [0.0, 3.0]], (10, 1)), np.zeros(20, int)),
        (np.array([[5.0, 0.0], [4.0, 1.0]]), np.array([1, 0])),
        (np.zeros((20, 2)), np.array([0, 1] * 10)),
    ],
    ids=["every row right", "one class", "two rows", "equal logits"],
)
def test_rows_that_say_nothing_of_confidence_leave_it_alone(
    logits: np.ndarray, truth: np.ndarray
) -> None:
    assert fit_temperature(logits, truth) == 1.0


def test_logits_that_are_always_wrong_get_the_largest_temperature() -> None:
    logits = np.eye(2)[[0, 1] * 10] * 9.0
    found = fit_temperature(logits, np.array([1, 0] * 10))
    assert found == pytest.approx(TEMPERATURE_BOUNDS[1], rel=1e-3)
    assert found <= TEMPERATURE_BOUNDS[1]


def test_logits_of_any_size_give_a_finite_temperature() -> None:
    logits, truth = calibrated(1, 50)
    assert fit_temperature(1e4 * logits, truth) == pytest.approx(TEMPERATURE_BOUNDS[1], rel=1e-3)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        fit_temperature(np.full((20, 2), np.nan), np.array([0, 1] * 10))


@given(st.sampled_from(METHODS), st.integers(0, 10**6), st.integers(10, 60), st.floats(0.1, 1e4))
@settings(deadline=None, max_examples=60)
def test_every_calibrator_keeps_the_order_of_rows_and_gives_probabilities(
    method: str, seed: int, num_rows: int, scale: float
) -> None:
    logits, truth = calibrated(seed, num_rows, num_labels=2)
    truth[:2] = 0, 1
    found = fitted(method, scale * logits, truth)
    new = scale * np.random.default_rng(seed).normal(scale=3, size=(200, 2))
    probabilities = calibrate_question(new, TWO, found)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert probabilities.sum(1) == pytest.approx(1)
    rising = probabilities[np.argsort(new[:, 1] - new[:, 0], kind="stable"), 1]
    assert (np.diff(rising) >= -1e-12).all()


@pytest.mark.parametrize("world", range(20))
def test_ece_falls_or_stays_on_held_out_rows_however_the_logits_were_wrong(world: int) -> None:
    logits, truth = miscalibrated(1, world)
    unseen, unseen_truth = miscalibrated(2, world)
    bare = Calibration(temperature=1, positive="yes", arm="with", thresholds={})
    before = ece(bare, unseen, unseen_truth)
    for method in METHODS:
        after = ece(fitted(method, logits, truth), unseen, unseen_truth)
        assert after <= before + 0.005, method  # the noise of an ECE of 2000 rows


def test_platt_and_isotonic_undo_a_shift_that_a_temperature_cannot() -> None:
    (logits, truth), (unseen, unseen_truth) = (
        calibrated(seed, 4000, num_labels=2) for seed in range(2)
    )
    shift = np.array([0.0, 1.5])
    off = {
        method: calibrate_question(unseen + shift, TWO, fitted(method, logits + shift, truth))[
            :, 1
        ].mean()
        - unseen_truth.mean()
        for method in METHODS
    }
    assert abs(off["temperature"]) > 0.05
    assert abs(off["platt"]) < 0.02
    assert abs(off["isotonic"]) < 0.02


def test_platt_is_the_logistic_regression_of_scikit_learn_on_the_margin() -> None:
    for world in range(4):
        logits, truth = miscalibrated(0, world, num_rows=500)
        margin = logits[:, 1:] - logits[:, :1]
        wanted = LogisticRegression(C=np.inf, tol=1e-10).fit(margin, truth)
        found = fit_platt(logits, truth)
        assert found is not None
        assert found.scale == pytest.approx([wanted.coef_[0, 0]] * 2, rel=1e-4)
        assert found.shift == pytest.approx([0, wanted.intercept_[0]], abs=1e-4)


def test_platt_of_more_labels_finds_the_factor_and_the_shift_of_each() -> None:
    logits, truth = calibrated(0, 20000)
    scale, shift = np.array([0.5, 1.0, 2.0]), np.array([0.0, 1.0, -1.0])
    found = fit_platt((logits - shift) / scale, truth)
    assert found is not None
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.shift == pytest.approx(shift, abs=0.1)


def test_platt_of_labels_of_which_any_may_hold_is_that_of_each_alone() -> None:
    pairs = [miscalibrated(0, world, num_rows=400) for world in range(2)]
    logits = np.stack([each[:, 1] - each[:, 0] for each, _ in pairs], axis=1)
    found = fit_platt(logits, np.stack([truth for _, truth in pairs], axis=1))
    assert found is not None
    for place, pair in enumerate(pairs):
        alone = fit_platt(*pair)
        assert alone is not None
        assert found.scale[place] == pytest.approx(alone.scale[1], rel=1e-3)
        assert found.shift[place] == pytest.approx(alone.shift[1], abs=1e-3)


def test_rows_that_can_be_told_apart_still_have_a_best_factor() -> None:
    found = fit_platt(np.eye(2)[[0, 1] * 10] * 9.0, np.array([0, 1] * 10))
    assert found is not None
    assert 0 < found.scale[0] <= 1 / TEMPERATURE_BOUNDS[0]
    turned = fit_platt(np.eye(2)[[0, 1] * 10] * 9.0, np.array([1, 0] * 10))
    assert turned is not None
    assert turned.scale[0] == pytest.approx(1 / TEMPERATURE_BOUNDS[1])  # never turned round


def test_isotonic_is_that_of_scikit_learn() -> None:
    logits, truth = miscalibrated(0, 3, num_rows=500)
    margin = (logits[:, 1] - logits[:, 0]).astype(np.float32).astype(np.float64)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(margin, truth)
    seen = np.linspace(-20, 20, 3001)
    knots = fit_isotonic(margin, truth)
    assert knots is not None
    found = np.interp(seen, knots.margins, knots.probabilities)
    np.testing.assert_allclose(found, wanted.predict(seen), atol=1e-12)
    assert len({np.float32(each) for each in knots.margins}) == len(knots.margins)


@pytest.mark.parametrize("truth", [np.zeros(30, int), np.ones(30, int), np.array([0, 1, 1])])
def test_rows_that_say_too_little_fit_neither_platt_nor_isotonic_nor_prior(
    truth: np.ndarray,
) -> None:
    logits = np.random.default_rng(0).normal(size=(len(truth), 2))
    assert fit_platt(logits, truth) is None
    assert fit_isotonic(logits[:, 0], truth) is None
    assert fit_prior(expit(logits[:, 0]), truth == 1) is None


def test_a_label_that_no_row_has_leaves_vector_scaling_unfitted() -> None:
    logits, truth = calibrated(0, 50)
    assert fit_platt(logits, np.minimum(truth, 1)) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_probabilities_stand_for_the_share_that_they_were_made_for(share: float) -> None:
    random = np.random.default_rng(0)
    truth = random.random(40000) < 0.3
    seen = random.normal(size=40000) + 1.5 * truth
    probabilities = expit(1.5 * seen - 1.125 + logit(share))  # exact where `share` are positive
    assert fit_prior(probabilities, truth) == pytest.approx(share, abs=0.015)


def test_no_fit_changes_the_arrays_it_is_given() -> None:
    logits, truth = calibrated(2, 50, num_labels=2)
    kept = logits.copy(), truth.copy()
    for method in METHODS:
        fitted(method, logits, truth)
    for before, after in zip(kept, (logits, truth), strict=True):
        np.testing.assert_array_equal(before, after)


ASKED = make_single_choice(["no", "yes"])
SEEN, NEW = 40, 1000


def test_sets_beside_an_isotonic_line_hold_the_label_as_often_as_they_say() -> None:
    decision = DecisionSection(calibration="isotonic", conformal=0.9)
    random, covered = np.random.default_rng(0), []
    for _ in range(150):
        truth = (random.random(SEEN + NEW) < 0.35).astype(np.int64)
        logits = random.normal(size=(SEEN + NEW, 2))
        logits[:, 1] = logits[:, 0] + random.normal(2.2 * truth - 1.1)
        part = TaskLabels(ASKED.each[0], slice(0, 2), np.arange(SEEN), truth[:SEEN])
        one = _fit_question(part, {"without": logits[:SEEN]}, "without", decision)
        assert one.conformal is not None
        held = select_conformal_labels(
            calibrate_logits(logits[SEEN:], ASKED, [one]), one.conformal.quantiles["without"]
        )
        covered.append(held[np.arange(NEW), truth[SEEN:]].mean())
    assert 0.9 <= np.mean(covered) < 0.94  # 0.893 with a quantile of the line's own rows


WEIGHED = {"task.class_weights": "balanced"}


@pytest.mark.parametrize(
    ("recipe", "changes", "method"),
    [
        ("tiny", WEIGHED, "platt"),
        ("tiny", {"task.class_weights": "none"}, "temperature"),
        ("tiny", {**WEIGHED, "decision.calibration": "temperature"}, "temperature"),
        ("tiny", {"task.class_weights": "none", "decision.calibration": "isotonic"}, "isotonic"),
        ("mr-harm", {**WEIGHED, "task.likelihood": True}, "temperature"),  # which weighs none
        ("mr-harm", {**WEIGHED, "task.likelihood": False}, "platt"),
    ],
)
def test_a_shift_is_fitted_by_itself_where_training_weighs_the_classes(
    recipe: str, changes: dict[str, object], method: str
) -> None:
    assert choose_calibration(recipes.load_recipe(recipe, changes)) == method


@pytest.mark.parametrize("weights", ["balanced", "none"])
def test_what_is_chosen_by_itself_is_what_is_fitted(
    weights: str, bundle: Path, world: Path
) -> None:
    opened = load_bundle(bundle)
    predictor = Predictor(opened, open_folder(world / "sarcasm").read("val"), None)
    feed, recipe = predictor.feed, opened.recipe
    feed.split = "val"
    task = recipe.task.model_copy(update={"class_weights": weights})
    found = fit_calibrations(recipe.model_copy(update={"task": task}), predictor.model, feed)
    assert [one.method for one in found] == [{"balanced": "platt", "none": "temperature"}[weights]]
