"""Posts as people really have them, through every door: read, or refused in one line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from miko_clf.cli.parser import parse_label_map
from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.post import Post
from miko_clf.data.preprocess import decode_image
from miko_clf.data.readers import SkipReport
from miko_clf.errors import PostError
from miko_clf.preflight import check_training_posts
from miko_clf.serve.app import make_app
from miko_clf.serve.offline import Scorer, load
from tests.support.command_line import run_command
from tests.support.odd_inputs import (
    LABELS,
    ODD_INPUTS,
    OddInput,
    ask_data,
    ask_score,
    ask_server,
    wait_until_ready,
)
from tests.support.worded_posts import make_words_recipe


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return load(bundle, threads=1)


@pytest.fixture(scope="module")
def client(scorer: Scorer) -> Iterator[TestClient]:
    with TestClient(make_app(scorer.engine)) as client:
        yield wait_until_ready(client)


def check_verdict(case: OddInput, verdict: str, *, says: bool = True) -> None:
    """Check that a verdict is the one that the table has, in a line that quotes no whole cell."""
    assert verdict.startswith("refused" if case.reads is None else "read"), verdict
    assert "\n" not in verdict
    assert "Traceback" not in verdict
    if case.reads is None:
        assert not re.search(r"(\w)\1{80}", verdict), verdict
    for part in (case.says if case.mends == "" else (case.mends,)) if says else ():
        for piece in part.split(": ", 1) if part.startswith((":", "row ")) else [part]:
            assert piece in verdict, verdict


def read_all(folder: DataFolder) -> dict[str, Post]:
    return {post.id: post for split in folder.splits for post in folder.read(split)}


def test_the_table_is_long_and_no_name_in_it_stands_twice() -> None:
    names = [case.name for case in ODD_INPUTS]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("case", ODD_INPUTS, ids=lambda case: case.name)
def test_data_reads_an_odd_input_or_says_why_not(case: OddInput, tmp_path: Path) -> None:
    check_verdict(case, ask_data(case, case.write(tmp_path)))


@pytest.mark.parametrize("case", ODD_INPUTS, ids=lambda case: case.name)
def test_what_fit_reads_of_an_odd_input_has_the_value_that_was_given(
    case: OddInput, tmp_path: Path
) -> None:
    path, label_map = case.write(tmp_path), parse_label_map(case.label_map)
    if case.reads is None or case.mends:
        with pytest.raises(PostError) as caught:
            read_all(open_folder(path, label_map=label_map))
        assert all(part in str(caught.value) for part in case.says), caught.value
        assert "\n" not in str(caught.value)
    if case.reads is None:
        return
    report = SkipReport()
    post = read_all(open_folder(path, label_map=label_map, report=report))[case.post]
    assert {key: getattr(post, key) for key in case.reads} == dict(case.reads)
    assert not len(report)
    if case.size is not None:
        assert post.image is not None
        assert decode_image(post.image).size == case.size


@pytest.mark.parametrize("case", ODD_INPUTS, ids=lambda case: case.name)
def test_score_and_the_server_say_the_same_of_an_odd_input(
    case: OddInput, scorer: Scorer, client: TestClient, tmp_path: Path
) -> None:
    path = case.write(tmp_path)
    verdict = ask_score(path, scorer, skip_bad=bool(case.mends))
    if verdict:
        check_verdict(case, verdict, says=case not in LABELS or case.reads is None)
    if case.payload is None:
        return
    status, body = ask_server(case, client)
    assert status == case.status, body
    if status != 200:
        assert "\n" not in body["error"]
        assert not re.search(r"(\w)\1{80}", body["error"])
    elif verdict.startswith("read"):
        lines = path.with_name("scores.jsonl").read_text().splitlines()
        scores = {score["id"]: score["probabilities"] for score in map(json.loads, lines)}
        found = body["scores"][0]["probabilities"]
        assert found == pytest.approx(scores[case.post], abs=1e-4)


def test_a_truncated_row_of_reasons_stands_where_no_post_is_left(tmp_path: Path) -> None:
    rows = ['{"id": "a"}', *(f'{{"id": "b{n}", "image": "{n}.jpg"}}' for n in range(7))]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    ended = run_command("data", tmp_path)
    assert ended.code == 1
    assert "holds no post that can be used: image" in ended.err
    assert "0.jpg' does not exist (7 rows, the first at " in ended.err
    assert f"neither text nor image is given; a post needs at least one ({tmp_path}" in ended.err


def test_score_says_why_no_post_or_some_were_passed_over(bundle: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "posts.jsonl", tmp_path / "out.jsonl"
    bad = "".join(f'{{"id": "b{n}", "image": "{n}.jpg"}}\n' for n in range(7))
    path.write_text(bad)
    ended = run_command("score", bundle, path, "-o", out, "--skip-bad")
    assert (ended.code, out.exists()) == (1, False)
    assert "holds no post that can be used: image" in ended.err
    path.write_text(bad + '{"id": "a", "text": "nan"}\n')
    ended = run_command("score", bundle, path, "-o", out, "--skip-bad")
    assert ended.code == 0
    assert "does not exist (7 rows, the first at " in ended.out
    assert "text 'nan' was read as that word" in ended.err


def make_posts(**counts: int) -> list[Post]:
    return [
        Post(id=f"{label}{n}", text=f"{label} {n}", label=label)
        for label, count in counts.items()
        for n in range(count)
    ]


AUROC = "so the auroc by which the epoch is chosen is undefined"


@pytest.mark.parametrize(
    ("train", "val", "metric", "line"),
    [
        ({"a": 9, "b": 9}, {"a": 9}, "auroc", "every post of val is labelled 'a'"),
        ({"a": 9}, {"a": 9}, "auroc", "one label, 'a'; two are needed"),
        ({"a": 9, "b": 9, "c": 9}, {"a": 9, "b": 9}, "auroc", AUROC),
        ({"a": 9, "b": 9, "c": 1}, {"a": 9, "b": 9}, "average_precision", "so the average_prec"),
        ({"a": 9, "b": 9}, {"a": 9, "b": 9, "c": 1}, "auroc", "'c'; the labels of train are"),
    ],
)
def test_classes_by_which_nothing_can_be_chosen_are_refused_before_the_first_epoch(
    train: dict[str, int], val: dict[str, int], metric: str, line: str
) -> None:
    posts = {"train": make_posts(**train), "val": make_posts(**val)}
    recipe = make_words_recipe(task={"epochs": 1, "early": {"metric": metric}})
    with pytest.raises(PostError, match=line):
        check_training_posts(recipe, posts, Path("here"), None, leaks=False)


def test_a_class_of_one_post_is_carried_through_with_what_is_undefined_named_so(
    tmp_path: Path,
) -> None:
    splits = {
        "train": {"a": 30, "b": 30, "c": 1},
        "val": {"a": 9, "b": 9},
        "test": {"a": 9, "b": 9},
    }
    for split, counts in splits.items():
        rows = [post.model_dump(include={"id", "text", "label"}) for post in make_posts(**counts)]
        lines = [
            json.dumps({**row, "id": f"{split}-{row['id']}", "text": f"{row['text']} of {split}"})
            for row in rows
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    recipe = make_words_recipe(task={"epochs": 1, "early": {"metric": "macro_f1"}})
    (tmp_path / "words.yaml").write_text(recipe.model_dump_json())  # JSON is YAML
    ended = run_command(
        "fit", tmp_path / "words.yaml", "--data", tmp_path, "--out", tmp_path / "out"
    )
    assert ended.code == 0, ended.err
    assert "auroc undefined" in ended.err
    assert "train has but one post labelled 'c'" in ended.err
    assert "val has no post labelled 'c'" in ended.err
    told = run_command(
        "evaluate", tmp_path / "out", "--data", tmp_path, "--split", "test",
        "--out", tmp_path / "report", "--resamples", 100,
    )  # fmt: skip
    assert told.code == 0, told.err
    written = [tmp_path / "out/metrics.jsonl", tmp_path / "out/README.md",
               tmp_path / "out/report.html", *(tmp_path / "report").glob("report.*")]  # fmt: skip
    assert len(written) == 6
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bnan\b", text, re.IGNORECASE), path
        assert "null" in text if "json" in path.suffix else "undefined" in text, path
