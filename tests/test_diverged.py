"""A training whose numbers are no longer finite ends in one line, and a sweep outlives it."""

import os
import shutil
from pathlib import Path

import pytest
from commandline import run as miko
from conftest import SMALL

from miko_clf.data.held import Held
from miko_clf.data.post import Post
from miko_clf.experiment import objective, ranges
from miko_clf.experiment.record import Sweep

TEXT = (
    "tiny,inputs=[text],image=null,text.width=16,text.layers=1,text.vocabulary=300,"
    "fusion.width=16,fusion.layers=1,fusion.reader=false,fusion.slots=false,reasoning.epochs=0,"
    "task.epochs=2,batch_size=8"
)


@pytest.fixture
def data(tmp_path: Path) -> Held:
    """Good and bad words, a few to learn from and a few to be judged by."""
    found = {
        split: [
            Post(id=f"{split}{n}", text=f"{word} words number {n} of {split}", label=word)
            for n in range(count)
            for word in [("good", "bad")[n % 2]]
        ]
        for split, count in (("train", 32), ("val", 16))
    }
    return Held(tmp_path, found)


@pytest.fixture
def few(world: Path, tmp_path: Path) -> Path:
    """A few posts of the small world, with its pictures."""
    shutil.copytree(world, tmp_path / "world", copy_function=os.link)
    posts = tmp_path / "world" / "sarcasm"
    for split, count in (("train", 32), ("val", 16)):
        lines = (posts / f"{split}.jsonl").read_text().splitlines(keepends=True)[:count]
        (posts / f"{split}.jsonl").unlink()
        (posts / f"{split}.jsonl").write_text("".join(lines))
    return posts


def test_a_trial_that_diverges_counts_as_failed_and_the_sweep_goes_on(
    data: Held, tmp_path: Path
) -> None:
    rates = ranges.read_all(["task.optimiser.rate=1e-3,1e18"])
    tried = objective.tune(Sweep(tmp_path / "out", TEXT, rates, trials=4), data, None)
    states = {one.params["task.optimiser.rate"]: one.state for one in tried}
    assert states == {1e-3: "complete", 1e18: "failed"}
    (error,) = {one.error for one in tried if one.error is not None}
    assert error.startswith("training diverged: the validation loss of stage task is not finite at")
    assert error.endswith("step 4; lower task.optimiser.rate, which is 1e+18")


@pytest.mark.parametrize("stage", ["reasoning", "task"])
def test_fit_says_in_one_line_that_a_stage_diverged_each_time_it_is_called(
    few: Path, tmp_path: Path, stage: str
) -> None:
    keys = {**SMALL, f"{stage}.optimiser.rate": 1e18}
    changes = [f"--recipe.{key}={value}" for key, value in keys.items()]
    words = ["--data", few, "--out", tmp_path / "out", "--no-cache", "--i-know-it-leaks"]
    for _ in range(2):
        ended = miko("fit", "tiny", *words, *changes)
        assert ended.code == 1
        assert "Traceback" not in ended.err
        last = ended.err.splitlines()[-1]
        assert f"error: training diverged: the validation loss of stage {stage} is" in last
        assert last.endswith(f"lower {stage}.optimiser.rate, which is 1e+18")
