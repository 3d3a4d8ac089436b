"""Training: two stages that resume to the bit, early stopping, a test split left alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from miko_clf import bundle as bundles
from miko_clf import manifest
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post, Rationale
from miko_clf.errors import MikoError, PostError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.experiment.compare import compare, evaluate_comparison
from miko_clf.experiment.sweep import Sweep, tune_recipe
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.pipeline import fit
from miko_clf.questions import make_single_choice
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import OptimiserSection
from miko_clf.train import optim
from miko_clf.train.dataloader import EncodedDataset, LengthGroupedBatchSampler
from miko_clf.train.intention_lm import IntentionLMRun, train_intention_lm
from miko_clf.train.loop import (
    TrainingRun,
    check_single_process,
    choose_precision,
    train_stage,
)
from miko_clf.train.predict import predict_logits
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


def _train_stages(
    recipe: Recipe, folder: Path, out: Path
) -> tuple[MikoClassifier, EncodedDataset, TaskStage]:
    """Return what both stages made of a few posts, and what judges it."""
    data, labels = open_folder(folder), make_single_choice(("sincere", "sarcastic"))
    model = build_model(recipe, LABELS, ["a burnt cake"])
    settings = {"targets": True, "rationale_length": recipe.reasoning.max_length}
    preparation = build_preparation(recipe, model)
    train, val = (
        EncodedDataset(data.read(split)[:24], labels, model, preparation, **settings)
        for split in ("train", "val")
    )
    run, stage = TrainingRun("small", out, seed=0, batch_size=8), TaskStage(recipe, train)
    out.mkdir()
    for part in (ReasoningStage(recipe), stage):
        train_stage(run, model, part, train, val)
    return model, val, stage


def test_what_was_trained_in_bf16_is_judged_and_left_in_full_precision(
    small: Recipe, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 1, "optimiser": OptimiserSection(rate=0.01)}
    recipe = small.model_copy(update={"task": small.task.model_copy(update=changes)})
    plain, _, _ = _train_stages(recipe, world / "sarcasm", tmp_path / "no")
    monkeypatch.setattr("miko_clf.train.loop.choose_precision", lambda: "bf16")
    model, val, stage = _train_stages(recipe, world / "sarcasm", tmp_path / "bf16")
    fresh = build_model(recipe, LABELS, ["a burnt cake"])
    fresh.load_state_dict(model.state_dict())
    for arm in ("with", "student", "without"):
        assert np.array_equal(predict_logits(model, val, arm), predict_logits(fresh, val, arm))
    rows = map(json.loads, (tmp_path / "bf16" / "metrics.jsonl").read_text().splitlines())
    (logged,) = (r["validation"] for r in rows if r["stage"] == "task" and "validation" in r)
    assert logged == stage.validate(fresh, val)
    learned = zip(plain.parameters(), model.parameters(), strict=True)
    assert not all(torch.equal(*pair) for pair in learned), "no step was of bf16"


def test_one_process_of_a_launcher_learns_what_it_learns_alone(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    launched = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": port}
    launched |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "1"}
    out, keys = tmp_path / "small", [f"--recipe.{k}={v}" for k, v in SMALL_KEYS.items()]
    words = ["tiny", "--data", str(world / "sarcasm"), "--out", str(out), "--no-cache", *keys]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    ended = subprocess.run(command, env={**os.environ, **launched}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    weights = bundles.WEIGHTS_FILE
    assert manifest.hash_file(out / weights) == manifest.hash_file(bundle / weights)


@pytest.mark.parametrize(
    "name", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
)
def test_several_processes_of_a_launcher_are_refused_before_anything_is_written(
    name: str, small: Recipe, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    check_single_process()
    monkeypatch.setenv(name, "2")
    data = open_folder(world / "sarcasm")
    for train in (
        lambda out: fit(small, data, out),
        lambda out: compare(small, data, out),
        lambda out: evaluate_comparison(
            out, data.path, "test", cache=None, jobs=1, num_resamples=10, command=""
        ),
        lambda out: tune_recipe(Sweep(out, "tiny", (), trials=1), data, None),
        lambda out: train_intention_lm([], IntentionLMRun("none", out)),
    ):
        with pytest.raises(MikoError, match=f"^{name}=2: one process may train.*without accel"):
            train(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("generation", "precision"), [(7, "no"), (8, "bf16"), (9, "bf16")])
def test_bf16_that_a_gpu_emulates_is_not_chosen(
    generation: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.cuda
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(cuda, "get_device_properties", lambda _: SimpleNamespace(major=generation))
    assert cuda.is_bf16_supported()
    assert choose_precision() == precision


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
