"""A knowledge base filled by made-up answers, through the same gathering as any real one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm_answers import WORDS

from miko_clf.data.post import Post
from miko_clf.distil.answer import wire_schema
from miko_clf.distil.call import Call, Reply, Usage
from miko_clf.distil.gather import Gathering, Tally
from miko_clf.distil.shelf import Outcome, Row, Shelf
from miko_clf.distil.source import post_row
from miko_clf.distil.tasks import Ask, Plan, walk

Says = Callable[[Call], Reply]


def made_up(call: Call) -> Reply:
    """Return an answer of the schema that was asked for, in words drawn from the question."""
    return reply(json.dumps(_value(wire_schema(call.answer), call.key, "")))


def reply(raw: str, **more: Any) -> Reply:
    """Return an answer as a server gives it."""
    known = {"model": "teacher-2", "host": "127.0.0.1:1", "request": "r1", "finish": "stop"}
    return Reply(raw=raw, usage=Usage(100, 40, 20), **{**known, **more})


async def filled_kb(
    path: Path, posts: Sequence[Post], plan: Plan, says: Says = made_up, usd: float = 0.25
) -> Tally:
    """Ask everything of a plan about posts; what is answered is kept in the file at `path`."""
    with Shelf(path) as shelf:

        async def pay(call: Call) -> Row:
            return await shelf.keep(call, says(call), usd)

        async def way(post: Post, ask: Ask) -> Outcome:
            return await walk(post, plan, ask)

        gathering = Gathering(shelf, pay, way, Tally(), width=8)
        rows = ((post, post_row(post, f"posts.jsonl:{n}", 1)) for n, post in enumerate(posts, 1))
        return await gathering.run(rows)


def _value(schema: dict[str, Any], key: bytes, name: str) -> Any:
    if schema["type"] == "object":
        fields = schema["properties"].items()
        return {field: _value(each, key, field) for field, each in fields}
    if schema["type"] == "array":
        return [_value(schema["items"], key, f"{name}{n}") for n in range(3)]
    start = sum(key) + 7 * sum(map(ord, name))
    return " ".join(WORDS[(start * step + step * step) % len(WORDS)] for step in range(1, 9))
