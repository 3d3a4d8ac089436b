"""Posts go in, each is taken through its job, every answer is paid for once and kept."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from miko_clf.data.post import Post
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.jobs import AskRequest
from miko_clf.distil.kb.store import CallRow, JobOutcome, KnowledgeBase, PostRow
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.schemas import make_wire_schema
from miko_clf.errors import MikoError

_CHUNK = 64  # posts that are read, and committed, at a time

SendRequest = Callable[[Request], Awaitable[Response]]
PayRequest = Callable[[Request], Awaitable[CallRow]]
RunPost = Callable[[Post, AskRequest], Awaitable[JobOutcome]]


class JobHalted(Exception):  # noqa: N818 - a state, not an error
    """A post could not be walked to its end, and goes on in a later run."""


@dataclass
class RunTally:
    """What a run has done so far. `posts` counts ends by status, `unread` are posts without one,
    `paid` calls that were answered, `reused` answers that were there already."""

    posts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unread: int = 0
    paid: int = 0
    reused: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    lost: int = 0

    @property
    def done(self) -> int:
        """Posts that have ended."""
        return sum(self.posts.values())

    def explain(self, reason: str) -> None:
        """Count a reason; past the first thousand, which may each be another, all are one."""
        known = reason in self.reasons or len(self.reasons) < 1000
        self.reasons[reason if known else "other"] += 1

    def count(self, reply: Response) -> None:
        """Add what came of a call."""
        self.paid += reply.status != "failed"
        self.prompt += reply.usage.prompt
        self.cached += reply.usage.cached
        self.completion += reply.usage.completion
        self.lost += reply.lost


class PaidSender:
    """Sends a call within the budget, and keeps what came of it before anyone sees it."""

    def __init__(
        self, shelf: KnowledgeBase, send: SendRequest, ledger: BudgetLedger, tally: RunTally
    ) -> None:
        self.shelf = shelf
        self.send = send
        self.ledger = ledger
        self.tally = tally
        self._lost: Counter[bytes] = Counter()
        self._under_way = 0
        self._room = asyncio.Event()

    async def __call__(self, call: Request) -> CallRow:
        """Return the answer, committed; raises `SpentError` where the budget has no room for it."""
        reserved = await self._reserved(call)
        try:
            await self.shelf.depart(call.key, reserved)
            reply = await self.send(call)
        except BaseException as error:
            self.ledger.release(reserved)
            self._settled()
            if isinstance(error, MikoError):  # it was turned down, and will not be billed
                await self._land(call.key, reserved)
            raise
        known = self._lost.pop(call.key, 0)
        usd = self.ledger.settle(reserved, call, reply.usage, lost=reply.lost - known)
        self._settled()
        self.tally.count(reply)
        return await self.shelf.keep(call, reply, usd + known * reserved)

    async def again(self, call: Request) -> None:
        """Count an answer that was lost as billed, before the call is sent once more.

        Raises `SpentError` where the budget has no room for that.
        """
        self._lost[call.key] += 1
        usd = self.ledger.lose(call)
        self._settled()
        try:
            await self._reserved(call)
        except BudgetError:
            self.ledger.reserved += usd  # which whoever hears of this lets go
            self._under_way += 1
            raise
        await self.shelf.depart(call.key, usd * (self._lost[call.key] + 1))

    async def _reserved(self, call: Request) -> float:
        """Set aside what a call may cost, once there is room for it or none can come any more."""
        while True:
            try:
                reserved = self.ledger.reserve(call)
            except BudgetError:
                if not self._under_way:
                    raise
                self._room.clear()
                await self._room.wait()  # most calls cost less than was set aside for them
            else:
                self._under_way += 1
                return reserved

    def _settled(self) -> None:
        self._under_way -= 1
        self._room.set()

    async def _land(self, key: bytes, reserved: float) -> None:
        """Keep on record what a call that has ended unanswered may have cost before."""
        if known := self._lost.pop(key, 0):
            await self.shelf.depart(key, reserved * known)
        else:
            await self.shelf.land(key)


class Scheduler:
    """Takes each post its way through a task, `width` posts at a time.

    An answer that the shelf holds is never asked for again, unless asking failed in an earlier
    run. `stopping` may be set to the reason at any time: what is under way is awaited and kept,
    nothing is begun.
    """

    def __init__(
        self, shelf: KnowledgeBase, pay: PayRequest, way: RunPost, tally: RunTally, *, width: int
    ) -> None:
        self.shelf = shelf
        self.pay = pay
        self.way = way
        self.tally = tally
        self.width = width
        self.stopping = ""
        self._error: Exception | None = None
        self._failed: set[bytes] = set()
        self._pending: dict[bytes, asyncio.Task[CallRow]] = {}

    async def run(self, posts: Iterator[tuple[Post, PostRow]]) -> RunTally:
        """Walk every post; raises the first error that ended the run, once all is kept."""
        queue: asyncio.Queue[Post] = asyncio.Queue(self.width)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(self.width)]
        try:
            try:
                await self._feed(posts, queue)
            except MikoError as error:
                self._stop(error)
            await queue.join()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if self._error:
            raise self._error
        return self.tally

    async def ask(self, call: Request) -> CallRow:
        """Return the answer to a call: from the shelf, from whoever asks already, or paid for."""
        row = self.shelf.row(call.key)
        if row is not None and (row.status != "failed" or call.key in self._failed):
            self.tally.reused += 1
            return row
        if call.key not in self._pending:
            if self.stopping or self.shelf.full:
                self.stopping = self.stopping or "the disk is full"
                raise JobHalted
            self._pending[call.key] = asyncio.create_task(self._paid(call))
        return await asyncio.shield(self._pending[call.key])

    async def _paid(self, call: Request) -> CallRow:
        try:
            row = await self.pay(call)
        finally:
            del self._pending[call.key]
        if row.status == "failed":
            self._failed.add(call.key)
        return row

    async def _feed(
        self, posts: Iterator[tuple[Post, PostRow]], queue: asyncio.Queue[Post]
    ) -> None:
        chunk: list[tuple[Post, PostRow]] = []
        for each in posts:
            chunk.append(each)
            if len(chunk) == _CHUNK:
                await self._hand_on(chunk, queue)
                chunk = []
            if self.stopping:
                return
        await self._hand_on(chunk, queue)

    async def _hand_on(self, chunk: list[tuple[Post, PostRow]], queue: asyncio.Queue[Post]) -> None:
        await self.shelf.place([row for _, row in chunk])
        for post, _ in chunk:
            await queue.put(post)

    async def _work(self, queue: asyncio.Queue[Post]) -> None:
        while True:
            post = await queue.get()
            try:
                await self._walk(post)
            except JobHalted:
                self.tally.unread += 1
            except Exception as error:  # kept for `run` to raise: a worker must not die of it
                self.tally.unread += 1
                self._stop(error)
            finally:
                queue.task_done()

    async def _walk(self, post: Post) -> None:
        if self.stopping:
            raise JobHalted
        outcome = await self.way(post, self.ask)
        if not self.shelf.ended(outcome):
            await self.shelf.conclude(outcome)
        self.tally.posts[outcome.status] += 1
        if outcome.status != "ok":
            self.tally.explain(f"{outcome.status}: {outcome.reason}"[:100])

    def _stop(self, error: Exception) -> None:
        """Begin nothing more; the first error is the one that is raised in the end."""
        self.stopping = self.stopping or str(error)
        self._error = self._error or error


ESTIMATE_POSTS = 50  # posts that are walked through
_ANSWER_WORDS = {"description": 60, "rationale": 80}  # of an answer's texts; others are short
_SHORT_WORDS = 9


class CostEstimate(NamedTuple):
    """What so many posts are expected to take, were none of it on the shelf. `usd` is None where
    a model has no price."""

    posts: int | None
    calls: float
    prompt: float
    completion: float
    usd: float | None

    def line(self) -> str:
        """Return the estimate in a line."""
        what = "a post takes" if self.posts is None else f"{self.posts:,} posts take"
        cost = "cost unknown (no price given)" if self.usd is None else f"${self.usd:,.2f}"
        return (
            f"about: {what} {self.calls:,.0f} calls, {self.prompt:,.0f} prompt and "
            f"{self.completion:,.0f} completion tokens, {cost}"
        )


async def estimate_cost(
    posts: Sequence[Post],
    way: RunPost,
    ledger: BudgetLedger,
    models: Sequence[str],
    total: int | None,
) -> CostEstimate:
    """Return what `total` posts like these (one post, if None) are expected to take."""
    seen: list[tuple[Request, TokenUsage]] = []

    async def pretend(call: Request) -> CallRow:
        raw = json.dumps(_make_filler(make_wire_schema(call.answer), ""))
        asked = ledger.expected(call)
        seen.append((call, asked._replace(completion=len(raw) // 4)))
        return CallRow(call.key, None, "", raw, "stop", call.model)

    for post in posts[:ESTIMATE_POSTS]:
        await way(post, pretend)
    scale = (total or 1) / max(1, len(posts[:ESTIMATE_POSTS]))
    usd = sum(ledger.price(call.model, usage) for call, usage in seen) * scale
    known = all(model in ledger.prices for model in models)
    return CostEstimate(
        total,
        len(seen) * scale,
        sum(usage.prompt for _, usage in seen) * scale,
        sum(usage.completion for _, usage in seen) * scale,
        usd if known else None,
    )


def peek_posts(posts: Iterator[Any]) -> tuple[list[Any], Iterator[Any]]:
    """Return the first posts, and all of them."""
    first = list(itertools.islice(posts, ESTIMATE_POSTS))
    return first, itertools.chain(first, posts)


def _make_filler(schema: Mapping[str, Any], name: str) -> Any:
    """Return a value of the schema, of the length that answers have."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"properties": fields}:
            return {key: _make_filler(field, key) for key, field in fields.items()}
        case {"items": items}:
            return [_make_filler(items, name)] * 4
        case {"type": "boolean"}:
            return True
    return " ".join(["words"] * _ANSWER_WORDS.get(name, _SHORT_WORDS))
