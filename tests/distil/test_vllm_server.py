"""vLLM on the CPU: a server that obeys schemas, looks at pictures and answers files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from miko_clf.distil.jobs import JobPlan
from miko_clf.distil.kb.store import open_for_reading
from tests.support.batch_waves import count_statuses, make_some_posts, read_requests, write_wave
from tests.support.command_line import run_command
from tests.support.real_servers import run_vllm_batch, run_vllm_server
from tests.support.repository import ROOT
from tests.support.server_questions import (
    WISH,
    ask_question,
    distil_three_posts,
    read_kept_calls,
    read_texts,
    show_picture,
    write_three_posts,
)
from tests.support.tiny_llms import PATCHES, tiny_llama, tiny_llava

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def venv() -> Path:
    """The environment that vLLM is installed in."""
    folder = Path(os.environ.get("MIKO_VLLM", ROOT / ".venv-vllm"))
    if not (folder / "bin" / "vllm").is_file():
        pytest.skip("there is no vLLM here; `make check-vllm` makes one, MIKO_VLLM names another")
    return folder


@pytest.fixture(scope="module")
def url(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests, of a model that sees."""
    folder = tmp_path_factory.mktemp("vllm")
    with run_vllm_server(venv, tiny_llava(folder / "llava"), folder / "log") as server:
        yield server.url


def test_a_schema_is_obeyed_with_a_picture(url: str) -> None:
    without = ask_question(url, "llava", "Which colour?", response_format=WISH)
    shown = ask_question(url, "llava", show_picture("Which colour?"), response_format=WISH)

    assert shown.usage.prompt_tokens - without.usage.prompt_tokens == PATCHES
    for answer in (without, shown):
        assert json.loads(answer.choices[0].message.content)["colour"] in ("red", "blue")


def test_an_old_name_of_the_schema_is_ignored_in_silence(url: str) -> None:
    schema = WISH["json_schema"]["schema"]
    answer = ask_question(url, "llava", "Which?", max_tokens=60, extra_body={"guided_json": schema})

    assert "colour" not in answer.choices[0].message.content


@pytest.mark.parametrize(
    ("task", "order", "num_calls"),
    [
        ("rationale", "one-call", 3),
        ("debate", "one-call", 6),
        ("intentions", "one-call", 3),
        ("intentions", "per-stage", 3 * 3 - 1),  # words alone have no picture to describe
        ("intentions", "per-relation", 3 * 12 - 1),
    ],
)
def test_every_task_ends_well(
    url: str, tmp_path: Path, task: str, order: str, num_calls: int
) -> None:
    ended = distil_three_posts(url, "llava", task, tmp_path, "--plan", order, "--temperature", 0)

    assert ended.code == 0, ended
    assert "ignores" not in ended.err
    assert ended.out.startswith("3 posts: 3 ok\n")
    calls = read_kept_calls(tmp_path, task)
    assert len(calls) == num_calls
    assert all(isinstance(text, dict) for text in read_texts(calls))


def test_the_server_remembers_the_part_of_a_prompt_that_stays(url: str, tmp_path: Path) -> None:
    ended = distil_three_posts(url, "llava", "debate", tmp_path)

    share = ended.out.split(" prompt tokens, ")[1].split("%")[0]
    assert int(share) > 30


def test_calls_with_pictures_are_answered_from_a_file(venv: Path, tmp_path: Path) -> None:
    words = ["--task", "intentions", "--model", "llava", "--temperature", 0]
    command = [
        "distil",
        write_three_posts(tmp_path),
        "--kb",
        tmp_path / "intentions.sqlite",
        *words,
    ]
    waiting = run_command(*command, "--batch", tmp_path / "parts")
    (part,) = (tmp_path / "parts").glob("*.jsonl")

    assert "3 posts wait for answers" in waiting.out
    assert str(part) in waiting.out

    folder = tiny_llava(tmp_path / "llava")
    run_vllm_batch(venv, folder, part, part.with_suffix(".out.jsonl"), tmp_path / "log")
    ended = run_command(*command, "--batch", tmp_path / "parts")

    assert ended.out.startswith("3 posts: 3 ok\n"), ended
    calls = read_kept_calls(tmp_path, "intentions")
    assert len(calls) == 3
    assert all(call.prompt_tokens > PATCHES for call in calls)


def test_vllm_answers_a_part_line_by_line(venv: Path, tmp_path: Path) -> None:
    kb, folder = tmp_path / "kb.sqlite", tmp_path / "parts"
    plan = JobPlan("rationale", "tiny-llama", max_tokens=60)
    posts = [post.model_copy(update={"label": "sarcastic"}) for post in make_some_posts(6)]
    posts[5] = posts[5].model_copy(update={"text": "far too long " * 4000})
    (part,) = write_wave(kb, folder, posts, plan).parts
    out = part.with_suffix(".out.jsonl")
    run_vllm_batch(venv, tiny_llama(tmp_path / "tiny-llama"), part, out, tmp_path / "log")
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
