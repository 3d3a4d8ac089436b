"""Fields of a post that a file may hold in several ways, and what its dumps hold of them."""

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miko_clf.data.post import Post, parse_moment
from miko_clf.data.readers import read_posts
from miko_clf.data.splits import fingerprint_posts
from miko_clf.errors import PostError


def read_row(tmp_path: Path, **cells: Any) -> Post:
    """Return the post that a line of JSON holds."""
    file = tmp_path / "posts.jsonl"
    file.write_text(json.dumps({"id": "a", "text": "x", **cells}) + "\n", encoding="utf-8")
    (post,) = read_posts(file)
    return post


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2021-06-01", (2021, 6, 1, 0, 0)),
        ("2021-06-01T12:30:00Z", (2021, 6, 1, 12, 30)),
        ("2021-06-01 12:30", (2021, 6, 1, 12, 30)),
        ("2021-06-01T00:30:00+02:00", (2021, 5, 31, 22, 30)),
    ],
)
def test_a_date_is_kept_as_it_was_written_and_is_a_moment_in_utc(
    tmp_path: Path, text: str, moment: tuple[int, ...]
) -> None:
    post = read_row(tmp_path, date=text)
    assert post.date == text
    assert parse_moment(text).timetuple()[:5] == moment


@pytest.mark.parametrize(
    "date", [1622548800, 1.5, True, "1622548800", "1612120312345", "June 2021", "2021-13-01", ""]
)
def test_what_is_no_iso_date_is_one_line_that_says_how_to_write_it(
    tmp_path: Path, date: object
) -> None:
    with pytest.raises(
        PostError, match=r"posts\.jsonl:1: date .*write it as 2021-06-01 "
    ) as caught:
        read_row(tmp_path, date=date)
    assert "\n" not in str(caught.value)


def test_dates_and_targets_of_csv_and_parquet_are_those_of_jsonl(tmp_path: Path) -> None:
    wanted = read_row(tmp_path, date="2021-06-01", targets=["women", "the old"], source="forum")
    with (tmp_path / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "date", "targets", "source"])
        rows.writerow(["a", "x", "2021-06-01", '["women", "the old"]', "forum"])
        rows.writerow(["b", "x", "", "women", ""])
    first, second = read_posts(tmp_path / "posts.csv")
    assert first == wanted
    assert (second.targets, second.date, second.source) == (("women",), None, None)
    cells = {"id": "a", "text": "x", "date": datetime.date(2021, 6, 1),
             "targets": ["women", "the old"], "source": "forum"}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([cells]), tmp_path / "posts.parquet")
    assert list(read_posts(tmp_path / "posts.parquet")) == [wanted]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"targets": 3}, "targets must be a name or a list"),
        ({"targets": ["women", 3]}, "targets.1. must be a string, not 3"),
        ({"targets": ["women", " "]}, "targets holds a blank name"),
        ({"source": 3}, "source must be a string"),
    ],
)
def test_bad_targets_and_sources_are_one_line(
    tmp_path: Path, cells: dict[str, Any], words: str
) -> None:
    with pytest.raises(PostError, match=words):
        read_row(tmp_path, **cells)


def test_columns_called_target_or_data_are_other_things_than_targets_and_date(
    tmp_path: Path,
) -> None:
    assert read_row(tmp_path, target="individual", data=3) == Post(id="a", text="x")


def test_posts_without_the_later_fields_are_dumped_as_they_were_before_there_were_any() -> None:
    plain = Post(id="a", text="x", label="l", group="g")
    assert not {"targets", "date", "source"} & plain.model_dump().keys()
    dated = plain.model_copy(update={"date": "2021-06-01"})
    before = "91c7dc28dd16a90ff677330de9301c1bc427dfe304c2af3aaea7808f7342d743"
    assert fingerprint_posts([plain]) == before
    assert fingerprint_posts([dated]) != fingerprint_posts([plain])
