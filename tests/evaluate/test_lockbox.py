"""The test split is opened by evaluation alone, every opening is counted."""

import importlib
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from miko_clf import bundle as bundles
from miko_clf import manifest, metrics
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory, is_test_split
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.evaluator import AnalysisOptions, evaluate_bundles
from miko_clf.evaluate.lockbox import (
    _record_for_user,
    describe_openings,
    open_lockbox,
    read_ledger,
)
from miko_clf.evaluate.predictions import Predictor
from miko_clf.experiment import folds, trial
from miko_clf.experiment.design import Experiment, PostSource, Trial
from miko_clf.recipe import schema as recipes
from tests.support.command_line import run_python, write_posts_file
from tests.support.repository import ROOT
from tests.support.small_recipes import SMALL_KEYS

NAMED = ("train", "dev_seen", "test_seen", "test_unseen")
OPENS_OFTEN = """
import sys, time
from pathlib import Path
from miko_clf import bundle
from miko_clf.data.splits import PostsInMemory
from miko_clf.data.post import Post
from miko_clf.evaluate.lockbox import open_lockbox
path, own, other = map(Path, sys.argv[1:])
opened = bundle.load_bundle(path)
data = PostsInMemory(path, {"test": [Post(id="1", text="a", label="b")]})
own.touch()
while not other.exists():
    time.sleep(0.001)
for number in range(15):
    open_lockbox([opened], data, "test", f"{own.name} {number}")
"""


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle whose manifest may change, and has counted no opening yet."""
    copy = Path(shutil.copytree(bundle, tmp_path / "own"))
    known = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**known, "openings": []}))
    return copy


def openings(path: Path) -> list[dict]:
    """What the manifest of a bundle has counted."""
    return json.loads((path / "manifest.json").read_text()).get("openings", [])


@pytest.fixture
def hateful(tmp_path: Path) -> Path:
    """Hateful Memes in small: six posts in each split, val among them by another name."""
    for place, split in enumerate(NAMED):
        ids = range(10 * place, 10 * place + 6)
        rows = [{"id": n, "img": f"img/{n:05}.png", "label": n % 2, "text": split} for n in ids]
        write_posts_file(tmp_path / f"{split}.jsonl", *rows)
    return tmp_path


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: Path) -> ModuleType:
    """The script that makes the table, asked for one small system from one seed."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("systems")
    small = script.System("small", "tiny", tuple(SMALL_KEYS.items()))
    monkeypatch.setattr(script, "SETS", {"world": script.Set("test", (small,))})
    monkeypatch.setattr(script, "ROOT", tmp_path)
    words = ["world", str(world / "sarcasm"), "--seeds", "1", "--out", str(tmp_path / "table")]
    monkeypatch.setattr(sys, "argv", ["systems.py", *words, "--resamples", "10"])
    return script


def test_every_opening_of_test_is_counted_and_no_other_split_is(own: Path, world: Path) -> None:
    data, before = open_folder(world / "sarcasm"), len(openings(own))
    assert len(open_lockbox([bundles.load_bundle(own)], data, "val", "look")) == before
    assert len(openings(own)) == before
    for count in (1, 2):
        found = open_lockbox([bundles.load_bundle(own)], data, "test", f"look {count}")
        assert len(openings(own)) == before + count
        assert found[-1]["fingerprint"] == data.fingerprint("test")
    assert bundles.load_bundle(own).manifest["openings"][-1]["command"] == "look 2"


def test_a_test_that_is_validation_under_other_ids_is_refused(own: Path, world: Path) -> None:
    val = open_folder(world / "sarcasm").read("val")
    renamed = [post.model_copy(update={"id": f"other-{post.id}"}) for post in reversed(val)]
    with pytest.raises(PostError, match="stand in val"):
        open_lockbox(
            [bundles.load_bundle(own)],
            PostsInMemory(world, {"val": val, "test": renamed}),
            "test",
            "look",
        )
    assert all(each["command"] != "look" for each in openings(own))


def test_pictures_that_a_file_embeds_are_compared_by_their_bytes(tmp_path: Path) -> None:
    val = [Post(id=f"v{n}", image=b"\xff\xd8" + bytes([n]), label="a") for n in range(4)]
    test = [post.model_copy(update={"id": f"t{n}"}) for n, post in enumerate(val)]
    with pytest.raises(PostError, match="4 of 4 test posts stand in val"):
        open_lockbox([], PostsInMemory(tmp_path, {"val": val, "test": test}), "test", "x")


def test_a_bundle_is_not_tested_on_what_it_was_fitted_on(own: Path, world: Path) -> None:
    val = open_folder(world / "sarcasm").read("val")
    with pytest.raises(BundleError, match="was fitted on the very posts"):
        open_lockbox(
            [bundles.load_bundle(own)], PostsInMemory(world, {"test": val}), "test", "look"
        )


def test_a_test_split_is_known_by_its_name_whichever_of_several_it_is() -> None:
    assert [name for name in (*NAMED, "test", "tested", "latest") if is_test_split(name)] == [
        *("test_seen", "test_unseen", "test")
    ]


@pytest.mark.parametrize("split", ["test_seen", "test_unseen"])
def test_an_opening_of_a_test_of_another_name_is_counted(
    own: Path, hateful: Path, split: str
) -> None:
    found = open_lockbox([bundles.load_bundle(own)], open_folder(hateful), split, "look")
    assert [each["split"] for each in openings(own)] == [split]
    assert len(found) == 1


def test_a_command_that_opens_twice_within_a_second_counts_twice(own: Path) -> None:
    data = PostsInMemory(own, {"test": [Post(id="1", text="a", label="b")]})
    told = [open_lockbox([bundles.load_bundle(own)], data, "test", "look") for _ in range(3)]
    assert [len(each) for each in told] == [1, 2, 3]


def test_a_test_of_another_name_is_checked_against_a_val_of_another_name(
    own: Path, hateful: Path
) -> None:
    again = (hateful / "dev_seen.jsonl").read_text().replace('"id": 1', '"id": 7')
    (hateful / "test_seen.jsonl").write_text(again.replace("img/0001", "img/0007"))
    with pytest.raises(PostError, match="6 of 6 test posts stand in val"):
        open_lockbox([bundles.load_bundle(own)], open_folder(hateful), "test_seen", "look")
    assert not openings(own)


def test_folds_learn_from_no_post_of_any_test_split(hateful: Path) -> None:
    found = folds.read_labelled_posts(PostSource(str(hateful)), folds.OUT_OF_FOLD)
    assert {post.text for post in found} == {"train", "dev_seen"}


def test_no_trial_is_trained_by_opening_a_test_split(hateful: Path) -> None:
    experiment = Experiment(("tiny",), PostSource(str(hateful)), seeds=1)
    (system, *_) = experiment.systems()
    with pytest.raises(BundleError, match="not trained"):
        trial.run_trial(hateful / "out", experiment, Trial(system, 0, None), "test_seen", None)


def test_openings_of_two_processes_are_all_counted(own: Path, tmp_path: Path) -> None:
    names = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor() as pool:
        words = [("-c", OPENS_OFTEN, str(own), *map(str, pair)) for pair in (names, names[::-1])]
        ended = list(pool.map(lambda each: run_python(*each), words))
    assert [each.err for each in ended] == ["", ""]
    assert {each["command"] for each in openings(own)} == {
        f"{name.name} {number}" for name in names for number in range(15)
    }


def test_an_opening_waits_until_another_is_written(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PostsInMemory(own, {"test": [Post(id="1", text="a", label="b")]})
    other, found = ExitStack(), []

    def end(_: float) -> None:
        """Let the other process end while this one waits, before which nothing is written."""
        found.append(openings(own))
        other.close()

    other.enter_context(manifest.lock_folder(own))
    monkeypatch.setattr(time, "sleep", end)
    open_lockbox([bundles.load_bundle(own)], data, "test", "look")
    assert found == [[]]
    assert len(openings(own)) == 1


def test_measuring_every_system_opens_test_once_for_every_bundle(
    systems: ModuleType, bundle: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "table" / "small-0"))
    before = len(openings(own))
    for count in (1, 2):
        systems.main()
        assert len(openings(own)) == before + count
    assert openings(own)[-1]["command"] == "python benchmarks/systems.py world DATA --seeds 1"


def test_a_bundle_of_another_recipe_or_seed_is_not_measured(
    systems: ModuleType, bundle: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "table" / "small-0"))
    changed = recipes.load_recipe("tiny", {**SMALL_KEYS, "task.epochs": 3, "seed": 1})
    (own / bundles.RECIPE_FILE).write_text(recipes.dump_recipe(changed))
    with pytest.raises(BundleError, match="small-0: was trained with other task and seed"):
        systems.main()
    assert not (tmp_path / "benchmarks").exists()
    assert (own / "manifest.json").read_text() == (bundle / "manifest.json").read_text()


def test_a_test_split_drawn_from_what_a_bundle_learned_is_refused_by_what_it_holds(
    own: Path, world: Path
) -> None:
    folder = open_folder(world / "sarcasm")
    learned, fresh = folder.read("train"), folder.read("test")
    test = [
        post.model_copy(update={"id": f"other-{post.id}", "text": f" {post.text}!".upper()})
        for post in learned[:6]
    ]
    data = PostsInMemory(world, {"test": [*test, *fresh[:14]]})
    with pytest.raises(PostError, match=r"6 of the 20 posts of test.*other-.*--allow-overlap"):
        open_lockbox([bundles.load_bundle(own)], data, "test", "look")
    assert not openings(own)
    assert open_lockbox([bundles.load_bundle(own)], data, "test", "look", allow_overlap=True)
    few = PostsInMemory(world, {"test": [*test[:1], *fresh[:14]]})
    assert open_lockbox([bundles.load_bundle(own)], few, "test", "look")


def test_a_report_scores_the_posts_that_were_not_learned_from_by_themselves(
    own: Path, world: Path, tmp_path: Path
) -> None:
    folder = open_folder(world / "sarcasm")
    learned, fresh = folder.read("train"), folder.read("test")
    test = [post.model_copy(update={"id": f"other-{post.id}"}) for post in learned[:12]]
    posts = {"train": learned, "val": folder.read("val"), "test": [*test, *fresh]}
    for split, rows in posts.items():
        lines = [post.model_dump(mode="json", exclude_defaults=True) for post in rows]
        write_posts_file(tmp_path / f"{split}.jsonl", *lines)

    def evaluate(out: Path, **more: bool) -> dict:
        report = evaluate_bundles(
            [own],
            open_folder(out),
            "test",
            cache=None,
            num_resamples=20,
            command="look",
            analyses=AnalysisOptions(),
            **more,
        )
        return report.findings

    with pytest.raises(PostError, match="--allow-overlap"):
        evaluate(tmp_path)
    found = evaluate(tmp_path, allow_overlap=True)
    assert found["overlap"]["posts"] == 12
    assert found["overlap"]["of"] == len(posts["test"])
    clean = evaluate(world / "sarcasm")
    assert "overlap" not in clean
    system = Predictor(bundles.load_bundle(own), fresh, None)
    (arm,) = {found["arm"]}
    stated = system.probabilities(arm)
    truth = np.array([bundles.load_bundle(own).labels.index(str(post.label)) for post in fresh])
    expected = metrics.measure_classification(stated, truth, positive=1, names=["auroc"])["auroc"]
    assert found["overlap"]["without"]["auroc"].value == pytest.approx(expected, abs=1e-6)


def test_openings_of_the_same_posts_count_over_all_trainings_of_a_user(
    own: Path, bundle: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIKO_STATE", str(tmp_path / "state"))
    data = open_folder(world / "sarcasm")
    retrained = Path(shutil.copytree(own, tmp_path / "retrained"))
    known = json.loads((retrained / "manifest.json").read_text())
    known["files"]["model.safetensors"] = "0" * 64
    (retrained / "manifest.json").write_text(json.dumps(known))
    for path in (own, own):
        open_lockbox([bundles.load_bundle(path)], data, "test", "look")
    opened = replace(bundles.load_bundle(own), path=retrained, manifest=known)
    found = [{"split": "test"}]
    _record_for_user({"fingerprint": data.fingerprint("test")}, [opened])
    told = describe_openings(found, data.fingerprint("test"))
    assert told["by_user"] == {"openings": 3, "bundles": 2}
    assert "by_user" not in describe_openings(found, "another")
    ledger = tmp_path / "state" / "openings.jsonl"
    ledger.write_text(ledger.read_text() + '{"fingerprint": "cut')
    assert len(read_ledger()) == 3
