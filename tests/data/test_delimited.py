"""CSV: its delimiter, its rows, and the line at which each stands."""

from pathlib import Path

import pytest

from miko_clf.data.delimited import read_csv
from miko_clf.errors import PostError


def read(folder: Path, text: str) -> list[tuple[str, dict[str, object], str]]:
    path = folder / "a.csv"
    path.write_text(text, newline="")
    rows = list(read_csv(path, "id"))
    return [(row.where.removeprefix(f"{path}:"), dict(row.cells), row.fault) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_the_one_that_makes_the_key_a_column(
    delimiter: str, tmp_path: Path
) -> None:
    header = delimiter.join(["id", "a, and b; or c\tor d".replace(delimiter, " ")])
    assert read(tmp_path, f"{header}\n1{delimiter}x\n")[0][1]["id"] == "1"


def test_a_header_without_the_key_is_told_by_its_columns(tmp_path: Path) -> None:
    with pytest.raises(PostError, match=r":1: column 'id' is required; .*\['name', 'text'\]"):
        read(tmp_path, "name;text\n1;x\n")
    with pytest.raises(PostError, match=":3: column 'id' is required"):
        read(tmp_path, "\nsep=;\nname;text\n1;x\n")


def test_rows_are_named_by_the_line_of_the_file_at_which_they_begin(tmp_path: Path) -> None:
    rows = read(tmp_path, 'sep=;\n\nid;text\n1;"a\nb"\n\n2;x\n3\n')
    assert [(where, fault) for where, _, fault in rows] == [
        ("4", ""), ("7", ""), ("8", "1 cells under 2 columns"),
    ]  # fmt: skip


def test_carriage_returns_end_lines_only_where_they_end_the_header(tmp_path: Path) -> None:
    assert [cells for _, cells, _ in read(tmp_path, "id,text\r1,x\r2,y\r")] == [
        {"id": "1", "text": "x"}, {"id": "2", "text": "y"},
    ]  # fmt: skip
    assert read(tmp_path, 'id,text\n1,"x\ry"\n')[0][1]["text"] == "x\ry"
    assert "a carriage return stands outside quotes" in read(tmp_path, "id,text\n1,x\ry\n")[0][2]


def test_a_file_of_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "id,text\n") == []
