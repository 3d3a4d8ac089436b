"""Published layouts: HarMeme as its authors and Mr.Harm lay it out."""

import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.folder import open_folder
from miko_clf.data.post import Rationale
from miko_clf.data.read import SkipReport
from miko_clf.errors import PostError

REAL = Path(os.environ.get("MIKO_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def meme(name: str, *labels: str) -> dict:
    return {"id": name, "image": f"{name}.png", "labels": list(labels), "text": f"{name} says\n"}


def lay(path: Path, *memes: dict, split: str = "train", suffix: str = ".jpg") -> Path:
    (path / "annotations").mkdir(exist_ok=True)
    (path / "images").mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in memes)
    (path / "annotations" / f"{split}.jsonl").write_text(lines)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    for row in memes:
        (path / "images" / (row["id"] + suffix)).write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_harmeme_is_recognised_by_its_files(suffix, tmp_path):
    lay(tmp_path, meme("a", "very harmful", "individual"), meme("b", "not harmful"), suffix=suffix)
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.splits) == ("harmeme", ("train",))
    first, second = folder.read("train")
    assert (first.label, second.label) == ("harmful", "harmless")
    assert (first.text, first.group) == ("a says", None)
    assert first.image == tmp_path / "images" / f"a{suffix}"
    assert (first.description, first.rationale) == (None, None)


def test_a_label_map_may_name_harmeme_levels_or_the_merged_classes(tmp_path):
    lay(
        tmp_path, meme("a", "very harmful"), meme("b", "somewhat harmful"), meme("c", "not harmful")
    )
    folder = open_folder(tmp_path, label_map={"very harmful": "worst", "harmless": "fine"})
    assert [post.label for post in folder.read("train")] == ["worst", "harmful", "fine"]


def test_captions_and_rationales_are_picked_up_where_present(tmp_path):
    lay(tmp_path, meme("a", "very harmful"), meme("b", "not harmful"))
    (tmp_path / "captions.json").write_text('{"a": "a dog"}')
    (tmp_path / "rationales.json").write_text('{"a": "it mocks", "b": " "}')
    first, second = open_folder(tmp_path).read("train")
    assert first.description == "a dog"
    assert first.rationale == Rationale(
        text="it mocks", saw_label=True, provenance={"source": "rationales.json"}
    )
    assert (second.description, second.rationale) == (None, None)


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        ("[]", "a JSON object is expected, not a list"),
        ('{"a": 1}', "the text of 'a' must be a string, not 1"),
        ('{"a"', "not valid JSON at column"),
    ],
)
def test_captions_that_are_no_texts_by_id_are_refused(captions, says, tmp_path):
    lay(tmp_path, meme("a", "very harmful"))
    (tmp_path / "captions.json").write_text(captions)
    with pytest.raises(PostError, match=r"captions\.json: ") as caught:
        open_folder(tmp_path).read("train")
    assert says in str(caught.value)


@pytest.mark.parametrize("labels", [[""], [], ["harmful"], None, "very harmful"])
def test_a_meme_without_a_level_of_harm_is_refused_or_reported(labels, tmp_path):
    lay(tmp_path, meme("a", "very harmful"), meme("b") | {"labels": labels})
    with pytest.raises(PostError, match=r"train.jsonl:2: labels .* must begin with 'not harmful'"):
        open_folder(tmp_path).read("train")
    report = SkipReport()
    assert len(open_folder(tmp_path, report=report).read("train")) == 1
    assert len(report) == 1


def test_a_meme_without_its_picture_is_named(tmp_path):
    lay(tmp_path, meme("a", "very harmful"))
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(PostError, match=r"train.jsonl:1: image '.*a.png' does not exist"):
        open_folder(tmp_path).read("train")


@pytest.mark.parametrize("report", [None, SkipReport()])
def test_the_obsolete_files_of_harmeme_are_refused_with_the_reason(report, tmp_path):
    lay(tmp_path, meme("a", "very harmful"), meme("a", "not harmful"))
    with pytest.raises(PostError, match=r"train.jsonl:2: id 'a' was .*:1; the obsolete version 0"):
        open_folder(tmp_path, report=report).read("train")
    row = json.dumps(meme("a", "not harmful"))
    (tmp_path / "annotations" / "test.jsonl").write_text(f"{row}\n" * 1063)
    with pytest.raises(PostError, match=r"holds 1,063 rows, .* only the first 354"):
        open_folder(tmp_path, report=report).read("test")


@pytest.mark.real
def test_harm_c_has_the_counts_that_its_authors_publish():
    if not (REAL / "harm-c").is_dir():
        pytest.skip(f"no Harm-C at {REAL / 'harm-c'}; set MIKO_DATA to the folder that holds it")
    folder = open_folder(REAL / "harm-c")
    found = {split: folder.read(split) for split in folder.splits}
    assert {split: len(posts) for split, posts in found.items()} == {
        "train": 3013, "val": 177, "test": 354,
    }  # fmt: skip
    assert Counter(post.label for post in found["test"]) == {"harmless": 230, "harmful": 124}
    assert all(post.rationale and post.rationale.saw_label for post in found["train"])
    assert not any(post.rationale for post in found["test"])
    assert all(post.description for posts in found.values() for post in posts)
