"""The cells of a row as a post: ids, images and what is remarked of them."""

import base64
from pathlib import Path
from typing import Any

import pytest

from miko_clf.data.cells import check_columns, check_image_file, list_remarks, parse_post
from miko_clf.errors import PostError, shorten_path, shorten_value
from tests.support.odd_inputs import encode_picture

BASE64 = base64.b64encode(encode_picture()).decode()


def read_image(value: Any) -> Any:
    return parse_post({"id": "a", "text": "x", "image": value}, Path("home")).image


@pytest.mark.parametrize(
    ("value", "image"),
    [
        ("a.jpg", Path("home/a.jpg")),
        ({"bytes": None, "path": "a.jpg"}, Path("home/a.jpg")),
        ([{"bytes": b"x", "path": "a.jpg"}], b"x"),
        ({"bytes": None, "path": None}, None),
        ([], None),
        ([None], None),
        ("data:image/svg+xml,%3Csvg%3E", b"<svg>"),
        (BASE64, encode_picture()),
        (BASE64.rstrip("=").replace("+", "-").replace("/", "_", 0), encode_picture()),
        ("\n".join([BASE64[:76], BASE64[76:]]), encode_picture()),
        (f"data:image/jpeg;base64,{BASE64.replace('+', '%2B')}", encode_picture()),
    ],
)
def test_an_image_is_read_in_every_form_in_which_tables_hold_it(value: Any, image: Any) -> None:
    assert read_image(value) == image


def test_a_path_is_not_taken_for_base64() -> None:
    long = "/9j/" + "deep/" * 20 + "a.jpg"
    assert read_image(long) == Path(long)
    assert read_image("/9j/short") == Path("/9j/short")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("https://x.org/a.jpg", "is a URL, and nothing is fetched .* curl -O URL"),
        (["a.jpg", "b.jpg"], "is a list of 2; a post has one"),
        ("data:image/png;base64", "a data URI without a comma"),
        (5, "image must be a path or encoded bytes, not 5"),
    ],
)
def test_an_image_that_is_none_is_refused_with_what_to_do(value: Any, line: str) -> None:
    with pytest.raises(PostError, match=line):
        read_image(value)


def test_whole_numbers_are_ids_and_groups_by_their_digits() -> None:
    post = parse_post({"id": 7.0, "text": "x", "group": 12}, Path())
    assert (post.id, post.group) == ("7", "12")
    assert list_remarks({"id": 7.0, "text": "x"}, post) == ["id 7.0 was read as '7'"]
    with pytest.raises(PostError, match=r"id must be a string, not 7\.5"):
        parse_post({"id": 7.5, "text": "x"}, Path())
    with pytest.raises(PostError, match="group is 'NaN'; leave the cell empty"):
        parse_post({"id": "a", "text": "x", "group": "NaN"}, Path())


def test_nothing_is_remarked_of_plain_cells_or_of_a_label_that_an_adapter_made() -> None:
    post = parse_post({"id": "0", "text": "none of it", "label": "hateful"}, Path())
    assert list_remarks({"id": "0", "text": "none of it", "label": 1.0}, post) == []


def test_no_more_than_80_characters_of_a_value_are_shown(tmp_path: Path) -> None:
    assert len(shorten_value("x" * 9_999)) == len(shorten_value(["x"] * 9_999)) == 80
    assert shorten_value("it's") == '"it\'s"'
    assert len(shorten_path(Path("y" * 9_999))) < 80
    assert len(shorten_path(Path("y/" * 9_999))) <= 80
    assert shorten_path(tmp_path) == repr(str(tmp_path))
    with pytest.raises(PostError, match="cannot be reached") as caught:
        check_image_file(tmp_path / ("z" * 9_999))
    assert len(str(caught.value)) < 80 + len(str(tmp_path)) + 40


def test_the_columns_of_a_table_are_checked_by_name() -> None:
    check_columns(["id", "text", "", ""], "id")
    with pytest.raises(PostError, match="column 'text' stands twice"):
        check_columns(["id", "text", "text"], "id")
