"""Posts that belong together are the components of what joins them; splits by date keep them."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.post import Post, parse_moment
from miko_clf.data.readers import SkipReport
from miko_clf.data.sets.base import DatedSplit
from miko_clf.data.splits import DisjointSets, group_alike_posts, split_by_date
from miko_clf.errors import PostError
from tests.support.audited_posts import FEW_EXAMPLES, make_partition


@FEW_EXAMPLES
@given(st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
))  # fmt: skip
def test_united_things_are_the_connected_components(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    num_things, pairs = drawn
    groups = DisjointSets([()] * num_things)
    for first, second in pairs:
        groups.union(first, second)
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    graph = coo_array((np.ones(len(pairs)), (firsts, seconds)), shape=(num_things, num_things))
    _, expected = connected_components(graph, directed=False)
    assert make_partition(groups.find_all()) == make_partition(expected)


def test_things_that_share_a_mark_over_any_chain_are_one_group_named_by_its_lowest() -> None:
    groups = DisjointSets([["b"], ["a"], [], ["a", "b"], ["c"]])
    assert groups.find_all().tolist() == [0, 0, 2, 0, 4]


def test_posts_of_one_group_or_the_same_words_stay_on_one_side() -> None:
    posts = [
        Post(id=str(number), text=text, group=group)
        for number, (text, group) in enumerate(
            [("One, two!", "g"), ("one two", "h"), ("three", "h"), ("four", None), ("five", None)]
        )
    ]
    parts = group_alike_posts(posts)
    assert len(set(parts[:3])) == 1
    assert len(set(parts)) == 3


def test_posts_of_one_picture_stay_on_one_side_wherever_the_picture_lies(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    inside = (tmp_path / "a.png").read_bytes()
    posts = [
        Post(id="1", text="one", image=tmp_path / "a.png"),
        Post(id="2", text="two", image=tmp_path / "b.png"),
        Post(id="3", image=inside),
        Post(id="4", image=tmp_path / "c.png"),
    ]
    parts = group_alike_posts(posts)
    assert len(set(parts[:3])) == 1
    assert parts[3] != parts[0]


def make_dated_rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return posts of so many days in a row, from the first of May on."""
    dates = [f"2021-{5 + day // 30:02}-{1 + day % 30:02}" for day in range(count)]
    return [
        {"id": f"p{day}", "text": f"words {day}", "date": date, "label": "ab"[day % 2], **fields}
        for day, date in enumerate(dates)
    ]


def open_dated(folder: Path, rows: list[dict[str, Any]], **options: Any) -> DataFolder:
    """Return a folder of one file of these posts, split in June."""
    (folder / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_folder(folder, dated=DatedSplit("2021-06-01", **options.pop("val", {})), **options)


def test_a_split_by_date_has_the_past_in_train_and_all_from_its_date_on_in_test(
    tmp_path: Path,
) -> None:
    data = open_dated(tmp_path, make_dated_rows(40)[::-1])
    days = {split: sorted(str(p.date) for p in data.read(split)) for split in data.splits}
    assert list(days) == ["train", "val", "test"]
    assert days["test"] == [f"2021-06-{day:02}" for day in range(1, 11)]
    assert days["val"] == [f"2021-05-{day:02}" for day in range(26, 31)]  # 15 % of 30, rounded up
    assert days["train"] == [f"2021-05-{day:02}" for day in range(1, 26)]
    assert data.notes == [
        "split by date: train 25 posts, val 5 from 2021-05-26, test 10 from 2021-06-01"
    ]


def test_a_date_for_val_stands_above_its_share(tmp_path: Path) -> None:
    data = open_dated(tmp_path, make_dated_rows(40), val={"val_from": "2021-05-11"})
    assert [len(data.read(split)) for split in ("train", "val", "test")] == [10, 20, 10]


def test_a_group_that_spans_a_border_goes_whole_to_the_later_split_and_is_counted(
    tmp_path: Path,
) -> None:
    rows = make_dated_rows(40)
    for day in (2, 8, 35):
        rows[day]["group"] = "thread"
    rows[3]["group"] = rows[28]["group"] = "other"
    data = open_dated(tmp_path, rows)
    ids = {split: {post.id for post in data.read(split)} for split in data.splits}
    assert {"p2", "p8", "p35"} <= ids["test"]
    assert {"p3", "p28"} <= ids["val"]
    assert data.notes[0].endswith(
        "; 2 of the groups span a border, so 3 posts went to the later split"
    )


@FEW_EXAMPLES
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=30, max_size=60))
def test_no_group_crosses_and_no_post_stands_before_its_own_date(
    drawn: list[tuple[int, int]],
) -> None:
    start = datetime.date(2021, 5, 1)
    posts = [
        Post(
            id=f"p{number}",
            text="x",
            group=f"g{group}" if group else None,
            date=(start + datetime.timedelta(day)).isoformat(),
        )
        for number, (day, group) in enumerate([(0, 0), (29, 0), (40, 0), *drawn])
    ]
    splits = split_by_date(posts, DatedSplit("2021-06-01", "2021-05-20"))
    order = ("train", "val", "test")
    by_group: dict[str | None, set[str]] = {}
    for post, split in zip(posts, splits, strict=True):
        by_group.setdefault(post.group, set()).add(split)
        moment = parse_moment(str(post.date))
        own = (moment >= parse_moment("2021-05-20")) + (moment >= parse_moment("2021-06-01"))
        assert order.index(split) == own if post.group is None else order.index(split) >= own
    assert all(len(places) == 1 for group, places in by_group.items() if group)


def test_a_split_by_date_forgets_the_splits_in_which_posts_stood(tmp_path: Path) -> None:
    rows = make_dated_rows(40)
    for split, part in (("train", rows[20:]), ("test", rows[:20])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{split}.jsonl").write_text(text)
    data = open_folder(tmp_path, dated=DatedSplit("2021-06-01"))
    assert [len(data.read(split)) for split in data.splits] == [25, 5, 10]


def test_posts_without_a_date_are_one_line_with_their_count_or_passed_over(tmp_path: Path) -> None:
    rows = make_dated_rows(40)
    for day in (7, 9):
        del rows[day]["date"]
    line = (
        r"2 of 40 posts have no date, which a split by date needs; the first is .*posts\.jsonl:8$"
    )
    with pytest.raises(PostError, match=line):
        open_dated(tmp_path, rows).read("train")
    report = SkipReport()
    assert len(open_dated(tmp_path, rows, report=report).read("train")) == 23
    assert len(report) == 2


@pytest.mark.parametrize(
    ("dated", "words"),
    [
        (DatedSplit("soon"), "date 'soon' is not a date; write it as 2021-06-01"),
        (DatedSplit("2021-06-01", "2021-07-01"), "val comes before test"),
        (DatedSplit("2022-01-01"), "no post for test; dates run from 2021-05-01 to 2021-06-10"),
        (DatedSplit("2021-01-01"), "no post for train"),
    ],
)
def test_dates_that_make_no_split_are_one_line(
    tmp_path: Path, dated: DatedSplit, words: str
) -> None:
    open_dated(tmp_path, make_dated_rows(40))
    with pytest.raises(PostError, match=words):
        open_folder(tmp_path, dated=dated).read("train")
