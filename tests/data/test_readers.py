"""Posts in files: what is read, and the line that each bad input gets."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import normalise_class
from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale
from miko_clf.data.readers import SkipReport, read_entries, read_posts
from miko_clf.errors import PostError

GOOD = '{"id": "good", "text": "fine"}'
# What a row holds, and what the line about it says.
BAD_ROWS = [
    ('{"id": "a", "text": }', ["not valid JSON at column 21"]),
    ('["a", "b"]', ["a JSON object is expected, not a list"]),
    ('"a"', ["a JSON object is expected, not a string"]),
    ('{"id": "a", "text": NaN}', ["NaN is not JSON; write null"]),
    ('{"id": "a", "id": "b", "text": "x"}', ["key 'id' is given twice"]),
    ("[" * 100_000, ["nesting too deep"]),
    ('{"text": "x"}', ["id is required"]),
    ('{"id": "", "text": "x"}', ["id is empty"]),
    ('{"id": 5.5, "text": "x"}', ["id must be a string, not 5.5"]),
    ('{"id": true, "text": "x"}', ["id must be a string, not True"]),
    ('{"id": "good", "text": "x"}', ["id 'good' was already used at", ":1"]),
    ('{"id": "a"}', ["neither text nor image is given"]),
    ('{"id": "a", "text": " "}', ["neither text nor image is given"]),
    ('{"id": "a", "text": ["x"]}', ["text must be a string, not ['x']"]),
    ('{"id": "a", "text": "x", "lable": "y"}', ["unknown key 'lable'; did you mean 'label'?"]),
    ('{"id": "a", "txt": "x"}', ["unknown key 'txt'; did you mean 'text'?"]),
    ('{"id": "a", "text": "x", "img": "y.png"}', ["unknown key 'img'; did you mean 'image'?"]),
    ('{"id": "a", "Text ": "x"}', ["unknown key 'Text '; did you mean 'text'?"]),
    ('{"id": "a", "text": "x", "label": 1.5}', ["label must be a class name or a list", "not 1.5"]),
    ('{"id": "a", "text": "x", "label": ["y", {}]}', ["label must be", "not ['y', {}]"]),
    ('{"id": "a", "text": "x", "label": "nan"}', ["label is 'nan'; leave the cell empty"]),
    ('{"id": "a", "text": "x", "label": " "}', ["label ' ' is empty"]),
    ('{"id": "a", "text": "x", "label": ["y", "y"]}', ["names a class twice"]),
    ('{"id": "a", "text": "x", "label": [1, "1.0"]}', ["names a class twice"]),
    ('{"id": "a", "image": "none.png"}', ["none.png' does not exist"]),
    ('{"id": "a", "image": "pictures"}', ["pictures' is a folder"]),
    ('{"id": "a", "image": ""}', ["image must be a path or encoded bytes, not ''"]),
    ('{"id": "a", "image": {"url": "x"}}', ["image must be a path or encoded bytes"]),
    ('{"id": "a", "image": "%s"}' % ("x" * 5000), ["cannot be reached"]),
    ('{"id": "a", "text": "x", "intentions": "y"}', ["intentions must be a list of objects"]),
    ('{"id": "a", "text": "x", "intentions": ["y"]}', ["intentions[0] must be an object, not 'y'"]),
    (
        '{"id": "a", "text": "x", "intentions": [{"relation": "xIntnt", "text": "y"}]}',
        ["unknown relation 'xIntnt' in intentions[0].relation", "xNeed", "mean 'xIntent'?"],
    ),
    (
        '{"id": "a", "text": "x", "intentions": [{"relation": "Open", "txt": "y", "text": "z"}]}',
        ["unknown key 'intentions[0].txt'", "did you mean 'text'?"],
    ),
    (
        '{"id": "a", "text": "x", "intentions": [{"relation": "Open", "text": "y", '
        '"plausibility": 2}]}',
        ["intentions[0].plausibility must be a number from 0 to 1, not 2"],
    ),
    ('{"id": "a", "text": "x", "rationale": {"text": "y"}}', ["rationale.saw_label is required"]),
    (
        '{"id": "a", "text": "x", "key_information": {"keywords": ["y", 1]}}',
        ["key_information.keywords[1] must be a string, not 1"],
    ),
]
BAD_CELLS = [
    ("a,x,NaN", ["label is 'NaN'", "leave the cell empty"]),
    (",x,y", ["id is required"]),
    ("a,x", ["2 cells under 3 columns"]),
    ("a,x,y,z", ["4 cells under 3 columns"]),
    ('a,"x"z,y', ["not valid CSV"]),
    ('a,"x,y', ["not valid CSV: a quote is not closed"]),
    ("a,x,[y", ["label: not valid JSON at column 2"]),
    ("good,x,y", ["id 'good' was already used at"]),
]


def refused(path: Path) -> str:
    with pytest.raises(PostError) as caught:
        list(read_posts(path))
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)
    return str(caught.value)


def write_table(rows: list[dict], path: Path, encoding: str) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def skipped(path: Path) -> list[tuple[str, str]]:
    report = SkipReport()
    assert [post.id for post in read_posts(path, report=report)][:1] == ["good"]
    return list(report)


@pytest.mark.parametrize(("line", "says"), BAD_ROWS)
def test_a_bad_line_is_named_with_its_file_and_reason(line, says, tmp_path):
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "posts.jsonl"
    path.write_text(f"{GOOD}\n{line}\n" + '{"id": "last", "text": "fine"}\n')
    message = refused(path)
    assert message.startswith(f"{path}:2: ")
    assert all(part in message for part in says), message

    [(where, reason)] = skipped(path)
    assert f"{where}: {reason}" == message
    assert [post.id for post in read_posts(path, report=SkipReport())] == ["good", "last"]


@pytest.mark.parametrize(("line", "says"), BAD_CELLS)
def test_a_bad_line_of_csv_is_named_with_its_file_and_reason(line, says, tmp_path):
    path = tmp_path / "posts.csv"
    path.write_text(f'id,text,label\ngood,"two\nlines",y\n{line}\n')
    message = refused(path)
    assert message.startswith(f"{path}:4: ")
    assert all(part in message for part in says), message
    [(where, reason)] = skipped(path)
    assert f"{where}: {reason}" == message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"id,text\n", "holds no posts"),
        ("a.csv", b"text,label\nx,y\n", ":1: column 'id' is required; the columns are"),
        ("a.csv", b"id,text,lable\na,x,y\n", ":1: unknown key 'lable'; did you mean 'label'?"),
        ("a.csv", b"id,text,text\na,x,y\n", ":1: column 'text' stands twice"),
        ("a.csv", b"\xff\xfei\x00d", "ends within a character of UTF-16"),
        ("a.jsonl", b"\n \n", "holds no posts"),
        ("a.tsv", b"id\ttext\n", "unknown kind '.tsv'; a .jsonl, .csv or .parquet file"),
        ("a.parquet", b"PAR1 and no more", "is not a readable Parquet file"),
        ("none.jsonl", None, "there is no such file"),
    ],
)
@pytest.mark.parametrize("report", [None, SkipReport()])
def test_a_file_that_is_no_file_of_posts_raises_with_or_without_a_report(
    name, content, says, report, tmp_path
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PostError) as caught:
        list(read_posts(tmp_path / name, report=report))
    assert str(tmp_path / name) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_file_of_posts(tmp_path):
    assert "is a folder; a .jsonl, .csv or .parquet file" in refused(tmp_path)


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text(GOOD)

    def denied(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(tmp_path / "a.jsonl").endswith("cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        (
            "a.jsonl",
            f'{GOOD}\n{{"id": "a", "text": "'.encode()
            + b'\xe9"}\n{"id": "b", "text": "\xc3\xa9"}\n{"id": "c", "text": "\xc3\xa9"}\n',
            ":2: byte 22 of the line",
        ),
        (
            "a.csv",
            b'id,text\ngood,x\na,"x\n\xe9"\nb,\xc3\xa9\nc,\xc3\xa9\n',
            ":3: byte 1 of line 4",
        ),
        ("a.csv", b"id,text\ngood,x\na,\x81\n", ":3: byte 3 of line 3"),
    ],
)
def test_a_line_that_is_not_utf8_in_a_file_that_is_is_named(name, content, where, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert f"{where} is not UTF-8" in refused(tmp_path / name)
    assert len(skipped(tmp_path / name)) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_of_windows_1252_is_read_as_such_and_said(suffix, tmp_path):
    rows = [{"id": "a", "text": "plain"}, {"id": "b", "text": "\u201cé\u201d"}]
    path = write_table(rows, tmp_path / f"posts{suffix}", "cp1252")
    first, second = read_entries(path, None)
    assert (first.remarks, second.post.text) == ((), rows[1]["text"])
    assert "read as Windows-1252, which is assumed" in second.remarks[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_in_another_encoding_of_unicode_is_read_without_a_word(suffix, encoding, tmp_path):
    rows = [{"id": "a", "text": "naïve 😀"}, {"id": "b", "text": "x"}]
    entries = list(read_entries(write_table(rows, tmp_path / f"posts{suffix}", encoding), None))
    assert [entry.post.text for entry in entries] == ["naïve 😀", "x"]
    assert all(entry.remarks == () for entry in entries)


def test_half_of_a_surrogate_pair_is_refused_and_with_a_report_mended_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{GOOD}\n{{"id": "a", "text": "so \\ud83d", "label": "y"}}\n')
    assert ":2: half of a surrogate pair" in refused(path)
    report = SkipReport()
    _, entry = read_entries(path, report)
    assert (entry.post.text, len(report)) == ("so \ufffd", 0)
    assert "half of a surrogate pair" in entry.remarks[0]
    assert "U+FFFD" in entry.remarks[0]


def test_a_mended_row_stays_in_its_split(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        f'{{"id": "{split}", "text": "\\ud83d", "split": "{split}"}}' for split in ("train", "val")
    ]
    path.write_text("\n".join(rows))
    folder = open_folder(path, report=SkipReport())
    assert [post.id for post in folder.read("train")] == ["train"]
    assert [post.id for post in folder.read("val")] == ["val"]


def test_blank_lines_and_rows_are_passed_over_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'\n{GOOD}\n\n  \n{{"id": "a"}}\n\n')
    assert ":5: neither text nor image" in refused(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("\nid,text\n\ngood,x\n,\na\n")
    assert ":6: 1 cells under 2 columns" in refused(tmp_path / "a.csv")


def test_reasons_are_told_by_kind_with_their_counts_and_an_example():
    report = SkipReport()
    for line in range(5):
        report.add(f"a.csv:{line}", f"image 'pictures/{line}.jpg' does not exist")
    report.add("a.csv:9", "id is required")
    assert report.summarise() == [
        "image 'pictures/0.jpg' does not exist (5 rows, the first at a.csv:0)",
        "id is required (a.csv:9)",
    ]
    assert report.summarise(most=1)[1:] == ["and 1 more"]


def test_a_bad_row_of_parquet_is_named_by_its_number(tmp_path):
    path = tmp_path / "a.parquet"
    names = ["good", *map(str, range(98)), "0"]
    pq.write_table(pa.table({"id": names, "text": ["x"] * 100}), path)
    assert refused(path) == f"{path} row 100: id '0' was already used at {path} row 2"
    assert len(skipped(path)) == 1
    pq.write_table(pa.table({"id": ["good", "a"], "text": ["x", "y"], "label": [None, 1.5]}), path)
    assert "row 2: label must be a class name" in refused(path)
    pq.write_table(pa.table({"id": ["a"], "txt": ["x"]}), path)
    assert refused(path) == f"{path}: unknown key 'txt'; did you mean 'text'?"


def test_what_is_not_ours_is_ignored_and_what_is_absent_is_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '\ufeff{"id": "a", "text": "x", "image_id": 7, "origin": "y", "intentions": null, '
        '"label": null, "split": "train"}'
    )
    assert list(read_posts(path)) == [Post(id="a", text="x")]
    (tmp_path / "a.csv").write_text("\ufeffid,text,label,,\na,x,,1,2\n")
    assert list(read_posts(tmp_path / "a.csv")) == [Post(id="a", text="x")]


def test_image_paths_start_at_the_file_and_may_leave_its_folder(tmp_path):
    (tmp_path / "posts").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    (tmp_path / "posts" / "a.jsonl").write_text('{"id": "a", "image": "../x.png"}')
    [post] = read_posts(tmp_path / "posts" / "a.jsonl")
    assert isinstance(post.image, Path)
    assert post.image.read_bytes() == buffer.getvalue()

    images = [{"bytes": b"abc", "path": None}, {"bytes": None, "path": "../x.png"}]
    table = pa.table({"id": ["a", "b"], "image": images})
    pq.write_table(table, tmp_path / "posts" / "a.parquet")
    first, second = read_posts(tmp_path / "posts" / "a.parquet")
    assert first.image == b"abc"
    assert second.image == tmp_path / "posts" / "../x.png"


def test_a_report_holds_a_finding_once_and_is_written_whole(tmp_path):
    report = SkipReport()
    for _ in range(2):
        report.add("a.csv:2", "naïve")
    report.write(tmp_path / "skipped.json")
    written = json.loads((tmp_path / "skipped.json").read_text(encoding="utf-8"))
    assert written == [{"where": "a.csv:2", "reason": "naïve"}]
    assert len(report) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["skipped.json"]


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.strip().lower() != "nan"
)
# a cell of labels that begins so is JSON
names = words.map(str.strip).filter(
    lambda name: name and not name.startswith(("[", "{")) and normalise_class(name) == name
)
portions = st.none() | st.floats(0, 1)
provenances = st.none() | st.fixed_dictionaries({"model": words, "turn": st.integers(0, 9)})
intentions = st.builds(
    Intention, relation=st.sampled_from(RELATIONS), text=words, plausibility=portions,
    typicality=portions, provenance=provenances,
)  # fmt: skip
posts = st.builds(
    Post,
    id=names,
    text=words,
    image=st.none(),
    label=st.none() | names | st.lists(names, unique=True, max_size=3).map(tuple),
    description=st.none() | words,
    key_information=st.none()
    | st.builds(KeyInformation, concept=words, keywords=st.lists(words, max_size=2).map(tuple)),
    intentions=st.lists(intentions, max_size=3).map(tuple),
    rationale=st.none() | st.builds(Rationale, text=words, saw_label=st.booleans()),
    group=st.none() | names,
)


def written(found: list[Post], path: Path) -> Path:
    rows = [post.model_dump(mode="json") for post in found]
    if path.suffix == ".jsonl":
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return path
    for row in rows:
        for key in ("intentions", "key_information", "rationale"):
            row[key] = json.dumps(row[key]) if row[key] else None
    if path.suffix == ".parquet":
        for row in rows:
            row["label"] = [row["label"]] if isinstance(row["label"], str) else row["label"]
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Post.model_fields), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row in rows:
            many = isinstance(row["label"], list)
            writer.writerow(row | {"label": json.dumps(row["label"])} if many else row)
    return path


@given(found=st.lists(posts, min_size=1, max_size=4, unique_by=lambda post: post.id))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_posts_come_back_from_every_kind_of_file_as_they_went(found, suffix, tmp_path):
    back = list(read_posts(written(found, tmp_path / f"posts{suffix}")))
    if suffix == ".parquet":  # one column has one type, here a list
        found = [
            post.model_copy(update={"label": (post.label,)})
            if isinstance(post.label, str)
            else post
            for post in found
        ]
    assert back == found
