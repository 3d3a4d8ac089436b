"""Intention LMs: that they learn, that a kill costs nothing, and how they serve."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from miko_clf.data.post import Post
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import KnowledgeBase, open_for_reading
from miko_clf.distil.local_model import (
    IntentionLmRecord,
    LocalModel,
    make_intention_question,
    read_intention_lm,
)
from miko_clf.distil.request import ChatTurn, Request, Sampling, load_prompt
from miko_clf.distil.run import place_posts
from miko_clf.distil.scheduler import RunTally
from miko_clf.distil.schemas import IntentionAnswer, KeyInformationAnswer
from miko_clf.errors import BundleError, DistilError
from miko_clf.train.intention_lm import IntentionLMRun, train_intention_lm
from miko_clf.train.loop import ProgressBar, StoppedError
from tests.support.filled_kb import make_scheduler
from tests.support.repository import ROOT
from tests.support.taught_posts import COMPLETIONS, OTHERS, make_taught_posts, tiny_t5
from tests.support.tiny_llms import tiny_llama


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {"causal": tiny_llama(root / "causal"), "seq2seq": tiny_t5(root / "seq2seq")}


@pytest.fixture(scope="module")
def causal(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    course = _course(bases["causal"], tmp_path_factory.mktemp("causal") / "student", epochs=4)
    train_intention_lm(make_taught_posts(COMPLETIONS), course)
    return course.out


@pytest.fixture(scope="module")
def seq2seq(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("seq2seq") / "student"
    course = replace(_course(bases["seq2seq"], out, epochs=5), rate=1e-2, batch_size=4)
    train_intention_lm(make_taught_posts(COMPLETIONS), course)
    return course.out


def _course(base: Path, out: Path, epochs: int) -> IntentionLMRun:
    return IntentionLMRun(
        str(base), out, full=True, rate=3e-3, epochs=epochs, batch_size=8, patience=9, seed=1
    )


def _call(
    local: LocalModel, relation: str, sampling: Sampling, text: str = "a post about rain"
) -> Request:
    turns = (
        ChatTurn("system", ""),
        ChatTurn("user", make_intention_question(text, None, relation)),
    )
    return Request(relation, local.name, load_prompt("student"), turns, IntentionAnswer, sampling)


def _written(folder: Path) -> dict[str, str]:
    local = LocalModel(folder)
    calls = [_call(local, name, Sampling(30)) for name in COMPLETIONS]
    replies = [reply.raw for reply in local.write(calls)]
    return {
        call.stage: json.loads(raw)["intention"] for call, raw in zip(calls, replies, strict=True)
    }


def _losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["validation"]["loss"] for row in rows if "validation" in row]


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_a_student_of_either_family_learns_to_write_what_it_was_taught(
    family: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    losses = _losses(folder)
    assert losses[-1] < losses[0] / 2
    assert _written(folder) == COMPLETIONS
    page = read_intention_lm(folder)
    assert page.loss == min(losses)
    assert page.relations == ("xIntent", "xReact", "oWant")
    assert page.posts["train"] + page.posts["val"] == 16
    assert "{" not in (folder / "README.md").read_text()


def test_lora_learns_too_and_is_merged_into_plain_weights(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    course = _course(bases["causal"], tmp_path / "out", epochs=9)
    course = replace(course, full=False, rate=5e-3, batch_size=4)
    _check_merged(course, train_intention_lm(make_taught_posts(OTHERS), course))
    assert _losses(course.out)[-1] < _losses(course.out)[0] / 2
    assert _written(course.out) == OTHERS


def _check_merged(course: IntentionLMRun, record: IntentionLmRecord) -> None:
    assert record.rank == 16
    assert not list(course.out.glob("adapter*"))
    assert not course.work.exists()


def test_a_run_killed_and_a_run_stopped_end_in_the_weights_of_an_unbroken_one(
    bases: dict[str, Path], causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = replace(_course(bases["causal"], tmp_path / "student", epochs=4), minutes=0.0)
    child = subprocess.Popen([sys.executable, "-c", _TEACHES, repr(course)], cwd=ROOT)
    _wait_for(child, course.work, 3)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not course.out.exists()
    with monkeypatch.context() as patch:
        steps: list[int] = []

        def interrupt(bar: ProgressBar, done: int, **_: object) -> None:
            steps.append(done)
            if len(steps) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(ProgressBar, "update", interrupt)
        with pytest.raises(StoppedError, match="the same command goes on"):
            train_intention_lm(make_taught_posts(COMPLETIONS), course)
    page = train_intention_lm(make_taught_posts(COMPLETIONS), course)
    assert page.weights == read_intention_lm(causal).weights
    assert _losses(course.out) == _losses(causal)


# A process of its own, not a fork: threads of torch do not outlive a fork.
_TEACHES = """
import sys
from pathlib import Path, PosixPath
from miko_clf.train.intention_lm import IntentionLMRun, train_intention_lm
from tests.support.repository import ROOT
from tests.support.taught_posts import COMPLETIONS, make_taught_posts
train_intention_lm(make_taught_posts(COMPLETIONS), eval(sys.argv[1]))
"""


def _wait_for(child: subprocess.Popen, folder: Path, step: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and child.poll() is None:
        if any(int(path.name[-8:]) >= step for path in folder.glob("*/checkpoint-*")):
            return
        time.sleep(0.005)
    child.kill()
    pytest.fail(f"no checkpoint of step {step}; the run ended with {child.wait()}")


def test_lora_stopped_in_an_epoch_goes_on_to_the_same_weights(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = replace(_course(bases["seq2seq"], tmp_path / "one", epochs=2), full=False, minutes=0.0)
    whole = train_intention_lm(make_taught_posts(OTHERS, times=1), course)
    course = replace(course, out=tmp_path / "two")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "update", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(StoppedError):
            train_intention_lm(make_taught_posts(OTHERS, times=1), course)
    record = train_intention_lm(make_taught_posts(OTHERS, times=1), course)
    assert record.weights == whole.weights
    _check_merged(course, record)


def test_a_run_is_not_continued_with_other_data_nor_a_folder_written_over(
    bases: dict[str, Path], causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DistilError, match="exists; name another --out, or add --overwrite"):
        train_intention_lm(
            make_taught_posts(COMPLETIONS), _course(bases["causal"], causal, epochs=1)
        )
    course = _course(bases["causal"], tmp_path / "student", epochs=1)
    monkeypatch.setattr(ProgressBar, "update", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        train_intention_lm(make_taught_posts(COMPLETIONS), course)
    with pytest.raises(DistilError, match="a run with other data"):
        train_intention_lm(make_taught_posts(OTHERS), course)
    with pytest.raises(DistilError, match="a run with other rank"):
        train_intention_lm(make_taught_posts(COMPLETIONS), replace(course, rank=4))


def test_a_student_serves_posts_through_the_gathering_into_a_shelf(
    causal: Path, tmp_path: Path
) -> None:
    posts = make_taught_posts(COMPLETIONS)
    image = Post(id="picture", image=b"not read: a student sees no pictures")
    kb = tmp_path / "kb.sqlite"

    async def gathered() -> tuple[RunTally, LocalModel]:
        local = LocalModel(causal, at_once=16)
        runner = JobRunner(JobPlan("intentions", local.name, order="student"))
        with KnowledgeBase(kb) as store:
            scheduler = make_scheduler(store, local, runner)
            rows = place_posts(store, iter([(post.id, post) for post in (*posts, image)]), None)
            await scheduler.run(rows)
        await local.close()
        return scheduler.tally, local

    tally, local = asyncio.run(gathered())
    assert tally.posts == {"ok": 16, "failed": 1}
    assert tally.reasons["ok"] == 0
    assert tally.paid == 3 * 16
    assert local.num_batches <= 12
    with open_for_reading(kb) as db:
        say = "SELECT stage, raw, model, host FROM calls WHERE status = 'ok'"
        rows = db.execute(say).fetchall()
        tokens = db.execute("SELECT MIN(prompt_tokens), MIN(completion_tokens) FROM calls "
                            "WHERE status = 'ok'").fetchone()  # fmt: skip
    assert {(stage, json.loads(raw)["intention"]) for stage, raw, _, _ in rows} == set(
        COMPLETIONS.items()
    )
    assert {row[2:] for row in rows} == {(local.name, "local")}
    assert min(tokens) > 1
    again, idle = asyncio.run(gathered())
    assert again.paid == 0
    assert idle.num_batches == 0


def test_an_answer_is_that_of_its_call_whatever_it_is_written_together_with(
    bases: dict[str, Path], causal: Path
) -> None:
    local = LocalModel(causal)
    warm = [
        _call(local, relation, Sampling(12, warmth, share, seed), "rain " * len(relation))
        for relation in COMPLETIONS
        for warmth, share in ((1.5, 1.0), (3.0, 0.9), (0.0, 1.0))
        for seed in (1, 2)
    ]
    together = [reply.raw for reply in local.write(warm)]
    assert together == [local.write([call])[0].raw for call in warm]
    drawn, firm = together[2:4], together[4:6]
    assert drawn[0] != drawn[1]
    assert firm[0] == firm[1]


def test_a_share_of_almost_nothing_leaves_only_the_likeliest_word(causal: Path) -> None:
    local = LocalModel(causal)
    narrow = [_call(local, "xReact", Sampling(12, 5.0, 1e-6, seed)) for seed in range(4)]
    assert {json.loads(reply.raw)["intention"] for reply in local.write(narrow)} == {"relieved"}


def test_an_answer_without_room_is_cut_off_and_says_so(causal: Path) -> None:
    local = LocalModel(causal)
    short, long = local.write(
        [_call(local, "oWant", Sampling(2)), _call(local, "oWant", Sampling(30))]
    )
    assert (short.finish, long.finish) == ("length", "stop")
    assert short.usage.completion == 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(short.raw)


def test_a_student_refuses_what_it_was_never_taught(causal: Path, tmp_path: Path) -> None:
    local = LocalModel(causal)
    known = _call(local, "xReact", Sampling(5))
    with pytest.raises(DistilError, match="in the order 'student'"):
        asyncio.run(local.send(replace(known, prompt=load_prompt("relation"))))
    with pytest.raises(DistilError, match="in the order 'student'"):
        asyncio.run(local.send(replace(known, answer=KeyInformationAnswer)))
    with pytest.raises(DistilError, match="there is no model 'other'"):
        asyncio.run(local.send(known.address("other")))
    reply = asyncio.run(local.send(replace(known, stage="xNeed")))
    assert (reply.status, reply.reason) == ("failed", "the intention LM was not taught xNeed")
    with pytest.raises(DistilError, match="not an intention LM"):
        LocalModel(tmp_path)


def test_memory_that_runs_out_halves_the_batch(
    causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalModel(causal)
    write = local._write

    def narrow(calls: list[Request]) -> list:
        if len(calls) > 2:
            raise torch.OutOfMemoryError
        return write(calls)

    monkeypatch.setattr(local, "_write", narrow)
    replies = local.write([_call(local, name, Sampling(30)) for name in COMPLETIONS] * 2)
    assert [json.loads(each.raw)["intention"] for each in replies] == [*COMPLETIONS.values()] * 2
    assert local.at_once < 3


def test_two_runs_do_not_teach_into_one_folder(bases: dict[str, Path], tmp_path: Path) -> None:
    course = _course(bases["causal"], tmp_path / "student", epochs=1)

    def again() -> object:
        train_intention_lm(make_taught_posts(COMPLETIONS), course)
        yield

    with pytest.raises(BundleError, match="another process"):
        train_intention_lm(again(), course)
