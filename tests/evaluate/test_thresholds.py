"""Thresholds: they keep to their aim, and ties are taken alike wherever they are read."""

import json
import warnings
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.export import Dim

from miko_clf import metrics
from miko_clf.bundle import Calibration, ThresholdAim
from miko_clf.data.labels import TaskLabels
from miko_clf.data.preprocess import Preparation
from miko_clf.evaluate.calibration import _fit_question, calibrate_logits, select_conformal_labels
from miko_clf.evaluate.thresholds import fit_label_thresholds, fit_threshold, measure_threshold
from miko_clf.experiment import trial
from miko_clf.export.graphs import apply_thresholds, compute_probabilities, select_thresholds
from miko_clf.questions import Question, Questions, make_single_choice
from miko_clf.recipe.sections import DecisionSection
from miko_clf.serve.postprocess import make_decision

PRECISE = ThresholdAim(name="recall_at_precision", value=0.9)
CAPPED = ThresholdAim(name="recall_at_false_positive_rate", value=0.05)


def binormal(seed: int, num_rows: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return positive probabilities, AUROC .88 and off by `shift` logits, of 35 % positives."""
    random = np.random.default_rng(seed)
    truth = (random.random(num_rows) < 0.35).astype(np.int64)
    separation = 1.66
    seen = random.normal(size=num_rows) + separation * truth
    return expit(separation * seen - separation**2 / 2 + logit(0.35) + shift), truth


def macro_f1(positive_probabilities: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    probabilities = np.stack([1 - positive_probabilities, positive_probabilities], axis=1)
    return metrics.measure_classification(
        probabilities, truth, positive=1, threshold=threshold, names=["macro_f1"]
    )["macro_f1"]


def test_a_fitted_threshold_scores_better_on_new_rows_than_a_half_or_the_best_cut() -> None:
    unseen, unseen_truth = binormal(999, 20000, shift=-1.0)
    scores = []
    for seed in range(8):
        validation, truth = binormal(seed, 177, shift=-1.0)
        best_cut = max(
            np.unique(validation),
            key=lambda cut: f1_score(truth, validation >= cut, average="macro"),
        )
        rules = (fit_threshold(validation, truth), best_cut, 0.5)
        scores.append([macro_f1(unseen, unseen_truth, each) for each in rules])
    fitted, best_cut, half = np.mean(scores, axis=0)
    assert fitted > best_cut
    assert fitted > half + 0.05


@given(st.integers(0, 10**6), st.integers(10, 60))
@settings(deadline=None, max_examples=4)
def test_a_threshold_comes_out_the_same_every_time_and_lies_within_the_probabilities(
    seed: int, num_rows: int
) -> None:
    probabilities, truth = binormal(seed, num_rows)
    truth[:2] = 0, 1
    found = fit_threshold(probabilities, truth)
    assert 0 < found < probabilities.max()
    assert fit_threshold(probabilities, truth) == found


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=5)
def test_a_threshold_separates_what_can_be_separated(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.arange(60) % 2
    probabilities = np.where(truth == 1, 0.3, 0.1) + 0.05 * random.random(60)
    assert macro_f1(probabilities, truth, fit_threshold(probabilities, truth)) == 1


@pytest.mark.parametrize("truth", [np.zeros(30, int), np.ones(30, int), np.array([0, 1, 1])])
def test_too_few_rows_or_one_class_leave_the_threshold_at_a_half(truth: np.ndarray) -> None:
    assert fit_threshold(np.linspace(0.1, 0.3, len(truth)), truth) == 0.5


@given(st.integers(0, 10**6), st.integers(10, 99), st.floats(0.3, 1), st.integers(1, 15))
@settings(deadline=None, max_examples=20)
def test_a_threshold_keeps_to_its_aim_with_the_most_recall_that_any_has(
    seed: int, num_rows: int, value: float, levels: int
) -> None:
    probabilities, truth = binormal(seed, num_rows)
    probabilities = np.round(probabilities * levels) / levels  # ties
    truth[:2] = 0, 1
    for aim in (
        ThresholdAim(name="recall_at_precision", value=value),
        ThresholdAim(name="recall_at_false_positive_rate", value=1 - value),
        ThresholdAim(name="capacity", value=1 - value / 2),
    ):
        found = measure_threshold(
            probabilities, truth, fit_threshold(probabilities, truth, aim), aim
        )
        others = [
            measure_threshold(probabilities, truth, cut, aim) for cut in np.unique(probabilities)
        ]
        best = max((one.recall for one in others if one.met), default=0)
        assert found.recall == best
        assert found.met == (best > 0)


def test_a_threshold_of_a_capacity_lets_no_more_through_than_people_can_look_at() -> None:
    probabilities, truth = binormal(0, 400)
    aim = ThresholdAim(name="capacity", value=0.1)
    threshold = fit_threshold(probabilities, truth, aim)
    assert (probabilities >= threshold).sum() == 40
    assert aim.line() == "capacity 0.1"


def test_an_aim_that_no_threshold_reaches_decides_for_no_row_and_is_said_to_be_unmet() -> None:
    probabilities, truth = np.linspace(0.1, 0.9, 20), (np.arange(20) < 10).astype(np.int64)
    for aim in (PRECISE, CAPPED):
        threshold = fit_threshold(probabilities, truth, aim)
        found = measure_threshold(probabilities, truth, threshold, aim)
        assert 0.9 < threshold < 1
        assert not found.met
        assert found.recall == found.false_positive_rate == 0


def test_no_row_reaches_the_cautious_threshold_even_where_one_is_certain() -> None:
    probabilities, truth = np.array([1.0, 0.2] * 10), np.array([0, 1] * 10)
    threshold = fit_threshold(probabilities, truth, PRECISE)
    assert not (probabilities >= threshold).any()


@pytest.mark.parametrize("costs", [(1, 1), (1, 4), (5, 1)])
def test_the_threshold_of_costs_is_the_cheapest_of_calibrated_probabilities(
    costs: tuple[float, float],
) -> None:
    probabilities, truth = binormal(0, 20000)
    aim = ThresholdAim(name="cost", value=costs[0] / sum(costs))
    threshold = fit_threshold(probabilities, truth, aim)

    def cost(limit: float) -> float:
        found = measure_threshold(probabilities, truth, limit, aim).score
        assert found is not None
        return found

    best = min(np.linspace(0.02, 0.98, 33), key=cost)
    assert threshold == pytest.approx(best, abs=0.05)
    decided = probabilities >= threshold
    false = costs[0] * (decided & (truth == 0)) + costs[1] * (~decided & (truth == 1))
    assert cost(threshold) == pytest.approx(false.mean() / sum(costs))


def test_what_was_reached_is_what_the_metrics_say() -> None:
    probabilities, truth = binormal(0, 300)
    found = measure_threshold(probabilities, truth, 0.4, ThresholdAim())
    assert found.score == pytest.approx(macro_f1(probabilities, truth, 0.4), abs=1e-6)
    decided = probabilities >= 0.4
    assert found.precision == pytest.approx(truth[decided].mean())
    assert found.recall == pytest.approx(decided[truth == 1].mean())
    assert found.false_positive_rate == pytest.approx(decided[truth == 0].mean())
    assert found.met


def test_every_label_keeps_to_the_aim_by_itself() -> None:
    pairs = [binormal(seed, 200) for seed in range(2)]
    probabilities, truth = (np.stack(each, axis=1) for each in zip(*pairs, strict=True))
    found = fit_label_thresholds(probabilities, truth, "ab", CAPPED)
    assert found == {
        name: fit_threshold(*pair, CAPPED) for name, pair in zip("ab", pairs, strict=True)
    }


READS = Preparation(
    inputs=("text",), image=None, pad_id=0, max_length=8, intention_length=8, slots=False
)
COSTS = ((1, 2), (3, 7), (1, 49))
ASKED_ONE = make_single_choice(["no", "yes"])
ASKED = Questions(tuple(Question(name=f"q{i}", labels=("no", "yes")) for i in range(len(COSTS))))


def stairs(seed: int, costs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of two labels and their truth, isotonic in stairs.

    One stair is as high as the threshold of these costs, where both errors cost the same.
    """
    random, (false, missed) = np.random.default_rng(seed), costs
    sizes = random.integers(2, 12, size=12)
    rates = [(int(random.integers(0, size + 1)), int(size)) for size in sizes]
    times = int(random.integers(1, 4))
    rates = sorted([*rates, (times * false, times * (false + missed))], key=lambda r: r[0] / r[1])
    truth = np.concatenate([np.arange(size) < hits for hits, size in rates])  # none rises within
    margin = np.sort(random.normal(scale=3, size=len(truth)))
    return beside(random, margin), truth.astype(np.int64)


def beside(random: np.random.Generator, margin: np.ndarray) -> np.ndarray:
    """Return float32 logits of two labels that far apart."""
    first = random.normal(size=len(margin))
    return np.stack([first, first + margin], axis=1).astype(np.float32)


def fitted(logits: np.ndarray, truth: np.ndarray, costs: tuple[int, int]) -> Calibration:
    """Return what validation rows make of isotonic calibration, aim cost and conformal sets."""
    asked = DecisionSection(
        calibration="isotonic",
        aim="cost",
        false_positive_cost=costs[0],
        false_negative_cost=costs[1],
        conformal=0.8,
    )
    part = TaskLabels(ASKED_ONE.each[0], slice(0, 2), np.arange(len(truth)), truth)
    return _fit_question(part, {"without": logits.astype(np.float64)}, "without", asked)


def unseen(seed: int, one: Calibration, seen: np.ndarray) -> np.ndarray:
    """Return logits of new posts, of those seen, and of posts where the line has its knots."""
    random = np.random.default_rng([seed, 1])
    assert one.isotonic is not None
    knots = np.array(one.isotonic[0].margins, dtype=np.float32)
    at_knots = np.stack([np.zeros_like(knots), knots], axis=1)
    new = beside(random, random.normal(scale=3, size=400))
    return np.concatenate([at_knots, seen, new])


class Row(NamedTuple):
    """What is decided for one question on its posts: yes or no, and whether it stands alone."""

    yes: np.ndarray
    certain: np.ndarray
    held: np.ndarray  # (post, label): the conformal set


def evaluated(stated: np.ndarray, one: Calibration) -> Row:
    assert one.conformal is not None
    limit = one.thresholds["without"]
    assert isinstance(limit, float)
    yes = metrics.decide_labels(stated, positive=1, threshold=limit)
    held = select_conformal_labels(stated, one.conformal.quantiles["without"])
    return Row(yes, held[np.arange(len(yes)), yes] & (held.sum(1) == 1), held)


def served(stated: np.ndarray, one: Calibration) -> Row:
    assert one.conformal is not None
    found = [make_decision(row, ASKED_ONE, [one], "without") for row in stated]
    yes = np.array([each["label"] == "yes" for each in found])
    certain = np.array([each["certain"] for each in found])
    return Row(yes, certain, select_conformal_labels(stated, one.conformal.quantiles["without"]))


class TieWorld(NamedTuple):
    """Calibrations, one for each pair of costs, and the posts that are asked about."""

    each: list[Calibration]
    truth: list[np.ndarray]
    logits: list[np.ndarray]


@pytest.fixture(scope="module")
def world() -> TieWorld:
    seen = [stairs(seed, costs) for seed, costs in enumerate(COSTS)]
    each = [fitted(*rows, costs) for rows, costs in zip(seen, COSTS, strict=True)]
    asked = [unseen(i, one, rows[0]) for i, (one, rows) in enumerate(zip(each, seen, strict=True))]
    fewest = min(map(len, asked))
    return TieWorld(each, [rows[1] for rows in seen], [logits[:fewest] for logits in asked])


class Answers(nn.Module):
    """What stands behind the logits of a graph."""

    def __init__(self, each: list[Calibration]) -> None:
        super().__init__()
        self.each = each

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        stated = compute_probabilities(logits, ASKED, self.each)
        return stated, apply_thresholds(
            stated, select_thresholds({}, READS, ASKED, self.each), ASKED
        )


@pytest.fixture(scope="module")
def graph(
    world: TieWorld, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the probabilities and the decisions of the exported graph, (post, 2) a question."""
    path = tmp_path_factory.mktemp("ties") / "answers.onnx"
    logits = np.concatenate(world.logits, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on itself
        torch.onnx.export(
            Answers(world.each).eval(),
            (torch.from_numpy(logits[:3]),),
            path,
            input_names=["logits"],
            output_names=["probabilities", "decision"],
            dynamic_shapes=({0: Dim("rows", min=1)},),
            opset_version=23,
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"logits": logits})
    stated, decided = ([each[:, span] for _, span in ASKED.spans()] for each in found)
    return stated, decided


def ties(stated: np.ndarray, one: Calibration) -> tuple[int, int]:
    """Return how many rows meet the threshold, and the edge of the conformal set."""
    assert one.conformal is not None
    edges = one.thresholds["without"], 1 - one.conformal.quantiles["without"]
    at_limit, at_edge = (np.abs(stated - edge) < 1e-7 for edge in edges)
    return int(at_limit[:, 1].sum()), int(at_edge.any(1).sum())


def test_evaluate_graph_and_server_decide_alike_on_every_row_that_meets_a_limit(
    world: TieWorld, graph: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    met = np.zeros(2, dtype=np.int64)
    for one, logits, stated, decided in zip(world.each, world.logits, *graph, strict=True):
        exact = calibrate_logits(
            logits.astype(np.float64), make_single_choice(["no", "yes"]), [one]
        )
        wanted, found = evaluated(exact, one), served(stated, one)
        assert np.abs(exact - stated).max() < 5e-7
        np.testing.assert_array_equal(decided.argmax(1), wanted.yes)
        np.testing.assert_array_equal(found.yes, wanted.yes)
        np.testing.assert_array_equal(found.certain, wanted.certain)
        assert ties(exact, one)[0] > 5
        assert wanted.yes[np.abs(exact[:, 1] - one.thresholds["without"]) < 1e-7].all()
        met += ties(exact, one)
    assert (met > 30).all()


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_torch_and_evaluate_decide_alike_whatever_the_costs(
    seed: int, false: int, missed: int
) -> None:
    seen, truth = stairs(seed, (false, missed))
    one = fitted(seen, truth, (false, missed))
    logits, asked = unseen(seed, one, seen), make_single_choice(["no", "yes"])
    exact = calibrate_logits(logits.astype(np.float64), asked, [one])
    stated = compute_probabilities(torch.from_numpy(logits), asked, [one])
    decided = apply_thresholds(stated, select_thresholds({}, READS, asked, [one]), asked)[
        :, 1
    ].numpy()
    wanted, found = evaluated(exact, one), served(stated.numpy(), one)
    np.testing.assert_array_equal(decided, wanted.yes)
    np.testing.assert_array_equal(found.yes, wanted.yes)
    np.testing.assert_array_equal(found.certain, wanted.certain)


def test_conformal_sets_as_served_cover_what_the_report_says_and_what_was_promised(
    world: TieWorld, graph: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    for one, truth, logits, stated in zip(
        world.each, world.truth, world.logits, graph[0], strict=True
    ):
        exact = calibrate_logits(
            logits.astype(np.float64), make_single_choice(["no", "yes"]), [one]
        )
        wanted, found = evaluated(exact, one), served(stated, one)
        np.testing.assert_array_equal(found.held, wanted.held)
        assert one.isotonic is not None
        start = len(one.isotonic[0].margins)  # behind the knots stand the rows it was fitted on
        stop = min(start + len(truth), len(logits))
        covered = found.held[np.arange(start, stop), truth[: stop - start]]
        assert covered.mean() >= 0.8


def test_the_scores_that_a_comparison_keeps_decide_as_evaluate_does(
    world: TieWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one, logits in zip(world.each, world.logits, strict=True):
        exact = calibrate_logits(
            logits.astype(np.float64), make_single_choice(["no", "yes"]), [one]
        )
        asked = SimpleNamespace(probabilities=lambda arm, exact=exact: exact)
        monkeypatch.setattr(trial, "Predictor", lambda *given, asked=asked: asked)
        opened: Any = SimpleNamespace(
            calibration=one, labels=("no", "yes"), manifest={"seconds": 1.0}
        )
        asks: Any = SimpleNamespace(system=SimpleNamespace(reported={"without": "without"}))
        posts: Any = SimpleNamespace(ask=[], plain=[], rows=[])
        kept = trial._predict_arms(opened, asks, posts, None)
        arm = json.loads(json.dumps(kept))["arms"]["without"]
        decided = metrics.decide_labels(
            np.array(arm["probabilities"]), positive=1, threshold=arm["threshold"]
        )
        np.testing.assert_array_equal(decided, evaluated(exact, one).yes)
        np.testing.assert_array_equal(np.array(arm["probabilities"]), exact)


def positive(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([1 - probabilities, probabilities], axis=1)


@pytest.mark.parametrize("threshold", [1e-7, 0.01, 1 / 3, 0.5, 0.9, 1.0])
def test_a_threshold_is_reached_by_its_own_probability_and_not_by_the_next_one(
    threshold: float,
) -> None:
    near = np.array([threshold, np.float32(threshold), threshold * (1 + 1e-5)])
    away = threshold * np.array([1 - 1e-5, 0.5])
    for reach, stated in ((True, near), (False, away)):
        rows = positive(stated).clip(0, 1)
        assert (metrics.decide_labels(rows, positive=1, threshold=threshold) == reach).all()
        found = metrics.measure_multilabel(
            rows[:, 1:], np.full((len(rows), 1), reach), thresholds=[threshold]
        )
        assert found["subset_accuracy"] == 1
        assert (
            measure_threshold(stated, np.ones(len(stated)), threshold, ThresholdAim()).recall
            == reach
        )
        one = Calibration(
            temperature=1, positive="yes", arm="without", thresholds={"without": threshold}
        )
        limit = select_thresholds({}, READS, make_single_choice(["no", "yes"]), [one])
        graph = apply_thresholds(
            torch.from_numpy(rows.astype(np.float32)), limit, make_single_choice(["no", "yes"])
        )
        assert (graph[:, 1] == reach).all()
        for row in rows.astype(np.float32):
            label = make_decision(row, ASKED_ONE, [one], "without")["label"]
            assert label == ("yes" if reach else "no")


def test_a_threshold_above_one_is_reached_by_nothing_and_one_of_nought_by_all() -> None:
    rows = positive(np.array([0.0, 1e-9, 1 - 1e-9, 1.0]))
    assert not metrics.decide_labels(rows, positive=1, threshold=np.nextafter(1, 2)).any()
    assert metrics.decide_labels(rows, positive=1, threshold=0.0).all()


@pytest.mark.parametrize(
    "aim",
    [
        ThresholdAim(name="recall_at_false_positive_rate", value=0.2),
        ThresholdAim(name="recall_at_precision", value=0.9),
        ThresholdAim(name="capacity", value=0.3),
    ],
)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30))
@settings(deadline=None, max_examples=60)
def test_thresholds_keep_to_their_aim_where_probabilities_are_all_but_ties(
    aim: ThresholdAim, seed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    truth = np.arange(40) % 2
    stated = expit(scale * (random.normal(size=40) + truth))
    threshold = fit_threshold(stated, truth, aim)
    found = measure_threshold(stated, truth, threshold, aim)
    decided = metrics.decide_labels(positive(stated), positive=1, threshold=threshold)
    assert found.recall == decided[truth == 1].mean()
    assert found.false_positive_rate == decided[truth == 0].mean()
    assert found.met or not decided.any()
