"""Dynamic batching: posts of many requests wait in a bounded queue and are scored together."""

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import NamedTuple

from starlette.requests import Request

from miko_clf import manifest
from miko_clf.errors import MikoError
from miko_clf.serve import schemas
from miko_clf.serve.engine import MAX_BATCH, Engine, PreparedPost
from miko_clf.serve.middleware import TakeCapacity, read_json_body
from miko_clf.serve.postprocess import Score
from miko_clf.serve.schemas import RequestError, ScoreRequest, ScoreResponse, ServedModel

REQUEST_DEADLINE = 10.0  # seconds
MAX_WAITING_POSTS = 512
_MAX_HELD_BYTES = 256 * schemas.MEBIBYTE  # of bodies
_DECODE_THREADS = min(4, os.cpu_count() or 1)
_BATCH_WAIT = 0.003  # seconds that the first post of a batch waits for others
_MEAN_DECAY = 0.9  # share of the past in the running mean of the time a post takes

WarmUpCallback = Callable[[Exception | None], None]
_ScoreBatch = Callable[[Sequence[PreparedPost]], list[Score]]


class CapacityLimit:
    """A bound on what is held at once, of posts or of bytes; used from the event loop alone."""

    def __init__(self, size: int, wait: Callable[[int], int]) -> None:
        self.size, self.taken = size, 0
        self._wait = wait

    @contextmanager
    def hold(self) -> Iterator[TakeCapacity]:
        """Give a function that takes room until the block ends; it raises `RequestError` (429)."""
        mine = 0

        def take(amount: int) -> None:
            nonlocal mine
            if self.taken + amount > self.size:
                message = "the server has as much work as it can hold; try again later"
                raise RequestError(429, "busy", message, retry_after=self._wait(self.taken))
            self.taken += amount
            mine += amount

        try:
            yield take
        finally:
            self.taken -= mine


class QueuedRequest(NamedTuple):
    """The posts of one request; worth nothing after `until` (seconds, monotonic)."""

    posts: Sequence[PreparedPost]
    until: float
    future: Future[list[Score]]


class Batcher:
    """One thread that scores requests in the order in which they came, several at a time.

    `seconds_a_post` is a running mean.
    """

    def __init__(self, run: _ScoreBatch) -> None:
        self.seconds_a_post = 0.0
        self._run = run
        self._queue: SimpleQueue[QueuedRequest | None] = SimpleQueue()
        self._held: list[QueuedRequest | None] = []  # taken from the queue, for the next batch
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def start(self) -> None:
        """Start to score."""
        self._thread.start()

    def submit(self, posts: Sequence[PreparedPost], until: float) -> Future[list[Score]]:
        """Return a promise of the scores; it raises TimeoutError where their turn came too late."""
        request = QueuedRequest(posts, until, Future())
        self._queue.put(request)
        return request.future

    def close(self) -> None:
        """Score what was submitted, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._next(None)) is not None:
            requests = [request for request in self._gather(first) if _is_live(request)]
            if requests:
                self._score(requests)

    def _next(self, timeout: float | None) -> QueuedRequest | None:
        return self._held.pop() if self._held else self._queue.get(timeout=timeout)

    def _gather(self, first: QueuedRequest) -> list[QueuedRequest]:
        batch, size, end = [first], len(first.posts), time.monotonic() + _BATCH_WAIT
        while size < MAX_BATCH:
            try:
                request = self._next(max(0.0, end - time.monotonic()))
            except Empty:
                break
            if request is None or size + len(request.posts) > MAX_BATCH:
                self._held.append(request)
                break
            batch.append(request)
            size += len(request.posts)
        return batch

    def _score(self, requests: Sequence[QueuedRequest]) -> None:
        posts = [post for request in requests for post in request.posts]
        started = time.monotonic()
        try:
            scores = iter(self._run(posts))
        except Exception as error:  # the thread lives on, and every request hears of it
            for request in requests:
                request.future.set_exception(error)
            return
        spent = (time.monotonic() - started) / max(1, len(posts))
        self.seconds_a_post += (1 - _MEAN_DECAY) * (spent - self.seconds_a_post)
        for request in requests:
            request.future.set_result([next(scores) for _ in request.posts])


def _is_live(request: QueuedRequest) -> bool:
    """Tell whether a request is still wanted; one that is too late hears of it."""
    if not request.future.set_running_or_notify_cancel():
        return False
    if request.until > time.monotonic():
        return True
    request.future.set_exception(TimeoutError())
    return False


class ScoringService:
    """A few threads read and decode requests, one scores them."""

    def __init__(self, engine: Engine, stopping: Callable[[], bool]) -> None:
        self.engine = engine
        self.warm = False
        self.stopping = stopping
        self.posts = CapacityLimit(MAX_WAITING_POSTS, self._wait)
        self.bytes = CapacityLimit(_MAX_HELD_BYTES, lambda taken: self._wait(self.posts.taken))
        self.batcher = Batcher(engine.run)
        self.pool = ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode")
        path = engine.bundle.path / manifest.MANIFEST_FILE
        self.model = ServedModel(name=engine.bundle.recipe.name, digest=manifest.hash_file(path))

    def warm_up(self, warmed: WarmUpCallback) -> None:
        """Score a fixed post, then be ready; `warmed` hears of the outcome."""
        try:
            self.engine.warm_up()
        except Exception as error:  # it belongs to whoever started the server
            warmed(error)
            return
        self.warm = True
        warmed(None)

    def close(self) -> None:
        """Finish what is under way."""
        self.pool.shutdown()
        self.batcher.close()

    def check_ready(self) -> None:
        """Raise `RequestError` (503) where posts cannot be scored yet, or any more."""
        if self.stopping():
            raise RequestError(503, "draining", "the server is shutting down", retry_after=1)
        if not self.warm:
            raise RequestError(503, "not_ready", "the server is not ready yet", retry_after=1)

    async def score(self, request: Request) -> ScoreResponse:
        """Return the scores of a request; raises `RequestError` where there are none."""
        self.check_ready()
        until = time.monotonic() + REQUEST_DEADLINE
        with self.posts.hold() as take_posts, self.bytes.hold() as take_bytes:
            try:
                async with asyncio.timeout(REQUEST_DEADLINE):
                    body = await read_json_body(request, take_bytes)
                    loop = asyncio.get_running_loop()
                    wish = await loop.run_in_executor(self.pool, schemas.parse_request, body)
                    take_posts(len(wish.posts))
                    ready = await loop.run_in_executor(self.pool, self._prepare, wish, until)
                    scores = await asyncio.wrap_future(self.batcher.submit(ready, until))
            except TimeoutError:
                message = f"the posts were not scored within {REQUEST_DEADLINE:.0f} seconds"
                raise RequestError(504, "deadline", message) from None
        return ScoreResponse(scores=scores, model=self.model)

    def _prepare(self, wish: ScoreRequest, until: float) -> list[PreparedPost]:
        ready = []
        for place, payload in enumerate(wish.posts):
            if time.monotonic() > until:
                raise TimeoutError
            post = schemas.decode_post(payload, place)
            try:
                ready.append(self.engine.prepare(post, wish.arm, until))
            except MikoError as error:
                raise RequestError(422, "invalid", f"posts[{place}]: {error}") from None
        return ready

    def _wait(self, posts: int) -> int:
        """Return after how many seconds `posts` are scored, spread so that not all come back."""
        seconds = posts * self.batcher.seconds_a_post * random.uniform(1, 1.5)
        return min(30, max(1, math.ceil(seconds)))
