"""Data folders: how each kind is recognised, and what is refused about its splits."""

import importlib
import io
import json
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miko_clf import progress
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.data.splits import split_by_group
from miko_clf.errors import PostError


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def post(name: str, **fields) -> dict:
    return {"id": name, "text": f"text of {name}"} | fields


def message(act) -> str:
    with pytest.raises(PostError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev"])
def test_files_named_by_split_are_read_one_split_at_a_time(val, tmp_path):
    write(tmp_path / "train.jsonl", post("a", label="x"))
    write(tmp_path / f"{val}.jsonl", post("b", label="y"))
    (tmp_path / "test.jsonl").write_text("this is never opened")
    wrong = open_folder(tmp_path, label_map={"xx": "z"})
    assert "no post of train is labelled 'xx'" in message(lambda: wrong.read("train"))
    folder = open_folder(tmp_path, label_map={"x": "z"})
    assert (folder.kind, folder.splits) == ("jsonl", ("train", "val", "test"))
    assert set(find_questions(folder.read("train") + folder.read(val)).names) == {"y", "z"}
    assert folder.read("val") == folder.read("val")
    assert "test.jsonl:1: not valid JSON" in message(lambda: folder.read("test"))


def test_a_missing_split_is_said_and_not_invented(tmp_path):
    write(tmp_path / "train.jsonl", post("a"))
    folder = open_folder(tmp_path)
    line = f"{tmp_path}: there is no split 'test'; there is train"
    assert message(lambda: folder.read("test")) == line
    assert "there is no split 'trian'; there is train; did you mean" in message(
        lambda: folder.read("trian")
    )


def test_an_id_in_two_splits_is_refused_or_reported(tmp_path):
    write(tmp_path / "train.jsonl", post("a"), post("b"))
    write(tmp_path / "test.jsonl", post("c"), post("b"))
    folder = open_folder(tmp_path)
    folder.read("train")
    line = message(lambda: folder.read("test"))
    assert line.startswith(f"{tmp_path / 'test.jsonl'}:2: id 'b' stands in train too")
    assert line.endswith("train.jsonl:2")
    report = SkipReport()
    folder = open_folder(tmp_path, report=report)
    folder.read("train")
    assert [found.id for found in folder.read("test")] == ["c"]
    assert len(report) == 1


def test_splits_of_two_kinds_and_two_files_of_one_split_are_refused(tmp_path):
    write(tmp_path / "train.jsonl", post("a"))
    (tmp_path / "test.csv").write_text("id,text\nb,x\n")
    assert "holds train.jsonl and test.csv; splits must be" in message(
        lambda: open_folder(tmp_path)
    )
    (tmp_path / "test.csv").unlink()
    write(tmp_path / "dev.jsonl", post("b"))
    write(tmp_path / "val.jsonl", post("b"))
    assert "holds val.jsonl and dev.jsonl; keep one" in message(lambda: open_folder(tmp_path))


@pytest.mark.parametrize("given_as", [".", "posts.jsonl"])
def test_one_file_is_divided_by_its_split_column(given_as, tmp_path):
    rows = [post("a", split="train"), post("b", split="dev"), post("c", split="train")]
    write(tmp_path / "posts.jsonl", *rows)
    folder = open_folder(tmp_path / given_as)
    assert folder.splits == ("train", "val")
    assert [found.id for found in folder.read("train")] == ["a", "c"]
    assert [found.id for found in folder.read("val")] == ["b"]


def test_a_row_outside_every_split_is_refused(tmp_path):
    write(tmp_path / "posts.jsonl", post("a", split="train"), post("b", split="tset"))
    folder = open_folder(tmp_path)
    assert "posts.jsonl:2: split 'tset' is unknown; write" in message(lambda: folder.read("train"))
    write(tmp_path / "posts.jsonl", post("a", split="one"))
    assert "split 'one' is unknown; write train, val or test" in message(
        lambda: open_folder(tmp_path)
    )


def test_an_unsplit_file_is_whole_without_a_seed_and_divided_with_one(tmp_path):
    write(tmp_path / "posts.jsonl", *(post(str(i), label="xy"[i % 2]) for i in range(100)))
    folder = open_folder(tmp_path)
    assert folder.splits == ("all",)
    assert len(folder.read("all")) == 100
    assert "there is all; a split seed makes" in message(lambda: folder.read("train"))

    seeded = open_folder(tmp_path, split_seed=1)
    found = {split: seeded.read(split) for split in seeded.splits}
    assert {split: len(posts) for split, posts in found.items()} == {
        "train": 80, "val": 10, "test": 10,
    }  # fmt: skip
    assert Counter(entry.label for entry in found["test"]) == {"x": 5, "y": 5}
    assert open_folder(tmp_path, split_seed=1).read("test") == found["test"]
    assert open_folder(tmp_path, split_seed=2).read("test") != found["test"]


@given(
    groups=st.lists(st.integers(0, 40), min_size=60, max_size=200),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_no_group_crosses_a_seeded_split(groups, seed):
    posts = [
        Post(id=str(i), text="x", group=str(g) if g > 9 else None, label="ab"[g % 2])
        for i, g in enumerate(groups)
    ]
    places = split_by_group(posts, seed)
    for group in {p.group for p in posts if p.group}:
        assert len({s for p, s in zip(posts, places, strict=True) if p.group == group}) == 1
    assert set(places) == {"train", "val", "test"}
    assert 0.6 < places.count("train") / len(posts) < 0.9


def test_too_few_groups_to_divide_are_refused(tmp_path):
    write(tmp_path / "posts.jsonl", post("a", group="g"), post("b", group="g"))
    folder = open_folder(tmp_path, split_seed=0)
    assert "1 groups of posts are too few" in message(lambda: folder.read("train"))


@pytest.mark.parametrize("content", [b"", b"<html>", picture()[:500], b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_does_not_decode_is_named_with_its_line(content, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(content)
    (tmp_path / "good.jpg").write_bytes(picture())
    rows = [post("a", image="good.jpg"), post("b", image="bad.jpg")]
    write(tmp_path / "train.jsonl", *rows)
    line = message(lambda: open_folder(tmp_path).read("train"))
    assert line.startswith(f"{tmp_path / 'train.jsonl'}:2: image '{tmp_path / 'bad.jpg'}' is not")
    report = SkipReport()
    assert [found.id for found in open_folder(tmp_path, report=report).read("train")] == ["a"]
    assert [": ".join(entry) for entry in report] == [line]
    write(tmp_path / "train.jsonl", rows[1])
    assert "holds no post that can be used" in message(
        lambda: open_folder(tmp_path, report=report).read("train")
    )


def test_a_long_check_shows_a_bar_on_a_terminal_alone(tmp_path, monkeypatch, capsys):
    write(tmp_path / "train.jsonl", post("a"))
    monkeypatch.setattr(progress, "DELAY", -1.0)
    open_folder(tmp_path).read("train")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    open_folder(tmp_path).read("train")
    assert "checking images" in capsys.readouterr().err


def test_a_fingerprint_changes_with_what_the_posts_say_and_not_with_where_they_stand(tmp_path):
    prints = []
    for place, label in (("one", "x"), ("two", "x"), ("three", "y")):
        write(tmp_path / place / "train.jsonl", post("a", label=label, image="a.jpg"))
        (tmp_path / place / "a.jpg").write_bytes(picture())
        prints.append(open_folder(tmp_path / place).fingerprint("train"))
    assert prints[0] == prints[1] != prints[2]


def test_a_folder_that_datasets_saved_is_read_with_its_names_and_pictures(tmp_path):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    rows = [{"text": "x", "image": {"bytes": picture(), "path": None}, "label": 1}]
    rows.append({"text": None, "image": {"bytes": picture("blue"), "path": None}, "label": -1})
    table = datasets.Dataset.from_list(rows, features=features)
    parts = datasets.DatasetDict({"train": table, "validation": table.select([0])})
    parts.save_to_disk(tmp_path / "parts")
    folder = open_folder(tmp_path / "parts")
    assert (folder.kind, folder.splits) == ("datasets", ("train", "val"))
    first, second = folder.read("train")
    assert first == Post(id="train-1", text="x", image=picture(), label="yes")
    assert (second.id, second.label) == ("train-2", None)
    assert folder.read("val")[0].id == "validation-1"

    table.save_to_disk(tmp_path / "whole")
    assert len(open_folder(tmp_path / "whole").read("all")) == 2


def test_a_datasets_folder_without_the_library_says_what_to_install(tmp_path, monkeypatch):
    datasets.Dataset.from_list([post("a")]).save_to_disk(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "miko_clf.data.hf", raising=False)
    line = message(lambda: open_folder(tmp_path))
    assert line.endswith("reading a datasets folder needs: pip install 'miko-clf[train]'")
    monkeypatch.undo()
    (tmp_path / "state.json").write_text("{}")
    importlib.import_module("miko_clf.data.hf")
    assert "is not a readable folder of the datasets library" in message(
        lambda: open_folder(tmp_path)
    )


def test_pictures_in_class_folders_are_labelled_by_folder(tmp_path):
    for part in ("train/cat/1.jpg", "train/dog/1.jpg", "valid/cat/1.jpg"):
        (tmp_path / part).parent.mkdir(parents=True)
        (tmp_path / part).write_bytes(picture())
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.splits) == ("imagefolder", ("train", "val"))
    assert [found.label for found in folder.read("train")] == ["cat", "dog"]
    assert [found.id for found in folder.read("val")] == ["valid/cat/1.jpg"]
    assert open_folder(tmp_path / "train").read("all")[0].label == "cat"


@pytest.mark.parametrize("place", ["metadata.csv", "train/metadata.csv"])
def test_pictures_beside_a_metadata_file_are_read_from_it(place, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").write_bytes(picture())
    name = "1.jpg" if place.startswith("train") else "train/1.jpg"
    (tmp_path / place).write_text(f"file_name,text,label\n{name},hello,x\n")
    folder = open_folder(tmp_path)
    assert folder.splits == ("train",)
    path = tmp_path / "train" / "1.jpg"
    assert folder.read("train") == [Post(id="train/1.jpg", text="hello", image=path, label="x")]
    (tmp_path / place).write_text("filename,text\n1.jpg,hello\n")
    assert "metadata.csv:1: unknown key 'filename'; did you mean 'file_name'?" in message(
        lambda: open_folder(tmp_path).read("train")
    )


def test_a_folder_of_no_known_kind_says_what_it_may_hold(tmp_path):
    assert "is not a data folder; it may hold train, val and test files" in message(
        lambda: open_folder(tmp_path)
    )
    assert "there is no such file" in message(lambda: open_folder(tmp_path / "none"))


def test_labels_are_sorted_and_of_one_kind():
    one, many = Post(id="a", text="x", label="z"), Post(id="b", text="x", label=("y", "a"))
    assert find_questions([many, Post(id="c", text="x")]).names == ("a", "y")
    assert "post 'b' has a list of labels and post 'a' one name" in message(
        lambda: find_questions([one, many])
    )
