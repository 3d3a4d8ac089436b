"""Published layouts: HarMeme, and what holds for every set."""

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.dataset import PUBLISHED_SETS, open_folder
from miko_clf.data.post import Rationale
from miko_clf.data.readers import SkipReport
from miko_clf.errors import PostError


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


def test_a_test_set_that_shares_memes_with_train_is_refused_though_no_id_stands_twice(tmp_path):
    lay(tmp_path, meme("a", "very harmful"), meme("b", "not harmful"))
    lay(tmp_path, meme("c", "very harmful"), meme("b", "not harmful"), split="test")
    folder = open_folder(tmp_path, report=SkipReport())
    with pytest.raises(
        PostError, match=r"test.jsonl: 1 of 2 rows stand in train.jsonl too, as 260"
    ):
        folder.read("test")


@pytest.mark.parametrize("inside", [True, False])
def test_harm_p_is_known_by_its_file_names_and_leaves_its_unlabelled_row_out(inside, tmp_path):
    lay(tmp_path, meme("a", "very harmful"), meme("b", ""), meme("c", "not harmful"))
    file = tmp_path / "annotations" / "train.jsonl"
    file.rename((file.parent if inside else tmp_path) / "train_v1.jsonl")
    report = SkipReport()
    for given in (None, report):
        folder = open_folder(tmp_path, report=given)
        assert [post.id for post in folder.read("train")] == ["a", "c"]
        ((where, why),) = folder.left
        assert where.endswith("train_v1.jsonl:2")
        assert why == "has no label, as one train row of Harm-P was published"
        assert folder.notes[0].startswith("train: 1 row left out, the first at ")
        assert "Harm-P is published with 2,937" in folder.notes[1]
    assert list(report) == list(folder.left)


def test_annotations_of_both_sets_of_harmeme_in_one_folder_are_refused(tmp_path):
    lay(tmp_path, meme("a", "very harmful"))
    lay(tmp_path, meme("b", "very harmful"), split="test_v1")
    with pytest.raises(PostError, match="holds annotations of Harm-C and of Harm-P; keep one"):
        open_folder(tmp_path)


def test_the_target_of_harm_is_a_task_of_harmful_memes_alone(tmp_path):
    rows = [meme("a", "very harmful", "society"), meme("b", "not harmful")]
    lay(tmp_path, *rows, meme("c", "somewhat harmful", "individual"))
    folder = open_folder(tmp_path, task="target")
    assert [(p.id, p.label) for p in folder.read("train")] == [
        ("a", "society"),
        ("c", "individual"),
    ]
    assert [why for _, why in folder.left] == ["is not harmful, so it has no target"]
    lay(tmp_path, meme("d", "very harmful"))
    with pytest.raises(PostError, match="must name a target, individual or organization or"):
        open_folder(tmp_path, task="target").read("train")


def test_a_task_that_is_not_there_names_those_that_are(tmp_path):
    lay(tmp_path, meme("a", "very harmful"))
    with pytest.raises(
        PostError, match="Harm-C has no task 'targte'; choose from harm, target; di"
    ):
        open_folder(tmp_path, task="targte")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.jsonl").write_text('{"id": "a", "text": "x"}\n')
    with pytest.raises(
        PostError, match="has labels for one thing alone, so there is no task 'harm'"
    ):
        open_folder(tmp_path / "own", task="harm")


def test_counts_that_are_not_the_published_ones_are_told_in_one_line_once(tmp_path, capsys):
    lay(tmp_path, meme("a", "very harmful"), meme("b", "not harmful"))
    folder = open_folder(tmp_path)
    folder.read("train")
    folder.read("train")
    line = (
        "train: 2 (harmful 1, harmless 1) posts, where Harm-C is published with 3,013 "
        "(harmful 1,064, harmless 1,949)"
    )
    assert folder.notes == [line]
    assert capsys.readouterr().err == f"{tmp_path}: {line}\n"
    folder = open_folder(tmp_path, label_map={"very harmful": "worst"})
    folder.read("train")
    assert folder.notes == []


def test_what_is_known_says_counts_files_and_what_it_was_checked_on():
    found = {each.name: each for each in PUBLISHED_SETS}
    assert list(found) == [
        "Hateful Memes", "Harm-C", "Harm-P", "MMSD2.0", "MMSD 1.0", "MAMI", "MultiOFF", "PrideMM",
        "MUStARD",
    ]  # fmt: skip
    assert all(each.tasks and each.files and each.what for each in found.values())
    real = [name for name, each in found.items() if each.checked_on.startswith("the real files")]
    assert real == ["Harm-C", "MMSD2.0"]
    shown = [count.line() for count in found["Harm-C"].splits.values() if count]
    assert shown[2] == "354 (harmful 124, harmless 230)"
    assert found["MMSD 1.0"].splits["train"].line() == "19,816 (by class unknown)"
    assert set(found["PrideMM"].splits.values()) == {None}


@pytest.mark.real
def test_harm_c_has_the_counts_that_its_authors_publish(harm_c, capsys):
    folder = open_folder(harm_c)
    found = {split: folder.read(split) for split in folder.splits}
    assert {split: len(posts) for split, posts in found.items()} == {
        "train": 3013, "val": 177, "test": 354,
    }  # fmt: skip
    assert Counter(post.label for post in found["test"]) == {"harmless": 230, "harmful": 124}
    assert all(post.rationale and post.rationale.saw_label for post in found["train"])
    assert not any(post.rationale for post in found["test"])
    assert all(post.description for posts in found.values() for post in posts)
    assert (folder.notes, len(folder.left), capsys.readouterr().err) == ([], 0, "")


@pytest.mark.real
def test_harm_c_by_target_leaves_every_harmless_meme_out(harm_c):
    folder = open_folder(harm_c, task="target")
    assert len(folder.read("val")) == 61
    assert len(folder.left) == 116
