"""The store: what was answered is on disk, once, as it came, and its price in the books."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.distil.kb.store import (
    CallRow,
    JobOutcome,
    JudgeScore,
    KnowledgeBase,
    PostRow,
    open_for_reading,
)
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.errors import DistilError
from tests.support.command_line import run_python
from tests.support.filled_kb import keep_answers, make_call


def test_an_answer_is_there_as_it_came(tmp_path: Path):
    one = make_call()
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        (row,) = keep_answers(
            shelf, one, raw="not { json\n\0", finish="length", usage=TokenUsage(7, 3, 2)
        )
        assert (
            shelf.row(one.key) == row == CallRow(one.key, None, "", "not { json\n\0", "length", "m")
        )
        assert shelf.row(make_call("another").key) is None
        assert shelf.spent() == 0.5


def test_the_first_answer_to_a_question_stays(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        keep_answers(shelf, make_call(), raw="first")
        keep_answers(shelf, make_call(), raw="second")
        row = shelf.row(make_call().key)
        assert row is not None
        assert row.raw == "first"


def test_a_failure_makes_way_for_an_answer_and_what_it_cost_stays_in_the_books(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        keep_answers(shelf, make_call(), raw="", status="failed", usd=2.0, tries=6, lost=2)
        keep_answers(shelf, make_call(), raw="answer", usd=0.5, tries=1)
        (found,) = shelf.db.execute("SELECT raw, usd, tries, lost FROM calls").fetchall()
        assert found == ("answer", 2.5, 7, 2)
        assert shelf.spent() == 2.5


def test_calls_that_a_kill_cut_off_count_as_spent_and_only_once(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    with KnowledgeBase(path) as shelf:
        for text, usd in (("a", 0.25), ("b", 0.5)):
            asyncio.run(shelf.depart(make_call(text).key, usd))
        keep_answers(shelf, make_call("b"), usd=0.125)
    for _ in range(2):
        with KnowledgeBase(path) as shelf:
            assert shelf.spent() == 0.375
            assert shelf.fact("lost") == {"calls": 1, "usd": 0.25}


def test_a_call_that_was_turned_down_does_not_count(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        asyncio.run(shelf.depart(make_call().key, 0.25))
        asyncio.run(shelf.land(make_call().key))
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        assert shelf.spent() == 0.0


@settings(max_examples=15, deadline=None)
@given(
    acts=some.lists(
        some.tuples(
            some.sampled_from(["answer", "fail", "depart", "land", "reopen"]), some.integers(0, 3)
        ),
        max_size=20,
    )
)
def test_no_cent_is_forgotten_and_no_answer_replaced(
    acts: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("shelf") / "kb.sqlite"
    answers: dict[int, str] = {}
    failed, away, lost = [0.0] * 4, [0.0] * 4, 0.0
    shelf = KnowledgeBase(path)
    for number, (act, n) in enumerate(acts):
        one = make_call(str(n))
        if act == "answer":
            keep_answers(shelf, one, raw=str(number), usd=1.0)
            answers.setdefault(n, str(number))
        elif act == "fail" and n not in answers:
            keep_answers(shelf, one, raw="", status="failed", usd=0.25)
            failed[n] += 0.25
        elif act == "depart" and n not in answers:
            asyncio.run(shelf.depart(one.key, 0.125))
        elif act == "land":
            asyncio.run(shelf.land(one.key))
        elif act == "reopen":
            shelf.close()
            shelf = KnowledgeBase(path)
            lost, away = lost + sum(away), [0.0] * 4
        if act in ("answer", "fail", "land"):
            away[n] = 0.0
        elif act == "depart" and n not in answers:
            away[n] = 0.125
    for n, raw in answers.items():
        row = shelf.row(make_call(str(n)).key)
        assert row is not None
        assert row.raw == raw
    assert shelf.spent() == sum(failed) + len(answers) + lost
    shelf.close()


def test_a_second_process_is_refused_in_one_line_and_may_read(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    with KnowledgeBase(path) as shelf:
        keep_answers(shelf, make_call())
        words = (
            f"from pathlib import Path; from miko_clf.distil.shelf import *; p=Path({str(path)!r})"
        )
        ended = run_python("-c", f"{words}; Shelf(p)")
        assert ended.code == 1
        assert ended.err.splitlines()[-1].endswith(f"{path}: another process is writing there")
        count = "print(reading(p).execute('SELECT COUNT(*) FROM calls').fetchone())"
        assert run_python("-c", f"{words}; {count}").out == "(1,)\n"
    KnowledgeBase(path).close()


def test_a_closed_shelf_leaves_one_file(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        keep_answers(shelf, make_call())
    assert [path.name for path in tmp_path.iterdir()] == ["kb.sqlite"]


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 9, None]
)
def test_a_file_of_another_kind_is_an_error_with_its_name(tmp_path: Path, content: bytes | None):
    path = tmp_path / "kb.sqlite"
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for use in (KnowledgeBase, open_for_reading):
        with pytest.raises(DistilError, match=str(path)):
            use(path)
    assert path.read_bytes() == before


def test_there_is_nothing_to_read_where_there_is_no_file(tmp_path: Path):
    with pytest.raises(DistilError, match="no such knowledge base"):
        open_for_reading(tmp_path / "kb.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_an_outcome_is_known_by_its_status_and_its_calls(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        (row,) = keep_answers(shelf, make_call())
        read = row._replace(status="ok")
        one = JobOutcome("p1", "intentions", 0, "ok", "", (("one_call", row.key),), (read,))
        assert not shelf.ended(one)
        asyncio.run(shelf.conclude(one))
        assert shelf.ended(one)
        assert not shelf.ended(one._replace(status="refused"))
        assert not shelf.ended(one._replace(uses=(("description", row.key),)))
        assert shelf.row(row.key) == read
        asyncio.run(shelf.conclude(one._replace(uses=(("description", row.key),))))
        stages = shelf.db.execute("SELECT stage FROM uses").fetchall()
        assert stages == [("description",)]


def test_what_waits_while_a_commit_is_made_shares_the_next(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        before = shelf._writer.num_commits
        keep_answers(shelf, *(make_call(str(n)) for n in range(50)))
        assert shelf._writer.num_commits - before < 10
        assert shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (50,)


@pytest.mark.parametrize("raw", ["\ud83d", object()])
def test_what_cannot_be_written_is_an_error_and_costs_no_other_answer(tmp_path: Path, raw: Any):
    async def keep(shelf: KnowledgeBase) -> None:
        await asyncio.wait_for(shelf.keep(make_call(), Response(raw), 0.0), 5)

    async def all_at_once(shelf: KnowledgeBase) -> list[Any]:
        others = [shelf.keep(make_call(text), Response("{}"), 0.0) for text in "ab"]
        return await asyncio.gather(others[0], keep(shelf), others[1], return_exceptions=True)

    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        before, bad, after = asyncio.run(all_at_once(shelf))
        assert isinstance(bad, DistilError)
        assert "cannot be written" in str(bad)
        assert shelf.row(before.key) == before
        assert shelf.row(after.key) == after
        keep_answers(shelf, make_call())  # and the next is written again
        assert shelf.row(make_call().key) is not None


def test_posts_are_kept_and_replaced(tmp_path: Path):
    rows = [PostRow("a", "x:1", "{}", None, 1), PostRow("a", "y:1", "{}", "i.png", 2)]
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        for row in rows:
            asyncio.run(shelf.place([row]))
        assert shelf.post("a") == rows[1]
        assert shelf.post("b") is None


def test_marks_go_with_the_texts_that_they_were_given_for(tmp_path: Path):
    async def told(shelf: KnowledgeBase, key: bytes) -> int:
        await shelf.conclude(JobOutcome("a", "intentions", 0, "ok", "", (("one_call", key),)))
        (count,) = shelf.db.execute("SELECT COUNT(*) FROM scores").fetchone()
        await shelf.score([JudgeScore("a", "xNeed", 0, "llm:judge", 1.0, None)])
        return int(count)

    async def asked(shelf: KnowledgeBase) -> list[int]:
        return [await told(shelf, key) for key in (b"1", b"1", b"2")]

    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        assert asyncio.run(asked(shelf)) == [0, 1, 0]
