"""Posts go in, each is taken through its job, every answer is paid for once and kept."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from miko_clf.data.post import Post
from miko_clf.distil.budget import BudgetError, BudgetLedger
from miko_clf.distil.client import Sender, TeacherClient
from miko_clf.distil.jobs import JobRunner
from miko_clf.distil.kb.store import CallRow, KnowledgeBase, PlacedPosts
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.schemas import make_wire_schema
from miko_clf.errors import MikoError

_CHUNK = 64  # posts that are read, and committed, at a time
ESTIMATE_POSTS = 50  # posts that are walked through for an estimate
_ANSWER_WORDS = {"description": 60, "rationale": 80}  # of an answer's texts; others are short
_SHORT_WORDS = 9


class JobHalted(Exception):  # noqa: N818 - a state, not an error
    """A post could not be taken to its end, and goes on in a later run."""


class Payer(Protocol):
    """Gets a request answered within the budget: by sending it, or by writing it into a batch."""

    async def pay(self, request: Request) -> CallRow:
        """Return the answer, committed; raises `BudgetError` or `JobHalted`."""


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
        is_known = reason in self.reasons or len(self.reasons) < 1000
        self.reasons[reason if is_known else "other"] += 1

    def count(self, response: Response) -> None:
        """Add what came of a request."""
        self.paid += response.status != "failed"
        self.prompt += response.usage.prompt
        self.cached += response.usage.cached
        self.completion += response.usage.completion
        self.lost += response.lost


class Scheduler:
    """Takes each post through its job, `width` posts at a time.

    An answer that the knowledge base holds is never asked for again, unless asking failed in an
    earlier run. Once `stopping` holds a reason nothing is begun, and what is under way is kept.
    """

    def __init__(
        self, store: KnowledgeBase, payer: Payer, runner: JobRunner, tally: RunTally, *, width: int
    ) -> None:
        self.store = store
        self.payer = payer
        self.runner = runner
        self.tally = tally
        self.width = width
        self.stopping = ""
        self._error: Exception | None = None
        self._failed: set[bytes] = set()
        self._pending: dict[bytes, asyncio.Task[CallRow]] = {}

    async def run(self, posts: PlacedPosts) -> RunTally:
        """Run every post; raises the first error that ended the run, once all is kept."""
        queue: asyncio.Queue[Post] = asyncio.Queue(self.width)
        workers = [asyncio.create_task(self._take_posts(queue)) for _ in range(self.width)]
        try:
            try:
                await self._feed_posts(posts, queue)
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

    async def _feed_posts(self, posts: PlacedPosts, queue: asyncio.Queue[Post]) -> None:
        while not self.stopping and (chunk := list(itertools.islice(posts, _CHUNK))):
            await self.store.put_posts([row for _, row in chunk])
            for post, _ in chunk:
                await queue.put(post)

    async def _take_posts(self, queue: asyncio.Queue[Post]) -> None:
        while True:
            post = await queue.get()
            try:
                await self._run_post(post)
            except JobHalted:
                self.tally.unread += 1
            except Exception as error:  # kept for `run` to raise: a worker must not die of it
                self.tally.unread += 1
                self._stop(error)
            finally:
                queue.task_done()

    async def _run_post(self, post: Post) -> None:
        if self.stopping:
            raise JobHalted
        outcome = await self.runner.run(post, self)
        if not self.store.has_outcome(outcome):
            await self.store.put_outcome(outcome)
        self.tally.posts[outcome.status] += 1
        if outcome.status != "ok":
            self.tally.explain(f"{outcome.status}: {outcome.reason}"[:100])

    async def ask(self, request: Request) -> CallRow:
        """Return the answer: from the knowledge base, from whoever asks already, or paid for."""
        row = self.store.get_call(request.key)
        if row is not None and (row.status != "failed" or request.key in self._failed):
            self.tally.reused += 1
            return row
        if request.key not in self._pending:
            if self.stopping or self.store.full:
                self.stopping = self.stopping or "the disk is full"
                raise JobHalted
            self._pending[request.key] = asyncio.create_task(self._pay_once(request))
        return await asyncio.shield(self._pending[request.key])

    async def _pay_once(self, request: Request) -> CallRow:
        try:
            row = await self.payer.pay(request)
        finally:
            del self._pending[request.key]
        if row.status == "failed":
            self._failed.add(request.key)
        return row

    def _stop(self, error: Exception) -> None:
        """Begin nothing more; the first error is the one that is raised in the end."""
        self.stopping = self.stopping or str(error)
        self._error = self._error or error


class PaidSender:
    """Sends a request within the budget, and keeps what came of it before anyone sees it."""

    def __init__(
        self, store: KnowledgeBase, sender: Sender, ledger: BudgetLedger, tally: RunTally
    ) -> None:
        self.store = store
        self.sender = sender
        self.ledger = ledger
        self.tally = tally
        self._lost: Counter[bytes] = Counter()
        self._under_way = 0
        self._room = asyncio.Event()
        if isinstance(sender, TeacherClient):
            sender.books = self

    async def pay(self, request: Request) -> CallRow:
        """Return the answer, committed; raises `BudgetError` where the budget has no room."""
        reserved = await self._reserve(request)
        try:
            await self.store.open_flight(request.key, reserved)
            response = await self.sender.send(request)
        except BaseException as error:
            self.ledger.reserved -= reserved
            self._make_room()
            if isinstance(error, MikoError):  # it was turned down, and will not be billed
                await self._close_flight(request.key, reserved)
            raise
        counted = self._lost.pop(request.key, 0)
        lost = response.lost - counted
        usd = self.ledger.settle(reserved, request.model, response.usage, lost=lost)
        self._make_room()
        self.tally.count(response)
        return await self.store.put_response(request, response, usd + counted * reserved)

    async def count_lost(self, request: Request) -> None:
        """Count a lost answer as billed before it is asked for once more; raises `BudgetError`."""
        self._lost[request.key] += 1
        usd = self.ledger.lose(request)
        self._make_room()
        try:
            await self._reserve(request)
        except BudgetError:
            self.ledger.reserved += usd  # which whoever hears of this lets go
            self._under_way += 1
            raise
        await self.store.open_flight(request.key, usd * (self._lost[request.key] + 1))

    async def _reserve(self, request: Request) -> float:
        """Set aside what a request may cost, once there is room or none can come any more."""
        while True:
            try:
                reserved = self.ledger.reserve(request)
            except BudgetError:
                if not self._under_way:
                    raise
                self._room.clear()
                await self._room.wait()  # most requests cost less than was set aside for them
            else:
                self._under_way += 1
                return reserved

    def _make_room(self) -> None:
        self._under_way -= 1
        self._room.set()

    async def _close_flight(self, key: bytes, reserved: float) -> None:
        """Keep on record what a request that has ended unanswered may have cost before."""
        if known := self._lost.pop(key, 0):
            await self.store.open_flight(key, reserved * known)
        else:
            await self.store.close_flight(key)


async def estimate_cost(
    posts: Sequence[Post], runner: JobRunner, ledger: BudgetLedger, total: int | None
) -> str:
    """Return in a line what `total` posts like these (one, if None) take, were nothing known."""
    posts = posts[:ESTIMATE_POSTS]
    asker = _PretendAsker(ledger)
    for post in posts:
        await runner.run(post, asker)
    scale = (total or 1) / max(1, len(posts))
    subject = "a post takes" if total is None else f"{total:,} posts take"
    has_prices = all(model in ledger.prices for model in runner.plan.models)
    cost = f"${asker.usd * scale:,.2f}" if has_prices else "cost unknown (no price given)"
    return (
        f"about: {subject} {asker.calls * scale:,.0f} calls, {asker.prompt * scale:,.0f} prompt "
        f"and {asker.completion * scale:,.0f} completion tokens, {cost}"
    )


class _PretendAsker:
    """Answers at once with words of the usual length, and counts what it was asked."""

    def __init__(self, ledger: BudgetLedger) -> None:
        self.ledger = ledger
        self.calls = self.prompt = self.completion = 0
        self.usd = 0.0

    async def ask(self, request: Request) -> CallRow:
        raw = json.dumps(_make_filler(make_wire_schema(request.answer), ""))
        usage = self.ledger.expect(request)._replace(completion=len(raw) // 4)
        self.calls += 1
        self.prompt += usage.prompt
        self.completion += usage.completion
        self.usd += self.ledger.price(request.model, usage)
        return CallRow(request.key, None, "", raw, "stop", request.model)


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
