"""Drift between splits: found and named where it was planted, and not found where it was not."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from miko_clf.data.audit.drift import describe_drift, measure_drift
from miko_clf.data.audit.report import render_audit_page
from miko_clf.data.post import Post
from tests.support.audited_posts import draw_picture, run_audit
from tests.support.command_line import run_command

WORDS = [f"w{n}" for n in range(120)]


def make_posts(count: int, seed: int, *, new: float = 0.0, name: str = "p") -> list[Post]:
    """Return posts of eight common words each; so many of them hold a word of a new fashion too."""
    random = Random(seed)
    posts = []
    for number in range(count):
        words = random.sample(WORDS, 8)
        if random.random() < new:
            words[0] = random.choice(["Vax", "boost"])
        posts.append(Post(id=f"{name}{number}", text=" ".join(words), label="ab"[number % 2]))
    return posts


def test_posts_drawn_alike_are_not_told_apart_and_no_word_has_moved() -> None:
    drift = measure_drift("test", make_posts(600, 1), make_posts(300, 2, name="t"))
    assert drift.low is not None
    assert drift.high is not None
    assert drift.low < 0.5 < drift.high
    assert (drift.risen, drift.fallen) == ((), ())
    assert drift.unseen_tokens == drift.unseen_within == 0
    assert describe_drift(drift) == ""


def test_words_that_are_new_are_named_with_their_shares() -> None:
    train, posts = make_posts(600, 1), make_posts(300, 2, new=0.8, name="t")
    drift = measure_drift("test", train, posts)
    assert drift.auroc is not None
    assert drift.auroc > 0.8
    assert {shift.word for shift in drift.risen} == {"vax", "boost"}
    holds = sum("boost" in str(post.text) for post in posts) / 300
    (boost,) = (shift for shift in drift.risen if shift.word == "boost")
    assert (boost.train_share, boost.share) == (0, pytest.approx(holds, abs=1e-4))
    tokens = sum("Vax" in str(p.text) or "boost" in str(p.text) for p in posts) / (300 * 8)
    assert drift.unseen_tokens == pytest.approx(tokens, abs=1e-4)
    assert drift.unseen_low is not None
    assert drift.unseen_high is not None
    assert drift.unseen_low < drift.unseen_tokens < drift.unseen_high
    assert drift.unseen_words == pytest.approx(2 / 122, abs=1e-4)
    line = describe_drift(drift)
    assert line.startswith("its words tell test from train with AUROC 0.")
    assert "'boost' (0.0% of train posts" in line


def test_words_that_went_out_of_use_are_named_too() -> None:
    drift = measure_drift("test", make_posts(600, 1, new=0.8), make_posts(300, 2, name="t"))
    assert {shift.word for shift in drift.fallen} == {"vax", "boost"}
    assert drift.risen == ()


def test_the_interval_of_unseen_words_holds_what_many_draws_give() -> None:
    every = make_posts(4000, 3, new=0.2, name="t")
    train = make_posts(300, 1)
    share = sum("Vax" in str(p.text) or "boost" in str(p.text) for p in every) / (4000 * 8)
    held = 0
    for start in range(0, 2000, 100):
        drift = measure_drift("test", train, every[start : start + 100])
        assert drift.unseen_low is not None
        assert drift.unseen_high is not None
        held += drift.unseen_low <= share <= drift.unseen_high
    assert held >= 17  # of 20, of which 19 are to be expected


def test_posts_of_one_thread_are_no_posts_of_their_own() -> None:
    train, posts = make_posts(300, 1), make_posts(60, 2, name="t")
    posts[0] = posts[0].model_copy(update={"text": "loud"})
    thread = [posts[0].model_copy(update={"id": f"n{n}", "group": "g"}) for n in range(40)]
    apart = [post.model_copy(update={"group": None}) for post in thread]
    assert [s.word for s in measure_drift("test", train, [*posts, *apart]).risen] == ["loud"]
    together = measure_drift("test", train, [*posts, *thread])
    assert together.risen == ()
    wide, narrow = together, measure_drift("test", train, [*posts, *apart])
    assert wide.low is not None and wide.high is not None  # noqa: PT018
    assert narrow.low is not None and narrow.high is not None  # noqa: PT018
    assert wide.high - wide.low > narrow.high - narrow.low


def test_a_word_that_every_post_holds_has_not_moved() -> None:
    train, posts = (
        [post.model_copy(update={"text": f"always {post.text}"}) for post in side]
        for side in (make_posts(300, 1), make_posts(90, 2, name="t"))
    )
    drift = measure_drift("test", train, posts)
    assert (drift.risen, drift.fallen) == ((), ())


def test_few_posts_and_posts_without_words_say_nothing() -> None:
    drift = measure_drift("test", make_posts(10, 1), make_posts(5, 2, name="t"))
    assert drift.auroc is None
    assert describe_drift(drift) == ""
    pictures = [Post(id=f"i{n}", image=b"x") for n in range(30)]
    drift = measure_drift("test", pictures, pictures)
    assert (drift.auroc, drift.unseen_tokens, drift.unseen_words) == (None, None, None)


def test_the_audit_shows_words_and_pictures_that_moved(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, size, new, count in (("train", (96, 72), 0.0, 120), ("test", (60, 72), 0.9, 60)):
        lines = []
        for number, post in enumerate(make_posts(count, count, new=new, name=split)):
            suffix = "png" if split == "train" or number % 2 else "jpg"
            file = tmp_path / f"{post.id}.{suffix}"
            draw_picture(int(random.integers(1e9)), size).save(file)
            lines.append(json.dumps({"id": post.id, "text": post.text, "label": post.label,
                                     "image": file.name}))  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    found = run_audit(tmp_path)
    (drift,) = found.drifts
    moved = {shift.name: shift for shift in drift.pictures}
    assert (moved["width"].train, moved["width"].here) == (96, 60)
    assert moved["width"].high < 0
    assert moved["height"].difference == 0
    assert moved["share of JPEG"].here == 0.5
    assert moved["brightness, 0 to 1"].low < 0 < moved["brightness, 0 to 1"].high
    assert any("its words tell test from train" in line for line in found.warnings)
    page = render_audit_page(found)
    for shown in ("test: boost", "told from train, AUROC", "test: width", "share of JPEG"):
        assert shown in page
    ended = run_command("audit", tmp_path, "--out", tmp_path / "out")
    assert "drift from train" in ended.out
    assert "boost" in ended.out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["drifts"][0]["risen"]
