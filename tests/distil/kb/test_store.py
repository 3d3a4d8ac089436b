"""The store: what was answered is on disk, once, as it came, and outlives a kill or full disk."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.distil.kb.store import (
    CallRow,
    CommitWriter,
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
from tests.support.repository import ROOT

# Keeps answers, and names each once it is kept, until it is killed or the disk is full.
_KEEPS = """
import asyncio, sys
from pathlib import Path
from miko_clf.distil.kb.store import KnowledgeBase
from miko_clf.distil.response import Response
from tests.support.filled_kb import make_call

async def main():
    with KnowledgeBase(Path(sys.argv[1])) as store:
        n = 0
        while not store.full:
            calls = [make_call(str(n + more)) for more in range(8)]
            n += 8
            answer = Response("x" * 4000)
            await asyncio.gather(*(store.put_response(each, answer, 0.1) for each in calls))
            print(*(each.key.hex() for each in calls), sep="\\n", flush=True)

asyncio.run(main())
"""


def test_an_answer_is_there_as_it_came(tmp_path: Path):
    one = make_call()
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        (row,) = keep_answers(
            store, one, raw="not { json\n\0", finish="length", usage=TokenUsage(7, 3, 2)
        )
        assert (
            store.get_call(one.key)
            == row
            == CallRow(one.key, None, "", "not { json\n\0", "length", "m")
        )
        assert store.get_call(make_call("another").key) is None
        assert store.sum_cost() == 0.5


def test_the_first_answer_to_a_question_stays(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        keep_answers(store, make_call(), raw="first")
        keep_answers(store, make_call(), raw="second")
        row = store.get_call(make_call().key)
        assert row is not None
        assert row.raw == "first"


def test_a_failure_makes_way_for_an_answer_and_what_it_cost_stays_in_the_books(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        keep_answers(store, make_call(), raw="", status="failed", usd=2.0, tries=6, lost=2)
        keep_answers(store, make_call(), raw="answer", usd=0.5, tries=1)
        (found,) = store.db.execute("SELECT raw, usd, tries, lost FROM calls").fetchall()
        assert found == ("answer", 2.5, 7, 2)
        assert store.sum_cost() == 2.5


def test_calls_that_a_kill_cut_off_count_as_spent_and_only_once(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    with KnowledgeBase(path) as store:
        for text, usd in (("a", 0.25), ("b", 0.5)):
            asyncio.run(store.open_flight(make_call(text).key, usd))
        keep_answers(store, make_call("b"), usd=0.125)
    for _ in range(2):
        with KnowledgeBase(path) as store:
            assert store.sum_cost() == 0.375
            assert store.get_fact("lost") == {"calls": 1, "usd": 0.25}


def test_a_call_that_was_turned_down_does_not_count(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        asyncio.run(store.open_flight(make_call().key, 0.25))
        asyncio.run(store.close_flight(make_call().key))
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        assert store.sum_cost() == 0.0


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
    path = tmp_path_factory.mktemp("store") / "kb.sqlite"
    answers: dict[int, str] = {}
    failed, away, lost = [0.0] * 4, [0.0] * 4, 0.0
    store = KnowledgeBase(path)
    for number, (act, n) in enumerate(acts):
        one = make_call(str(n))
        if act == "answer":
            keep_answers(store, one, raw=str(number), usd=1.0)
            answers.setdefault(n, str(number))
        elif act == "fail" and n not in answers:
            keep_answers(store, one, raw="", status="failed", usd=0.25)
            failed[n] += 0.25
        elif act == "depart" and n not in answers:
            asyncio.run(store.open_flight(one.key, 0.125))
        elif act == "land":
            asyncio.run(store.close_flight(one.key))
        elif act == "reopen":
            store.close()
            store = KnowledgeBase(path)
            lost, away = lost + sum(away), [0.0] * 4
        if act in ("answer", "fail", "land"):
            away[n] = 0.0
        elif act == "depart" and n not in answers:
            away[n] = 0.125
    for n, raw in answers.items():
        row = store.get_call(make_call(str(n)).key)
        assert row is not None
        assert row.raw == raw
    assert store.sum_cost() == sum(failed) + len(answers) + lost
    store.close()


def test_a_second_process_is_refused_in_one_line_and_may_read(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    with KnowledgeBase(path) as store:
        keep_answers(store, make_call())
        words = f"from miko_clf.distil.kb.store import *; p=Path({str(path)!r})"
        ended = run_python("-c", f"{words}; KnowledgeBase(p)")
        assert ended.code == 1
        assert ended.err.splitlines()[-1].endswith(f"{path}: another process is writing there")
        count = "print(open_for_reading(p).execute('SELECT COUNT(*) FROM calls').fetchone())"
        assert run_python("-c", f"{words}; {count}").out == "(1,)\n"
    KnowledgeBase(path).close()


def test_a_closed_knowledge_base_leaves_one_file(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        keep_answers(store, make_call())
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
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        (row,) = keep_answers(store, make_call())
        read = row._replace(status="ok")
        one = JobOutcome("p1", "intentions", 0, "ok", "", (("one_call", row.key),), (read,))
        assert not store.has_outcome(one)
        asyncio.run(store.put_outcome(one))
        assert store.has_outcome(one)
        assert not store.has_outcome(one._replace(status="refused"))
        assert not store.has_outcome(one._replace(uses=(("description", row.key),)))
        assert store.get_call(row.key) == read
        asyncio.run(store.put_outcome(one._replace(uses=(("description", row.key),))))
        stages = store.db.execute("SELECT stage FROM uses").fetchall()
        assert stages == [("description",)]


def test_what_waits_while_a_commit_is_made_shares_the_next(tmp_path: Path):
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        before = store._writer.num_commits
        keep_answers(store, *(make_call(str(n)) for n in range(50)))
        assert store._writer.num_commits - before < 10
        assert store.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (50,)


@pytest.mark.parametrize("raw", ["\ud83d", object()])
def test_what_cannot_be_written_is_an_error_and_costs_no_other_answer(tmp_path: Path, raw: Any):
    async def keep(store: KnowledgeBase) -> None:
        await asyncio.wait_for(store.put_response(make_call(), Response(raw), 0.0), 5)

    async def all_at_once(store: KnowledgeBase) -> list[Any]:
        others = [store.put_response(make_call(text), Response("{}"), 0.0) for text in "ab"]
        return await asyncio.gather(others[0], keep(store), others[1], return_exceptions=True)

    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        before, bad, after = asyncio.run(all_at_once(store))
        assert isinstance(bad, DistilError)
        assert "cannot be written" in str(bad)
        assert store.get_call(before.key) == before
        assert store.get_call(after.key) == after
        keep_answers(store, make_call())  # and the next is written again
        assert store.get_call(make_call().key) is not None


def test_posts_are_kept_and_replaced(tmp_path: Path):
    rows = [PostRow("a", "x:1", "{}", None, 1), PostRow("a", "y:1", "{}", "i.png", 2)]
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        for row in rows:
            asyncio.run(store.put_posts([row]))
        assert store.get_post("a") == rows[1]
        assert store.get_post("b") is None


def test_marks_go_with_the_texts_that_they_were_given_for(tmp_path: Path):
    async def told(store: KnowledgeBase, key: bytes) -> int:
        await store.put_outcome(JobOutcome("a", "intentions", 0, "ok", "", (("one_call", key),)))
        (count,) = store.db.execute("SELECT COUNT(*) FROM scores").fetchone()
        await store.put_scores([JudgeScore("a", "xNeed", 0, "llm:judge", 1.0, None)])
        return int(count)

    async def asked(store: KnowledgeBase) -> list[int]:
        return [await told(store, key) for key in (b"1", b"1", b"2")]

    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        assert asyncio.run(asked(store)) == [0, 1, 0]


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    said = []
    with keeping(path) as process:
        assert process.stdout
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == 40:
                process.kill()
    with KnowledgeBase(path) as store:
        assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = [store.get_call(bytes.fromhex(key)) for key in said]
    assert len(found) >= 40
    assert None not in found


def test_at_a_full_disk_the_ballast_goes_and_what_was_under_way_is_written(tmp_path: Path):
    db = sqlite3.connect(tmp_path / "kb.sqlite", check_same_thread=False, isolation_level=None)
    db.execute("CREATE TABLE t (n)")
    ballast = tmp_path / "ballast"
    writer = CommitWriter(db, ballast)

    def act(db: sqlite3.Connection) -> None:
        if ballast.exists():
            raise sqlite3.OperationalError("database or disk is full")
        db.execute("INSERT INTO t VALUES (1)")

    async def both() -> None:
        await asyncio.gather(writer.do(act), writer.do(act))

    assert not writer.full
    asyncio.run(both())
    assert writer.full
    assert db.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)
    writer.close()
    db.close()


def test_a_disk_that_fills_up_loses_no_answer_under_way(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if not _mounts(small):
        pytest.skip("no small file system may be mounted here")
    script = f"mount -t tmpfs -o size=12m none {small} && {sys.executable} -c '{_KEEPS}' " + (
        f"{small}/kb.sqlite && cp {small}/kb.sqlite* {tmp_path}"
    )
    ended = _alone(script)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.split()
    with KnowledgeBase(tmp_path / "kb.sqlite") as store:
        assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert None not in [store.get_call(bytes.fromhex(key)) for key in said]
    assert len(said) > 100


def keeping(path: Path) -> subprocess.Popen[str]:
    """Run a process that keeps answers without end."""
    command = [sys.executable, "-c", _KEEPS, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_paths())


def _alone(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that may mount what nobody else sees."""
    command: Sequence[str] = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=_paths(), timeout=60)


def _mounts(folder: Path) -> bool:
    if not shutil.which("unshare"):
        return False
    return _alone(f"mount -t tmpfs -o size=1m none {folder}").returncode == 0


def _paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
