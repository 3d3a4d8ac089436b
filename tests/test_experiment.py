"""Recipes compared over seeds: what is trained, what is kept, what goes on after a kill."""

import json
import operator
from pathlib import Path

import pytest
from commandline import run as miko

from miko_clf import recipe as recipes
from miko_clf.data.folder import open_folder
from miko_clf.errors import BundleError, RecipeError
from miko_clf.experiment import plan, sides, systems
from miko_clf.experiment.plan import Experiment, Source, Trial

SMALL = (
    "tiny,image.width=32,text.width=32,text.layers=1,text.vocabulary=400,fusion.width=32,"
    "fusion.layers=1,fusion.slot_layers=1,reasoning.epochs=0,task.epochs=1"
)


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two arms from one seed, trained."""
    out = tmp_path_factory.mktemp("compared") / "out"
    ended = compare(world, out)
    assert ended.code == 0, ended.err
    return out


def compare(world: Path, out: Path, *more: object):
    """Compare on the small world, without a cache of features."""
    words = ["--data", world / "sarcasm", "--out", out, "--no-cache", "--resamples", 50]
    choice = ["--arms", "with,shuffled", "--seeds", 1, "--jobs", 1, "--i-know-it-leaks"]
    return miko("compare", SMALL, *words, *choice, *more)


def test_a_recipe_that_reads_intentions_has_every_arm_and_control() -> None:
    found = systems.systems(["mobilenet-minilm-with"])
    arms = [arm for system in found for arm in system.reported]
    assert arms == ["with", "without", "shuffled", "other-post", "empty", "noise"]
    bare = found[1].recipe
    assert "intention" not in bare.inputs
    assert not bare.slots
    assert found[1].twin == found[0].recipe


def test_every_shipped_recipe_that_reads_intentions_has_a_form_without() -> None:
    for name in recipes.names():
        recipe = recipes.load(name)
        if "intention" in recipe.inputs and len(recipe.inputs) > 1:
            bare = systems.without(recipe)
            assert bare is not None
            assert "intention" not in bare.inputs
            assert bare.seed == recipe.seed


def test_a_recipe_without_intentions_is_trained_as_it_is_and_changes_tell_two_apart() -> None:
    name = "mobilenet-minilm-student"
    found = systems.systems([name, f"{name},reasoning.epochs=0"])
    assert [system.label for system in found] == [name, f"{name},reasoning.epochs=0"]
    assert [list(system.reported) for system in found] == [["student"], ["student"]]
    assert len({system.slug for system in found}) == 2


@pytest.mark.parametrize(
    ("sources", "arms", "says"),
    [
        (["tiny", "tiny"], [], "twice"),
        (["tiny"], ["shufled"], "did you mean 'shuffled'"),
        (["tiny,seed"], [], "key=value"),
        (["text-only-minilm"], ["shuffled"], "none of the recipes"),
    ],
)
def test_what_cannot_be_compared_is_said(sources: list[str], arms: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        systems.systems(sources, arms)


def test_the_report_says_what_differs_and_the_test_split_stayed_shut(done: Path) -> None:
    report = json.loads((done / "report" / "report.json").read_text())
    assert report["split"] == "val"
    assert [row["arm"] for row in report["rows"]] == ["with", "shuffled"]
    found = report["findings"]["comparison"]
    assert {each["metric"] for each in found["differences"]} == {"macro_f1", "auroc"}
    assert [each["arm"] for each in report["findings"]["training"]] == ["with", "shuffled"]
    assert found["words"].startswith("In macro-F1, on 24 posts and 1 seed")
    assert (done / "report" / "report.html").stat().st_size > 1000
    trials = list((done / "trials").iterdir())
    assert len(trials) == 2
    assert all("openings" not in json.loads((t / "manifest.json").read_text()) for t in trials)


def test_what_is_done_is_not_done_again(done: Path, world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "trials").rglob("*")}
    assert compare(world, done).code == 0
    assert {path: path.stat().st_mtime_ns for path in (done / "trials").rglob("*")} == before


def test_a_lost_score_is_made_again_from_its_bundle(done: Path, world: Path) -> None:
    (lost,) = (done / "scores" / "val").glob("*-with-0.json")
    before = lost.read_text()
    lost.unlink()
    assert compare(world, done).code == 0
    assert json.loads(lost.read_text())["arms"] == json.loads(before)["arms"]


def test_another_comparison_does_not_go_into_the_same_folder(done: Path, world: Path) -> None:
    ended = compare(world, done, "--positive", "sincere")
    assert ended.code == 1
    assert "with other positive" in ended.err


def test_evaluating_opens_test_once_for_every_trial(done: Path, world: Path) -> None:
    out = done.parent / "on-test"
    words = ["--data", world / "sarcasm", "--no-cache", "--resamples", 50, "--jobs", 1]
    ended = miko("evaluate", done, *words, "--out", out)
    assert ended.code == 0, ended.err
    report = json.loads((out / "report.json").read_text())
    assert report["split"] == "test"
    assert report["findings"]["lockbox"]["openings"] == 1
    for path in (done / "trials").iterdir():
        assert len(json.loads((path / "manifest.json").read_text())["openings"]) == 1


def test_folds_ask_every_post_once_and_keep_groups_together(world: Path) -> None:
    source = Source(path=str(world / "sarcasm"))
    experiment = Experiment(("tiny",), source, seeds=1, folds=4)
    (system, *_) = experiment.systems()
    asked: list[str] = []
    for fold in range(4):
        found = sides.sides(experiment, Trial(system, 0, fold), sides.OUT_OF_FOLD)
        for mark in (sides.same_text, operator.attrgetter("group")):
            learned = {mark(post) for post in [*found.train, *found.val]} - {None}
            assert not learned & {mark(post) for post in found.ask}
        assert not {p.group for p in found.train} & {p.group for p in found.val}
        asked += [post.id for post in found.ask]
    data = open_folder(world / "sarcasm")
    assert sorted(asked) == sorted(post.id for s in ("train", "val") for post in data.read(s))


def test_a_seed_draws_its_own_folds(world: Path) -> None:
    source = Source(path=str(world / "sarcasm"))
    experiment = Experiment(("tiny",), source, seeds=2, folds=4)
    (system, *_) = experiment.systems()
    first, second = (
        sides.sides(experiment, Trial(system, seed, 0), sides.OUT_OF_FOLD).rows for seed in (0, 1)
    )
    assert first != second


def test_an_experiment_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = Source(path="posts", label_map=(("a", "b"),))
    experiment = Experiment(("tiny",), source, seeds=3, arms=("with",), folds=5)
    plan.claim(tmp_path / "new", experiment, {})
    assert plan.read(tmp_path / "new") == experiment
    with pytest.raises(BundleError, match="other arms and folds"):
        plan.claim(tmp_path / "new", Experiment(("tiny",), source, seeds=4), {})


def test_posts_of_several_labels_are_refused_before_anything_is_trained(
    world: Path, tmp_path: Path
) -> None:
    words = ["--data", world / "both", "--out", tmp_path / "x", "--no-cache", "--jobs", 1]
    ended = miko("compare", SMALL, *words, "--seeds", 1)
    assert ended.code == 1
    assert "one question with one answer" in ended.err
    assert not (tmp_path / "x").exists()
