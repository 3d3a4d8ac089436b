"""A recipe's keys searched: what is refused beforehand, found, kept, and gone on with."""

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
from commandline import fails_in_one_line, python
from commandline import run as miko
from test_experiment import SMALL

from miko_clf import bundle as bundles
from miko_clf import recipe as recipes
from miko_clf.cli.sweep import METRICS
from miko_clf.data.folder import open_folder
from miko_clf.errors import BundleError, PostError, RecipeError
from miko_clf.experiment import objective, ranges
from miko_clf.experiment.record import Sweep, attempts, claim
from miko_clf.experiment.sweep import STOPPED, importances, sweep
from miko_clf.recipe import Early
from miko_clf.train.loop import StoppedError

RANGES = (
    "fusion.layers=1..4",
    "fusion.dropout=0.0..0.5",
    "task.optimiser.rate=log:1e-4..1e-2",
    "task.optimiser.decay=linear,cosine",
)


def search(out: Path, *texts: str, trials: int = 6, **settings) -> Sweep:
    """A sweep of the tiny recipe."""
    return Sweep(out, "tiny", ranges.read_all(texts or RANGES), trials, **settings)


def planted(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
    """The best is 3 layers, dropout 0.1, rate 1e-3 and cosine, and is worth 1."""
    far = (params["fusion.layers"] - 3) ** 2 + (params["task.optimiser.decay"] != "cosine")
    rate = math.log10(params["task.optimiser.rate"]) + 3
    return [1 - 0.2 * far - rate**2 - (params["fusion.dropout"] - 0.1) ** 2]


def test_the_planted_best_is_found_and_kept_and_what_matters_is_said(tmp_path: Path) -> None:
    plan = search(tmp_path, trials=40)
    tried = sweep(plan, planted)
    best = plan.best(tried)
    assert best is not None
    assert best.value == max(one.value for one in tried) > 0.97
    assert best.params["fusion.layers"] == 3
    kept = recipes.load(tmp_path / "best.yaml")
    assert kept == plan.recipe_of(best.params)
    assert kept.task.optimiser.decay == "cosine"
    shares = importances(plan, tried)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(list(shares)[:2]) == {"fusion.layers", "task.optimiser.rate"}
    assert importances(plan, tried[:9]) == {}


def test_a_loss_is_made_small(tmp_path: Path) -> None:
    plan = search(tmp_path, "fusion.dropout=0.0..0.9", trials=25, metric="loss")
    best = plan.best(sweep(plan, lambda _, params: [params["fusion.dropout"]]))
    assert best is not None
    assert best.params["fusion.dropout"] < 0.05


def test_values_that_were_tried_are_not_tried_again(tmp_path: Path) -> None:
    asked: list[Mapping[str, ranges.Value]] = []

    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        asked.append(params)
        return [float(params["fusion.layers"]), 0.0]

    tried = sweep(search(tmp_path, "fusion.layers=1,2", trials=8), worth)
    assert len(asked) == 2
    assert len(tried) == 8
    assert sum(one.repeats is not None for one in tried) == 6
    assert {one.value for one in tried} == {0.5, 1.0}


def test_a_trial_that_the_recipe_is_to_blame_for_is_listed_and_the_sweep_goes_on(
    tmp_path: Path,
) -> None:
    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        if number == 1:
            raise RecipeError("too wide")
        return [math.nan] if number == 2 else planted(number, params)

    tried = sweep(search(tmp_path), worth)
    assert [one.state for one in tried] == ["complete", "failed", "failed", *["complete"] * 3]
    assert [one.error for one in tried[1:3]] == ["too wide", "what it is worth is not a number"]


def test_where_every_trial_fails_the_sweep_does(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        raise RecipeError("too wide")

    with pytest.raises(RecipeError, match="none of 3 trials could be trained: too wide"):
        sweep(search(tmp_path, trials=3), worth)


def test_an_error_that_is_not_the_recipes_ends_the_sweep(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        raise PostError("an image is gone")

    with pytest.raises(PostError):
        sweep(search(tmp_path), worth)
    assert [one.state for one in attempts(tmp_path)] == ["running"]


def test_a_sweep_that_was_killed_goes_on_with_the_same_values_to_the_same_end(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from miko_clf.experiment.ranges import read_all\n"
        "from miko_clf.experiment.record import Sweep\n"
        "from miko_clf.experiment.sweep import sweep\n"
        "def worth(number, params):\n"
        "    if number == 12:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return [params['fusion.dropout'] * params['fusion.layers']]\n"
        f"sweep(Sweep(Path(sys.argv[1]), 'tiny', read_all({RANGES}), 15), worth)\n"
    )
    assert python("-c", code, str(tmp_path / "a")).code == -signal.SIGKILL
    left = attempts(tmp_path / "a")
    assert [one.state for one in left] == [*["complete"] * 12, "running"]
    asked: dict[int, Mapping[str, ranges.Value]] = {}

    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        asked[number] = params
        return [params["fusion.dropout"] * params["fusion.layers"]]

    gone_on = sweep(search(tmp_path / "a", trials=15), worth)
    assert list(asked) == [12, 13, 14]
    assert asked[12] == left[12].params
    unbroken = sweep(search(tmp_path / "b", *reversed(RANGES), trials=15), worth)
    assert [one.params for one in gone_on] == [one.params for one in unbroken]
    asked.clear()
    assert sweep(search(tmp_path / "a", trials=15), worth) == gone_on
    assert not asked


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    def worth(number: int, params: Mapping[str, ranges.Value]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=STOPPED):
        sweep(search(tmp_path), worth)


def test_another_sweep_does_not_go_into_the_same_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(search(out), {"data": "a"})
    claim(search(out, *reversed(RANGES), trials=99), {"data": "a"})
    with pytest.raises(BundleError, match="with other ranges"):
        claim(search(out, *RANGES[:2]), {"data": "a"})
    with pytest.raises(BundleError, match="with other seeds and data"):
        claim(search(out, seeds=2), {"data": "b"})
    (tmp_path / "note").touch()
    with pytest.raises(BundleError, match="something else"):
        claim(search(tmp_path), {})


def test_the_metrics_are_those_that_validation_picks_an_epoch_by() -> None:
    assert set(METRICS) == set(get_args(Early.model_fields["metric"].annotation))


def test_a_trial_is_worth_what_the_kept_epoch_measured(tmp_path: Path) -> None:
    rows = [
        {"stage": "reasoning", "validation": {"loss": 0.1}},
        {"stage": "task", "loss": 0.5},
        {"stage": "task", "validation": {"loss": 0.4, "auroc": 0.8, "macro_f1": 0.6}},
        {"stage": "task", "validation": {"loss": 0.3, "auroc": 0.8, "macro_f1": 0.9}},
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / bundles.METRICS).write_text("".join(lines))
    assert objective.measured(tmp_path, "auroc", "macro_f1") == 0.6
    assert objective.measured(tmp_path, "loss", "macro_f1") == 0.9
    with pytest.raises(PostError, match=r"val has no accuracy; --metric may be loss, auroc, macro"):
        objective.measured(tmp_path, "loss", "accuracy")


def test_seeds_are_averaged_and_the_bundle_of_the_best_alone_is_kept(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def fit(recipe: recipes.Recipe, data: object, how: objective.Plan) -> None:
        if recipe.fusion.layers == 4:
            raise torch.OutOfMemoryError("no room")
        trained.append((how.out.parent.name, recipe.seed))
        how.out.mkdir(parents=True)
        value = {"auroc": 0.1 * recipe.fusion.layers + 0.02 * recipe.seed}
        line = json.dumps({"stage": "task", "validation": value})
        (how.out / bundles.METRICS).write_text(line)
        (how.out / bundles.RECIPE).write_text(recipes.dump(recipe))

    monkeypatch.setattr(objective, "fit", fit)
    out = tmp_path / "out"
    plan = search(out, "fusion.layers=1..4", trials=12, metric="auroc", seeds=2)
    tried = objective.tune(plan, open_folder(world / "sarcasm"), None)
    best = plan.best(tried)
    assert best is not None
    assert best.by_seed == pytest.approx((0.3, 0.32))
    assert best.value == pytest.approx(0.31)
    assert {one.error for one in tried if one.state == "failed"} == {
        "does not fit into the memory of the accelerator"
    }
    assert len(trained) == 6
    assert (out / "best" / bundles.RECIPE).read_text() == (out / "best.yaml").read_text()
    assert list((out / "trials").iterdir()) == []


def test_a_trial_that_was_stopped_goes_on_in_its_folder_with_the_seed_it_was_at(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[recipes.Recipe, Path]] = []

    def fit(recipe: recipes.Recipe, data: object, how: objective.Plan) -> None:
        asked.append((recipe, how.out))
        if len(asked) == 2:
            raise StoppedError("stopped at step 3")
        how.out.mkdir(parents=True)
        line = json.dumps({"stage": "task", "validation": {"auroc": 0.5}})
        (how.out / bundles.METRICS).write_text(line)

    monkeypatch.setattr(objective, "fit", fit)
    data = open_folder(world / "sarcasm")
    plan = search(tmp_path / "out", trials=1, metric="auroc", seeds=2)
    with pytest.raises(KeyboardInterrupt, match=STOPPED):
        objective.tune(plan, data, None)
    objective.tune(plan, data, None)
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
    return miko("sweep", SMALL, *words, *keys, *more)


def test_a_sweep_trains_reads_no_test_post_and_keeps_the_best(swept: tuple[Path, Path]) -> None:
    world, out = swept
    with pytest.raises(PostError):
        open_folder(world / "sarcasm").read("test")
    tried = attempts(out)
    assert [one.state for one in tried] == ["complete", "complete"]
    best = max(tried, key=lambda one: one.value)
    kept = bundles.read(out / "best")
    assert objective.measured(out / "best", "auroc", "macro_f1") == best.value
    assert (out / "best.yaml").read_text() == recipes.dump(kept.recipe)
    assert kept.recipe.fusion.dropout == best.params["fusion.dropout"]
    assert "openings" not in kept.manifest
    assert "task epoch 1" in (out / "logs" / "0.log").read_text()
    assert json.loads((out / "importance.json").read_text()) == {}


def test_the_command_given_again_trains_nothing_and_says_the_same(
    swept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(objective, "fit")
    _, out = swept
    before = (out / "trials.jsonl").read_text()
    ended = command(out.parent)
    assert ended.code == 0, ended.err
    assert (out / "trials.jsonl").read_text() == before
    fails_in_one_line(command(out.parent, "--metric", "auroc"), "with other metric")
