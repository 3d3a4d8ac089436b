"""Graphs alone: decisions of every calibration as torch's and the server's, a generator's step."""

import json
import warnings
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.export import Dim

from miko_clf import bundle as bundles
from miko_clf import metrics
from miko_clf.bundle import Calibration, IsotonicKnots, PlattScaling, ThresholdAim
from miko_clf.data.post import Post
from miko_clf.data.preprocess import Preparation
from miko_clf.data.readers import read_posts
from miko_clf.errors import MikoError, RecipeError
from miko_clf.evaluate.calibration import (
    calibrate_logits,
    check_decision,
    fit_calibrations,
    select_conformal_labels,
)
from miko_clf.evaluate.predictions import Predictor
from miko_clf.export.graphs import (
    apply_thresholds,
    compute_probabilities,
    round_up_float32,
    select_thresholds,
)
from miko_clf.fuse.mr_harm import MrHarm
from miko_clf.questions import Question, Questions, make_single_choice
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import DecisionSection
from miko_clf.serve.engine import Engine, _join_posts
from miko_clf.serve.postprocess import make_decision
from miko_clf.train.dataloader import EncodedDataset
from tests.support import checkpoints
from tests.support.tiny_generator import build_generator, make_batch

ASKED = Questions(
    (
        Question(name="isotonic", labels=("no", "yes")),
        Question(name="many", kind="many", labels=("fire", "stone", "water")),
        Question(name="platt", labels=("no", "yes")),
        Question(name="three", labels=("angry", "calm", "sad")),
        Question(name="temperature", labels=("no", "yes")),
    )
)
LINE = IsotonicKnots(margins=(-2, -0.5, -0.499, 0.25, 3), probabilities=(0.0, 0.1, 0.3, 0.62, 1.0))
ARMS = ("with", "student", "without")
READS = Preparation(
    inputs=("text", "intention"), image=None, pad_id=0, max_length=8, intention_length=8, slots=True
)


def fitted(limit: Any, **given: Any) -> Calibration:
    """Return a calibration whose thresholds in the three arms are some way apart."""
    arms = dict(zip(ARMS, limit, strict=True)) if limit else {}
    found = {"temperature": 1.7, "positive": None, "arm": "with", "thresholds": arms} | given
    return Calibration.model_validate(found)


FITTED = (
    fitted((0.2, 0.4, 0.8), isotonic=(LINE,)),
    fitted(
        [dict(zip(("fire", "stone", "water"), t, strict=True)) for t in np.eye(3) * 0.4 + 0.3],
        isotonic=(LINE, LINE.model_copy(update={"margins": (-1, 0, 1, 2, 3)}), LINE),
    ),
    fitted((0.3, 0.5, 0.7), platt=PlattScaling(scale=(1.3, 1.3), shift=(0.0, -0.8))),
    fitted(None, platt=PlattScaling(scale=(0.5, 1.0, 2.0), shift=(0.0, 1.0, -1.0))),
    fitted((0.3, 0.5, 0.7)),
)


class Answers(nn.Module):
    """What stands behind the logits of a graph."""

    def forward(
        self, logits: Tensor, student: Tensor, intention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        stated = compute_probabilities(logits, ASKED, FITTED)
        batch = {"student": student, "intention_mask": intention_mask}
        return stated, apply_thresholds(
            stated, select_thresholds(batch, READS, ASKED, FITTED), ASKED
        )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("answers") / "answers.onnx"
    rows, given = Dim("rows", min=1), Dim("given", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on itself
        torch.onnx.export(
            Answers().eval(),
            tuple(map(torch.from_numpy, rows_of(3).values())),
            path,
            input_names=["logits", "student", "intention_mask"],
            output_names=["probabilities", "decision"],
            dynamic_shapes=({0: rows}, {0: rows}, {0: rows, 1: given, 2: Dim("word", min=1)}),
            opset_version=23,
            dynamo=True,
            verbose=False,
        )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def rows_of(count: int) -> dict[str, np.ndarray]:
    """Return random logits in random arms, a third of them some 1e-5 from a threshold."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(count, len(ASKED.names)))
    cuts = {"isotonic": (-0.4995, -0.265625, 1.553), "platt": (-0.0364, 0.6154, 1.267)}
    cuts["temperature"] = tuple(1.7 * logit([0.3, 0.5, 0.7]))
    for question, span in ASKED.spans():
        near = random.random(count) < 1 / 3
        step = random.choice([-1e-3, -1e-5, 1e-5, 1e-3], size=count)
        close = random.choice(cuts.get(question.name, (0.0,)), size=count) + step
        if question.positive is not None:
            logits[near, span.stop - 1] = (logits[:, span.start] + close)[near]
    mask = random.random((count, 2, 3)) < 0.15
    return {
        "logits": logits.astype(np.float32),
        "student": random.random(count) < 0.5,
        "intention_mask": mask,
    }


def arms_of(rows: dict[str, np.ndarray]) -> list[str]:
    given = rows["intention_mask"].any((1, 2))
    return np.where(given, "with", np.where(rows["student"], "student", "without")).tolist()


def test_torch_and_the_graph_decide_alike_on_every_row_of_every_calibration(
    session: onnxruntime.InferenceSession,
) -> None:
    rows = rows_of(6000)
    stated, decided = session.run(None, rows)
    with torch.inference_mode():
        torch_stated, torch_decided = Answers()(*map(torch.from_numpy, rows.values()))
    assert set(arms_of(rows)) == set(ARMS)
    assert np.abs(stated - torch_stated.numpy()).max() < 2e-6
    np.testing.assert_array_equal(decided, torch_decided.numpy())
    wanted = calibrate_logits(rows["logits"].astype(np.float64), ASKED, FITTED)
    assert np.abs(stated - wanted).max() < 1e-4  # the steepest line rises by 200 a logit
    share = decided.mean(0)
    assert ((share > 0.02) & (share < 0.98)).all()


def test_the_server_decides_what_the_graph_decides_to_the_last_bit(
    session: onnxruntime.InferenceSession,
) -> None:
    rows = rows_of(2000)
    stated, decided = session.run(None, rows)
    for row, held, arm in zip(stated, decided, arms_of(rows), strict=True):
        label = make_decision(row, ASKED, FITTED, arm)["label"]
        for question, span in ASKED.spans():
            names = [n for n, yes in zip(question.labels, held[span], strict=True) if yes]
            found = label[question.name]
            assert names == ([found] if isinstance(found, str) else list(found))


def test_a_threshold_in_float32_is_reached_by_the_same_probabilities() -> None:
    for threshold in np.random.default_rng(0).random(500):
        near = np.float32(threshold)
        for stated in (np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1))):
            assert (stated >= np.float32(round_up_float32(threshold))) == (
                float(stated) >= threshold
            )


@pytest.fixture(scope="module")
def posts(world: Path) -> dict[str, list[Post]]:
    return {
        split: list(read_posts(world / "sarcasm" / f"{split}.jsonl"))
        for split in ("train", "val", "test")
    }


@pytest.fixture(scope="module")
def val(bundle: Path, posts: dict[str, list[Post]]) -> Predictor:
    return Predictor(bundles.load_bundle(bundle), posts["val"], None)


def feed(predictor: Predictor, posts: list[Post], split: str | None) -> EncodedDataset:
    made = (predictor.model, predictor.preparation)
    return EncodedDataset(posts, predictor.bundle.questions, *made, split=split)


@pytest.mark.parametrize("arm", ARMS)
def test_torch_graph_and_server_decide_alike_on_every_post_of_a_bundle(
    bundle: Path, posts: dict[str, list[Post]], arm: str
) -> None:
    engine = Engine.open(bundle, threads=1)
    every = [one for split in posts.values() for one in split]
    if arm == "with":
        every = [post for post in every if post.intentions]
    ready = [engine.prepare(post, arm) for post in every]
    arrays = _join_posts(ready, engine.preparation.pad_id)
    given = {each.name: arrays[each.name] for each in engine.session.get_inputs()}
    (decided,) = engine.session.run(["decision"], given)
    served = [engine.bundle.labels.index(one.label) for one in engine.run(ready)]
    stated = Predictor(engine.bundle, every, None).probabilities(arm)
    threshold = engine.bundle.calibration.thresholds[arm]
    wanted = metrics.decide_labels(stated, positive=1, threshold=threshold)
    assert decided.sum(1).tolist() == [1] * len(every)
    assert decided.argmax(1).tolist() == served == wanted.tolist()
    assert len(every) > 100
    assert 0 < sum(served) < len(every)


@pytest.mark.parametrize("split", ["test", "train", None])
def test_nothing_is_fitted_on_posts_that_are_not_of_validation(
    val: Predictor, posts: dict[str, list[Post]], split: str | None
) -> None:
    given = feed(val, posts[split or "test"], split)
    with pytest.raises(MikoError, match=f"split val alone.*posts are of {split or 'no split'}"):
        fit_calibrations(val.bundle.recipe, val.model, given)


def decided_by(recipe: Recipe, **keys: Any) -> Recipe:
    return recipe.model_copy(update={"decision": DecisionSection(**keys)})


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_a_recipe_says_how_a_bundle_calibrates_and_decides(
    method: str, val: Predictor, posts: dict[str, list[Post]]
) -> None:
    recipe = decided_by(
        val.bundle.recipe,
        calibration=method,
        aim="recall_at_false_positive_rate",
        false_positive_rate=0.4,
        conformal=0.8,
    )
    (found,) = fit_calibrations(recipe, val.model, feed(val, posts["val"], "val"))
    assert found.method == method
    assert found.aim == ThresholdAim(name="recall_at_false_positive_rate", value=0.4)
    (truth,) = (part.truth for part in val.feed.truth.split_by_question())
    for arm in ARMS:
        stated = calibrate_logits(val.logits(arm), val.bundle.questions, [found])
        decided = metrics.decide_labels(stated, positive=1, threshold=found.thresholds[arm])
        assert decided[truth == 0].mean() == found.reached[arm].false_positive_rate <= 0.4
        assert decided[truth == 1].mean() == found.reached[arm].recall
        assert (
            select_conformal_labels(stated, found.conformal.quantiles[arm])[
                range(len(truth)), truth
            ].mean()
            >= 0.8
        )
    if method != "temperature":
        assert found.prior == pytest.approx(truth.mean(), abs=1e-6)
    text = json.dumps(bundles.dump_calibrations(val.bundle.questions, [found]))
    assert Calibration.model_validate_json(text) == found


def test_an_aim_that_validation_does_not_reach_is_one_line_an_arm(
    val: Predictor, posts: dict[str, list[Post]], capsys: pytest.CaptureFixture
) -> None:
    given = [post.model_copy(update={"label": "sincere"}) for post in posts["val"]]
    low = np.argsort(val.probabilities("with")[:, 1])[0]
    given[low] = given[low].model_copy(update={"label": "sarcastic"})
    recipe = decided_by(val.bundle.recipe, aim="recall_at_precision", precision=0.99)
    (found,) = fit_calibrations(recipe, val.model, feed(val, given, "val"))
    assert not found.reached["with"].met
    assert "arm with: no threshold for 'sarcastic' serves recall at precision 0.99" in (
        capsys.readouterr().err
    )


def test_what_needs_two_labels_is_refused_for_three_before_anything_is_trained() -> None:
    for keys, words in (
        ({"calibration": "isotonic"}, r"decision.calibration: isotonic .*one of a, b, c.*platt"),
        ({"aim": "cost"}, r"decision.aim: cost .*choose macro_f1"),
    ):
        check_decision(DecisionSection(**keys), make_single_choice("ab"))
        with pytest.raises(RecipeError, match=words):
            check_decision(DecisionSection(**keys), make_single_choice("abc"))
    check_decision(DecisionSection(calibration="platt"), make_single_choice("abc"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("t5") / "flan-t5-tiny"
    checkpoints.t5(path)
    return path


class Whole(nn.Module):
    """Label scores as a graph of arrays."""

    names = ("pixels", "image_present", "text_ids", "text_mask")

    def __init__(self, model: MrHarm) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(dict(zip(self.names, tensors, strict=True))).logits


class Step(Whole):
    """The next token of a rationale as a graph of arrays."""

    names = ("ids", "states", "present")

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model.next_word(*tensors)


def export_graph(graph: Whole, example: tuple[Tensor, ...], dims: tuple, path: Path) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.eval(), example, path, input_names=graph.names, output_names=["logits"],
                dynamic_shapes={"tensors": dims}, opset_version=23, dynamo=True,
                external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_graph_of_a_step_writes_what_torch_writes(folder: Path, tmp_path: Path) -> None:
    model, path, batch = build_generator(folder, gated=False), tmp_path / "step.onnx", make_batch()
    post, written, word = Dim("post", max=4096), Dim("written", max=600), Dim("word", max=512)
    dims = ({0: post, 1: written}, {0: post, 1: word}, {0: post, 1: word})
    with torch.no_grad():
        states, present = model.read(batch)
    begun = torch.cat([torch.zeros(4, 1, dtype=torch.int64), model.prefix.expand(4, -1)], dim=1)
    export_graph(Step(model), (begun, states, present), dims, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, kept = begun, {"states": states.numpy(), "present": present.numpy()}
    for _ in range(10):
        logits = session.run(None, {"ids": ids.numpy(), **kept})[0]
        ids = torch.cat([ids, torch.from_numpy(logits).argmax(-1, keepdim=True)], dim=1)
    ids = ids[:, begun.shape[1] :]
    ends = (ids == model.trunk.end_id).cumsum(1) - (ids == model.trunk.end_id).long() > 0
    found = model.write(batch, 10)
    assert torch.equal(ids.masked_fill(ends, 0)[:, : found.shape[1]], found)
