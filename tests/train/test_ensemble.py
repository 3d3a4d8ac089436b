"""An ensemble is the mean of its members, in one graph; distilled, one model that heard them."""

import json
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from miko_clf import bundle as bundles
from miko_clf import pipeline
from miko_clf.data.dataset import open_folder
from miko_clf.errors import MikoError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.export.onnx_export import export_bundle
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.cross_attention import CrossAttentionFusion
from miko_clf.fuse.ensemble import EnsembleFusion
from miko_clf.pipeline import fit
from miko_clf.questions import Question, Questions
from miko_clf.recipe.schema import Recipe, parse_recipe
from miko_clf.train import ensemble as ensembles
from miko_clf.train.stages import compute_distillation_loss
from tests.support import checkpoints
from tests.train.test_linear_probe import make_row

READER = {"width": 16, "heads": 2, "layers": 1, "slots": False}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "bert"
    torch.manual_seed(0)
    checkpoints.bert(folder)
    return folder


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("posts"), np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 24), ("test", 12)):
        rows = [make_row(split, number, rng) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_recipe(encoder: Path, **changes: object) -> Recipe:
    values = {
        "name": "readers",
        "inputs": ["text", "intention"],
        "text": {"source": "transformers", "name": str(encoder), "max_length": 16},
        "fusion": {**READER, "base": "linear", "words": True},
        "task": {"epochs": 1},
        "ensemble": 2,
    }
    return parse_recipe({**values, **changes}, "a recipe")


@pytest.fixture(scope="module")
def averaged(encoder: Path, posts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(make_recipe(encoder), posts, tmp_path_factory.mktemp("averaged") / "bundle")


def read_log(bundle: Path, stage: str) -> list[dict]:
    lines = (bundle / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["stage"] == stage]


def test_an_ensemble_answers_with_the_mean_of_members_of_their_own_seeds(
    averaged: Path, posts: Path
) -> None:
    predictor = Predictor(bundles.load_bundle(averaged), open_folder(posts).read("test"), None)
    model = predictor.model
    assert isinstance(model, MikoClassifier)
    ensemble = model.fusion
    assert isinstance(ensemble, EnsembleFusion)
    together, apart = predictor.logits("with"), []
    for member in list(ensemble.members):
        assert isinstance(member, CrossAttentionFusion)
        model.fusion = member
        apart.append(predictor.logits("with"))
    assert len(apart) == 2
    assert np.abs(apart[0] - apart[1]).max() > 1e-3
    np.testing.assert_allclose(together, np.mean(apart, axis=0), atol=1e-6)
    [row] = read_log(averaged, "ensemble")
    assert [member["seed"] for member in row["members"]] == [0, 1000]


def test_the_first_member_is_the_model_that_the_seed_alone_would_have_made(
    averaged: Path, encoder: Path, posts: Path, tmp_path: Path
) -> None:
    single = fit(make_recipe(encoder, ensemble=1), posts, tmp_path / "single")
    test = open_folder(posts).read("test")
    predictor = Predictor(bundles.load_bundle(averaged), test, None)
    assert isinstance(predictor.model, MikoClassifier)
    assert isinstance(predictor.model.fusion, EnsembleFusion)
    [first, _] = predictor.model.fusion.members
    assert isinstance(first, CrossAttentionFusion)
    predictor.model.fusion = first
    alone = Predictor(bundles.load_bundle(single), test, None).logits("with")
    np.testing.assert_array_equal(predictor.logits("with"), alone)


def test_an_ensemble_is_one_graph_that_says_what_torch_says(averaged: Path) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        parity = export_bundle(averaged)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert max(parity.single, parity.split) < 1e-4
    assert (averaged / "onnx" / "model.onnx").is_file()


def test_a_distilled_ensemble_is_one_model_that_is_taught_by_all(
    encoder: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[torch.Tensor] = []
    train = ensembles.train_members

    def listen(*args: object, **keys: object) -> object:
        taught.append(train(*args, **keys))  # type: ignore[arg-type]
        return taught[-1]

    monkeypatch.setattr(pipeline, "train_members", listen)
    fusion = {**READER, "base": "none"}
    recipe = make_recipe(encoder, distil=True, fusion=fusion)
    path = fit(recipe, posts, tmp_path / "distilled")
    [logits] = taught
    assert logits.shape == (48, 2)
    predictor = Predictor(bundles.load_bundle(path), open_folder(posts).read("test"), None)
    assert isinstance(predictor.model, MikoClassifier)
    assert isinstance(predictor.model.fusion, CrossAttentionFusion)
    [row] = read_log(path, "ensemble")
    assert [member["seed"] for member in row["members"]] == [1000, 2000]
    untaught = fit(make_recipe(encoder, ensemble=1, fusion=fusion), posts, tmp_path / "untaught")
    other = Predictor(bundles.load_bundle(untaught), predictor.feed.posts, None)
    assert np.abs(predictor.logits("with") - other.logits("with")).max() > 1e-5


def test_an_ensemble_that_was_stopped_goes_on_with_the_member_it_was_at(
    averaged: Path, encoder: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, real = [], pipeline.train_stage

    def stop_at_second(run: object, *rest: object) -> None:
        begun.append(run)
        if len(begun) == 2:
            raise KeyboardInterrupt
        real(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "train_stage", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        fit(make_recipe(encoder), posts, tmp_path / "stopped")
    first = tmp_path / "stopped.training" / "member-1" / "task" / "best.safetensors"
    kept = first.stat().st_mtime_ns
    monkeypatch.setattr(pipeline, "train_stage", real)
    again = fit(make_recipe(encoder), posts, tmp_path / "stopped")
    assert kept
    weights = [bundle / "model.safetensors" for bundle in (averaged, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_distillation_asks_for_the_probabilities_of_the_teacher() -> None:
    questions = Questions(
        (
            Question(name="tone", kind="one", labels=("no", "yes")),
            Question(name="harms", kind="many", labels=("a", "b")),
        )
    )
    teacher = torch.tensor([[0.5, -0.5, 2.0, -1.0]])
    same = compute_distillation_loss(questions, teacher.clone().requires_grad_(), teacher)
    own = torch.zeros(1, 4, requires_grad=True)
    far = compute_distillation_loss(questions, own, teacher)
    assert far > same
    [gradient] = torch.autograd.grad(far, own)
    expected = [0.5 - teacher[0, :2].softmax(0)[0], None, 0.5 - teacher[0, 2].sigmoid()]
    assert gradient[0, 0] == pytest.approx(float(expected[0]), abs=1e-6)  # type: ignore[arg-type]
    assert gradient[0, 2] == pytest.approx(float(expected[2]) / 2, abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ensemble": 1, "distil": True}, "ensemble to 2 or more"),
        ({"fusion": {"kind": "pooled", "solver": "lbfgs"}}, "ensemble: 1"),
        ({"task": {"retrieval": {}}}, "distil: true"),
    ],
)
def test_what_cannot_be_an_ensemble_says_so(
    encoder: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(MikoError, match=said):
        make_recipe(encoder, **changes)


def test_towers_that_learn_are_distilled_and_not_averaged(encoder: Path) -> None:
    text = {"source": "transformers", "name": str(encoder), "frozen": False}
    with pytest.raises(MikoError, match="distil: true"):
        make_recipe(encoder, text=text, fusion=READER)
    assert make_recipe(encoder, text=text, fusion=READER, distil=True).num_members == 1
