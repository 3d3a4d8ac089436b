"""Commands that read words off pictures: ocr itself, and those that take --ocr."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from miko_clf.data import ocr_engine
from miko_clf.data.readers import read_posts
from tests.support.command_line import assert_one_line_error, run_command, write_posts_file
from tests.support.drawn_words import draw_words, normalise_words
from tests.support.small_recipes import SMALL_KEYS

WORDS = (
    "ALPHA", "BRAVO", "CHARLIE", "DELTA", "FOXTROT", "HOTEL", "JULIET", "LIMA", "MIKE",
    "PAPA", "SIERRA", "VICTOR",
)  # fmt: skip


def _write_memes(folder: Path, number: int) -> Path:
    """Write posts without text, each with a word on its picture."""
    folder.mkdir()
    rows = []
    for place in range(number):
        picture = draw_words((WORDS[place], 20, 20), size=(320, 120))
        picture.save(folder / f"{place}.png")
        rows.append({"id": f"p{place}", "image": f"{place}.png"})
    return write_posts_file(folder / "posts.jsonl", *rows)


def test_ocr_tells_what_became_of_every_post(tmp_path: Path) -> None:
    posts, out = _write_memes(tmp_path / "in", 2), tmp_path / "read.jsonl"
    draw_words().save(tmp_path / "in" / "1.png")
    with posts.open("a") as file:
        file.write(json.dumps({"id": "q", "text": "its own"}) + "\n" + json.dumps({"id": "r"}))
    ended = run_command("ocr", posts, "-o", out, "--threads", 1, "--skip-bad")
    lines = ended.out.splitlines()
    assert lines[0].startswith("texts read:    1 of 2 pictures, ")
    assert lines[0].endswith(" ms a picture")
    assert lines[1:4] == [
        "nothing found: 1",
        "given before:  1",
        f"bad posts:     1, see {out}.skipped.json",
    ]
    facts = json.loads(run_command("ocr", posts, "-o", out, "--skip-bad", "--json").out)
    assert facts.pop("milliseconds") > 0
    assert facts.pop("engine").startswith("rapidocr ")
    assert facts == {"read": 1, "empty": 1, "given": 1, "bad": 1, "out": str(out)}


def test_ocr_goes_on_after_a_kill(tmp_path: Path) -> None:
    posts, out = _write_memes(tmp_path / "in", len(WORDS)), tmp_path / "read.jsonl"
    journal = tmp_path / "read.jsonl.journal"
    words = [sys.executable, "-m", "miko_clf", "ocr", str(posts), "-o", str(out), "--threads", "1"]
    with Popen(words, stdout=DEVNULL, stderr=DEVNULL) as process:
        end = time.monotonic() + 300
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    known = journal.read_bytes().count(b"\n")
    assert not out.exists()
    ended = run_command("ocr", posts, "-o", out, "--threads", 1)
    assert f"going on after {known} pictures" in ended.err
    assert [normalise_words(post.text) for post in read_posts(out)] == list(WORDS)
    assert not journal.exists()


def _write_labelled(folder: Path) -> Path:
    """Write train and val, whose labels are told by the words on four pictures."""
    memes = _write_memes(folder, 4)
    memes.unlink()
    for split, number in (("train", 12), ("val", 8)):
        rows = [
            {"id": f"{split}{n}", "image": f"{n % 4}.png", "label": "ab"[n % 2]}
            for n in range(number)
        ]
        write_posts_file(folder / f"{split}.jsonl", *rows)
    return folder


def test_fit_reads_a_picture_once_and_the_manifest_says_by_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = _write_labelled(tmp_path / "data"), tmp_path / "cache"
    keys = [word for key, value in SMALL_KEYS.items() for word in (f"--recipe.{key}", value)]
    words = ["fit", "tiny", "--data", data, "--ocr", "--cache", cache, *keys]
    first = run_command(*words, "--out", tmp_path / "first")
    assert first.code == 0, first.err
    assert "train: of 12 posts without text 12 have one by OCR" in first.err
    assert f"--data {data} --ocr --split test" in first.out
    assert len((cache / "ocr.jsonl").read_text().splitlines()) == 4

    def refuse(self: object, *given: object) -> None:
        raise AssertionError("a picture is read that was read before")

    monkeypatch.setattr(ocr_engine.RapidOcrReader, "read", refuse)
    assert run_command(*words, "--out", tmp_path / "second").code == 0
    manifests = [
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("first", "second")
    ]
    for facts in manifests:
        assert facts["ocr"]["engine"].startswith("rapidocr ")
        assert facts["ocr"]["texts"] == {"train": 12, "val": 8}
    assert manifests[0]["data"] == manifests[1]["data"]
    plain = run_command("evaluate", tmp_path / "first", "--data", data, "--split", "val", "--quick")
    assert plain.code == 0
    evaluated = run_command(
        *("evaluate", tmp_path / "first", "--data", data, "--split", "val", "--quick"),
        *("--ocr", "--cache", cache, "--json"),
    )
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["fingerprint"] == manifests[0]["data"]["val"]


def test_fit_of_a_recipe_that_reads_no_text_reads_no_pictures(tmp_path: Path) -> None:
    words = ("image-only", "--data", tmp_path, "--out", tmp_path / "bundle", "--ocr")
    assert_one_line_error(run_command("fit", *words), "image-only reads no text", "--ocr")


def test_score_reads_pictures_or_says_that_it_did_not(bundle: Path, tmp_path: Path) -> None:
    taught = shutil.copytree(bundle, tmp_path / "taught")
    path = taught / "manifest.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "ocr": {"engine": "x", "texts": {"train": 9}}}))
    posts, out = _write_memes(tmp_path / "in", 2), tmp_path / "scores.jsonl"
    for system, remarks in ((bundle, 0), (taught, 1)):
        ended = run_command("score", system, posts, "-o", out)
        assert ended.code == 0, ended.err
        assert ended.err.count("add --ocr") == ended.err.count("\n") == remarks
    assert all("text_source" not in json.loads(line) for line in out.read_text().splitlines())
    ended = run_command("score", taught, posts, "-o", out, "--ocr")
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text_source"] for row in rows] == ["ocr", "ocr"]
    assert [normalise_words(row["text"]) for row in rows] == list(WORDS[:2])
    assert all(0.8 <= row["text_confidence"] <= 1 for row in rows)


@pytest.mark.parametrize("command", ["ocr", "score", "serve", "fit"])
def test_without_the_extra_a_command_says_what_to_install(
    command: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "miko_clf.data.ocr_engine", raising=False)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    posts, out = _write_memes(tmp_path / "in", 1), tmp_path / "out.jsonl"
    words = {
        "ocr": (posts, "-o", out),
        "score": (bundle, posts, "-o", out, "--ocr"),
        "serve": (bundle, "--port", 0, "--ocr"),
        "fit": ("tiny", "--data", posts, "--out", tmp_path / "bundle", "--ocr"),
    }
    ended = run_command(command, *words[command])
    assert_one_line_error(ended, "rapidocr", "pip install 'miko-clf[ocr,cpu]'")
    assert not out.exists()
