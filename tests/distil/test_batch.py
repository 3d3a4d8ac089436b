"""The batch route: parts are written once, within their limits and the budget."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.post import Post
from miko_clf.distil.batch import BatchWave, WaveReport
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.client import ServerDialect
from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.store import KnowledgeBase
from miko_clf.distil.scheduler import RunTally
from miko_clf.errors import BundleError
from tests.support.batch_waves import (
    answer_requests,
    count_statuses,
    dump_lines,
    make_some_posts,
    read_requests,
    run_waves,
    walk_wave,
    write_wave,
)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parts"


def test_a_wave_is_written_once_and_its_answers_end_the_posts(kb: Path, folder: Path) -> None:
    posts = make_some_posts(20)
    first = write_wave(kb, folder, posts)
    assert (first.calls, first.awaited, len(first.parts)) == (20, 20, 1)
    assert count_statuses(kb) == {}
    before = first.parts[0].read_bytes()

    again = write_wave(kb, folder, posts)
    assert (again.calls, again.awaited, again.parts) == (0, 20, ())
    assert again.waiting == first.parts
    assert first.parts[0].read_bytes() == before

    answer_requests(first.parts[0])
    last = write_wave(kb, folder, posts)
    assert (last.calls, last.awaited, last.strays) == (0, 0, 0)
    assert count_statuses(kb) == {"ok": 20}


def test_a_line_is_a_request_of_the_openai_batch_api(kb: Path, folder: Path) -> None:
    part = write_wave(
        kb, folder, make_some_posts(1), dialects={"small": ServerDialect("json_object")}
    ).parts[0]
    (line,) = read_requests(part)
    assert set(line) == {"custom_id", "method", "url", "body"}
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["body"]["response_format"] == {"type": "json_object"}
    key = bytes.fromhex(line["custom_id"])
    answer_requests(part)
    write_wave(kb, folder, make_some_posts(1))
    assert [row[0] for row in dump_lines(kb) if isinstance(row[0], bytes)] == [key]


def test_a_plan_of_stages_takes_a_wave_for_each(kb: Path, folder: Path) -> None:
    posts, plan = make_some_posts(3), JobPlan("intentions", "small", "per-relation")
    calls = []
    while (written := write_wave(kb, folder, posts, plan)).awaited:
        calls.append(written.calls)
        for part in written.parts:
            answer_requests(part)
    assert calls == [3, 30]
    assert count_statuses(kb) == {"ok": 3}


def test_parts_keep_to_their_limits_and_ask_one_model_each(
    kb: Path, folder: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    posts = [
        Post(id=f"p{i}", text=f"number {i}", image=tmp_path / "red.png" if i % 2 else None)
        for i in range(14)
    ]
    plan = JobPlan("intentions", "small", "per-stage", vision="other")
    few = write_wave(kb, folder, posts, plan, lines=3)
    models = [{line["body"]["model"] for line in read_requests(part)} for part in few.parts]
    assert sorted(map(sorted, models)) == [["other"]] * 3 + [["small"]] * 3
    assert sorted(len(read_requests(part)) for part in few.parts) == [1, 1, 3, 3, 3, 3]

    small = write_wave(kb.with_name("b.sqlite"), folder.with_name("b"), posts, plan, size=5000)
    assert sum(len(read_requests(part)) for part in small.parts) == 14
    assert all(p.stat().st_size <= 5000 or len(read_requests(p)) == 1 for p in small.parts)


def test_identical_posts_are_asked_once(kb: Path, folder: Path) -> None:
    twins = [Post(id="a", text="the same words"), Post(id="b", text="the same words")]
    assert write_wave(kb, folder, twins).calls == 1


def test_a_picture_that_cannot_be_read_ends_its_post_and_no_other(
    kb: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    posts = [Post(id="torn", text="see", image=tmp_path / "torn.png"), *make_some_posts(2)]
    written = write_wave(kb, folder, posts)
    assert written.calls == 2
    assert count_statuses(kb) == {"failed": 1}


def test_a_budget_cuts_the_wave_and_counts_what_waits(kb: Path, folder: Path) -> None:
    posts = make_some_posts(30)
    first = write_wave(kb, folder, posts, budget=0.02)
    assert isinstance(first.spent, BudgetError)
    assert 0 < first.calls < 30
    second = write_wave(kb, folder, posts, budget=0.02)
    assert isinstance(second.spent, BudgetError)
    assert second.calls == 0
    answer_requests(first.parts[0])
    third = write_wave(kb, folder, posts, budget=0.02)  # an answer costs less than is set aside
    assert third.calls > 0
    with KnowledgeBase(kb) as store:
        assert store.sum_cost() < 0.02


def test_in_waves_ends_with_the_posts_or_the_budget(kb: Path, folder: Path) -> None:
    async def send(written: WaveReport) -> None:
        for part in written.waiting:
            answer_requests(part)

    posts = make_some_posts(10)
    done = asyncio.run(run_waves(lambda: walk_wave(kb, folder, posts), send))
    assert (done.awaited, count_statuses(kb)) == (0, {"ok": 10})
    more = make_some_posts(200)
    with pytest.raises(BudgetError, match="budget"):
        asyncio.run(run_waves(lambda: walk_wave(kb, folder, more, budget=0.03), send))
    with KnowledgeBase(kb) as store:
        assert store.sum_cost() <= 0.03


def test_a_killed_writer_leaves_no_part(kb: Path, folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from miko_clf.distil.batch_files import BatchPart, PartEntry\n"
        "from miko_clf.distil.response import TokenUsage\n"
        "part = BatchPart(Path(sys.argv[1]) / 'part-0001.jsonl', 'small')\n"
        "part.add(b'{}\\n', PartEntry(bytes(32), TokenUsage()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder.mkdir()
    ended = subprocess.run([sys.executable, script, folder], env=os.environ | {"PYTHONPATH": "."})
    assert ended.returncode == -signal.SIGKILL
    left = list(folder.iterdir())
    assert len(left) == 2
    assert all(path.name.startswith(".") for path in left)
    written = write_wave(kb, folder, make_some_posts(2))
    assert written.parts == (folder / "part-0001.jsonl",)
    assert {path.name for path in folder.iterdir()} == {"part-0001.jsonl", "part-0001.keys"}


def test_a_part_that_is_removed_is_asked_anew_under_another_name(kb: Path, folder: Path) -> None:
    part = write_wave(kb, folder, make_some_posts(2)).parts[0]
    part.unlink()
    again = write_wave(kb, folder, make_some_posts(2))
    assert again.calls == 2
    assert again.parts == (folder / "part-0002.jsonl",)


def test_two_runs_do_not_share_a_folder(kb: Path, folder: Path) -> None:
    with KnowledgeBase(kb) as store:
        ledger = BudgetLedger({}, ("small",))
        with (
            BatchWave(folder, store, ledger, RunTally()),
            pytest.raises(BundleError, match="another process"),
            BatchWave(folder, store, ledger, RunTally()),
        ):
            pass
