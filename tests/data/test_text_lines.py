"""Lines of text in the encodings that files come in."""

import gc
from pathlib import Path

import pytest

from miko_clf.data.text_lines import read_text_lines
from miko_clf.errors import PostError


def write(folder: Path, content: bytes) -> Path:
    (folder / "a.csv").write_bytes(content)
    return folder / "a.csv"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_an_encoding_is_known_by_its_mark_or_its_nulls(encoding: str, tmp_path: Path) -> None:
    lines = list(read_text_lines(write(tmp_path, "id\nnaïve\u2028 😀\r\n".encode(encoding))))
    assert [line.text for line in lines] == ["id\n", "naïve\u2028 😀\r\n"]
    assert not any(line.fault or line.remark for line in lines)


def test_lines_that_are_not_utf8_are_assumed_where_most_are_not(tmp_path: Path) -> None:
    assumed = list(read_text_lines(write(tmp_path, b"a\n\xe9\n\x93x\x94\n\xc3\xa9\n")))
    assert [line.text for line in assumed] == ["a\n", "é\n", "“x”\n", "é\n"]
    assert [bool(line.remark) for line in assumed] == [False, True, True, False]
    damaged = list(read_text_lines(write(tmp_path, b"\xe9\n\xc3\xa9\n\xc3\xa9\n")))
    assert damaged[0].fault == "byte 1 of the line is not UTF-8"
    assert [line.text for line in damaged[1:]] == ["é\n", "é\n"]


def test_half_a_character_is_at_fault_and_half_a_file_an_error(tmp_path: Path) -> None:
    half = "a\nb\ud83d\n".encode("utf-16-le", "surrogatepass")
    _, line = read_text_lines(write(tmp_path, b"\xff\xfe" + half))
    assert line.fault == "the line is not UTF-16"
    with pytest.raises(PostError, match="ends within a character of UTF-16"):
        list(read_text_lines(write(tmp_path, b"\xff\xfea\0b")))


def test_a_file_of_one_byte_is_one_line(tmp_path: Path) -> None:
    assert [line.text for line in read_text_lines(write(tmp_path, b"a"))] == ["a"]


def test_a_reader_that_stops_at_the_first_line_leaves_nothing_open(tmp_path: Path) -> None:
    lines = read_text_lines(write(tmp_path, "id\na\nb\n".encode("utf-16")))
    assert next(lines).text == "id\n"
    del lines  # what fails while it is closed is a warning, and so an error here
    gc.collect()
