"""An engine behind a queue: what happens between a request and its answer."""

import asyncio
import math
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request

from miko_clf import manifest
from miko_clf.errors import MikoError
from miko_clf.serve import wire
from miko_clf.serve.batcher import Batcher
from miko_clf.serve.engine import Engine, Ready
from miko_clf.serve.guard import Room, read_body
from miko_clf.serve.wire import Model, ScoreRequest, ScoreResponse, WireError

DEADLINE = 10.0  # seconds
MAX_WAITING = 512  # posts
MAX_HELD = 256 * wire.MIB  # bodies
_THREADS = min(4, os.cpu_count() or 1)

Warmed = Callable[[Exception | None], None]


class Service:
    """A few threads read and decode requests, one scores them."""

    def __init__(self, engine: Engine, stopping: Callable[[], bool]) -> None:
        self.engine = engine
        self.warm = False
        self.stopping = stopping
        self.posts = Room(MAX_WAITING, self._wait)
        self.bytes = Room(MAX_HELD, lambda taken: self._wait(self.posts.taken))
        self.batcher = Batcher(engine.run)
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        path = engine.bundle.path / manifest.NAME
        self.model = Model(name=engine.bundle.recipe.name, digest=manifest.digest(path))

    def warm_up(self, warmed: Warmed) -> None:
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
        """Raise `WireError` (503) where posts cannot be scored yet, or any more."""
        if self.stopping():
            raise WireError(503, "draining", "the server is shutting down", retry_after=1)
        if not self.warm:
            raise WireError(503, "not_ready", "the server is not ready yet", retry_after=1)

    async def score(self, request: Request) -> ScoreResponse:
        """Return the scores of a request; raises `WireError` where there are none."""
        self.check_ready()
        until = time.monotonic() + DEADLINE
        with self.posts.hold() as take_posts, self.bytes.hold() as take_bytes:
            try:
                async with asyncio.timeout(DEADLINE):
                    body = await read_body(request, take_bytes)
                    loop = asyncio.get_running_loop()
                    given = await loop.run_in_executor(self.pool, wire.parse, body)
                    take_posts(len(given.posts))
                    ready = await loop.run_in_executor(self.pool, self._prepare, given, until)
                    scores = await asyncio.wrap_future(self.batcher.submit(ready, until))
            except TimeoutError:
                message = f"the posts were not scored within {DEADLINE:.0f} seconds"
                raise WireError(504, "deadline", message) from None
        return ScoreResponse(scores=scores, model=self.model)

    def _prepare(self, given: ScoreRequest, until: float) -> list[Ready]:
        ready = []
        for place, one in enumerate(given.posts):
            if time.monotonic() > until:
                raise TimeoutError
            post = wire.post_of(one, place)
            try:
                ready.append(self.engine.prepare(post, given.arm))
            except MikoError as error:
                raise WireError(422, "invalid", f"posts[{place}]: {error}") from None
        return ready

    def _wait(self, posts: int) -> int:
        """Return after how many seconds `posts` are scored, spread so that not all come back."""
        seconds = posts * self.batcher.seconds_a_post * random.uniform(1, 1.5)
        return min(30, max(1, math.ceil(seconds)))
