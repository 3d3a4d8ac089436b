"""Walks by the batch route as a run makes them, and answers to the parts that they write."""

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from llm_answers import Quirks, completion, digest, say

from miko_clf.data.post import Post
from miko_clf.distil.batch import Wave, Written
from miko_clf.distil.dialect import Dialect
from miko_clf.distil.gather import Gathering, Tally
from miko_clf.distil.money import Ledger, Price
from miko_clf.distil.shelf import Shelf, reading
from miko_clf.distil.source import post_row
from miko_clf.distil.tasks import Plan, walk

PLAN = Plan("intentions", "small")
PRICES = {"small": Price(input=1.0, output=4.0), "other": Price(input=1.0, output=4.0)}
Line = dict[str, Any]


def some_posts(count: int) -> list[Post]:
    return [Post(id=f"p{i}", text=f"What a lovely day number {i}") for i in range(count)]


async def wave(
    kb: Path,
    folder: Path,
    posts: Sequence[Post],
    plan: Plan = PLAN,
    *,
    budget: float | None = None,
    dialects: dict[str, Dialect] | None = None,
    tally: Tally | None = None,
    **limits: int,
) -> Written:
    """Walk through all posts once, as a run does."""
    with Shelf(kb) as shelf:
        ledger = Ledger(PRICES, plan.models, budget=budget, spent=shelf.spent(), batch=True)
        tally = tally or Tally()
        rows = ((post, post_row(post, f"posts:{post.id}", shelf.run)) for post in posts)
        way = partial(_walk, plan)
        with Wave(folder, shelf, ledger, tally, dialects, **limits) as pay:
            await Gathering(shelf, pay, way, tally, width=8).run(rows)
        assert ledger.reserved == pytest.approx(0)
    return pay.written


async def _walk(plan: Plan, post: Post, ask: Any) -> Any:
    return await walk(post, plan, ask)


def write(kb: Path, folder: Path, posts: Sequence[Post], *args: Any, **given: Any) -> Written:
    return asyncio.run(wave(kb, folder, posts, *args, **given))


def requests(part: Path) -> list[Line]:
    return [json.loads(line) for line in part.read_text().splitlines()]


def good(asked: Line, fault: str = "") -> Line:
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


def bad(asked: Line, status: int, message: str, round_: int = 0) -> Line:
    """An error as OpenAI writes it."""
    body = {"error": {"message": message, "type": "x", "code": None}}
    response = {"status_code": status, "request_id": "r", "body": body}
    name = f"bad-{round_}-{asked['custom_id']}"
    return {"id": name, "custom_id": asked["custom_id"], "response": response, "error": None}


def answer(part: Path, how: Callable[[Line], Line] = good) -> Path:
    """Answer a part as `vllm run-batch -o` does."""
    out = part.with_suffix(".out.jsonl")
    out.write_text("".join(json.dumps(how(each)) + "\n" for each in requests(part)))
    return out


def statuses(kb: Path) -> dict[str, int]:
    db = reading(kb)
    rows = db.execute("SELECT status, COUNT(*) FROM outcomes GROUP BY status").fetchall()
    db.close()
    return dict(rows)


def dump(kb: Path) -> list[Any]:
    db = reading(kb)
    rows = db.execute("SELECT * FROM calls ORDER BY key").fetchall()
    rows += db.execute("SELECT post, task, status, reason FROM outcomes ORDER BY post").fetchall()
    db.close()
    return rows
