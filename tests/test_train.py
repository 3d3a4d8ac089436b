"""Training: two stages that resume to the bit, early stopping, and a test split left alone."""

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
from conftest import ROOT, SMALL

from miko_clf import bundle as bundles
from miko_clf import manifest
from miko_clf import recipe as recipes
from miko_clf.data.folder import open_folder
from miko_clf.data.labels import find
from miko_clf.data.post import Post, Rationale
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.predict import Predictor
from miko_clf.fuse.build import build, prepare
from miko_clf.pipeline import Plan, fit
from miko_clf.questions import choice
from miko_clf.recipe import Optimiser, Recipe
from miko_clf.train import optim
from miko_clf.train.feed import Feed
from miko_clf.train.order import Order
from miko_clf.train.stages import ReasoningStage, TaskStage

LABELS = ("no", "yes")


def test_a_run_killed_twice_ends_in_the_weights_of_an_uninterrupted_one(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    overrides = [f"--recipe.{key}={value}" for key, value in SMALL.items()]
    command = [
        sys.executable, str(ROOT / "train.py"), "tiny", "--data", str(world / "sarcasm"),
        "--out", str(out), "--minutes", "0.00001", "--no-cache", *overrides,
    ]  # fmt: skip
    for stage, step in (("reasoning", 2), ("task", 8)):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _wait_for(child, tmp_path / "small.training" / stage, step)
        child.kill()
        child.communicate()
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "going on with the run" in last.stderr
    weights = bundles.WEIGHTS
    assert manifest.digest(out / weights) == manifest.digest(bundle / weights)
    assert _steps(out) == _steps(bundle)
    assert not (tmp_path / "small.training").exists()


def _wait_for(child: subprocess.Popen, folder: Path, step: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and child.poll() is None:
        found = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")]
        if found and max(found) >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of step {step}: {child.communicate()[1].decode()[-500:]}")


def _steps(out: Path) -> list[tuple]:
    lines = (out / bundles.METRICS).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["stage"], row["epoch"], row["step"], row.get("validation")) for row in rows]


def test_an_interrupt_saves_the_step_and_says_how_to_go_on(world: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "train.py"), "tiny", "--data", str(world / "sarcasm"),
        "--out", str(tmp_path / "x"), "--minutes", "0.00001", "--no-cache",
        *[f"--recipe.{key}={value}" for key, value in SMALL.items()],
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(child, tmp_path / "x.training" / "reasoning", 1)
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"the same command goes on" in errors
    assert b"Traceback" not in errors
    assert not (tmp_path / "x").exists()


def test_training_never_opens_the_test_split(
    world: Path, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_folder(world / "sarcasm")
    read, splits = opened.read, []
    monkeypatch.setattr(opened, "read", lambda split: splits.append(split) or read(split))
    monkeypatch.setattr("miko_clf.pipeline.run", lambda *_: (_ for _ in ()).throw(_Enough()))
    with pytest.raises(_Enough):
        fit(small, opened, Plan(out=tmp_path / "out"))
    assert splits == ["train", "val"]
    assert (world / "sarcasm" / "test.jsonl").exists()


class _Enough(Exception):  # noqa: N818
    """Training need not go further."""


def test_every_epoch_sees_every_post_once_in_an_order_of_its_own() -> None:
    order = Order(np.arange(103) % 17, 8, seed=3)
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
    batches = Order(lengths, 16, seed=0).batches()
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 15


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_falls(decay: str) -> None:
    settings = Optimiser(rate=1.0, warmup=0.2, decay=decay)
    optimiser = optim.optimiser(torch.nn.Linear(2, 2), settings, ())
    schedule = optim.schedule(optimiser, settings, 50)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert (rates[-1] < 0.05) == (decay != "constant")


def test_pretrained_towers_learn_at_their_own_rate_and_norms_do_not_decay(small: Recipe) -> None:
    model = build(small, LABELS, ["a burnt cake"])
    settings = Optimiser(rate=1e-3, tower_rate=1e-5, weight_decay=0.1)
    groups = optim.optimiser(model, settings, ("image_tower.",)).param_groups
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
    recipe = recipes.load("mobilenet-minilm-student", {"reasoning.max_length": 48})
    posts = open_folder(harm_c).read("val")[:12]
    labels = find(posts)
    model = build(recipe, labels.names, [])
    preparation = prepare(recipe, model)
    settings = {"targets": True, "rationale_length": 48}
    cached = Feed(posts, labels, model, preparation, cache=tmp_path, **settings)
    live = Feed(posts, labels, model, preparation, **settings)
    model.eval()
    for stage in (ReasoningStage(recipe), TaskStage(recipe, live)):
        one = float(stage.loss(model, cached.batch(range(12))).detach())
        other = float(stage.loss(model, live.batch(range(12))).detach())
        assert one == pytest.approx(other, rel=1e-3), stage.name


def test_a_rationale_that_saw_the_label_is_refused_as_input(small: Recipe) -> None:
    recipe = small.model_copy(update={"inputs": ("image", "text", "rationale")})
    post = Post(id="7", text="a cake", rationale=Rationale(text="because", saw_label=True))
    model = build(recipe, LABELS, ["a burnt cake"])
    with pytest.raises(PostError, match=r"post '7'.*knowing the label"):
        Feed([post], choice(LABELS), model, prepare(recipe, model))


def test_a_rationale_that_did_not_see_the_label_may_be_read(small: Recipe) -> None:
    recipe = small.model_copy(update={"inputs": ("image", "text", "rationale")})
    post = Post(id="7", text="a cake", rationale=Rationale(text="because", saw_label=False))
    model = build(recipe, LABELS, ["a burnt cake", "because"])
    batch = Feed([post], choice(LABELS), model, prepare(recipe, model)).batch([0])
    assert batch["rationale_mask"].any()


def test_ids_file_names_and_groups_are_not_features(bundle: Path, world: Path) -> None:
    posts = open_folder(world / "sarcasm").read("val")[:8]
    renamed = [
        post.model_copy(update={"id": f"other-{i}", "group": "g", "label": None})
        for i, post in enumerate(posts)
    ]
    opened = bundles.read(bundle)
    one = Predictor(opened, posts, None).probabilities("with")
    assert np.array_equal(one, Predictor(opened, renamed, None).probabilities("with"))


def test_the_positive_class_is_the_rarer_unless_chosen() -> None:
    posts = [Post(id=str(i), text="t", label="yes" if i < 3 else "no") for i in range(10)]
    assert find(posts).names == ("no", "yes")
    assert find(posts, "no").names == ("yes", "no")
    with pytest.raises(PostError, match="no training post is labelled 'maybe'; labels: no, yes"):
        find(posts, "maybe")


def test_one_label_is_not_enough() -> None:
    with pytest.raises(PostError, match="one label, 'yes'; two are needed"):
        find([Post(id="1", text="t", label="yes")])


def test_an_existing_bundle_is_not_overwritten_unless_told(
    bundle: Path, world: Path, small: Recipe
) -> None:
    before = manifest.digest(bundle / "manifest.json")
    with pytest.raises(BundleError, match="exists; name another --out, or add --overwrite"):
        fit(small, open_folder(world / "sarcasm"), Plan(out=bundle))
    assert manifest.digest(bundle / "manifest.json") == before


def test_overwrite_leaves_a_folder_that_is_no_bundle_alone(
    world: Path, small: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    plan = Plan(out=tmp_path, overwrite=True)
    with pytest.raises(BundleError, match="is not a bundle"):
        fit(small, open_folder(world / "sarcasm"), plan)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_bundle_says_where_it_comes_from(bundle: Path, world: Path) -> None:
    opened = bundles.read(bundle)
    assert opened.labels == ("sincere", "sarcastic")
    assert opened.calibration.positive == "sarcastic"
    assert set(opened.calibration.thresholds) == {"with", "student", "without"}
    assert opened.manifest["data"]["train"] == open_folder(world / "sarcasm").fingerprint("train")
    assert opened.manifest["recipe"]["seed"] == 0
    assert "torch" in opened.manifest["versions"]
    names = {"recipe.yaml", "labels.json", "preprocess.json", "tokenizer.json", "towers.json"}
    names |= {"calibration.json", "model.safetensors", "metrics.jsonl", "report.html"}
    assert names <= set(opened.manifest["files"])
    assert (bundle / "README.md").is_file()


def test_a_changed_byte_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = _copy(bundle, tmp_path)
    content = bytearray((copy / "tokenizer.json").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"file tokenizer.json was changed"):
        bundles.read(copy)


def test_a_missing_file_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = _copy(bundle, tmp_path)
    (copy / "labels.json").unlink()
    with pytest.raises(BundleError, match=r"file labels.json is missing"):
        bundles.read(copy)


def _copy(bundle: Path, to: Path) -> Path:
    copy = to / "copy"
    for path in bundle.rglob("*"):
        if path.is_file():
            place = copy / path.relative_to(bundle)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return copy
