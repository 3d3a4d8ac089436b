"""Published layouts of memes: Hateful Memes, MAMI, MultiOFF and PrideMM."""

import json
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.dataset import open_folder
from miko_clf.data.readers import SkipReport
from miko_clf.errors import PostError
from miko_clf.experiment import folds
from miko_clf.experiment.design import PostSource

NAMED = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(file)
    return file


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def hateful(path: Path, images: Path, **splits: list[int]) -> Path:
    for split, numbers in splits.items():
        rows = [
            {"id": n, "img": f"img/{n:05}.png", "label": n % 2, "text": f" meme {n}"}
            for n in numbers
        ]
        write(path / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for n in numbers:
            picture(images / "img" / f"{n:05}.png")
    return path


@pytest.mark.parametrize("inside", [False, True])
def test_hateful_memes_keeps_the_name_of_every_split_and_has_no_plain_test(inside, tmp_path):
    root = tmp_path / "annotations" if inside else tmp_path
    images = tmp_path / "images" if inside else tmp_path
    hateful(root, images, **{split: [n + 1] for n, split in enumerate(NAMED)})
    folder = open_folder(tmp_path)
    assert (folder.kind, folder.splits) == ("hateful-memes", NAMED)
    (post,) = folder.read("train")
    assert (post.id, post.text, post.label) == ("00001", "meme 1", "hateful")
    assert post.image == images / "img" / "00001.png"
    assert folder.read("val") == folder.read("dev_seen")
    assert folder.fingerprint("val") == folder.fingerprint("dev_seen")
    assert folder.read("test_unseen")[0].id == "00005"
    with pytest.raises(PostError) as caught:
        folder.read("test")
    assert "there is no split 'test'; there is train, dev_seen, dev_unseen, test_seen, test_un" in (
        line := str(caught.value)
    )
    assert "papers report test_seen (1,000 posts), test_unseen (2,000) or dev_seen (500)" in line
    assert folder.notes[0].startswith("val is dev_seen, as with Hate-CLIPper and RGCL")


def test_without_dev_seen_hateful_memes_has_no_val(tmp_path):
    folder = open_folder(hateful(tmp_path, tmp_path, train=[1], dev_unseen=[2]))
    with pytest.raises(PostError, match="there is no split 'val'; there is train, dev_unseen"):
        folder.read("val")


def test_the_two_dev_sets_of_hateful_memes_may_share_memes_and_no_other_splits_may(tmp_path):
    folder = open_folder(
        hateful(tmp_path, tmp_path, train=[1], dev_seen=[2], dev_unseen=[2], test_seen=[1])
    )
    assert [folder.read(split)[0].id for split in NAMED[:3]] == ["00001", "00002", "00002"]
    with pytest.raises(PostError, match="id '00001' stands in train too"):
        folder.read("test_seen")


def test_cross_validation_takes_a_meme_of_both_dev_sets_once(tmp_path):
    hateful(tmp_path, tmp_path, train=[1], dev_seen=[2, 3], dev_unseen=[3, 4], test_seen=[5])
    every = folds.read_labelled_posts(PostSource(str(tmp_path)), folds.OUT_OF_FOLD)
    assert [post.id for post in every] == ["00001", "00002", "00003", "00004"]


def test_the_first_release_of_hateful_memes_is_the_seen_one_and_its_test_has_no_labels(tmp_path):
    hateful(tmp_path, tmp_path, train=[1], dev=[2], test=[3])
    row = {"id": 3, "img": "img/00003.png", "text": "x"}
    write(tmp_path / "test.jsonl", json.dumps(row) + "\n")
    folder = open_folder(tmp_path)
    assert folder.splits == ("train", "dev_seen", "test_seen")
    assert (folder.read("val")[0].label, folder.read("test_seen")[0].label) == ("not_hateful", None)


def test_a_count_that_is_one_of_two_published_ones_is_not_told(tmp_path):
    hateful(tmp_path, tmp_path, dev_seen=[*range(1, 495, 2), *range(2, 508, 2)])
    folder = open_folder(tmp_path)
    assert len(folder.read("dev_seen")) == 247 + 253
    assert len(folder.notes) == 1  # on val
    hateful(tmp_path, tmp_path, dev_seen=[*range(1, 493, 2), *range(2, 510, 2)])
    folder = open_folder(tmp_path)
    folder.read("dev_seen")
    assert folder.notes[1] == (
        "dev_seen: 500 (hateful 246, not_hateful 254) posts, where Hateful Memes is published with "
        "500 (hateful 250, not_hateful 250 or hateful 247, not_hateful 253)"
    )


MAMI = "file_name\tmisogynous\tshaming\tstereotype\tobjectification\tviolence\tText Transcription\n"


def mami(path: Path, *, labelled: bool = True) -> Path:
    rows = '1.jpg\t1\t0\t1\t1\t0\t"she said\t""no"",\ntwice"\n2.jpg\t0\t0\t0\t0\t0\tplain "quote\n'
    write(path / "TRAINING" / "training.csv", "\ufeff" + MAMI + rows)
    write(path / "test" / "Test.csv", "file_name\tText Transcription\n9.jpg\tlast\n")
    if labelled:
        write(path / "test_labels.txt", "9.jpg\t1\t0\t0\t0\t1\n")
    for name in ("TRAINING/1.jpg", "TRAINING/2.jpg", "test/9.jpg"):
        picture(path / name)
    return path


def test_mami_is_read_by_tabs_with_quotes_marks_of_their_own_and_no_val(tmp_path):
    folder = open_folder(mami(tmp_path))
    assert (folder.kind, folder.splits) == ("mami", ("train", "test"))
    one, two = folder.read("train")
    assert (one.id, one.label, one.text) == ("1", "misogynous", 'she said\t"no",\ntwice')
    assert (two.label, two.text) == ("not_misogynous", 'plain "quote')
    assert one.image == tmp_path / "TRAINING" / "1.jpg"
    assert folder.read("test")[0].label == "misogynous"
    assert folder.notes[0].endswith("where MAMI is published with 10,000 (by class unknown)")
    with pytest.raises(PostError, match="there is no split 'val'; there is train, test"):
        folder.read("val")


def test_the_kinds_of_misogyny_are_a_task_of_several_labels(tmp_path):
    folder = open_folder(mami(tmp_path), task="kinds")
    assert [post.label for post in folder.read("train")] == [("stereotype", "objectification"), ()]
    assert folder.read("test")[0].label == ("violence",)
    with pytest.raises(PostError, match="MAMI has no task 'kind'; choose from misogyny, kinds"):
        open_folder(tmp_path, task="kind")


def test_a_mami_test_without_marks_is_unlabelled_and_one_without_its_own_is_refused(tmp_path):
    assert open_folder(mami(tmp_path, labelled=False)).read("test")[0].label is None
    write(tmp_path / "test_labels.txt", "8.jpg\t1\t0\t0\t0\t1\n")
    with pytest.raises(PostError, match=r"Test.csv:2: '9.jpg' has no marks in test_labels.txt"):
        open_folder(tmp_path).read("test")
    write(tmp_path / "test_labels.txt", "9.jpg\t1\n")
    with pytest.raises(PostError, match=r"labels.txt:1: a file name and 5 marks are expected"):
        open_folder(tmp_path).read("test")


def test_a_training_file_of_somebody_else_is_not_taken_for_mami(tmp_path):
    write(tmp_path / "training.csv", "id,text,label,split\na,hello,x,train\n")
    assert open_folder(tmp_path).kind == "csv"


OFFENCE = "image_name,sentence,label\n"


def multioff(path: Path) -> Path:
    rows = {"Training": 'a.png,"one, two",offensive\nb.jpg,three,Non-offensiv\n'}
    rows |= {"Validation": "c.png,four,Non-offensiv\n", "Testing": "d.png,five,offensive\n"}
    for name, lines in rows.items():
        write(path / "Split Dataset" / f"{name}_meme_dataset.csv", OFFENCE + lines)
    for name in ("a.png", "b.jpg", "c.png", "d.png"):
        picture(path / "Labelled Images" / name)
    return path


def test_multioff_is_read_as_its_three_tables_lay_it_out(tmp_path):
    folder = open_folder(multioff(tmp_path))
    assert (folder.kind, folder.splits) == ("multioff", ("train", "val", "test"))
    one, two = folder.read("train")
    assert (one.text, one.label, two.label) == ("one, two", "offensive", "not_offensive")
    assert one.image == tmp_path / "Labelled Images" / "a.png"
    assert [folder.read(split)[0].text for split in ("val", "test")] == ["four", "five"]
    assert "where MultiOFF is published with 445 (by class unknown)" in folder.notes[0]


def test_a_damaged_row_of_multioff_is_named_and_can_be_passed_over(tmp_path):
    file = multioff(tmp_path) / "Split Dataset" / "Training_meme_dataset.csv"
    write(file, OFFENCE + "a.png,one,offensive\nb.jpg,three\nc.png,four,maybe\nz.png,x,offensive\n")
    with pytest.raises(PostError, match=r"dataset.csv:3: 2 cells under 3 columns"):
        open_folder(tmp_path).read("train")
    report = SkipReport()
    assert len(open_folder(tmp_path, report=report).read("train")) == 1
    assert [where.rsplit(":", 1)[1] for where, _ in report] == ["3", "4", "5"]
    reasons = [why for _, why in report]
    assert "label must be offensive or Non-offensiv, not 'maybe'" in reasons
    assert reasons[2].endswith("z.png' does not exist")
    write(file, "image,sentence,label\na.png,one,offensive\n")
    with pytest.raises(PostError, match=r"csv:1: column 'image_name' is required; there is \['im"):
        open_folder(tmp_path).read("train")
    file.write_bytes(OFFENCE.encode() + b"a.png,caf\xe9,offensive\n")
    with pytest.raises(PostError, match=r"dataset.csv: is not UTF-8"):
        open_folder(tmp_path).read("train")


PRIDE = "name,split,text,hate,target,stance,humour\n"


def pride(path: Path, rows: str) -> Path:
    write(path / "PrideMM.csv", PRIDE + rows)
    for name in ("img_1.png", "img_2.png", "img_3.png"):
        picture(path / "Images" / name)
    return path


ROWS = "img_1.png,train,None,1,2.0,2,0\nimg_2.png,train,hi,0,NA,1,1\nimg_3.png,val,ho,0,,0,1\n"


@pytest.mark.parametrize(
    ("task", "train", "val"),
    [
        (None, ["hate", "no_hate"], "no_hate"),
        ("stance", ["oppose", "support"], "neutral"),
        ("humor", ["no_humor", "humor"], "humor"),
    ],
)
def test_pridemm_offers_its_tasks_and_is_divided_by_its_column(task, train, val, tmp_path):
    folder = open_folder(pride(tmp_path, ROWS), task=task)
    assert (folder.kind, folder.splits) == ("pridemm", ("train", "val"))
    posts = folder.read("train")
    assert ([post.label for post in posts], posts[0].text, posts[1].text) == (train, None, "hi")
    assert folder.notes == []  # by split nothing is known
    assert folder.read("val")[0].label == val
    assert folder.notes[0].startswith("in all: 3 (")
    assert "where PrideMM is published with 5,063 (" in folder.notes[0]


def test_the_target_of_hate_is_that_of_hateful_memes(tmp_path):
    folder = open_folder(pride(tmp_path, ROWS), task="target")
    assert [post.label for post in folder.read("train")] == ["community"]
    assert [where.rsplit(":", 1)[1] for where, _ in folder.left] == ["3"]
    with pytest.raises(PostError, match="choose from hate, target, stance, humor; did you mean 'h"):
        open_folder(tmp_path, task="humour")


def test_a_row_of_pridemm_outside_every_split_or_class_is_refused(tmp_path):
    folder = open_folder(pride(tmp_path, "img_1.png,train,x,7,,0,0\nimg_2.png,tset,x,0,,0,0\n"))
    with pytest.raises(PostError, match=r"PrideMM.csv:2: hate must be 0 or 1, not '7'"):
        folder.read("train")
    pride(tmp_path, "img_1.png,train,x,1,,0,0\nimg_2.png,tset,x,0,,0,0\n")
    with pytest.raises(PostError, match=r"PrideMM.csv:3: split 'tset' is unknown"):
        open_folder(tmp_path).read("train")
    pride(tmp_path, "img_2.png,tset,x,0,,0,0\n")
    with pytest.raises(PostError, match="no row is of train, val or test by its column split"):
        open_folder(tmp_path)


def test_sets_without_their_pictures_are_read_as_text_and_say_so(tmp_path):
    pride(tmp_path, ROWS)
    (tmp_path / "Images").rename(tmp_path / "elsewhere")
    folder = open_folder(tmp_path)
    assert folder.notes == ["no pictures lie in Images/, so posts are read as text alone"]
    with pytest.raises(PostError, match=r"csv:2: neither text nor image is given"):
        folder.read("train")
    assert folder.read("val")[0].image is None
