"""Parts go through the Batch API of a real server, and no batch is paid for twice."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from llmock.routers import batch as llmock_batches
from llmock.testing import LLMockServer
from openai import AsyncOpenAI

from miko_clf import manifest
from miko_clf.distil import batch_api
from miko_clf.distil.batch import WaveReport
from miko_clf.distil.batch_api import submit_parts
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.kb.store import KnowledgeBase, open_for_reading
from miko_clf.distil.schemas import RELATION_ORDER
from miko_clf.errors import DistilError
from tests.support.batch_waves import (
    PRICES,
    count_statuses,
    make_some_posts,
    run_waves,
    walk_wave,
)
from tests.support.llm_server import Server, serve_pretended_llm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "bills.tsv"
    with serve_pretended_llm(log, batch_seconds=0.2) as found:
        yield found


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parts"


async def send(url: str, kb: Path, written: WaveReport, budget: float | None = None) -> None:
    """Submit what waits, as a run does."""
    with KnowledgeBase(kb) as store:
        spent = store.sum_cost()
    ledger = BudgetLedger(PRICES, ("small",), budget=budget, spent=spent, batch=True)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        await submit_parts(written.waiting, client, ledger, every=0.05)
    assert ledger.reserved == 0


def through(url: str, kb: Path, folder: Path, count: int, **limits: int) -> WaveReport:
    """Take posts through wave after wave."""
    posts = make_some_posts(count)
    walk = lambda: walk_wave(kb, folder, posts, **limits)  # noqa: E731
    return asyncio.run(run_waves(walk, lambda written: send(url, kb, written)))


def batches(url: str) -> list[Any]:
    with openai.OpenAI(base_url=url, api_key="none") as client:
        return list(client.batches.list(limit=100))


def of(folder: Path, url: str) -> list[Any]:
    run = json.loads((folder / "run.json").read_text())["run"]
    return [each for each in batches(url) if each.metadata["run"] == run]


def test_posts_go_through_batches_to_their_end(server: Server, kb: Path, folder: Path) -> None:
    billed = len(server.billed())
    written = through(server.url, kb, folder, 25, lines=10)
    assert written.awaited == 0
    assert count_statuses(kb) == {"ok": 25}
    assert len(of(folder, server.url)) == 3
    assert len(server.billed()) - billed == 25
    db = open_for_reading(kb)
    (usd,) = db.execute("SELECT SUM(usd) FROM calls").fetchone()
    db.close()
    bills = [each.bill for each in server.billed()[billed:]]
    full = sum(bill.prompt * 1.0 + bill.completion * 4.0 for bill in bills) / 1e6
    assert usd == pytest.approx(full / 2)


def test_a_batch_of_a_process_that_died_is_taken_up(
    server: Server, kb: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, value: Any) -> None:
        if path.name.endswith(".batch.json"):
            raise KeyboardInterrupt  # between what the server has done and our noting it
        write_json(path, value)

    write_json = manifest.write_json
    billed = len(server.billed())
    monkeypatch.setattr(batch_api, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        through(server.url, kb, folder, 5)
    assert len(of(folder, server.url)) == 1
    monkeypatch.undo()
    assert through(server.url, kb, folder, 5).awaited == 0
    assert len(of(folder, server.url)) == 1
    assert len(server.billed()) - billed == 5
    assert count_statuses(kb) == {"ok": 5}


def test_an_answer_that_was_lost_begins_no_second_batch(
    server: Server, kb: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = openai.resources.batches.AsyncBatches.create

    async def cut(self: Any, **given: Any) -> Any:
        made = await create(self, **given)
        if len(of(folder, server.url)) == 1:
            raise openai.APIConnectionError(request=None)  # type: ignore[arg-type]
        return made

    monkeypatch.setattr(openai.resources.batches.AsyncBatches, "create", cut)
    assert through(server.url, kb, folder, 4).awaited == 0
    assert len(of(folder, server.url)) == 1
    assert count_statuses(kb) == {"ok": 4}


def test_to_stop_while_waiting_loses_nothing(server: Server, kb: Path, folder: Path) -> None:
    async def stopped() -> None:
        written = await walk_wave(kb, folder, make_some_posts(6))
        task = asyncio.create_task(send(server.url, kb, written))
        while not list(folder.glob("*.batch.json")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert through(server.url, kb, folder, 6).awaited == 0
    assert len(of(folder, server.url)) == 1
    assert count_statuses(kb) == {"ok": 6}


def test_what_an_expired_batch_left_goes_into_the_next_wave(kb: Path, folder: Path) -> None:
    with serve_pretended_llm(batch_seconds=0.1, batch_share=0.6) as server:
        assert through(server.url, kb, folder, 10).awaited == 0
        assert [each.request_counts.total for each in reversed(of(folder, server.url))] == [
            10,
            4,
            1,
        ]
    assert count_statuses(kb) == {"ok": 10}


def test_a_batch_that_someone_cancelled_goes_into_the_next_wave(kb: Path, folder: Path) -> None:
    async def cancelled(url: str) -> None:
        written = await walk_wave(kb, folder, make_some_posts(3))
        task = asyncio.create_task(send(url, kb, written))
        while not list(folder.glob("*.batch.json")):
            await asyncio.sleep(0.01)
        (state,) = folder.glob("*.batch.json")
        async with AsyncOpenAI(base_url=url, api_key="none") as client:
            await client.batches.cancel(json.loads(state.read_text())["batch"])
        await task

    with serve_pretended_llm(
        batch_seconds=600
    ) as server:  # not looked at yet, so it leaves no file at all
        asyncio.run(cancelled(server.url))
    assert len((folder / "part-0001.rest.out.jsonl").read_text().splitlines()) == 3
    second = asyncio.run(walk_wave(kb, folder, make_some_posts(3)))
    assert (second.calls, second.awaited) == (3, 3)


def test_a_budget_refuses_parts_before_anything_is_sent(
    server: Server, kb: Path, folder: Path
) -> None:
    written = asyncio.run(walk_wave(kb, folder, make_some_posts(10)))
    with pytest.raises(BudgetError, match=r"part-0001.jsonl may cost \$0\.0\d+.*nothing was sent"):
        asyncio.run(send(server.url, kb, written, budget=0.001))
    assert of(folder, server.url) == []


def test_a_batch_that_the_server_refuses_is_said_and_can_be_sent_again(
    server: Server, kb: Path, folder: Path
) -> None:
    written = asyncio.run(walk_wave(kb, folder, make_some_posts(2)))
    whole = written.parts[0].read_text()
    written.parts[0].write_text(whole + "no JSON\n")
    with pytest.raises(DistilError, match="refused the batch: This line is not valid JSON"):
        asyncio.run(send(server.url, kb, written))
    written.parts[0].write_text(whole)
    asyncio.run(send(server.url, kb, written))
    assert asyncio.run(walk_wave(kb, folder, make_some_posts(2))).awaited == 0
    assert count_statuses(kb) == {"ok": 2}


def test_a_server_without_batches_is_one_line(kb: Path, folder: Path) -> None:
    written = asyncio.run(walk_wave(kb, folder, make_some_posts(2)))
    with serve_pretended_llm() as server, pytest.raises(DistilError, match="404"):
        asyncio.run(send(server.url.removesuffix("/v1") + "/v0", kb, written))


# It leaves the files of its uploads open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_we_did_not_write_takes_the_same_parts(
    kb: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten = dict.fromkeys(RELATION_ORDER, "to be kind")
    keys = {"concept": "c", "action": "a", "object": "o", "emotion": "e", "keywords": ["k"]}
    said = json.dumps({"key_information": keys, "intentions": ten})
    monkeypatch.setattr(llmock_batches, "build_mock_text", lambda **_: said)
    monkeypatch.setattr(llmock_batches, "_BATCH_DELAY", 0.1)
    with LLMockServer() as server:
        url = server.base_url("openai")
        assert through(url, kb, folder, 7, lines=4).awaited == 0
        assert len(of(folder, url)) == 2
    assert count_statuses(kb) == {"ok": 7}
