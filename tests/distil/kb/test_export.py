"""A knowledge base as a file of posts, and as a page."""

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from miko_clf.data.dataset import open_folder
from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.readers import SkipReport, read_posts
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb import export
from miko_clf.distil.kb.export import export_knowledge, open_parquet
from miko_clf.distil.kb.query import KnowledgeChoice, iterate_knowledge, show_known_post
from miko_clf.distil.kb.store import JudgeScore, KnowledgeBase, open_for_reading
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.run import open_post_stream
from miko_clf.errors import DistilError, PostError
from tests.support.filled_kb import Says, fill_kb, make_reply, make_up_answer

ONE_CALL = JobPlan("intentions", "teacher", pictures=False)
POSTS = [
    Post(id=f"p{n:02}", text=f"Sunny day number {n} at the lake", label=("good", "bad")[n % 2])
    for n in range(12)
]


def fill(
    path: Path, posts: list[Post], plan: JobPlan = ONE_CALL, says: Says = make_up_answer
) -> Path:
    asyncio.run(fill_kb(path, posts, plan, says))
    return path


def refusing(*names: str) -> Says:
    def says(call: Request) -> Response:
        refused = any(f"number {name} " in call.turns[1].text for name in names)
        return (
            make_reply("", status="refused", reason="content_filter")
            if refused
            else make_up_answer(call)
        )

    return says


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "teal").save(path, "PNG")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def posts_of(path: Path) -> list[Post]:
    return [post for _, post in open_post_stream(path).posts]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve posts, of which the fourth, bad, was refused."""
    return fill(tmp_path_factory.mktemp("kb") / "kb.sqlite", POSTS, says=refusing("3"))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_export_is_read_back_as_the_posts_with_what_is_known(
    suffix: str, kb: Path, tmp_path: Path
):
    out = tmp_path / f"posts{suffix}"
    made = export_knowledge(open_for_reading(kb), out)
    assert (made.rows, made.posts, made.intentions) == (12, 12, 110)
    assert made.absent == {"refused": 10}
    found = list(read_posts(out))
    for post, one in zip(found, iterate_knowledge(open_for_reading(kb)), strict=True):
        wanted = one.filled()
        assert post.model_copy(update={"intentions": ()}) == wanted.model_copy(
            update={"intentions": ()}
        )
        assert [i.text for i in post.intentions] == [i.text for i in wanted.intentions]
    assert found[0].intentions[0].provenance["model"] == "teacher"  # type: ignore[index]
    assert found[3].intentions == ()


def test_a_refused_post_has_no_key_for_intentions_in_jsonl(kb: Path, tmp_path: Path):
    export_knowledge(open_for_reading(kb), tmp_path / "posts.jsonl")
    assert set(lines(tmp_path / "posts.jsonl")[3]) == {"id", "text", "label"}


def test_one_row_an_intention_has_its_provenance_in_columns(kb: Path, tmp_path: Path):
    made = export_knowledge(open_for_reading(kb), tmp_path / "i.parquet", rows="intentions")
    table = pq.read_table(tmp_path / "i.parquet")
    assert made.rows == table.num_rows == 110
    first = table.to_pylist()[0]
    assert (first["id"], first["relation"], first["label"]) == ("p00", "xNeed", "good")
    assert (first["temperature"], first["answered_by"]) == (0.7, "teacher-2")
    export_knowledge(open_for_reading(kb), tmp_path / "i.jsonl", rows="intentions")
    plain = {name: value for name, value in first.items() if value is not None}
    assert lines(tmp_path / "i.jsonl")[0] == plain


def test_a_choice_leaves_intentions_out_of_the_file(kb: Path, tmp_path: Path):
    choice = KnowledgeChoice(without=("xReact", "xNeed"))
    made = export_knowledge(open_for_reading(kb), tmp_path / "posts.jsonl", choice=choice)
    assert made.intentions == 88
    assert made.absent == {"left out": 22, "refused": 10}


def test_image_paths_are_relative_to_the_file_that_is_written(tmp_path: Path):
    shown = picture(tmp_path / "data" / "images" / "a.png")
    kb = fill(tmp_path / "kb.sqlite", [Post(id="a", text="look at this", image=shown)])
    out = tmp_path / "out" / "deep" / "posts.jsonl"
    export_knowledge(open_for_reading(kb), out)
    assert lines(out)[0]["image"] == "../../data/images/a.png"
    assert [post.id for post in read_posts(out)] == ["a"]


def test_columns_of_the_source_are_kept_and_joined_by_id(tmp_path: Path):
    picture(tmp_path / "in" / "a.png")
    rows = [
        {"id": "a", "text": "one", "image": "a.png", "split": "val", "group": "g", "likes": 3},
        {"id": "b", "text": "two", "split": "train", "group": "g", "likes": None},
        {"id": "new", "text": "three", "split": "test"},
    ]
    file = jsonl(tmp_path / "in" / "posts.jsonl", rows)
    kb = fill(tmp_path / "kb.sqlite", posts_of(file)[:2])
    made = export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=file)
    assert (made.rows, made.posts, made.unknown) == (3, 2, 1)
    found = lines(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == ["a", "b", "new"]
    assert (found[0]["split"], found[0]["likes"]) == ("val", 3)
    assert found[0]["image"] == "in/a.png"
    assert [len(row.get("intentions", ())) for row in found] == [10, 10, 0]
    export_knowledge(open_for_reading(kb), tmp_path / "out.parquet", posts=file)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["likes"].to_pylist() == [3, None, None]
    assert open_folder(tmp_path / "out.parquet").splits == ("train", "val", "test")


def test_embedded_pictures_and_types_of_a_parquet_source_are_kept(tmp_path: Path):
    data = picture(tmp_path / "a.png").read_bytes()
    columns = {"id": ["a", "b"], "image": [data, data], "text": [None, "two"], "seen": [1, 2]}
    schema = [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("seen", pa.int16()),
    ]
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table(columns, schema=pa.schema(schema)), file)
    kb = fill(tmp_path / "kb.sqlite", posts_of(file), JobPlan("intentions", "teacher"))
    with pytest.raises(DistilError, match=r"posts\.jsonl:1.*name that file"):
        export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl")
    with pytest.raises(DistilError, match="cannot hold pictures"):
        export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=file)
    assert not (tmp_path / "out.jsonl").exists()
    export_knowledge(open_for_reading(kb), tmp_path / "out.parquet", posts=file)
    found = list(read_posts(tmp_path / "out.parquet"))
    assert [post.image for post in found] == [data, data]
    assert [len(post.intentions) for post in found] == [10, 10]
    assert all(post.description for post in found)
    assert pq.read_schema(tmp_path / "out.parquet").field("seen").type == pa.int16()


def test_a_data_folder_as_the_source_gives_one_file_with_its_splits(world: Path, tmp_path: Path):
    folder = world / "sarcasm"
    kb = fill(tmp_path / "kb.sqlite", posts_of(folder)[:20])
    made = export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=folder)
    assert (made.posts, made.rows) == (20, len(posts_of(folder)))
    assert set(open_folder(tmp_path / "out.jsonl").splits) == {"train", "val", "test"}


def test_a_bad_row_of_the_source_raises_or_is_reported(kb: Path, tmp_path: Path):
    file = jsonl(tmp_path / "in.jsonl", [{"id": "p00", "text": "x"}, {"id": 7, "text": "y"}])
    with pytest.raises(PostError, match=r"in\.jsonl:2: id must be a string"):
        export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=file)
    report = SkipReport()
    assert (
        export_knowledge(
            open_for_reading(kb), tmp_path / "out.jsonl", posts=file, report=report
        ).rows
        == 1
    )
    assert len(report) == 1


@pytest.mark.parametrize(
    ("out", "posts", "words"),
    [
        ("out.csv", None, "unknown kind '.csv'"),
        ("in.jsonl", "in.jsonl", "is where the posts stand"),
        ("out.jsonl", "in.jsonl", "knows none of its posts"),
    ],
)
def test_an_export_that_cannot_be_meant_is_one_line(
    out: str, posts: str | None, words: str, kb: Path, tmp_path: Path
):
    jsonl(tmp_path / "in.jsonl", [{"id": "stranger", "text": "x"}])
    with pytest.raises(DistilError, match=words):
        export_knowledge(
            open_for_reading(kb), tmp_path / out, posts=tmp_path / posts if posts else None
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_a_column_of_two_kinds_fits_jsonl_and_is_one_line_for_parquet(kb: Path, tmp_path: Path):
    rows = [{"id": "p00", "text": "x", "odd": 1}, {"id": "p01", "text": "x", "odd": "one"}]
    file = jsonl(tmp_path / "in.jsonl", rows)
    export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=file)
    with pytest.raises(DistilError, match=r"no one type .*\.jsonl holds it"):
        export_knowledge(open_for_reading(kb), tmp_path / "out.parquet", posts=file)


def test_provenance_without_a_column_is_refused_and_not_dropped(kb: Path, tmp_path: Path):
    own = {"text": "Because.", "saw_label": True, "provenance": {"volume": 3}}
    file = jsonl(tmp_path / "in.jsonl", [{"id": "p00", "text": "x", "rationale": own}])
    with pytest.raises(DistilError, match="provenance has volume"):
        export_knowledge(open_for_reading(kb), tmp_path / "out.parquet", posts=file)
    export_knowledge(open_for_reading(kb), tmp_path / "out.jsonl", posts=file)
    assert lines(tmp_path / "out.jsonl")[0]["rationale"] == own


def test_parts_are_flushed_as_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "_GROUP_ROWS", 1000)
    monkeypatch.setattr(export, "_GROUP_BYTES", 1 << 16)
    schema = pa.schema([("id", pa.string()), ("image", pa.binary())])
    with open_parquet(tmp_path / "a.parquet", schema) as write:
        for n in range(5200):
            write({"id": str(n), "image": bytes(50 if n < 4000 else 200)})
    file = pq.ParquetFile(tmp_path / "a.parquet")
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [1000, 1000, 1000, 1000, 500, 500, 200]
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [str(n) for n in range(5200)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_export_holds_few_of_the_posts_at_a_time(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "_GROUP_ROWS", 200)
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        text = json.dumps({"text": "words " * 1000})
        rows = [(f"{n:04}", "", text.replace("{", f'{{"id": "{n:04}", ')) for n in range(1500)]
        store.db.executemany("INSERT INTO posts VALUES (?, ?, ?, NULL, 1)", rows)
    del rows
    tracemalloc.start()
    try:
        assert (
            export_knowledge(open_for_reading(tmp_path / "kb.sqlite"), tmp_path / f"a{suffix}").rows
            == 1500
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7 << 20  # the texts alone are 9 MB


def test_a_page_shows_what_was_asked_and_what_is_made_of_it(kb: Path):
    page = show_known_post(open_for_reading(kb), "p00")
    assert "Sunny day number 0 at the lake" in page
    assert "intentions, sample 0: ok" in page
    assert "teacher (answered by teacher-2) at 127.0.0.1:1, one-call.1" in page
    assert "100 + 20 tokens (40 cached), $0.250000" in page
    assert all(f"\n{name:8} " in page for name in RELATIONS)
    assert '| {"key_information"' not in page
    assert '| {"key_information"' in show_known_post(open_for_reading(kb), "p00", raw=True)


def test_a_page_of_a_refused_post_says_refused_ten_times(kb: Path):
    page = show_known_post(open_for_reading(kb), "p03")
    assert "one_call: refused: content_filter" in page
    assert page.count("absent: refused") == 10


def test_a_page_shows_scores_and_an_unknown_id_is_one_line(tmp_path: Path):
    kb = fill(tmp_path / "kb.sqlite", POSTS[:2])
    with KnowledgeBase(kb) as store:
        asyncio.run(store.put_scores([JudgeScore("p00", "xNeed", 0, "llm:j", 1.0, 0.75)]))
    assert "llm:j, sample 0, xNeed: plausibility 1.00, typicality 0.75" in show_known_post(
        open_for_reading(kb), "p00"
    )
    with pytest.raises(DistilError, match="no post has the id 'p0'; did you mean 'p0"):
        show_known_post(open_for_reading(kb), "p0")
