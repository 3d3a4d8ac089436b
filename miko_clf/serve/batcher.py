"""Posts of many requests, scored together."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

from miko_clf.serve.engine import MAX_BATCH, Ready, Score

WAIT = 0.003  # seconds that the first post of a batch waits for others
_MEMORY = 0.9  # share of the past in the running mean of the time a post takes

Run = Callable[[Sequence[Ready]], list[Score]]


class Job(NamedTuple):
    """The posts of one request; worth nothing after `until` (seconds, monotonic)."""

    posts: Sequence[Ready]
    until: float
    future: Future[list[Score]]


class Batcher:
    """One thread that scores jobs in the order in which they came, several at a time.

    `seconds_a_post` is a running mean.
    """

    def __init__(self, run: Run) -> None:
        self.seconds_a_post = 0.0
        self._run = run
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._held: list[Job | None] = []  # taken from the queue, for the next batch
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def start(self) -> None:
        """Start to score."""
        self._thread.start()

    def submit(self, posts: Sequence[Ready], until: float) -> Future[list[Score]]:
        """Return a promise of the scores; it raises TimeoutError where their turn came too late."""
        job = Job(posts, until, Future())
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Score what was submitted, then stop."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._next(None)) is not None:
            self._score([job for job in self._gather(first) if _is_live(job)])

    def _next(self, timeout: float | None) -> Job | None:
        return self._held.pop() if self._held else self._jobs.get(timeout=timeout)

    def _gather(self, first: Job) -> list[Job]:
        batch, size, end = [first], len(first.posts), time.monotonic() + WAIT
        while size < MAX_BATCH:
            try:
                job = self._next(max(0.0, end - time.monotonic()))
            except Empty:
                break
            if job is None or size + len(job.posts) > MAX_BATCH:
                self._held.append(job)
                break
            batch.append(job)
            size += len(job.posts)
        return batch

    def _score(self, jobs: Sequence[Job]) -> None:
        posts = [post for job in jobs for post in job.posts]
        if not jobs:
            return
        started = time.monotonic()
        try:
            scores = iter(self._run(posts))
        except Exception as error:  # the thread lives on, and every request hears of it
            for job in jobs:
                job.future.set_exception(error)
            return
        spent = (time.monotonic() - started) / max(1, len(posts))
        self.seconds_a_post += (1 - _MEMORY) * (spent - self.seconds_a_post)
        for job in jobs:
            job.future.set_result([next(scores) for _ in job.posts])


def _is_live(job: Job) -> bool:
    """Tell whether a job is still wanted; one that is too late hears of it."""
    if not job.future.set_running_or_notify_cancel():
        return False
    late = job.until <= time.monotonic()
    if late:
        job.future.set_exception(TimeoutError())
    return not late
