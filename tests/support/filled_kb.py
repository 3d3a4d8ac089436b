"""Knowledge bases filled by made-up answers, and single calls with answers to keep."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.distil.jobs import AskRequest, JobPlan, run_job
from miko_clf.distil.kb.store import CallRow, JobOutcome, KnowledgeBase, make_post_row
from miko_clf.distil.request import ChatTurn, Request, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.scheduler import RunTally, Scheduler
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


async def fill_kb(
    path: Path, posts: Sequence[Post], plan: JobPlan, says: Says = make_up_answer, usd: float = 0.25
) -> RunTally:
    """Ask everything of a plan about posts; what is answered is kept in the file at `path`."""
    with KnowledgeBase(path) as shelf:

        async def pay(call: Request) -> CallRow:
            return await shelf.keep(call, says(call), usd)

        async def way(post: Post, ask: AskRequest) -> JobOutcome:
            return await run_job(post, plan, ask)

        gathering = Scheduler(shelf, pay, way, RunTally(), width=8)
        rows = (
            (post, make_post_row(post, f"posts.jsonl:{n}", 1)) for n, post in enumerate(posts, 1)
        )
        return await gathering.run(rows)


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
    shelf: KnowledgeBase, *calls: Request, usd: float = 0.5, **reply: Any
) -> list[CallRow]:
    async def keep() -> list[CallRow]:
        rows = (shelf.keep(each, Response(**{"raw": "{}", **reply}), usd) for each in calls)
        return await asyncio.gather(*rows)

    return asyncio.run(keep())
