"""Walks by the batch route as a run makes them, and answers to the files that they write."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from miko_clf.data.post import Post
from miko_clf.distil.batch import BatchWave, WaveReport
from miko_clf.distil.budget import BudgetLedger, TokenPrice
from miko_clf.distil.client import ServerDialect
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import KnowledgeBase, open_for_reading
from miko_clf.distil.scheduler import RunTally, Scheduler
from tests.support.filled_kb import make_rows
from tests.support.llm_answers import Quirks, completion, digest, say

PLAN = JobPlan("intentions", "small")
PRICES = {"small": TokenPrice(input=1.0, output=4.0), "other": TokenPrice(input=1.0, output=4.0)}
Line = dict[str, Any]


def make_some_posts(count: int) -> list[Post]:
    return [Post(id=f"p{i}", text=f"What a lovely day number {i}") for i in range(count)]


async def walk_wave(
    kb: Path,
    folder: Path,
    posts: Sequence[Post],
    plan: JobPlan = PLAN,
    *,
    budget: float | None = None,
    dialects: dict[str, ServerDialect] | None = None,
    tally: RunTally | None = None,
    **limits: int,
) -> WaveReport:
    """Walk through all posts once, as a run does."""
    with KnowledgeBase(kb) as store:
        ledger = BudgetLedger(
            PRICES, plan.models, budget=budget, spent=store.sum_cost(), batch=True
        )
        tally = tally or RunTally()
        rows = make_rows(posts, store.run)
        with BatchWave(folder, store, ledger, tally, dialects=dialects or {}, **limits) as wave:
            await Scheduler(store, wave, JobRunner(plan), tally, width=8).run(rows)
        assert ledger.reserved == pytest.approx(0)
    return wave.report


async def run_waves(
    walk: Callable[[], Awaitable[WaveReport]], send: Callable[[WaveReport], Awaitable[None]]
) -> WaveReport:
    """Walk and send until nothing is missing, by a walk and a sending of the test's own."""
    while (wave := await walk()).awaited:
        await send(wave)
    if wave.spent:
        raise wave.spent
    return wave


def write_wave(
    kb: Path, folder: Path, posts: Sequence[Post], *args: Any, **given: Any
) -> WaveReport:
    return asyncio.run(walk_wave(kb, folder, posts, *args, **given))


def read_requests(part: Path) -> list[Line]:
    return [json.loads(line) for line in part.read_text().splitlines()]


def make_good_line(asked: Line, fault: str = "") -> Line:
    body = json.dumps(asked["body"]).encode()
    said = say(asked["body"], digest(body), Quirks(), fault)
    whole = completion(said, asked["body"]["model"], digest(body), Quirks())
    response = {"status_code": 200, "request_id": "r", "body": whole}
    return {
        "id": f"id-{asked['custom_id']}",
        "custom_id": asked["custom_id"],
        "response": response,
        "error": None,
    }


def make_bad_line(asked: Line, status: int, message: str, round_: int = 0) -> Line:
    """An error as OpenAI writes it."""
    body = {"error": {"message": message, "type": "x", "code": None}}
    response = {"status_code": status, "request_id": "r", "body": body}
    name = f"bad-{round_}-{asked['custom_id']}"
    return {"id": name, "custom_id": asked["custom_id"], "response": response, "error": None}


def answer_requests(part: Path, how: Callable[[Line], Line] = make_good_line) -> Path:
    """Answer a part as `vllm run-batch -o` does."""
    out = part.with_suffix(".out.jsonl")
    out.write_text("".join(json.dumps(how(each)) + "\n" for each in read_requests(part)))
    return out


def count_statuses(kb: Path) -> dict[str, int]:
    db = open_for_reading(kb)
    rows = db.execute("SELECT status, COUNT(*) FROM outcomes GROUP BY status").fetchall()
    db.close()
    return dict(rows)


def dump_lines(kb: Path) -> list[Any]:
    db = open_for_reading(kb)
    rows = db.execute("SELECT * FROM calls ORDER BY key").fetchall()
    rows += db.execute("SELECT post, task, status, reason FROM outcomes ORDER BY post").fetchall()
    db.close()
    return rows
