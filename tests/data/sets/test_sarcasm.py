"""Published layouts on sarcasm: MMSD 1.0, MMSD2.0, what MIKO released of them, MUStARD."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.dataset import open_folder
from miko_clf.data.post import KeyInformation
from miko_clf.data.readers import SkipReport
from miko_clf.distil.relations import place_sentences
from miko_clf.errors import PostError
from tests.support.repository import SHARED

STEMS = (
    "After posting this Tweet, the user wants to", "After viewing this Tweet, others will",
    "The user posts this Tweet because the user is",
    "The user posts this Tweet because the user intended to",
    "After posting this Tweet, the user feels", "After viewing this Tweet, others feel",
    "After viewing this Tweet, others want to", "After posting this Tweet, the user will",
    "Before posting this Tweet, the user needs to", "The user posts this Tweet because",
)  # fmt: skip
TOLD = [f"{stem} thing {number}." for number, stem in enumerate(STEMS, 1)]
BENCHMARK, MAKE_UP = "MIKO_benchmark.json", "missing_data_train_intention_make_up.jsonl"


def tweet(name: int, label: int = 1) -> dict:
    return {"image_id": name, "text": f"text {name} ", "label": label}


def second(path: Path, **splits: list[dict]) -> Path:
    (path / "text_json_final").mkdir(parents=True)
    for name, rows in splits.items():
        (path / "text_json_final" / f"{name}.json").write_text(json.dumps(rows))
    return path


def first(path: Path, **files: str) -> Path:
    (path / "text").mkdir()
    for name, lines in files.items():
        (path / "text" / f"{name}.txt").write_text(lines, encoding="utf-8")
    return path


def picture(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(file)


def released(path: Path, *, benchmark: int | None = None, made_up: int | None = None) -> None:
    if benchmark is not None:
        row = {"image_name": f"{benchmark}.jpg", "text": "t", "intention_labels": [1, 0] * 5}
        row["intentions"] = {f"Intention {n}": text for n, text in enumerate(TOLD, 1)}
        (path / BENCHMARK).write_text(json.dumps([row]))
    if made_up is not None:
        lines = [f"Intention{n}: {text}" for n, text in enumerate(TOLD, 1)]
        lines[4] = f"Intention5: {TOLD[8]}"  # misnumbered
        row = {"image_id": f"{made_up}.jpg", "text": "t", "image_descrption": "a cat sleeps"}
        row |= {"keyinfo": "Concept: Rest.\nKeywords: cat, sleep.\n", "intention": "\n".join(lines)}
        (path / MAKE_UP).write_text(json.dumps(row | {"intention": row["intention"] + "\nInt"}))


def test_mmsd2_without_pictures_is_read_as_text_and_says_so(tmp_path, capsys):
    second(tmp_path, train=[tweet(1), tweet(2, 0)], valid=[tweet(3)])
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.splits) == ("mmsd2", ("train", "val"))
    one, two = folder.read("train")
    assert (one.id, one.text, one.label, one.image) == ("1", "text 1", "sarcastic", None)
    assert two.label == "not_sarcastic"
    assert folder.notes[0] == "no pictures lie in dataset_image/, so posts are read as text alone"
    assert "where MMSD2.0 is published with 19,816 (not_sarcastic 10,240" in folder.notes[1]
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(PostError, match="there is no split 'test'; there is train, val"):
        folder.read("test")


def test_a_picture_that_is_missing_among_others_is_refused_or_listed_and_never_passed_in_silence(
    tmp_path,
):
    second(tmp_path, train=[tweet(1), tweet(2)])
    (tmp_path / "dataset_image").mkdir()
    (tmp_path / "dataset_image" / "README.md").write_text("put the pictures here")
    assert len(open_folder(tmp_path).read("train")) == 2
    picture(tmp_path / "dataset_image" / "1.jpg")
    with pytest.raises(PostError, match=r"train.json row 2: image '.*2.jpg' does not exist"):
        open_folder(tmp_path).read("train")
    report = SkipReport()
    (only,) = open_folder(tmp_path, report=report).read("train")
    assert only.image == tmp_path / "dataset_image" / "1.jpg"
    assert [where for where, _ in report] == [f"{tmp_path}/text_json_final/train.json row 2"]


@pytest.mark.parametrize("place", ["extract_all", "extract/extract_all"])
def test_the_words_of_the_detector_become_a_description(place, tmp_path):
    second(tmp_path, train=[tweet(1), tweet(2)])
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("['1', 'cat', 'small', 'bed']\n")
    one, two = open_folder(tmp_path).read("train")
    assert (one.description, two.description) == ("a picture with cat, small, bed", None)
    (tmp_path / place).write_text("['1', 'cat']\n__import__('os').abort()\n")
    with pytest.raises(PostError, match="extract_all:2: a list of id and words is expected"):
        open_folder(tmp_path).read("train")


def test_what_miko_released_joins_on_the_image_and_names_its_file(tmp_path):
    second(tmp_path, train=[tweet(1), tweet(2), tweet(3)])
    (tmp_path / "extract_all").write_text("['3', 'cat', 'small']\n")
    released(tmp_path, benchmark=1)
    assert open_folder(tmp_path).read("train")[2].description == "a picture with cat, small"
    released(tmp_path, made_up=2)
    folder = open_folder(tmp_path)
    marked, made_up, bare = folder.read("train")
    assert [each.text for each in marked.intentions] == TOLD
    assert [each.relation for each in marked.intentions[:2]] == ["xWant", "oEffect"]
    assert [each.plausibility for each in marked.intentions] == [1.0, 0.0] * 5
    assert {each.provenance["source"] for each in marked.intentions} == {BENCHMARK}
    assert (made_up.text, made_up.description) == ("text 2", "a cat sleeps")
    assert made_up.key_information == KeyInformation(concept="Rest", keywords=("cat", "sleep"))
    assert [each.relation for each in made_up.intentions].count("xNeed") == 1
    assert len(made_up.intentions) == 9  # without the misnumbered fifth
    assert made_up.intentions[-1].text == TOLD[9]  # and without the beginning of an eleventh
    assert {each.provenance["source"] for each in made_up.intentions} == {MAKE_UP}
    assert (bare.intentions, bare.description) == ((), None)  # the detector is not mixed in
    assert f"joined on the image id: {BENCHMARK}, {MAKE_UP}; the files differ" in folder.notes[1]


def test_a_released_file_that_is_damaged_is_named_with_its_line(tmp_path):
    second(tmp_path, train=[tweet(1)])
    (tmp_path / MAKE_UP).write_text('{"image_id": "1.jpg"}\n')
    with pytest.raises(PostError, match=r"make_up.jsonl:1: image_descrption must be a string"):
        open_folder(tmp_path).read("train")
    (tmp_path / MAKE_UP).write_text("[]\n")
    with pytest.raises(PostError, match=r"make_up.jsonl:1: a JSON object is expected, not a list"):
        open_folder(tmp_path).read("train")


def test_mmsd_1_reads_literal_lists_and_leaves_out_what_its_authors_leave_out(tmp_path):
    train = "['1', 'oh great # fun ', 1]\n['2', 'dry humor', 1]\n[\"3\", \"it 's ok\", 0]\n"
    first(tmp_path, train=train, valid2="['4', 'nice', 1, 0]\n", test2="\ufeff['5', 'so', 0, 1]\n")
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.splits) == ("mmsd", ("train", "val", "test"))
    assert [(post.id, post.label) for post in folder.read("train")] == [
        ("1", "sarcastic"), ("3", "not_sarcastic"),
    ]  # fmt: skip
    assert [where for where, _ in folder.left] == [f"{tmp_path}/text/train.txt:2"]
    assert folder.read("val")[0].label == "not_sarcastic"  # what a person said
    assert folder.read("test")[0].label == "sarcastic"
    assert open_folder(tmp_path, task="hashtag").read("val")[0].label == "sarcastic"


@pytest.mark.parametrize("line", ["['1', 'x']", "__import__('os').getcwd()", "['1', 'x', 2]", "("])
def test_a_line_of_mmsd_1_that_is_no_post_is_refused_and_not_run(line, tmp_path):
    first(tmp_path, train=f"{line}\n", valid2="['4', 'nice', 1, 0]\n")
    with pytest.raises(PostError, match=r"train.txt:1: "):
        open_folder(tmp_path).read("train")


def test_a_folder_of_somebodys_texts_is_not_taken_for_mmsd_1(tmp_path):
    first(tmp_path, train="hello\n")
    with pytest.raises(PostError, match="is not a data folder"):
        open_folder(tmp_path)


def line(utterance: str, *context: str, show: str = "BBT", sarcasm: bool = True) -> dict:
    fields = {"utterance": utterance, "speaker": "SHELDON", "context": list(context)}
    return fields | {"context_speakers": [], "show": show, "sarcasm": sarcasm}


SCENES = {
    "1_1": line("Sure, that will work.", "What?", "Shall we use the old bridge?"),
    "1_2": line("It fell last year.", "sure, that  will work.", sarcasm=False),
    "2_1": line("Could it be any later?", "What?", show="FRIENDS"),
}


@pytest.mark.parametrize("folder", ["", "data"])
def test_mustard_is_split_by_show_and_grouped_by_scene_and_never_tells_the_speaker(
    folder, tmp_path
):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "sarcasm_data.json").write_text(json.dumps(SCENES))
    found = open_folder(tmp_path)
    one, two = found.read("train")
    (other,) = found.read("test")
    assert (found.kind, one.text, one.label) == ("mustard", "Sure, that will work.", "sarcastic")
    assert (two.label, one.group == two.group, one.group == other.group) == (
        "not_sarcastic", True, False,
    )  # fmt: skip
    assert "SHELDON" not in one.model_dump_json()
    assert found.notes[0].startswith("the split is the published one by show: test is FRIENDS")
    assert "in all: 3 (not_sarcastic 1, sarcastic 2) posts, where MUStARD" in found.notes[1]
    before = open_folder(tmp_path, task="sarcasm-in-context").read("train")[0]
    assert before.text == "What?\nShall we use the old bridge?\nSure, that will work."


def test_mustard_without_shows_or_with_a_seed_is_divided_by_scene(tmp_path):
    scenes = {
        f"1_{i}": line(f"and so said number {i // 2}", show="", sarcasm=i % 2 == 0)
        for i in range(60)
    }
    (tmp_path / "sarcasm_data.json").write_text(json.dumps(scenes))
    assert open_folder(tmp_path).splits == ("all",)
    folder = open_folder(tmp_path, split_seed=1)
    groups = [{post.group for post in folder.read(split)} for split in folder.splits]
    assert folder.splits == ("train", "val", "test")
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def _real(name: str) -> Path:
    if not (SHARED / "data" / name).is_dir():
        pytest.skip(f"{name} is not beside the project (MIKO_SHARED names its folder)")
    return SHARED / "data" / name


@pytest.mark.real
def test_mmsd2_has_the_counts_that_its_authors_publish(tmp_path):
    folder = open_folder(_real("mmsd2"))
    found = {split: folder.read(split) for split in folder.splits}
    assert {split: Counter(post.label for post in posts) for split, posts in found.items()} == {
        "train": {"sarcastic": 9576, "not_sarcastic": 10240},
        "val": {"sarcastic": 1042, "not_sarcastic": 1368},
    }
    assert all(post.description for posts in found.values() for post in posts)
    assert folder.notes == ["no pictures lie in dataset_image/, so posts are read as text alone"]


@pytest.mark.real
def test_mikos_files_join_mmsd2_as_they_are_read_for_the_knowledge_base(tmp_path):
    (tmp_path / "text_json_final").symlink_to(_real("mmsd2") / "text_json_final")
    (tmp_path / "miko").symlink_to(_real("miko"))
    folder = open_folder(tmp_path)
    train = {post.id: post for post in folder.read("train")}
    told = [post for post in train.values() if post.intentions]
    sources = Counter(post.intentions[0].provenance["source"] for post in told)
    assert sources.pop(BENCHMARK) == 472
    assert sorted(sources.values()) == [218, 727]
    assert all(len({each.provenance["source"] for each in post.intentions}) == 1 for post in told)
    assert all(post.description for post in folder.read("val"))
    for row in json.loads((tmp_path / "miko" / BENCHMARK).read_text()):
        post = train.get(Path(row["image_name"]).stem)
        if post is not None:
            texts = place_sentences(json.dumps(row["intentions"])).texts
            assert {each.relation: each.text for each in post.intentions} == texts
