"""Calls to ask and answers to keep, for tests of the shelf."""

import asyncio
from typing import Any

from miko_clf.distil.answer import Described
from miko_clf.distil.call import Call, Reply, Sampling, Turn
from miko_clf.distil.prompt import prompt
from miko_clf.distil.shelf import Row, Shelf


def call(text: str = "a question") -> Call:
    turns = (Turn("user", text),)
    return Call("description", "m", prompt("describe"), turns, Described, Sampling(50))


def kept(shelf: Shelf, *calls: Call, usd: float = 0.5, **reply: Any) -> list[Row]:
    async def keep() -> list[Row]:
        rows = (shelf.keep(each, Reply(**{"raw": "{}", **reply}), usd) for each in calls)
        return await asyncio.gather(*rows)

    return asyncio.run(keep())
