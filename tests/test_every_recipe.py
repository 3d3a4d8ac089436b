"""Every shipped recipe on tiny random weights of the classes that it names.

One of each shape learns in both of its stages, is written and read back; of the others, which
differ in sizes and texts alone, the loss is computed. Graphs take long to trace: here one of each
kind of fusion and of tower is compared with torch, and `make check-graphs` compares them all.
"""

import json
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from miko_clf import bundle as bundles
from miko_clf.bundle import Calibration
from miko_clf.data.dataset import open_folder
from miko_clf.encode.finetune import merge_lora
from miko_clf.evaluate.predictions import Predictor
from miko_clf.export import onnx_export
from miko_clf.export.graphs import build_graphs
from miko_clf.export.parity import (
    LOGIT_TOLERANCE,
    GraphSessions,
    draw_example_batch,
    generate_cases,
)
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.fuse.classifier import NeighbourVote
from miko_clf.pipeline import fit
from miko_clf.questions import Question, Questions
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.loop import Stage
from miko_clf.train.predict import list_serving_arms
from miko_clf.train.stages import ReasoningStage, TaskStage
from tests.support import checkpoints
from tests.support.command_line import run_command

# Architectures by the last part of the names that recipes call.
TOWERS = {
    "all-MiniLM-L6-v2": checkpoints.bert,
    "bert-base-cased": checkpoints.bert,
    "roberta-base": checkpoints.roberta,
    "clip-vit-base-patch32": checkpoints.clip,
    "clip-vit-large-patch14": checkpoints.clip,
    "clip-vit-large-patch14-336": checkpoints.clip,
    "metaclip-2-worldwide-b32": checkpoints.metaclip2,
    "eva02_base_patch16_clip_224.merged2b_s8b_b131k": checkpoints.eva_clip,
    "MobileCLIP2-S2-OpenCLIP": checkpoints.mobileclip2,
    "vit_base_patch16_dinov3.lvd1689m": checkpoints.dinov3,
    "siglip2-base-patch16-224": checkpoints.siglip,
    "flan-t5-base": checkpoints.t5,
    "mobilenetv2_100": checkpoints.mobilenet,
    "SmolLM2-135M-Instruct": checkpoints.decoder,
}
MARKED = {"all-MiniLM-L6-v2", "bert-base-cased", "roberta-base"}
# One recipe of each kind of fusion, and with them one of each kind of tower.
COVER = (
    "clip-b32-student",
    "clip-zero-shot-text",
    "dinov3-b16-minilm-with",
    "hate-clipper-cross",
    "interclip",
    "linear-minilm-with",
    "metaclip2-b32-with",
    "mobileclip2-s2-with",
    "mr-harm-gated",
    "retrieval-mobilenet-minilm",
    "siglip2-b16-with",
)
QUESTIONS = Questions((Question(name="", kind="one", labels=("no", "yes")),))
COMPARED: set[str] = set()
TEXTS = ("a lovely burnt cake", "a sunny beach", "burnt beach", "a lovely cake")


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("towers")
    for name, make in TOWERS.items():
        make(root / name)
        if name in MARKED:
            checkpoints.marked(root / name, 16, starts=True)
    return root


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight posts to learn from and four to judge by; the last of each lacks what it may lack."""
    folder = tmp_path_factory.mktemp("posts")
    for place in range(4):
        picture = Image.new("RGB", (40, 40), (60 * place, 120, 200))
        picture.save(folder / f"{place}.png")
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        rows = [_row(f"{split}-{place}", place) for place in range(count)]
        rows[-1] = {"id": f"{split}-last", "text": "a cake", "label": "yes"}
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def _list_shapes() -> list[str]:
    """Return the first recipe of each shape that learns in a way of its own."""
    firsts: dict[str, str] = {}
    for name in recipes.list_recipes():
        recipe = recipes.load_recipe(name)
        firsts.setdefault(_structure(recipe) + _training(recipe), name)
    return list(firsts.values())


def _training(recipe: Recipe) -> str:
    """Return what else decides how a recipe learns: what of the towers does, and by which loss."""
    reasoning, task = recipe.reasoning, recipe.task
    told = reasoning.epochs > 0
    losses = [told and reasoning.align > 0, told and reasoning.generate > 0, task.align > 0]
    losses += [task.likelihood, task.retrieval is not None, task.class_weights == "balanced"]
    losses += [task.epochs > 0, recipe.fitted, recipe.based]
    towers = [tower for tower in (recipe.image, recipe.text) if tower is not None]
    learning = [[tower.frozen, tower.unfreeze, tower.lora is not None] for tower in towers]
    return json.dumps([losses, learning])


def _structure(recipe: Recipe) -> str:
    """Return what decides the graphs: kinds of towers, texts that are read, and the fusion."""
    recipe = _small(recipe)
    fusion = recipe.fusion.model_dump(mode="json")
    shape: dict[str, object] = {k: v for k, v in fusion.items() if "dropout" not in k}
    shape |= {"joined": recipe.joined, "vote": recipe.task.retrieval is not None}
    shape |= {"texts": recipe.content_texts, "intentions": recipe.reads_intentions}
    for tower in ("image", "text"):
        section = getattr(recipe, tower)
        if section is not None:
            kind = TOWERS.get(section.name.rpartition("/")[2])
            way = section.normalise if tower == "image" else section.long
            shape[tower] = [kind.__name__ if kind else "tiny", section.output, way]
    return json.dumps(shape, sort_keys=True)


def _small(recipe: Recipe) -> Recipe:
    """Return the recipe with one epoch of two steps a stage, and a fusion of a few channels."""
    changes: dict[str, object] = {"batch_size": 4}
    wide = {"width": 16, "heads": 2, "layers": 2, "hidden": 8}
    fusion = {
        key: min(value, getattr(recipe.fusion, key))
        for key, value in wide.items()
        if hasattr(recipe.fusion, key)
    }
    for stage in ("reasoning", "task"):
        section = getattr(recipe, stage)
        changes[stage] = section.model_copy(update={"epochs": min(1, section.epochs)})
    changes["fusion"] = recipe.fusion.model_copy(update=fusion)
    return Recipe.model_validate(recipe.model_copy(update=changes).model_dump())


SHAPES = _list_shapes()


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_learns_in_both_stages_is_written_and_read_back(
    name: str, towers: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    recipe = _small(recipes.load_recipe(name))
    data = open_folder(posts)
    path = fit(recipe, data, tmp_path / name, leaks=True, cache=towers / "features")
    steps = [json.loads(line) for line in (path / bundles.METRICS_FILE).read_text().splitlines()]
    stages = {row["stage"]: row["step"] for row in steps}
    wanted = {"task": 2 if recipe.task.epochs else 0} if not recipe.fitted else {}
    wanted |= {"reasoning": 2} if recipe.reasoning.epochs else {}
    wanted |= {"probe": 1} if recipe.fitted or recipe.based else {}
    assert stages == wanted
    opened = bundles.load_bundle(path)
    predictor = Predictor(opened, data.read("test"), None)
    scores = predictor.probabilities(list_serving_arms(recipe)[0])
    assert scores.shape == (4, 2)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(recipes.list_recipes()) - set(SHAPES)))
def test_a_recipe_of_the_shape_of_another_has_a_loss_in_both_stages(
    name: str, towers: Path, posts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    torch.manual_seed(0)
    recipe = _small(recipes.load_recipe(name))
    model = build_model(recipe, ("no", "yes"), list(TEXTS))
    targets = recipe.slots or recipe.reasoning.epochs > 0
    train = EncodedDataset(
        open_folder(posts).read("train"),
        QUESTIONS,
        model,
        build_preparation(recipe, model),
        targets=targets,
        rationale_length=recipe.reasoning.max_length,
    )
    stages: list[Stage] = [ReasoningStage(recipe)] if recipe.reasoning.epochs else []
    for stage in [*stages, TaskStage(recipe, train)]:
        stage.begin(model, 0)
        loss = stage.loss(model, train.batch(range(8)))
        loss.backward()
        assert loss.isfinite()
        assert any(parameter.grad is not None for parameter in model.parameters())
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", COVER)
def test_a_graph_of_each_kind_says_what_torch_says(
    name: str, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    difference, attentions = _parity(recipes.load_recipe(name), tmp_path)
    assert difference < LOGIT_TOLERANCE
    if name == "mr-harm-gated":
        assert attentions == 9


def test_a_graph_over_a_decoder_says_what_torch_says(
    towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    name = {"text.name": "SmolLM2-135M-Instruct"}
    difference, attentions = _parity(recipes.load_recipe("linear-minilm-with", name), tmp_path)
    assert difference < LOGIT_TOLERANCE
    assert attentions == 3 * 3  # three blocks, which read text, description and intentions


@pytest.mark.graphs
@pytest.mark.parametrize("name", sorted(set(recipes.list_recipes()) - set(COVER)))
def test_the_graph_of_every_recipe_says_what_torch_says(
    name: str, towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    recipe = recipes.load_recipe(name)
    if _structure(recipe) in COMPARED:
        return  # seven mixes of texts, joined, are one graph
    COMPARED.add(_structure(recipe))
    assert _parity(recipe, tmp_path)[0] < LOGIT_TOLERANCE


def _parity(recipe: Recipe, folder: Path) -> tuple[float, int]:
    """Return how far a logit of the graph is from torch at most, and the Attention operators."""
    torch.manual_seed(0)
    small = _small(recipe)
    model = build_model(small, ("no", "yes"), list(TEXTS)).eval()
    for parameter in model.parameters():  # gates that are shut would hide what is behind them
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    for tower in (model.image_tower, model.text_tower):
        if tower is not None:
            merge_lora(tower)
    model.eval()
    preparation, random = build_preparation(small, model), torch.Generator().manual_seed(0)
    if small.task.retrieval:
        with torch.no_grad():
            keys = model(draw_example_batch(model, preparation, 12, 5, random)).embedding
        model.vote = NeighbourVote(
            keys, torch.arange(12) % 2, num_labels=2, neighbours=3, share=0.5
        )
    bare = Calibration(temperature=1, positive="yes", arm="without", thresholds={})
    part = build_graphs(model, preparation, QUESTIONS, [bare])[0]
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        example = draw_example_batch(model, preparation, 3, 5, random)
        attentions = onnx_export.write_graph(part, example, preparation, folder / "model.onnx")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    graphs = GraphSessions(folder, [part])
    worst = 0.0
    for _, batch in generate_cases(model, preparation):
        with torch.inference_mode():
            wanted = model(batch).logits.numpy()
        worst = max(worst, float(np.abs(graphs.run("model", batch)[0] - wanted).max()))
    return worst, attentions


def _row(name: str, place: int) -> dict[str, object]:
    return {
        "id": name,
        "text": TEXTS[place % 4],
        "image": f"{place % 4}.png",
        "label": ("no", "yes")[place % 2],
        "description": TEXTS[(place + 1) % 4],
        "intentions": [{"relation": "xWant", "text": "a cake"}, {"relation": "Open", "text": "a"}],
        "rationale": {"text": "burnt", "saw_label": False},
    }


def test_a_generator_writes_a_rationale_for_each_post(
    towers: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(towers))
    path = fit(
        _small(recipes.load_recipe("mr-harm-gated")),
        open_folder(posts),
        tmp_path / "a",
        leaks=True,
    )
    out = tmp_path / "said.jsonl"
    ended = run_command("reason", path, posts / "test.jsonl", "-o", out, "--max-length", 5)
    assert ended.code == 0, ended.err
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in said] == ["test-0", "test-1", "test-2", "test-last"]
    assert all(row["rationale"]["saw_label"] is False for row in said)
    assert any(row["rationale"]["text"] for row in said)


def test_a_system_that_writes_nothing_says_which_do(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text('{"id": "1", "text": "a cake"}\n')
    ended = run_command("reason", bundle, tmp_path / "posts.jsonl", "-o", tmp_path / "said.jsonl")
    assert ended.code == 1
    assert "mr-harm-gated" in ended.err
    assert not (tmp_path / "said.jsonl").exists()
