"""Knowledge bases filled by made-up answers, and single calls with answers to keep."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.distil.budget import BudgetLedger
from miko_clf.distil.client import Sender
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import CallRow, KnowledgeBase, PostRow, make_post_row
from miko_clf.distil.request import ChatTurn, Request, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.scheduler import PaidSender, RunTally, Scheduler
from miko_clf.distil.schemas import DescriptionAnswer, make_wire_schema
from tests.support.llm_answers import WORDS

Says = Callable[[Request], Response]


def make_up_answer(call: Request) -> Response:
    """Return an answer of the schema that was asked for, in words drawn from the question."""
    return make_reply(json.dumps(_value(make_wire_schema(call.answer), call.key, "")))


def make_reply(raw: str, **more: Any) -> Response:
    """Return an answer as a server gives it."""
    known = {"model": "teacher-2", "host": "127.0.0.1:1", "request": "r1", "finish": "stop"}
    return Response(raw=raw, usage=TokenUsage(100, 40, 20), **{**known, **more})


class MadeUpSender:
    """A server in this process: answers as `says` does, and keeps what it was asked."""

    def __init__(self, says: Says = make_up_answer) -> None:
        self.says = says
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        return self.says(request)

    async def close(self) -> None:
        pass


def make_scheduler(
    store: KnowledgeBase,
    sender: Sender,
    runner: JobRunner,
    *,
    width: int = 8,
    ledger: BudgetLedger | None = None,
) -> Scheduler:
    """Return what takes posts through a job, their requests paid for and sent."""
    tally = RunTally()
    payer = PaidSender(store, sender, ledger or BudgetLedger({}, runner.plan.models), tally)
    return Scheduler(store, payer, runner, tally, width=width)


def make_rows(posts: Iterable[Post], run: int = 1) -> Iterator[tuple[Post, PostRow]]:
    """Yield posts with the rows that a knowledge base keeps of them."""
    for number, post in enumerate(posts, 1):
        yield post, make_post_row(post, f"posts.jsonl:{number}", run)


class _FixedPricePayer:
    def __init__(self, store: KnowledgeBase, says: Says, usd: float) -> None:
        self.store, self.says, self.usd = store, says, usd

    async def pay(self, request: Request) -> CallRow:
        return await self.store.put_response(request, self.says(request), self.usd)


async def fill_kb(
    path: Path, posts: Sequence[Post], plan: JobPlan, says: Says = make_up_answer, usd: float = 0.25
) -> RunTally:
    """Ask everything of a plan about posts; what is answered is kept in the file at `path`."""
    with KnowledgeBase(path) as store:
        payer = _FixedPricePayer(store, says, usd)
        return await Scheduler(store, payer, JobRunner(plan), RunTally(), width=8).run(
            make_rows(posts)
        )


def _value(schema: dict[str, Any], key: bytes, name: str) -> Any:
    if schema["type"] == "object":
        fields = schema["properties"].items()
        return {field: _value(each, key, field) for field, each in fields}
    if schema["type"] == "array":
        return [_value(schema["items"], key, f"{name}{n}") for n in range(3)]
    start = sum(key) + 7 * sum(map(ord, name))
    return " ".join(WORDS[(start * step + step * step) % len(WORDS)] for step in range(1, 9))


def make_call(text: str = "a question") -> Request:
    turns = (ChatTurn("user", text),)
    return Request(
        "description", "m", load_prompt("describe"), turns, DescriptionAnswer, Sampling(50)
    )


def keep_answers(
    store: KnowledgeBase, *calls: Request, usd: float = 0.5, **reply: Any
) -> list[CallRow]:
    async def keep() -> list[CallRow]:
        rows = (store.put_response(each, Response(**{"raw": "{}", **reply}), usd) for each in calls)
        return await asyncio.gather(*rows)

    return asyncio.run(keep())
