"""Fit: what it refuses before training, and several questions through every stage to HTTP."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pytest
from starlette.testclient import TestClient

from miko_clf import bundle as bundles
from miko_clf import manifest
from miko_clf.bundle import Bundle
from miko_clf.data.dataset import open_folder
from miko_clf.data.demo.world import DEMO_CLASSES, write_world
from miko_clf.data.labels import TrueLabels, encode_labels
from miko_clf.data.readers import read_posts
from miko_clf.errors import BundleError, MikoError, PostError, RecipeError
from miko_clf.evaluate.evaluator import evaluate_bundles
from miko_clf.evaluate.predictions import Predictor
from miko_clf.evaluate.report import Report, print_report, write_report
from miko_clf.export.onnx_export import export_bundle
from miko_clf.pipeline import fit
from miko_clf.recipe.schema import Recipe
from miko_clf.serve.app import make_app
from miko_clf.serve.engine import Engine
from miko_clf.serve.offline import load
from miko_clf.serve.postprocess import Score
from tests.support.worded_posts import HARMS, RECIPE, TONES, make_words_recipe, write_worded_folder


class System(NamedTuple):
    """What was trained on words that tell its labels, compared and exported."""

    folder: Path
    bundle: Path
    report: Report

    @property
    def opened(self) -> Bundle:
        return bundles.load_bundle(self.bundle)


@pytest.fixture(scope="module", params=["many", "tasks", "three"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> System:
    home = tmp_path_factory.mktemp(request.param)
    folder, out = write_worded_folder(home / "data", request.param), home / request.param
    data = open_folder(folder)
    fit(make_words_recipe(), data, out)
    report = evaluate_bundles([out], data, "test", cache=None, num_resamples=20, command="test")
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        export_bundle(out)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return System(folder, out, report)


def _kind(system: System) -> str:
    return system.bundle.name


def _truth(system: System) -> TrueLabels:
    posts = open_folder(system.folder).read("test")
    return encode_labels(posts, system.opened.questions, "", "")


def _reports(system: System) -> list[Report]:
    return [system.report, *system.report.others]


def test_what_the_words_tell_is_learned_for_every_question(system: System) -> None:
    for report in _reports(system):
        rows = {row.system: row for row in report.rows}
        ours, chance = rows[_kind(system)].metrics, rows["majority"].metrics
        assert ours["macro_f1"].value > 0.9, report.question
        assert ours["auroc"].value > 0.95
        assert ours["macro_f1"].value > chance["macro_f1"].value + 0.2
        assert rows["TF-IDF + logistic"].metrics["macro_f1"].value > 0.9


def test_each_question_has_a_table_of_the_posts_that_answer_it(system: System) -> None:
    parts = _truth(system).split_by_question()
    assert [report.question for report in _reports(system)] == [p.question.name for p in parts]
    for report, part in zip(_reports(system), parts, strict=True):
        assert {row.rows for row in report.rows} == {len(part.rows)}
        assert report.kind == part.question.kind
        counts = part.truth.sum(0) if report.kind == "many" else np.bincount(part.truth)
        assert {**report.counts} == dict(zip(part.question.labels, counts, strict=True))
    if _kind(system) == "tasks":
        assert [len(part.rows) for part in parts] == [40, 40]


def test_metrics_are_those_of_the_kind_of_question(system: System) -> None:
    for report in _reports(system):
        names = set(report.rows[0].metrics)
        assert {"macro_f1", "auroc", "average_precision", "ece"} <= names
        assert ("micro_f1" in names) == ("subset_accuracy" in names) == (report.kind == "many")
        assert ("positive_f1" in names) == (report.positive is not None)


def test_a_report_of_several_questions_is_written_and_printed_whole(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_report(system.report, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    page = (tmp_path / "report.md").read_text()
    print_report(system.report)
    printed = capsys.readouterr().out
    if _kind(system) == "tasks":
        assert [each["question"] for each in (found, *found["others"])] == ["harm", "tone"]
        assert "question tone" in page
        assert "Question harm" in printed
    else:
        assert not {"question", "others"} & found.keys()
        assert "Question" not in printed
    assert ("by label" in page) == (_kind(system) != "three")
    assert "F1" in page


def test_thresholds_are_one_for_each_arm_or_each_label_of_an_arm(system: System) -> None:
    for question, fitted in zip(system.opened.questions, system.opened.calibrations, strict=True):
        limits = fitted.thresholds.get("without")
        if question.kind == "many":
            assert tuple(limits) == HARMS
            assert all(0 < limit < 1 for limit in limits.values())
        else:
            assert isinstance(limits, float) == (len(question.labels) == 2)


def test_the_files_of_a_bundle_name_the_questions(system: System) -> None:
    labels = json.loads((system.bundle / bundles.LABELS_FILE).read_text())
    fitted = json.loads((system.bundle / bundles.CALIBRATION_FILE).read_text())
    card = (system.bundle / "README.md").read_text()
    if _kind(system) == "three":
        assert labels == ["angry", "calm", "sad"]
        assert "answers one of: angry, calm, sad." in card
    elif _kind(system) == "many":
        assert labels == {"questions": [{"name": "", "kind": "many", "labels": [*HARMS]}]}
        assert "answers any of: fire, stone, water." in card
    else:
        assert [each["name"] for each in labels["questions"]] == ["harm", "tone"]
        assert fitted.keys() == {"harm", "tone"}
        assert "### tone" in card
    assert "| micro_f1" in card or _kind(system) == "three"
    lines = (system.bundle / bundles.METRICS_FILE).read_text().splitlines()
    logged = [row["validation"] for row in map(json.loads, lines) if "validation" in row]
    assert ("harm auroc" in logged[-1]) == (_kind(system) == "tasks")
    assert logged[-1]["macro_f1"] > 0.9
    assert "micro_f1" in logged[-1] or _kind(system) == "three"


def _flat(one: Score) -> list[float]:
    """Return the probabilities of a score in the order of the logits."""
    values = list(one.probabilities.values())
    if isinstance(values[0], float):
        return values
    return [each for task in values for each in task.values()]


def test_the_graph_says_what_torch_says_and_decides_at_its_thresholds(system: System) -> None:
    posts = open_folder(system.folder).read("test")
    scores = Engine.open(system.bundle, threads=1).score(posts)
    wanted = Predictor(system.opened, posts, None).probabilities("without")
    assert np.abs(np.array([_flat(one) for one in scores]) - wanted).max() < 1e-4
    for one, post in zip(scores, posts, strict=True):
        label = {"tone": one.label} if _kind(system) == "three" else one.label
        for task, harms in {"many": {"": label}, "tasks": label}.get(_kind(system), {}).items():
            if task == "tone":
                continue
            stated = one.probabilities[task] if task else one.probabilities
            limits = one.threshold[task] if task else one.threshold
            assert harms == tuple(name for name in HARMS if stated[name] >= limits[name])
        told = [word for word in (post.text or "").split() if word in (*HARMS, *TONES)]
        assert told


def test_most_posts_are_decided_for_what_their_words_tell(system: System) -> None:
    posts = list(read_posts(system.folder / "test.jsonl"))
    scores = Engine.open(system.bundle, threads=1).score(posts)
    right, asked = 0, 0
    for one, post in zip(scores, posts, strict=True):
        if _kind(system) != "tasks":
            asked, right = asked + 1, right + (one.label == post.label)
            continue
        assert isinstance(post.label, dict)
        assert one.label.keys() == one.probabilities.keys() == {"harm", "tone"}
        asked += len(post.label)
        right += sum(one.label[task] == answer for task, answer in post.label.items())
    assert right > 0.85 * asked


def test_a_file_of_scores_has_the_answers_of_the_engine(system: System, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    load(system.bundle).score_file(system.folder / "test.jsonl", out)
    posts = list(read_posts(system.folder / "test.jsonl"))
    wanted = Engine.open(system.bundle, threads=1).score(posts)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["label"] for row in rows] == [
        json.loads(one.model_dump_json())["label"] for one in wanted
    ]
    assert isinstance(rows[0]["label"], {"many": list, "tasks": dict, "three": str}[_kind(system)])
    assert [Score.model_validate(row).id for row in rows] == [post.id for post in posts]


@pytest.fixture
def client(system: System) -> Iterator[TestClient]:
    with TestClient(make_app(Engine.open(system.bundle, threads=1))) as found:
        end = time.monotonic() + 20
        while found.get("/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield found


def test_the_server_answers_by_label_and_by_task(client: TestClient, system: System) -> None:
    body = {"posts": [{"text": "stone the angry on of it"}]}
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200
    (found,) = answer.json()["scores"]
    if _kind(system) == "three":
        assert (found["label"], found["threshold"]) == ("angry", None)
        assert found["probabilities"].keys() == set(TONES)
    elif _kind(system) == "many":
        assert found["label"] == ["stone"]
        assert found["threshold"].keys() == found["probabilities"].keys() == set(HARMS)
    else:
        assert found["label"] == {"harm": ["stone"], "tone": "angry"}
        assert found["probabilities"]["tone"].keys() == {"angry", "calm"}
        assert isinstance(found["threshold"]["tone"], float)
        assert sum(found["probabilities"]["tone"].values()) == pytest.approx(1, abs=1e-5)
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Score"]["properties"]
    kinds = {each.get("type") for each in schema["label"]["anyOf"]}
    assert kinds == {"string", "array", "object"}


def test_a_threshold_that_is_missing_for_a_label_is_found_at_once(
    system: System, tmp_path: Path
) -> None:
    if _kind(system) == "three":
        assert system.opened.calibration.thresholds == {}
        return
    copy = Path(shutil.copytree(system.bundle, tmp_path / "copy"))
    fitted = json.loads((copy / bundles.CALIBRATION_FILE).read_text())
    del (fitted if _kind(system) == "many" else fitted["harm"])["thresholds"]["without"]["fire"]
    (copy / bundles.CALIBRATION_FILE).write_text(json.dumps(fitted))
    facts = json.loads((copy / manifest.MANIFEST_FILE).read_text())
    manifest.write_manifest(copy, {key: value for key, value in facts.items() if key != "files"})
    with pytest.raises(BundleError, match="no threshold for arm 'without'"):
        Engine.open(copy)


def test_two_systems_compare_question_by_question(system: System, tmp_path: Path) -> None:
    again = Path(shutil.copytree(system.bundle, tmp_path / "again"))
    data = open_folder(system.folder)
    both = [system.bundle, again]
    report = evaluate_bundles(both, data, "test", cache=None, num_resamples=5, command="test")
    for each in (report, *report.others):
        found = {(one.a, one.b, one.metric): one.interval.value for one in each.differences}
        name = f"{_kind(system)}/without"
        assert found == {("again/without", name, metric): 0 for metric in ("macro_f1", "auroc")}


def test_systems_that_answer_other_questions_do_not_compare(
    system: System, bundle: Path, world: Path
) -> None:
    data = open_folder(world / "both")
    with pytest.raises(MikoError, match="only systems with the same labels compare"):
        evaluate_bundles(
            [bundle, system.bundle], data, "test", cache=None, num_resamples=5, command="test"
        )
    with pytest.raises(PostError, match="has a label for 'sarcasm'; the bundles know"):
        evaluate_bundles([bundle], data, "test", cache=None, num_resamples=5, command="test")


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
    folder = write_worded_folder(tmp_path / "data", "tasks")
    recipe = make_words_recipe(**changed)
    with pytest.raises(RecipeError, match=rf"{key} learns one question .*harm: any of"):
        fit(recipe, open_folder(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_val_must_answer_every_question_of_train(tmp_path: Path) -> None:
    folder = write_worded_folder(tmp_path / "data", "tasks")
    rows = [json.loads(line) for line in (folder / "val.jsonl").read_text().splitlines()]
    for row in rows:
        row["label"].pop("tone", None)
    kept = [json.dumps(row) for row in rows if row["label"]]
    (folder / "val.jsonl").write_text("\n".join(kept))
    with pytest.raises(PostError, match="no post of val has a label for tone"):
        fit(make_words_recipe(), open_folder(folder), tmp_path / "out")


def test_val_must_have_more_than_one_class(tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "text": f"text {n}", "label": "ab"[n % 2]} for n in range(8)]
    for split, kept in (("train", rows[:6]), ("val", [rows[6]])):
        file = tmp_path / "data" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(map(json.dumps, kept)))
    with pytest.raises(PostError, match="every post of val is labelled 'a'"):
        fit(make_words_recipe(), open_folder(tmp_path / "data"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_world_has_posts_that_are_labelled_for_both_tasks(world: Path, tmp_path: Path) -> None:
    def labels(task: str) -> dict[str, Any]:
        return {post.id: post.label for post in read_posts(world / task / "train.jsonl")}

    alone = {task: labels(task) for task in DEMO_CLASSES}
    both = labels("both")
    assert both == {name: {task: alone[task][name] for task in DEMO_CLASSES} for name in both}
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


def test_training_never_opens_the_test_split(
    world: Path, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_folder(world / "sarcasm")
    read, splits = opened.read, []
    monkeypatch.setattr(opened, "read", lambda split: splits.append(split) or read(split))
    monkeypatch.setattr(
        "miko_clf.pipeline.train_stage", lambda *_: (_ for _ in ()).throw(_Enough())
    )
    with pytest.raises(_Enough):
        fit(small, opened, tmp_path / "out")
    assert splits == ["train", "val"]
    assert (world / "sarcasm" / "test.jsonl").exists()


class _Enough(Exception):  # noqa: N818
    """Training need not go further."""


def test_an_existing_bundle_is_not_overwritten_unless_told(
    bundle: Path, world: Path, small: Recipe
) -> None:
    before = manifest.hash_file(bundle / "manifest.json")
    with pytest.raises(BundleError, match="exists; name another --out, or add --overwrite"):
        fit(small, open_folder(world / "sarcasm"), bundle)
    assert manifest.hash_file(bundle / "manifest.json") == before


def test_overwrite_leaves_a_folder_that_is_no_bundle_alone(
    world: Path, small: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        fit(small, open_folder(world / "sarcasm"), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
