"""The Python interface of a bundle: posts as objects, and a file of them, to scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from miko_clf.data.post import Post
from miko_clf.data.readers import read_posts
from miko_clf.errors import BundleError, MikoError, PostError
from miko_clf.serve.offline import Scorer, ScoringSummary, load
from miko_clf.serve.postprocess import Score


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return load(str(bundle), threads=1)


@pytest.fixture(scope="module")
def posts(world: Path) -> list[Post]:
    return list(read_posts(world / "sarcasm" / "test.jsonl"))


def _apart(found: list[Score], wanted: list[Score]) -> float:
    assert [score.id for score in found] == [score.id for score in wanted]
    tables = [
        [list(score.probabilities.values()) for score in scores] for scores in (found, wanted)
    ]
    return float(np.abs(np.subtract(*tables)).max())


def test_an_object_scores_as_the_post_that_it_describes(
    scorer: Scorer, world: Path, posts: list[Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world / "sarcasm")
    lines = Path("test.jsonl").read_text().splitlines()
    objects = [json.loads(line) for line in lines]
    assert scorer.score(objects) == scorer.score(posts)
    assert scorer.score(objects, "without") == scorer.score(iter(posts), "without")
    assert isinstance(posts[0].image, Path)
    (by_path,) = scorer.score([{"image": posts[0].image}])
    (by_bytes,) = scorer.score([{"image": posts[0].image.read_bytes()}])
    assert by_path == by_bytes
    assert by_path.id == "0"
    assert set(by_path.probabilities) == set(scorer.labels)
    assert by_path.arm in scorer.arms


def test_what_is_no_post_is_named_by_its_place(scorer: Scorer) -> None:
    for post, words in [
        ({"txet": "x"}, r"unknown key 'txet'; did you mean 'text'\?"),
        ({}, "neither|text"),
        ({"text": 3}, "text must be a string"),
    ]:
        with pytest.raises(PostError, match=rf"^posts\[1\]: .*{words}"):
            scorer.score([{"text": "fine"}, post])


def test_a_file_is_scored_in_its_order(
    scorer: Scorer, world: Path, tmp_path: Path, posts: list[Post]
) -> None:
    source, out = world / "sarcasm" / "test.jsonl", tmp_path / "new" / "scores.jsonl"
    assert scorer.score_file(source, out, batch_size=3) == ScoringSummary(len(posts), 0)
    found = [Score.model_validate_json(line) for line in out.read_text().splitlines()]
    assert _apart(found, scorer.score(posts)) < 1e-4
    assert [path.name for path in out.parent.iterdir()] == ["scores.jsonl"]


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A file whose second line holds no image, and whose third is not JSON."""
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    path = tmp_path / "posts.jsonl"
    lines = [{"id": "a", "text": "x"}, {"id": "b", "image": "bad.png"}, {"id": "d", "text": "y"}]
    first, second, last = map(json.dumps, lines)
    path.write_text("\n".join([first, second, "{", last]) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"id": "b", "image": "bad.png"}', "image .*bad.png' is not a"), ("{", "not valid JSON")],
)
def test_a_bad_post_stops_scoring_and_leaves_what_was_there(
    line: str, words: str, scorer: Scorer, spoilt: Path
) -> None:
    spoilt.write_text('{"id": "a", "text": "x"}\n' + line)
    out = spoilt.with_name("out.jsonl")
    out.write_text("before")
    with pytest.raises(PostError, match=rf"posts\.jsonl:2: {words}"):
        scorer.score_file(spoilt, out, batch_size=1)
    assert out.read_text() == "before"
    assert len(list(out.parent.iterdir())) == 3


def test_bad_posts_are_passed_over_and_named_on_request(scorer: Scorer, spoilt: Path) -> None:
    out = spoilt.with_name("out.jsonl")
    assert scorer.score_file(spoilt, out, skip_bad=True)[:2] == (2, 2)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["a", "d"]
    skipped = json.loads(out.with_name("out.jsonl.skipped.json").read_text())
    assert sorted(entry["where"][-14:] for entry in skipped) == ["/posts.jsonl:2", "/posts.jsonl:3"]


def test_a_place_that_cannot_be_written_is_said_before_any_work(
    scorer: Scorer, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text('{"id": "a", "text": "x"}')
    for out, words in [
        (tmp_path, "it is a folder"),
        (file / "out.jsonl", "file is not a folder"),
        (file, "the posts are read from it"),
    ]:
        with pytest.raises(BundleError, match=f"cannot write .*{words}"):
            scorer.score_file(file, out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_arm_or_a_missing_bundle_leaves_no_file(
    scorer: Scorer, world: Path, tmp_path: Path
) -> None:
    source, out = world / "sarcasm" / "test.jsonl", tmp_path / "out.jsonl"
    with pytest.raises(MikoError, match="no arm 'none'"):
        scorer.score_file(source, out, arm="none")
    with pytest.raises(BundleError, match="not a bundle"):
        load(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_prior_is_known_or_estimated_but_not_both(
    bundle: Path, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(MikoError, match="corrected for a prior already"):
        load(bundle, prior=0.2).score_file(
            world / "sarcasm" / "test.jsonl", tmp_path / "out.jsonl", auto_prior=True
        )
    assert list(tmp_path.iterdir()) == []
