"""Training: two stages that resume to the bit, early stopping, a test split left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from miko_clf import bundle as bundles
from miko_clf import manifest
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post, Rationale
from miko_clf.errors import PostError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.questions import make_single_choice
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import OptimiserSection
from miko_clf.train import optim
from miko_clf.train.dataloader import EncodedDataset, LengthGroupedBatchSampler
from miko_clf.train.stages import ReasoningStage, TaskStage
from tests.support.command_line import run_command
from tests.support.repository import ROOT
from tests.support.small_recipes import SMALL_KEYS

LABELS = ("no", "yes")


def test_a_run_killed_and_a_run_interrupted_end_in_the_weights_of_an_unbroken_one(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "small", tmp_path / "small.training"
    overrides = [f"--recipe.{key}={value}" for key, value in SMALL_KEYS.items()]
    words = ["tiny", "--data", str(world / "sarcasm"), "--out", str(out), "--no-cache", *overrides]
    command = [sys.executable, str(ROOT / "train.py"), *words, "--minutes", "0.00001"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(killed, work / "reasoning", 2)
    killed.kill()
    killed.communicate()
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(stopped, work / "task", 7)
    os.kill(stopped.pid, signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert b"the same command goes on" in errors
    assert b"Traceback" not in errors
    assert not out.exists()
    ended = run_command("fit", *words)
    assert ended.code == 0, ended.err
    assert "going on with the run" in ended.err
    weights = bundles.WEIGHTS_FILE
    assert manifest.hash_file(out / weights) == manifest.hash_file(bundle / weights)
    assert _steps(out) == _steps(bundle)
    assert not work.exists()


def _wait_for(child: subprocess.Popen, folder: Path, step: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and child.poll() is None:
        found = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")]
        if found and max(found) >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of step {step}: {child.communicate()[1].decode()[-500:]}")


def _steps(out: Path) -> list[tuple]:
    lines = (out / bundles.METRICS_FILE).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["stage"], row["epoch"], row["step"], row.get("validation")) for row in rows]


def test_every_epoch_sees_every_post_once_in_an_order_of_its_own() -> None:
    order = LengthGroupedBatchSampler(np.arange(103) % 17, 8, seed=3)
    first = order.batches()
    order.epoch = 1
    second = order.batches()
    assert sorted(i for batch in first for i in batch) == list(range(103))
    assert sorted(i for batch in second for i in batch) == list(range(103))
    assert first != second
    order.start = 5
    assert list(order) == second[5:]
    assert len(order) == len(first) == 13


def test_posts_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1600)
    batches = LengthGroupedBatchSampler(lengths, 16, seed=0).batches()
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 15


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_falls(decay: str) -> None:
    settings = OptimiserSection(rate=1.0, warmup=0.2, decay=decay)
    optimiser = optim.build_optimiser(torch.nn.Linear(2, 2), settings, {})
    schedule = optim.build_schedule(optimiser, settings, 50)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert (rates[-1] < 0.05) == (decay != "constant")


def test_pretrained_towers_learn_at_their_own_rate_and_norms_do_not_decay(small: Recipe) -> None:
    model = build_model(small, LABELS, ["a burnt cake"])
    settings = OptimiserSection(rate=1e-3, tower_rate=1e-5, weight_decay=0.1)
    rates = {"image_tower.": optim.LayerwiseRate(settings.tower_rate)}
    groups = optim.build_optimiser(model, settings, rates).param_groups
    by_id = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    tower = model.image_tower.trunk.blocks[0]
    assert by_id[id(tower[0].weight)] == (1e-5, 0.1)
    assert by_id[id(tower[1].weight)] == (1e-5, 0.0)
    assert by_id[id(model.fusion.layers[0].reader.gate)] == (1e-3, 0.0)
    assert by_id[id(model.fusion.head[2].weight)] == (1e-3, 0.1)


@pytest.mark.real
def test_the_loss_is_the_same_with_and_without_the_cache(
    encoders: Path, harm_c: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(encoders))
    recipe = recipes.load_recipe("mobilenet-minilm-student", {"reasoning.max_length": 48})
    posts = open_folder(harm_c).read("val")[:12]
    labels = find_questions(posts)
    model = build_model(recipe, labels.names, [])
    preparation = build_preparation(recipe, model)
    settings = {"targets": True, "rationale_length": 48}
    cached = EncodedDataset(posts, labels, model, preparation, cache=tmp_path, **settings)
    live = EncodedDataset(posts, labels, model, preparation, **settings)
    model.eval()
    for stage in (ReasoningStage(recipe), TaskStage(recipe, live)):
        one = float(stage.loss(model, cached.batch(range(12))).detach())
        other = float(stage.loss(model, live.batch(range(12))).detach())
        assert one == pytest.approx(other, rel=1e-3), stage.name


def test_a_rationale_that_saw_the_label_is_refused_as_input(small: Recipe) -> None:
    recipe = small.model_copy(update={"inputs": ("image", "text", "rationale")})
    post = Post(id="7", text="a cake", rationale=Rationale(text="because", saw_label=True))
    model = build_model(recipe, LABELS, ["a burnt cake"])
    with pytest.raises(PostError, match=r"post '7'.*knowing the label"):
        EncodedDataset([post], make_single_choice(LABELS), model, build_preparation(recipe, model))


def test_a_rationale_that_did_not_see_the_label_may_be_read(small: Recipe) -> None:
    recipe = small.model_copy(update={"inputs": ("image", "text", "rationale")})
    post = Post(id="7", text="a cake", rationale=Rationale(text="because", saw_label=False))
    model = build_model(recipe, LABELS, ["a burnt cake", "because"])
    batch = EncodedDataset(
        [post], make_single_choice(LABELS), model, build_preparation(recipe, model)
    ).batch([0])
    assert batch["rationale_mask"].any()


def test_ids_file_names_and_groups_are_not_features(bundle: Path, world: Path) -> None:
    posts = open_folder(world / "sarcasm").read("val")[:8]
    renamed = [
        post.model_copy(update={"id": f"other-{i}", "group": "g", "label": None})
        for i, post in enumerate(posts)
    ]
    opened = bundles.load_bundle(bundle)
    one = Predictor(opened, posts, None).probabilities("with")
    assert np.array_equal(one, Predictor(opened, renamed, None).probabilities("with"))
