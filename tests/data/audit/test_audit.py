"""What is a leak and what is none, and the copy without it."""

import json
import random
from pathlib import Path

import pytest

from miko_clf.data.audit.audit import audit_posts
from miko_clf.data.audit.clean import choose_dropped_posts
from miko_clf.data.audit.overlaps import read_compared_posts
from miko_clf.data.dataset import open_folder
from tests.support.audited_posts import (
    LABELS,
    count_findings,
    draw_picture,
    make_plain_rows,
    make_words,
    run_audit,
    write_folder,
)
from tests.support.command_line import assert_one_line_error, run_command


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test as in version 0 of Harm-P: 73 of 100 test posts stand in train, whole."""
    train = make_plain_rows(0, 160)
    test = train[:73] + make_plain_rows(200, 27)
    return write_folder(tmp_path_factory.mktemp("overlap") / "v0", {"train": train, "test": test})


@pytest.fixture(scope="module")
def contrasted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Posts as in Hateful Memes: each text under two images, each image over two texts."""
    rows = {"train": [], "val": [], "test": []}
    for number in range(90):
        text, other = make_words(number), make_words(1000 + number)
        four = [(text, number, 1), (other, number, 0), (text, 500 + number, 0)]
        for place, (said, image, label) in enumerate(four):
            split = ("train", "val", "test")[(number + place) % 3]
            name = f"{number:03}-{place}"
            row = {"id": name, "text": said, "image": image, "label": LABELS[label]}
            rows[split].append(row)
    return write_folder(tmp_path_factory.mktemp("contrasted") / "fhm", rows)


def test_posts_on_two_sides_of_a_split_are_a_leak_worth_what_a_look_up_scores(
    overlapping: Path, tmp_path: Path
) -> None:
    ended = run_command("audit", overlapping, "--out", tmp_path / "out")
    assert ended.code == 1
    assert "leak: 73 posts on both sides of a split" in ended.out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    by = {each["key"]: each for each in found["lookups"]}
    for key in ("id", "near text", "near image", "near post"):
        assert by[key]["found"] == by[key]["right"] == 73
        assert 0.85 < by[key]["accuracy"] < 0.89
        assert by[key]["leak"] == (key != "id")  # which no model sees
    assert "73 ids in more than one split" in " ".join(found["warnings"])


def test_the_clean_copy_of_a_leaking_folder_does_not_leak(
    overlapping: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "clean"
    first = run_command("audit", overlapping, "--out", tmp_path / "a", "--write-clean", copy)
    assert first.code == 1
    assert f"clean:  {copy}, 73 posts left out" in first.out
    second = run_command("audit", copy, "--out", tmp_path / "b")
    assert second.code == 0, second.out
    data = open_folder(copy)
    assert {split: len(data.read(split)) for split in data.splits} == {"train": 87, "test": 100}
    lines = [json.loads(line) for line in (copy / "dropped.jsonl").read_text().splitlines()]
    assert len(lines) == 73
    assert {line["split"] for line in lines} == {"train"}
    assert lines[0]["reason"] == "text and image are like those of p0 of test"


def test_a_clean_copy_never_replaces_a_folder(overlapping: Path, tmp_path: Path) -> None:
    ended = run_command(
        "audit", overlapping, "--out", tmp_path / "out", "--write-clean", overlapping
    )
    assert_one_line_error(ended, "is there already", "new folder")
    assert not (tmp_path / "out").exists()


def test_contrast_sets_are_listed_and_are_no_leak(contrasted: Path, tmp_path: Path) -> None:
    ended = run_command("audit", contrasted, "--out", tmp_path)
    assert ended.code == 0, ended.out
    assert "no leak" in ended.out
    found = run_audit(contrasted)
    assert count_findings(found, "text") == (90, 90, 90)
    assert count_findings(found, "image") == (90, 90, 90)
    assert count_findings(found, "near post") == (0, 0, 0)
    assert {each.shared: len(each.groups) for each in found.contrast_sets} == {
        "text": 90,
        "image": 90,
    }
    assert any(each.found > 20 for each in found.lookups)


@pytest.mark.parametrize(("share", "code"), [((0.64, 0.37), 1), ((0.10, 0.10), 0)])
def test_a_hashtag_that_tells_the_class_is_a_shortcut(
    share: tuple[float, float], code: int, tmp_path: Path
) -> None:
    chance = random.Random(0)
    rows = [
        {
            "id": str(chance.getrandbits(60)),
            "text": make_words(row) + (" #tag" if chance.random() < share[row % 2] else ""),
            "label": ("sarcastic", "not_sarcastic")[row % 2],
        }
        for row in range(1000)
    ]
    data = write_folder(tmp_path / "tags", {"train": rows[:800], "val": rows[800:]})
    ended = run_command("audit", data, "--out", tmp_path / "out")
    assert ended.code == code, ended.out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    cue = next(each for each in found["cues"] if each["name"] == "hashtag")
    assert cue["verdict"] == ("shortcut" if code else "no finding")
    if code:
        assert "leak: hashtag alone tells" in ended.out
        assert cue["auroc"] == pytest.approx(0.635, abs=0.03)
        assert cue["held"]["val"] > 0.55


def test_an_id_that_tells_the_class_is_a_warning_and_no_leak(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 120)
    for row in rows:
        row["label"] = LABELS[int(row["id"][1:]) < 60]
    found = run_audit(write_folder(tmp_path, {"train": rows}))
    cue = next(each for each in found.cues if each.name == "number in the id")
    assert (cue.verdict, cue.reaches, cue.auroc) == ("never feed this", False, 1.0)
    assert found.leaks == ()
    assert any("number in the id" in line for line in found.warnings)


def test_a_description_that_names_the_class_is_a_shortcut(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 120)
    for row in rows:
        row["description"] = "a harmful joke" if row["label"] == "harmful" else "a man on a dog"
    found = run_audit(write_folder(tmp_path, {"train": rows}))
    assert found.leaks == ("class named in description alone tells harmful with AUROC 1.00",)
    shares = {each.label: (each.own, each.any) for each in found.class_mentions}
    assert shares == {"harmful": (1.0, 1.0), "harmless": (0.0, 0.0)}


def test_a_rationale_that_saw_the_label_is_no_input_and_no_shortcut(tmp_path: Path) -> None:
    rows = make_plain_rows(0, 120)
    for row in rows:
        row["rationale"] = {"text": f"It is {row['label']}.", "saw_label": True}
    found = run_audit(write_folder(tmp_path / "saw", {"train": rows}))
    assert found.leaks == found.class_mentions == ()
    for row in rows:
        row["rationale"]["saw_label"] = False
    told = run_audit(write_folder(tmp_path / "did-not", {"train": rows}))
    assert {each.source for each in told.class_mentions} == {"rationale"}


def test_a_recoloured_copy_with_a_comma_more_is_the_same_post(tmp_path: Path) -> None:
    rows = {
        "train": make_plain_rows(0, 30),
        "val": make_plain_rows(100, 10),
        "test": make_plain_rows(200, 10),
    }
    path = write_folder(tmp_path / "near", rows)
    draw_picture(3, (192, 144)).save(path / "images" / "again.jpg", quality=60)
    again = {"text": make_words(3) + ",", "image": "images/again.jpg", "label": "harmless"}
    rows["test"].append({"id": "again", **again})
    found = run_audit(write_folder(path, rows))
    assert count_findings(found, "post") == (0, 0, 0)
    assert count_findings(found, "near post") == (1, 1, 1)
    assert found.leaks[0].startswith("1 post on both sides")
    group = next(each for each in found.overlaps if each.key == "near post").groups[0]
    assert [(each.split, each.id, each.label) for each in group.members] == [
        ("train", "p3", "harmful"),
        ("test", "again", "harmless"),
    ]


def test_a_text_that_predicts_the_label_elsewhere_is_a_leak_and_the_copy_mends_it(
    tmp_path: Path,
) -> None:
    train, test = make_plain_rows(0, 100), make_plain_rows(200, 60)
    for row in range(40):
        test[row]["text"], test[row]["label"] = train[row]["text"], train[row]["label"]
    path = write_folder(tmp_path / "texts", {"train": train, "test": test})
    seen = read_compared_posts(path)
    found = audit_posts(seen)
    assert count_findings(found, "near post") == (0, 0, 0)
    assert len(found.leaks) == 1
    assert "40 of 60 test posts share a train post's text" in found.leaks[0]
    assert {seen.posts[row].id for row in choose_dropped_posts(seen)} == {
        f"p{row}" for row in range(40)
    }


def test_val_gives_way_to_test_and_train_to_both(tmp_path: Path) -> None:
    same = {"text": make_words(1), "image": 1, "label": "harmful"}
    rows = {
        split: [*make_plain_rows(start, 20), {"id": split, **same}]
        for split, start in (("train", 100), ("val", 200), ("test", 300))
    }
    seen = read_compared_posts(write_folder(tmp_path, rows))
    assert {each.id for each in choose_dropped_posts(seen).values()} == {"train", "val"}


def test_ids_that_two_splits_use_for_different_posts_are_told_apart_in_the_copy(
    tmp_path: Path,
) -> None:
    train, test = make_plain_rows(0, 30), make_plain_rows(100, 30)
    for number, row in enumerate(test):
        row["id"] = f"p{number}"
    path = write_folder(tmp_path / "ids", {"train": train, "test": test})
    copy = tmp_path / "copy"
    ended = run_command("audit", path, "--out", tmp_path / "out", "--write-clean", copy)
    assert ended.code == 0, ended.out
    assert "30 ids in more than one split" in ended.out
    data = open_folder(copy)
    assert [len(data.read(split)) for split in data.splits] == [30, 30]
    assert data.read("test")[0].id == "test/p0"
