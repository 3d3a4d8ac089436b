"""The cheap part of an audit, which runs before every training."""

import time
from pathlib import Path
from typing import Any

from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.post import Post
from tests.support.audited_posts import draw_picture, make_words
from tests.support.command_line import run_python


def posts(start: int, count: int, image: Path | bytes | None = None, **more: Any) -> list[Post]:
    """Return posts of their own text, labelled by turns."""
    return [
        Post(id=f"p{row}", text=make_words(row), image=image, label="ab"[row % 2]).model_copy(
            update=more
        )
        for row in range(start, start + count)
    ]


def test_posts_that_stand_in_train_whole_are_told_and_what_they_are_worth() -> None:
    train = posts(0, 100)
    told = list_quick_warnings({"train": train, "val": train[:30] + posts(200, 30)})
    assert told[0] == "30 of 60 val posts stand in train, text and image alike"
    assert told[1].startswith("30 of 60 val posts share a train post's text: answering its label")
    assert len(told) == 2


def test_files_of_the_same_bytes_are_told_whatever_they_are_called(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_picture(seed).save(tmp_path / f"{name}.png")
    one, same, other = (tmp_path / f"{name}.png" for name in "abc")
    train = [post.model_copy(update={"image": one}) for post in posts(0, 1)]
    for image, told in ((same, 1), (other, 0), (same.read_bytes(), 1), (None, 0)):
        val = [post.model_copy(update={"image": image}) for post in posts(0, 1)]
        assert len(list_quick_warnings({"train": train, "val": val})) == told


def test_texts_that_say_nothing_of_the_label_are_not_told() -> None:
    train = posts(0, 100, image=b"of train")
    flipped = [
        post.model_copy(update={"label": "ba"[row % 2], "image": b"x"})
        for row, post in enumerate(train[:60])
    ]
    assert list_quick_warnings({"train": train, "val": flipped}) == []


def test_a_mark_that_tells_the_label_is_told() -> None:
    train = posts(0, 200)
    marked = [
        post.model_copy(update={"text": f"{post.text} #so"}) if row % 4 == 1 else post
        for row, post in enumerate(train)
    ]
    assert list_quick_warnings({"train": marked, "val": posts(300, 40)}) == [
        "hashtag alone tells b with AUROC 0.75"
    ]


def test_an_input_that_train_hardly_has_is_told() -> None:
    train, val = posts(0, 50), posts(100, 50, description="a cat")
    (told,) = list_quick_warnings({"train": train + posts(60, 5, description="a dog"), "val": val})
    assert told.startswith("description is there in 9% of the train posts and in 100% of val")
    assert (
        list_quick_warnings({"train": train + posts(60, 5, description="a dog"), "val": train[:0]})
        == []
    )


def test_nothing_is_told_without_train_or_without_labels() -> None:
    assert list_quick_warnings({"val": posts(0, 10)}) == []
    pictures = [Post(id=f"{n}", image=bytes([n]), label="ab"[n % 2]) for n in range(20)]
    assert list_quick_warnings({"train": pictures}) == []
    assert (
        list_quick_warnings({"train": posts(0, 60, label=None), "val": posts(100, 10, label=None)})
        == []
    )


def test_ten_thousand_posts_take_a_few_seconds(tmp_path: Path) -> None:
    draw_picture(1).save(tmp_path / "one.png")
    every = [
        Post(id=f"{row}", text=f"{row} " * 20, image=tmp_path / "one.png", label="ab"[row % 2])
        for row in range(10_000)
    ]
    train, val = every[:9000], every[9000:]
    start = time.process_time()
    list_quick_warnings({"train": train, "val": val})
    assert time.process_time() - start < 6  # 1 without the measuring of coverage


def test_the_quick_part_needs_neither_scipy_nor_datasketch() -> None:
    code = (
        "import sys, miko_clf.data.audit.quick\n"
        "print(sorted({'scipy', 'sklearn', 'datasketch'} & sys.modules.keys()))"
    )
    assert run_python("-c", code).out == "[]\n"
