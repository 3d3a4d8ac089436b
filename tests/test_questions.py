"""Several labels and several tasks as figures: losses, metrics, thresholds and decisions."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, logit
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from miko_clf import metrics
from miko_clf.bundle import Calibration
from miko_clf.evaluate.calibration import calibrate_logits, fit_temperature
from miko_clf.evaluate.thresholds import fit_label_thresholds
from miko_clf.questions import Question, Questions, make_single_choice
from miko_clf.serve.postprocess import make_decision
from miko_clf.train.stages import compute_positive_weights, compute_question_loss

TONE = Question(name="tone", labels=("sincere", "sarcastic"))
KIND = Question(name="kind", labels=("a", "b", "c"))
HARM = Question(name="harm", kind="many", labels=("race", "sex"))
ASKED = Questions((TONE, HARM))


def _batch(given: np.ndarray, known: np.ndarray) -> dict[str, torch.Tensor]:
    return {
        "label": torch.tensor(given, dtype=torch.float32),
        "label_known": torch.tensor(known, dtype=torch.bool),
    }


def test_the_loss_is_the_sum_of_the_mean_losses_of_those_who_answer() -> None:
    random = np.random.default_rng(0)
    asked = Questions((KIND, HARM))
    logits = random.normal(size=(4, 5)).astype(np.float32)
    given = np.array([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
    known = np.array([[1, 1], [1, 0], [1, 1], [0, 1]])
    weights = [torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.25])]
    found = compute_question_loss(asked, torch.tensor(logits), _batch(given, known), weights, 0.0)
    log = log_softmax(logits[:3, :3], axis=1)[[0, 1, 2], [1, 0, 2]]
    one = -(log * [2.0, 1.0, 0.5]).sum() / 3.5
    p, held = expit(logits[[0, 2, 3], 3:]), given[[0, 2, 3], 3:]
    many = -(held * [3.0, 0.25] * np.log(p) + (1 - held) * np.log(1 - p)).mean()
    assert float(found) == pytest.approx(one + many, rel=1e-5)


def test_smoothing_moves_the_target_of_a_label_half_way_to_even() -> None:
    asked, batch = Questions((HARM,)), _batch(np.array([[1, 0]]), np.ones((1, 1)))
    found = compute_question_loss(asked, torch.tensor([[0.3, -0.2]]), batch, [torch.ones(2)], 0.2)
    p, target = expit([0.3, -0.2]), np.array([0.9, 0.1])
    wanted = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_question_that_nobody_answers_moves_nothing() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = _batch(np.tile([0, 1, 1, 1], (3, 1)), np.tile([1, 0], (3, 1)))
    weights = [torch.ones(2), torch.ones(2)]
    loss = compute_question_loss(ASKED, logits, batch, weights, 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad[:, 2:].abs().max() == 0
    assert logits.grad[:, :2].abs().min() > 0
    silent = compute_question_loss(
        ASKED, logits, {**batch, "label_known": torch.zeros(3, 2) > 0}, weights, 0.0
    )
    assert silent == 0


def test_one_plain_choice_has_the_loss_it_always_had() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    label, weight = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0.5, 1.0, 4.0])
    found = compute_question_loss(
        make_single_choice("abc"), logits, {"label": label}, [weight], 0.1
    )
    wanted = torch.nn.functional.cross_entropy(logits, label, weight=weight, label_smoothing=0.1)
    assert torch.equal(found, wanted)


def test_a_rare_label_weighs_as_much_as_those_without_it() -> None:
    held = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert compute_positive_weights(held).tolist() == [3.0, 4.0, 0.25]


@pytest.fixture(scope="module")
def stated() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = (random.random((300, 3)) < [0.5, 0.2, 0.05]).astype(np.int64)
    return expit(2 * truth - 1.5 + random.normal(size=truth.shape)), truth


def test_metrics_of_many_labels_are_those_of_scikit_learn(
    stated: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, truth = stated
    limits = [0.4, 0.5, 0.7]
    found = metrics.measure_multilabel(probabilities, truth, thresholds=limits)
    decided = (probabilities >= limits).astype(int)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, decided, average="macro"), abs=1e-6)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, decided, average="micro"), abs=1e-6)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, probabilities), abs=1e-6)
    wanted = average_precision_score(truth, probabilities)
    assert found["average_precision"] == pytest.approx(wanted, abs=1e-6)
    assert found["subset_accuracy"] == pytest.approx((truth == decided).all(1).mean())


def test_the_ece_of_many_labels_is_the_mean_over_labels() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    probabilities = np.tile([0.7, 0.25], (4, 1))
    found = metrics.measure_multilabel(probabilities, truth, names=["ece"])["ece"]
    assert found == pytest.approx((0.2 + 0.0) / 2, abs=1e-6)


def test_labels_that_say_nothing_are_left_out_and_nothing_is_nan() -> None:
    truth = np.array([[1, 0], [0, 0], [1, 0]])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.2]])
    found = metrics.measure_multilabel(probabilities, truth)
    assert (found["macro_f1"], found["auroc"], found["average_precision"]) == (1, 1, 1)
    empty = metrics.measure_multilabel(probabilities * 0.1, np.zeros_like(truth))
    assert all(np.isnan(empty[name]) for name in ("macro_f1", "micro_f1", "auroc"))
    assert empty["subset_accuracy"] == 1


def test_a_perfect_guess_of_many_labels_scores_one_in_everything_but_ece() -> None:
    truth = np.array([[1, 0], [0, 1], [1, 1]])
    found = metrics.measure_multilabel(truth.astype(float), truth)
    assert {name: value for name, value in found.items() if name != "ece"} == dict.fromkeys(
        ("subset_accuracy", "macro_f1", "micro_f1", "auroc", "average_precision"), 1.0
    )
    assert found["ece"] == pytest.approx(0, abs=1e-6)


def test_one_temperature_for_all_labels_is_found_again() -> None:
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(3000, 3))
    truth = (random.random(logits.shape) < expit(logits)).astype(np.int64)
    for scale in (0.5, 3.0):
        assert fit_temperature(scale * logits, truth) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("share", [0.1, 0.75])
def test_the_threshold_of_a_label_is_for_its_own_f1(share: float) -> None:
    random = np.random.default_rng(0)
    held = (random.random(3000) < share).astype(np.int64)
    seen = expit(1.5 * (random.normal(size=3000) + 1.5 * held) - 1.125 + logit(share))
    own = fit_label_thresholds(np.stack([seen, 1 - seen], 1), np.stack([held, 1 - held], 1), "ab")
    best = max(f1_score(held, seen >= cut) for cut in np.linspace(0.02, 0.9, 45))
    # the best threshold of calibrated probabilities is half of the best F1 (Lipton et al., 2014)
    assert own["a"] == pytest.approx(best / 2, abs=0.06)
    assert f1_score(held, seen >= own["a"]) > best - 0.01


def test_a_label_without_a_positive_row_keeps_the_threshold_of_a_half() -> None:
    probabilities, truth = np.full((20, 1), 0.2), np.zeros((20, 1), dtype=np.int64)
    assert fit_label_thresholds(probabilities, truth, ["x"]) == {"x": 0.5}


def test_each_question_has_its_own_link_and_temperature() -> None:
    scores = np.array([[1.0, 3.0, 0.5, -2.0]])
    found = calibrate_logits(scores, ASKED, [fitted({}, 2.0), fitted({}, 0.5)])
    assert found[0, :2] == pytest.approx([1 - expit(1), expit(1)])
    assert found[0, 2:] == pytest.approx(expit([1.0, -4.0]))


def fitted(thresholds: Mapping, temperature: float = 1) -> Calibration:
    return Calibration(temperature=temperature, positive=None, arm="with", thresholds=thresholds)


def test_probabilities_decide_by_task_and_by_label() -> None:
    row = np.array([0.4, 0.6, 0.3, 0.1], dtype=np.float32)
    asked = Questions((Question(name="tone", labels=("no", "yes")), HARM))
    limits = {"race": 0.25, "sex": 0.5}
    found = make_decision(row, asked, [fitted({"with": 0.7}), fitted({"with": limits})], "with")
    assert found["label"] == {"tone": "no", "harm": ("race",)}
    assert found["threshold"] == {"tone": 0.7, "harm": limits}
    assert found["probabilities"]["harm"] == pytest.approx({"race": 0.3, "sex": 0.1})
    alone = Questions((Question(kind="many", labels=("race", "sex")),))
    bare = make_decision(row[2:], alone, [fitted({"with": limits})], "with")
    assert (bare["label"], bare["threshold"]) == (("race",), limits)
    three = make_decision(row[:3], make_single_choice("abc"), [fitted({})], "with")
    assert (three["label"], three["threshold"]) == ("b", None)
