"""A recipe's keys searched: found, kept, gone on with, and what diverges outlived."""

import json
import math
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch

from miko_clf import bundle as bundles
from miko_clf.cli.compare import SWEEP_METRICS
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory
from miko_clf.errors import BundleError, PostError, RecipeError
from miko_clf.experiment import search_space, sweep
from miko_clf.experiment.sweep import (
    Sweep,
    claim_sweep,
    measure_importances,
    read_sweep_trials,
    run_sweep,
)
from miko_clf.experiment.trial import STOPPED
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.sections import EarlyStoppingSection
from miko_clf.train.loop import StoppedError
from tests.support.command_line import assert_one_line_error, run_python
from tests.support.command_line import run_command as miko
from tests.support.small_recipes import SMALL_KEYS, SMALL_RECIPE

RANGES = (
    "fusion.layers=1..4",
    "fusion.dropout=0.0..0.5",
    "task.optimiser.rate=log:1e-4..1e-2",
    "task.optimiser.decay=linear,cosine",
)


def search(out: Path, *texts: str, trials: int = 6, **settings) -> Sweep:
    """A sweep of the tiny recipe."""
    return Sweep(out, "tiny", search_space.parse_ranges(texts or RANGES), trials, **settings)


def planted(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
    """The best is 3 layers, dropout 0.1, rate 1e-3 and cosine, and is worth 1."""
    far = (params["fusion.layers"] - 3) ** 2 + (params["task.optimiser.decay"] != "cosine")
    rate = math.log10(params["task.optimiser.rate"]) + 3
    return [1 - 0.2 * far - rate**2 - (params["fusion.dropout"] - 0.1) ** 2]


def test_the_planted_best_is_found_and_kept_and_what_matters_is_said(tmp_path: Path) -> None:
    plan = search(tmp_path, trials=40)
    tried = run_sweep(plan, planted)
    best = plan.find_best(tried)
    assert best is not None
    assert best.value == max(one.value for one in tried) > 0.97
    assert best.params["fusion.layers"] == 3
    kept = recipes.load_recipe(tmp_path / "best.yaml")
    assert kept == plan.make_recipe(best.params)
    assert kept.task.optimiser.decay == "cosine"
    shares = measure_importances(plan, tried)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(list(shares)[:2]) == {"fusion.layers", "task.optimiser.rate"}
    assert measure_importances(plan, tried[:9]) == {}


def test_a_loss_is_made_small(tmp_path: Path) -> None:
    plan = search(tmp_path, "fusion.dropout=0.0..0.9", trials=25, metric="loss")
    best = plan.find_best(run_sweep(plan, lambda _, params: [params["fusion.dropout"]]))
    assert best is not None
    assert best.params["fusion.dropout"] < 0.05


def test_values_that_were_tried_are_not_tried_again(tmp_path: Path) -> None:
    asked: list[Mapping[str, search_space.SearchValue]] = []

    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        asked.append(params)
        return [float(params["fusion.layers"]), 0.0]

    tried = run_sweep(search(tmp_path, "fusion.layers=1,2", trials=8), worth)
    assert len(asked) == 2
    assert len(tried) == 8
    assert sum(one.repeats is not None for one in tried) == 6
    assert {one.value for one in tried} == {0.5, 1.0}


def test_a_trial_that_the_recipe_is_to_blame_for_is_listed_and_the_sweep_goes_on(
    tmp_path: Path,
) -> None:
    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        if number == 1:
            raise RecipeError("too wide")
        return [math.nan] if number == 2 else planted(number, params)

    tried = run_sweep(search(tmp_path), worth)
    assert [one.state for one in tried] == ["complete", "failed", "failed", *["complete"] * 3]
    assert [one.error for one in tried[1:3]] == ["too wide", "what it is worth is not a number"]


def test_where_every_trial_fails_the_sweep_does(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        raise RecipeError("too wide")

    with pytest.raises(RecipeError, match="none of 3 trials could be trained: too wide"):
        run_sweep(search(tmp_path, trials=3), worth)


def test_an_error_that_is_not_the_recipes_ends_the_sweep(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        raise PostError("an image is gone")

    with pytest.raises(PostError):
        run_sweep(search(tmp_path), worth)
    assert [one.state for one in read_sweep_trials(tmp_path)] == ["running"]


def test_a_sweep_that_was_killed_goes_on_with_the_same_values_to_the_same_end(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from miko_clf.experiment.search_space import parse_ranges\n"
        "from miko_clf.experiment.sweep import Sweep, run_sweep\n"
        "def worth(number, params):\n"
        "    if number == 12:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return [params['fusion.dropout'] * params['fusion.layers']]\n"
        f"run_sweep(Sweep(Path(sys.argv[1]), 'tiny', parse_ranges({RANGES}), 15), worth)\n"
    )
    assert run_python("-c", code, str(tmp_path / "a")).code == -signal.SIGKILL
    left = read_sweep_trials(tmp_path / "a")
    assert [one.state for one in left] == [*["complete"] * 12, "running"]
    asked: dict[int, Mapping[str, search_space.SearchValue]] = {}

    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        asked[number] = params
        return [params["fusion.dropout"] * params["fusion.layers"]]

    gone_on = run_sweep(search(tmp_path / "a", trials=15), worth)
    assert list(asked) == [12, 13, 14]
    assert asked[12] == left[12].params
    unbroken = run_sweep(search(tmp_path / "b", *reversed(RANGES), trials=15), worth)
    assert [one.params for one in gone_on] == [one.params for one in unbroken]
    asked.clear()
    assert run_sweep(search(tmp_path / "a", trials=15), worth) == gone_on
    assert not asked


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, search_space.SearchValue]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=STOPPED):
        run_sweep(search(tmp_path), worth)


def test_another_sweep_does_not_go_into_the_same_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim_sweep(search(out), {"data": "a"})
    claim_sweep(search(out, *reversed(RANGES), trials=99), {"data": "a"})
    with pytest.raises(BundleError, match="with other ranges"):
        claim_sweep(search(out, *RANGES[:2]), {"data": "a"})
    with pytest.raises(BundleError, match="with other seeds and data"):
        claim_sweep(search(out, seeds=2), {"data": "b"})
    (tmp_path / "note").touch()
    with pytest.raises(BundleError, match="something else"):
        claim_sweep(search(tmp_path), {})


def test_the_metrics_are_those_that_validation_picks_an_epoch_by() -> None:
    assert set(SWEEP_METRICS) == set(
        get_args(EarlyStoppingSection.model_fields["metric"].annotation)
    )


def test_a_trial_is_worth_what_the_kept_epoch_measured(tmp_path: Path) -> None:
    rows = [
        {"stage": "reasoning", "validation": {"loss": 0.1}},
        {"stage": "task", "loss": 0.5},
        {"stage": "task", "validation": {"loss": 0.4, "auroc": 0.8, "macro_f1": 0.6}},
        {"stage": "task", "validation": {"loss": 0.3, "auroc": 0.8, "macro_f1": 0.9}},
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / bundles.METRICS_FILE).write_text("".join(lines))
    assert sweep.read_kept_metric(tmp_path, "auroc", "macro_f1") == 0.6
    assert sweep.read_kept_metric(tmp_path, "loss", "macro_f1") == 0.9
    with pytest.raises(PostError, match=r"val has no accuracy; --metric may be loss, auroc, macro"):
        sweep.read_kept_metric(tmp_path, "loss", "accuracy")


def test_seeds_are_averaged_and_the_bundle_of_the_best_alone_is_kept(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def fit(recipe: recipes.Recipe, data: object, place: Path, **_: object) -> None:
        if recipe.fusion.layers == 4:
            raise torch.OutOfMemoryError("no room")
        trained.append((place.parent.name, recipe.seed))
        place.mkdir(parents=True)
        value = {"auroc": 0.1 * recipe.fusion.layers + 0.02 * recipe.seed}
        line = json.dumps({"stage": "task", "validation": value})
        (place / bundles.METRICS_FILE).write_text(line)
        (place / bundles.RECIPE_FILE).write_text(recipes.dump_recipe(recipe))

    monkeypatch.setattr(sweep, "fit", fit)
    out = tmp_path / "out"
    plan = search(out, "fusion.layers=1..4", trials=12, metric="auroc", seeds=2)
    tried = sweep.tune_recipe(plan, open_folder(world / "sarcasm"), None)
    best = plan.find_best(tried)
    assert best is not None
    assert best.by_seed == pytest.approx((0.3, 0.32))
    assert best.value == pytest.approx(0.31)
    assert {one.error for one in tried if one.state == "failed"} == {
        "does not fit into the memory of the accelerator"
    }
    assert len(trained) == 6
    assert (out / "best" / bundles.RECIPE_FILE).read_text() == (out / "best.yaml").read_text()
    assert list((out / "trials").iterdir()) == []


def test_a_trial_that_was_stopped_goes_on_in_its_folder_with_the_seed_it_was_at(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[recipes.Recipe, Path]] = []

    def fit(recipe: recipes.Recipe, data: object, place: Path, **_: object) -> None:
        asked.append((recipe, place))
        if len(asked) == 2:
            raise StoppedError("stopped at step 3")
        place.mkdir(parents=True)
        line = json.dumps({"stage": "task", "validation": {"auroc": 0.5}})
        (place / bundles.METRICS_FILE).write_text(line)

    monkeypatch.setattr(sweep, "fit", fit)
    data = open_folder(world / "sarcasm")
    plan = search(tmp_path / "out", trials=1, metric="auroc", seeds=2)
    with pytest.raises(KeyboardInterrupt, match=STOPPED):
        sweep.tune_recipe(plan, data, None)
    sweep.tune_recipe(plan, data, None)
    assert [recipe.seed for recipe, _ in asked] == [0, 1, 1]
    assert asked[1] == asked[2]


@pytest.fixture(scope="module")
def swept(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small world with an unreadable test split, and a sweep of two trials on it."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(world, folder / "world", copy_function=os.link)
    posts = folder / "world" / "sarcasm"
    few = (posts / "train.jsonl").read_text().splitlines(keepends=True)[:64]
    for name in ("train.jsonl", "test.jsonl"):
        (posts / name).unlink()
    (posts / "train.jsonl").write_text("".join(few))
    (posts / "test.jsonl").write_bytes(b"\xff\xfe\x00 no posts")
    ended = command(folder)
    assert ended.code == 0, ended.err
    assert "2 of 2 trials: " in ended.err
    assert "macro_f1 on val, best first" in ended.out
    assert "is flattered: validation chose it among 2 trials" in ended.out
    return folder / "world", folder / "out"


def command(folder: Path, *more: object):
    """Sweep two keys in two trials, without a cache of features."""
    words = ["--data", folder / "world" / "sarcasm", "--out", folder / "out", "--no-cache"]
    keys = ["--range", RANGES[1], "--range", RANGES[3], "--trials", 2, "--i-know-it-leaks"]
    return miko("sweep", SMALL_RECIPE, *words, *keys, *more)


def test_the_trials_are_given_as_json(swept: tuple[Path, Path]) -> None:
    ended = command(swept[1].parent, "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)
    trials = read_sweep_trials(swept[1])
    assert [row["value"] for row in facts["trials"]] == [trial.value for trial in trials]
    assert facts["trials"][facts["best"]]["value"] == max(trial.value for trial in trials)


def test_a_sweep_trains_reads_no_test_post_and_keeps_the_best(swept: tuple[Path, Path]) -> None:
    world, out = swept
    with pytest.raises(PostError):
        open_folder(world / "sarcasm").read("test")
    tried = read_sweep_trials(out)
    assert [one.state for one in tried] == ["complete", "complete"]
    best = max(tried, key=lambda one: one.value)
    kept = bundles.load_bundle(out / "best")
    assert sweep.read_kept_metric(out / "best", "auroc", "macro_f1") == best.value
    assert (out / "best.yaml").read_text() == recipes.dump_recipe(kept.recipe)
    assert kept.recipe.fusion.dropout == best.params["fusion.dropout"]
    assert "openings" not in kept.manifest
    assert "task epoch 1" in (out / "logs" / "0.log").read_text()
    assert json.loads((out / "importance.json").read_text()) == {}


def test_the_command_given_again_trains_nothing_and_says_the_same(
    swept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sweep, "fit")
    _, out = swept
    before = (out / "trials.jsonl").read_text()
    ended = command(out.parent)
    assert ended.code == 0, ended.err
    assert (out / "trials.jsonl").read_text() == before
    assert_one_line_error(command(out.parent, "--metric", "auroc"), "with other metric")


TEXT = (
    "tiny,inputs=[text],image=null,text.width=16,text.layers=1,text.vocabulary=300,"
    "fusion.width=16,fusion.layers=1,fusion.reader=false,fusion.slots=false,reasoning.epochs=0,"
    "task.epochs=2,batch_size=8"
)


@pytest.fixture
def data(tmp_path: Path) -> PostsInMemory:
    """Good and bad words, a few to learn from and a few to be judged by."""
    found = {
        split: [
            Post(id=f"{split}{n}", text=f"{word} words number {n} of {split}", label=word)
            for n in range(count)
            for word in [("good", "bad")[n % 2]]
        ]
        for split, count in (("train", 32), ("val", 16))
    }
    return PostsInMemory(tmp_path, found)


@pytest.fixture
def few(world: Path, tmp_path: Path) -> Path:
    """A few posts of the small world, with its pictures."""
    shutil.copytree(world, tmp_path / "world", copy_function=os.link)
    posts = tmp_path / "world" / "sarcasm"
    for split, count in (("train", 16), ("val", 8)):
        lines = (posts / f"{split}.jsonl").read_text().splitlines(keepends=True)[:count]
        (posts / f"{split}.jsonl").unlink()
        (posts / f"{split}.jsonl").write_text("".join(lines))
    return posts


def test_a_trial_that_diverges_counts_as_failed_and_the_sweep_goes_on(
    data: PostsInMemory, tmp_path: Path
) -> None:
    rates = search_space.parse_ranges(["task.optimiser.rate=1e-3,1e18"])
    tried = sweep.tune_recipe(Sweep(tmp_path / "out", TEXT, rates, trials=4), data, None)
    states = {one.params["task.optimiser.rate"]: one.state for one in tried}
    assert states == {1e-3: "complete", 1e18: "failed"}
    (error,) = {one.error for one in tried if one.error is not None}
    assert error.startswith("training diverged: the validation loss of stage task is not finite at")
    assert error.endswith("step 4; lower task.optimiser.rate, which is 1e+18")


@pytest.mark.parametrize("stage", ["reasoning", "task"])
def test_fit_says_in_one_line_that_a_stage_diverged_each_time_it_is_called(
    few: Path, tmp_path: Path, stage: str
) -> None:
    keys = {**SMALL_KEYS, "batch_size": 8, f"{stage}.optimiser.rate": 1e18}
    changes = [f"--recipe.{key}={value}" for key, value in keys.items()]
    words = ["--data", few, "--out", tmp_path / "out", "--no-cache", "--i-know-it-leaks"]
    for _ in range(2 if stage == "task" else 1):
        ended = miko("fit", "tiny", *words, *changes)
        assert ended.code == 1
        assert "Traceback" not in ended.err
        last = ended.err.splitlines()[-1]
        assert f"error: training diverged: the validation loss of stage {stage} is" in last
        assert last.endswith(f"lower {stage}.optimiser.rate, which is 1e+18")
