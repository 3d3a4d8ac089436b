"""`miko-clf data`: what published layouts are known, and what is in a folder."""

import json
from pathlib import Path

import pytest

from miko_clf.data.dataset import PUBLISHED_SETS
from tests.support.command_line import assert_fits_80_columns, run_command, write_posts_file


def test_every_known_layout_is_listed_with_its_counts() -> None:
    ended = run_command("data")
    assert ended.code == 0
    assert_fits_80_columns(ended)
    shown = " ".join(ended.out.split())
    for published in PUBLISHED_SETS:
        assert f"{published.name}: {published.what}" in shown
        assert published.files in shown
    assert "354 (harmful 124, harmless 230)" in shown
    assert "counts unknown" in shown
    listed = json.loads(run_command("data", "--json").out)
    assert [entry["name"] for entry in listed] == [published.name for published in PUBLISHED_SETS]
    harm_c = next(entry for entry in listed if entry["name"] == "Harm-C")
    assert harm_c["splits"]["test"] == {
        "size": 354, "classes": [{"harmful": 124, "harmless": 230}]
    }  # fmt: skip


def test_a_folder_is_told_by_split_class_and_what_posts_hold(world: Path) -> None:
    ended = run_command("data", str(world / "sarcasm"))
    assert ended.code == 0, ended.err
    assert f"{world / 'sarcasm'}: jsonl" in ended.out
    assert "192 posts: sarcastic 96, sincere 96" in ended.out
    assert "192 with an image, 192 with intentions" in ended.out
    facts = json.loads(run_command("data", world / "sarcasm", "--json").out)
    assert facts["unusable"] == []
    assert facts["splits"]["train"] == {
        "posts": 192,
        "classes": {"sarcastic": 96, "sincere": 96},
        "with_image": 192,
        "with_intentions": 192,
    }


def test_a_task_that_a_folder_does_not_have_is_one_line(world: Path) -> None:
    ended = run_command("data", str(world / "sarcasm"), "--task", "hate")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "hate" in ended.err


def test_world_writes_posts_and_says_what_is_next(tmp_path: Path) -> None:
    ended = run_command("world", tmp_path / "world", "--posts", 40)
    assert ended.code == 0
    assert f"fit tiny --data {tmp_path / 'world' / 'sarcasm'}" in ended.out
    ended = run_command("world", tmp_path / "other", "--posts", 41)
    assert (ended.code, "41" in ended.err) == (1, True)


@pytest.mark.parametrize("name", ["a-class-with-a-rather-long-name-of-its-own", "short"])
def test_an_audit_breaks_no_name_of_a_class(tmp_path: Path, name: str) -> None:
    for split, first in (("train", 0), ("test", 60)):
        rows = [
            {"id": f"{split}-{row}", "text": f"post {row} " * (1 + row % 2), "label": label}
            for row in range(first, first + 60)
            for label in (name if row % 2 else "none",)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ended = run_command("audit", tmp_path, "--out", tmp_path / "audit")
    tables = ended.out.partition("\nnote: ")[0].partition("\nleak: ")[0]
    assert name in tables.partition("cue alone")[2]
    assert max(map(len, tables.splitlines()[1:])) <= 80


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--split-by", "date"], "--split-by date needs --test-from, the first day of test"),
        (["--test-from", "2021-06-01"], "are for --split-by date; add that"),
        (
            ["--split-by", "date", "--test-from", "2021-06-01", "--split-seed", "1"],
            "two ways to split; choose one",
        ),
    ],
)
def test_words_of_a_dated_split_that_do_not_go_together_are_wrong_usage(
    words: list[str], line: str, tmp_path: Path
) -> None:
    ended = run_command("audit", tmp_path, *words)
    assert ended.code == 2
    assert line in " ".join(ended.err.split())


def test_an_audit_splits_unsplit_posts_by_date(tmp_path: Path) -> None:
    rows = [
        {"id": f"p{n}", "text": f"words of {n}", "label": "ab"[n % 2],
         "date": f"2021-0{5 + n // 20}-01"}
        for n in range(60)
    ]  # fmt: skip
    file = write_posts_file(tmp_path / "posts.jsonl", *rows)
    ended = run_command(
        "audit", file, "--split-by", "date", "--val-from", "2021-06-01",
        "--test-from", "2021-07-01", "--out", tmp_path / "out",
    )  # fmt: skip
    assert "train 20 posts, val 20 from 2021-06-01, test 20 from 2021-07-01" in ended.err
    splits = json.loads((tmp_path / "out" / "report.json").read_text())["splits"]
    assert [split["posts"] for split in splits] == [20, 20, 20]
