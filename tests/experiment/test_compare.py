"""Recipes compared over seeds: what is trained, what is kept, what goes on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import miko_clf
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.splits import fingerprint_posts
from miko_clf.errors import BundleError, MikoError
from miko_clf.experiment import compare
from miko_clf.experiment.design import Experiment, PostSource
from tests.support.command_line import run_command as miko
from tests.support.small_recipes import SMALL_RECIPE


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two arms from one seed, trained."""
    out = tmp_path_factory.mktemp("compared") / "out"
    ended = compare_small(world, out)
    assert ended.code == 0, ended.err
    return out


def compare_small(world: Path, out: Path, *more: object):
    """Compare on the small world, without a cache of features."""
    words = ["--data", world / "sarcasm", "--out", out, "--no-cache", "--resamples", 50]
    choice = ["--arms", "with,shuffled", "--seeds", 1, "--jobs", 1, "--i-know-it-leaks"]
    return miko("compare", SMALL_RECIPE, *words, *choice, *more)


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
    ended = compare_small(world, done, "--json")
    assert json.loads(ended.out) == json.loads((done / "report" / "report.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (done / "trials").rglob("*")} == before


def test_compare_called_from_python_is_the_same_comparison(done: Path, world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "trials").rglob("*")}
    choice = {"arms": ["with", "shuffled"], "seeds": 1, "leaks": True, "num_resamples": 50}
    report = miko_clf.compare(SMALL_RECIPE, open_folder(world / "sarcasm"), done, **choice)
    assert {path: path.stat().st_mtime_ns for path in (done / "trials").rglob("*")} == before
    assert [row.arm for row in report.rows] == ["with", "shuffled"]
    written = json.loads((done / "report" / "report.json").read_text())
    assert written["findings"]["comparison"]["words"] == report.findings["comparison"]["words"]


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"folds": 1}])
def test_what_leaves_nothing_to_compare_is_said(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(MikoError, match="two folds or none, are needed"):
        miko_clf.compare("tiny", tmp_path, tmp_path / "out", **wrong)


def test_a_lost_score_is_made_again_from_its_bundle(done: Path, world: Path) -> None:
    (lost,) = (done / "scores" / "val").glob("*-with-0.json")
    before = lost.read_text()
    lost.unlink()
    assert compare_small(world, done).code == 0
    assert json.loads(lost.read_text())["arms"] == json.loads(before)["arms"]


def test_another_comparison_does_not_go_into_the_same_folder(done: Path, world: Path) -> None:
    ended = compare_small(world, done, "--positive", "sincere")
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


def test_posts_of_several_labels_are_refused_before_anything_is_trained(
    world: Path, tmp_path: Path
) -> None:
    words = ["--data", world / "both", "--out", tmp_path / "x", "--no-cache", "--jobs", 1]
    ended = miko("compare", SMALL_RECIPE, *words, "--seeds", 1)
    assert ended.code == 1
    assert "one question with one answer" in ended.err
    assert not (tmp_path / "x").exists()


POSTS = [Post(id=f"p{row}", text=f"text {row}", label="ab"[row % 2]) for row in range(6)]


def kept(out: Path, threshold: float | None, **changed: object) -> Experiment:
    """An experiment of one trial whose scores are these."""
    experiment = Experiment(("text-only-minilm",), PostSource("posts"), seeds=1)
    (each,) = experiment.trials()
    path = each.locate_scores(out, "val")
    path.parent.mkdir(parents=True)
    said = {"probabilities": [[0.9, 0.1]] * len(POSTS), "threshold": threshold}
    scores = {
        "rows": list(range(len(POSTS))),
        "labels": ["a", "b"],
        "fingerprint": fingerprint_posts(POSTS),
        "seconds": 1.0,
        "arms": {"without": said},
    }
    path.write_text(json.dumps({k: v for k, v in {**scores, **changed}.items() if v is not None}))
    return experiment


@pytest.mark.parametrize(("threshold", "decided"), [(0.0, 1), (0.05, 1), (0.5, 0), (None, 0)])
def test_a_threshold_is_taken_as_it_is_and_half_where_there_is_none(
    tmp_path: Path, threshold: float | None, decided: int
) -> None:
    experiment = kept(tmp_path, threshold)
    _, (arm,) = compare.collect_arms(tmp_path, experiment, "val", POSTS)
    np.testing.assert_array_equal(arm.seeds[0].decided(1), np.full(len(POSTS), decided))


def test_scores_of_other_posts_are_refused(tmp_path: Path) -> None:
    experiment = kept(tmp_path, 0.5, fingerprint="of others")
    with pytest.raises(BundleError, match="scores other posts"):
        compare.collect_arms(tmp_path, experiment, "val", POSTS)


@pytest.mark.parametrize("name", ["rows", "labels", "fingerprint", "seconds", "arms"])
def test_scores_that_lack_a_part_are_one_line(tmp_path: Path, name: str) -> None:
    experiment = kept(tmp_path, 0.5, **{name: None})
    with pytest.raises(BundleError, match="not readable"):
        compare.collect_arms(tmp_path, experiment, "val", POSTS)


def test_folds_that_answer_other_labels_are_refused(tmp_path: Path) -> None:
    experiment = Experiment(("text-only-minilm",), PostSource("posts"), seeds=1, folds=2)
    for each in experiment.trials():
        rows = [row for row in range(6) if row % 2 == each.fold]
        path = each.locate_scores(tmp_path, "folds")
        path.parent.mkdir(parents=True, exist_ok=True)
        scores = {
            "rows": rows,
            "labels": ["a", "b"] if each.fold else ["b", "a"],
            "fingerprint": fingerprint_posts([POSTS[row] for row in rows]),
            "seconds": 1.0,
            "arms": {"without": {"probabilities": [[0.9, 0.1]] * 3, "threshold": 0.5}},
        }
        path.write_text(json.dumps(scores))
    with pytest.raises(BundleError, match="fewer folds"):
        compare.collect_arms(tmp_path, experiment, "folds", POSTS)


def test_the_positive_class_is_chosen_once_for_all_folds(tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "text": f"text {n}", "label": "ab"[n % 2]} for n in range(8)]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    experiment = Experiment(("text-only-minilm",), PostSource(str(path)), seeds=1, folds=2)
    assert compare._name_positive(experiment).positive in ("a", "b")
    named = replace(experiment, positive="b")
    assert compare._name_positive(named).positive == "b"


def test_each_further_number_of_seeds_is_another_look_and_the_same_number_is_not(
    tmp_path: Path,
) -> None:
    asked = [("val", 3), ("val", 3), ("val", 5), ("test", 5), ("val", 10), ("val", 3)]
    looks = [compare._count_looks(tmp_path, split, seeds) for split, seeds in asked]
    assert looks == [1, 1, 2, 1, 3, 1]
