"""`vllm run-batch` answers a part that was written here, and its answers are read back."""

import os
from pathlib import Path

import pytest

from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.store import open_for_reading
from tests.support.batch_waves import count_statuses, make_some_posts, read_requests, write_wave
from tests.support.real_servers import run_vllm_batch
from tests.support.tiny_llms import tiny_llama

VENV = Path(os.environ.get("MIKO_VLLM", Path(__file__).parent.parent / ".venv-vllm"))
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not (VENV / "bin" / "vllm").is_file(), reason="no environment holds vLLM here"
    ),
]


def test_vllm_answers_a_part_line_by_line(tmp_path: Path) -> None:
    kb, folder = tmp_path / "kb.sqlite", tmp_path / "parts"
    plan = JobPlan("rationale", "tiny-llama", max_tokens=60)
    posts = [post.model_copy(update={"label": "sarcastic"}) for post in make_some_posts(6)]
    posts[5] = posts[5].model_copy(update={"text": "far too long " * 4000})
    (part,) = write_wave(kb, folder, posts, plan).parts
    out = part.with_suffix(".out.jsonl")
    run_vllm_batch(VENV, tiny_llama(tmp_path / "tiny-llama"), part, out, tmp_path / "log")
    assert len(read_requests(out)) == 6

    second = write_wave(kb, folder, posts, plan)
    assert (second.unreadable, second.strays) == (0, 0)
    db = open_for_reading(kb)
    rows = db.execute("SELECT status, reason, prompt_tokens, answered_by FROM calls").fetchall()
    db.close()
    assert len(rows) == 6
    failed = [row for row in rows if row[0] == "failed"]
    assert len(failed) == 1
    assert failed[0][1].startswith("400 ")
    assert all(row[2] > 0 and row[3] == "tiny-llama" for row in rows if row[0] != "failed")
    # A random model is cut off at times; whatever is not asked again has ended.
    assert second.calls + sum(count_statuses(kb).values()) == 6
    assert count_statuses(kb)["failed"] == 1
