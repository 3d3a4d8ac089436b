"""Scores that trials keep: read as they were written, refused where they are of something else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from miko_clf.data.held import fingerprint
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.experiment import compare, measure, plan, sides
from miko_clf.experiment.plan import Experiment, Source
from miko_clf.experiment.systems import systems

POSTS = [Post(id=f"p{row}", text=f"text {row}", label="ab"[row % 2]) for row in range(6)]


def kept(out: Path, threshold: float | None, **changed: object) -> Experiment:
    """An experiment of one trial whose scores are these."""
    experiment = Experiment(("text-only-minilm",), Source("posts"), seeds=1)
    (each,) = experiment.trials()
    path = plan.scores_of(out, each, "val")
    path.parent.mkdir(parents=True)
    said = {"probabilities": [[0.9, 0.1]] * len(POSTS), "threshold": threshold}
    scores = {
        "rows": list(range(len(POSTS))),
        "labels": ["a", "b"],
        "fingerprint": fingerprint(POSTS),
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
    (arm,) = measure.arms(tmp_path, experiment, "val", POSTS)
    np.testing.assert_array_equal(arm.seeds[0].decided(1), np.full(len(POSTS), decided))


def test_scores_of_other_posts_are_refused(tmp_path: Path) -> None:
    experiment = kept(tmp_path, 0.5, fingerprint="of others")
    with pytest.raises(BundleError, match="scores other posts"):
        measure.arms(tmp_path, experiment, "val", POSTS)


@pytest.mark.parametrize("name", ["rows", "labels", "fingerprint", "seconds", "arms"])
def test_scores_that_lack_a_part_are_one_line(tmp_path: Path, name: str) -> None:
    experiment = kept(tmp_path, 0.5, **{name: None})
    with pytest.raises(BundleError, match="not readable"):
        measure.arms(tmp_path, experiment, "val", POSTS)


def test_folds_that_answer_other_labels_are_refused(tmp_path: Path) -> None:
    experiment = Experiment(("text-only-minilm",), Source("posts"), seeds=1, folds=2)
    for each in experiment.trials():
        rows = [row for row in range(6) if row % 2 == each.fold]
        path = plan.scores_of(tmp_path, each, "folds")
        path.parent.mkdir(parents=True, exist_ok=True)
        scores = {
            "rows": rows,
            "labels": ["a", "b"] if each.fold else ["b", "a"],
            "fingerprint": fingerprint([POSTS[row] for row in rows]),
            "seconds": 1.0,
            "arms": {"without": {"probabilities": [[0.9, 0.1]] * 3, "threshold": 0.5}},
        }
        path.write_text(json.dumps(scores))
    with pytest.raises(BundleError, match="fewer folds"):
        measure.arms(tmp_path, experiment, "folds", POSTS)


def test_posts_of_one_group_or_the_same_words_stay_on_one_side() -> None:
    posts = [
        Post(id=str(number), text=text, group=group)
        for number, (text, group) in enumerate(
            [("One, two!", "g"), ("one two", "h"), ("three", "h"), ("four", None), ("five", None)]
        )
    ]
    parts = sides.together(posts)
    assert len(set(parts[:3])) == 1
    assert len(set(parts)) == 3


def test_systems_keep_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("mini_lm", "mini-lm"):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\ninputs: [text]\ntext: {{source: tiny, frozen: false}}\n",
            encoding="utf-8",
        )
    both = systems([str(tmp_path / f"{name}.yaml") for name in ("mini_lm", "mini-lm")])
    assert len({each.slug for each in both}) == 2


def test_a_recipe_that_was_changed_is_another_comparison(tmp_path: Path) -> None:
    experiment = Experiment(("text-only-minilm",), Source("posts"), seeds=1)
    facts = {"systems": {"one": {"batch_size": 32}}}
    plan.claim(tmp_path / "run", experiment, facts)
    plan.claim(tmp_path / "run", experiment, facts)
    with pytest.raises(BundleError, match="other systems"):
        plan.claim(tmp_path / "run", experiment, {"systems": {"one": {"batch_size": 7}}})


def test_a_comparison_grows_by_seeds_and_recipes_and_does_not_shrink(tmp_path: Path) -> None:
    small, large = (
        Experiment(recipes, Source("posts"), seeds=seeds)
        for recipes, seeds in ((("tiny",), 2), (("text-only-minilm", "tiny"), 3))
    )

    def facts(one: Experiment) -> dict:
        return {"systems": {s.slug: s.recipe.model_dump(mode="json") for s in one.systems()}}

    plan.claim(tmp_path, small, facts(small))
    plan.claim(tmp_path, large, facts(large))
    assert plan.read(tmp_path) == large
    known = {trial.name for trial in large.trials()}
    assert {trial.name for trial in small.trials()} < known
    with pytest.raises(BundleError, match="other recipes and seeds and systems"):
        plan.claim(tmp_path, small, facts(small))
    assert plan.read(tmp_path) == large


def test_the_positive_class_is_chosen_once_for_all_folds(tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "text": f"text {n}", "label": "ab"[n % 2]} for n in range(8)]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    experiment = Experiment(("text-only-minilm",), Source(str(path)), seeds=1, folds=2)
    assert compare._told(experiment).positive in ("a", "b")
    named = replace(experiment, positive="b")
    assert compare._told(named).positive == "b"
