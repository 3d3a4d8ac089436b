"""What is refused before several questions are learned, and what one question alone keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
from worded import RECIPE, words_recipe, written

from miko_clf import bundle as bundles
from miko_clf.data.folder import open_folder
from miko_clf.data.post import Post
from miko_clf.data.read import read_posts
from miko_clf.data.world import CLASSES, write_world
from miko_clf.errors import PostError, RecipeError
from miko_clf.pipeline import Plan, fit
from miko_clf.questions import choice
from miko_clf.serve.engine import Engine


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"task": {**RECIPE["task"], "retrieval": {}}}, r"task\.retrieval"),
        (
            {
                "fusion": {"kind": "generator"},
                "text": {"source": "transformers", "name": "none"},
            },
            r"fusion\.kind generator",
        ),
    ],
)
def test_what_learns_one_question_alone_refuses_several_before_training(
    changed: dict[str, Any], key: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "data", "tasks")
    recipe = words_recipe(**changed)
    with pytest.raises(RecipeError, match=rf"{key} learns one question .*harm: any of"):
        fit(recipe, open_folder(folder), Plan(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_val_must_answer_every_question_of_train(tmp_path: Path) -> None:
    folder = written(tmp_path / "data", "tasks")
    rows = [json.loads(line) for line in (folder / "val.jsonl").read_text().splitlines()]
    for row in rows:
        row["label"].pop("tone", None)
    kept = [json.dumps(row) for row in rows if row["label"]]
    (folder / "val.jsonl").write_text("\n".join(kept))
    with pytest.raises(PostError, match="no post of val has a label for tone"):
        fit(words_recipe(), open_folder(folder), Plan(out=tmp_path / "out"))


def test_val_must_have_more_than_one_class(tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "text": f"text {n}", "label": "ab"[n % 2]} for n in range(8)]
    for split, kept in (("train", rows[:6]), ("val", [rows[6]])):
        file = tmp_path / "data" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(map(json.dumps, kept)))
    with pytest.raises(PostError, match="every post of val is labelled 'a'"):
        fit(words_recipe(), open_folder(tmp_path / "data"), Plan(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_one_choice_has_the_files_and_answers_it_always_had(
    bundle: Path, world: Path
) -> None:
    labels = json.loads((bundle / bundles.LABELS).read_text())
    fitted = json.loads((bundle / bundles.CALIBRATION).read_text())
    assert labels == ["sincere", "sarcastic"]
    assert list(fitted)[:4] == ["temperature", "positive", "arm", "thresholds"]
    assert list(fitted)[4:] == ["aim", "reached", "prior"]
    assert all(isinstance(each, float) for each in fitted["thresholds"].values())
    opened = bundles.read(bundle)
    assert opened.questions == choice(labels)
    assert opened.calibrations == (opened.calibration,)
    (one,) = Engine.open(bundle, threads=1).score([Post(id="a", text="x")])
    said = json.loads(one.model_dump_json())
    assert list(said) == ["id", "label", "probabilities", "threshold", "arm", "truncated"]
    assert (type(said["label"]), type(said["threshold"])) == (str, float)
    assert list(said["probabilities"]) == labels


def test_the_world_has_posts_that_are_labelled_for_both_tasks(world: Path, tmp_path: Path) -> None:
    def labels(task: str) -> dict[str, Any]:
        return {post.id: post.label for post in read_posts(world / task / "train.jsonl")}

    alone = {task: labels(task) for task in CLASSES}
    both = labels("both")
    assert both == {name: {task: alone[task][name] for task in CLASSES} for name in both}
    assert both.keys() == alone["harm"].keys()
    older = write_world(tmp_path / "older", num_posts=40)
    before = {p.name: p.read_bytes() for p in (older / "both").iterdir()}
    for path in (older / "both").iterdir():
        path.unlink()
    (older / "both").rmdir()
    write_world(older, num_posts=40)
    assert {p.name: p.read_bytes() for p in (older / "both").iterdir()} == before
    assert sorted(p.name for p in older.iterdir()) == [
        "both", "harm", "images", "sarcasm", "world.json",
    ]  # fmt: skip
