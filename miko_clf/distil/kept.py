"""How a post ended, and the calls that answered for it, as rows of a knowledge base."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from miko_clf.distil.call import Status

PUBLISHED = "published"
"""The name of the prompt under which answers stand that were imported, not asked for."""

_CALLS = (
    "SELECT u.task, u.sample, u.stage, c.prompt, c.model, c.answered_by, c.host, c.sampling, "
    "c.saw_label, c.status, c.reason, c.raw, c.finish, c.prompt_tokens, c.cached_tokens, "
    "c.completion_tokens, c.usd, c.tries, c.lost, c.request, c.seconds, c.at "
    "FROM uses u JOIN calls c ON c.key = u.key WHERE u.post = ? "
    "ORDER BY u.task, u.sample, c.rowid"
)


class Kept(NamedTuple):
    """A call that answered for a post, in one stage of one task."""

    task: str
    sample: int
    stage: str
    prompt: str
    model: str
    answered_by: str
    host: str
    sampling: str
    saw_label: int
    status: Status
    reason: str
    raw: str
    finish: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float
    tries: int
    lost: int
    request: str
    seconds: float
    at: float

    @property
    def published(self) -> bool:
        """Whether the answer was imported."""
        return self.prompt.startswith(f"{PUBLISHED}.")

    @property
    def when(self) -> str:
        """The time, UTC, at which the answer was kept."""
        return datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds")


class Ended(NamedTuple):
    """How a post ended in one sample of a task."""

    task: str
    sample: int
    status: Status
    reason: str


def kept(db: sqlite3.Connection, name: str) -> list[Kept]:
    """Return the calls that answered for a post: by task, by sample, as they came."""
    return [Kept(*row) for row in db.execute(_CALLS, (name,))]


def ends(db: sqlite3.Connection, name: str) -> list[Ended]:
    """Return how a post ended, in every task and sample."""
    say = "SELECT task, sample, status, reason FROM outcomes WHERE post = ? ORDER BY task, sample"
    return [Ended(*row) for row in db.execute(say, (name,))]


def chosen(found: Sequence[Ended], sample: int | None = None) -> dict[str, Ended]:
    """Return for each task the end that counts: the newest that is ok, or the newest at all.

    With `sample`, the end of that sample, if there is one.
    """
    best: dict[str, Ended] = {}
    for end in found:
        if sample is not None and end.sample != sample:
            continue
        before = best.setdefault(end.task, end)
        best[end.task] = max(before, end, key=lambda each: (each.status == "ok", each.sample))
    return best


def provenance(call: Kept) -> dict[str, Any]:
    """Return where a text comes from, in a flat dict without what is not known.

    `sha256` is that of the prompt's file or, where the answer was imported, of the file it was
    read from.
    """
    prompt, _, sha = call.prompt.partition(" ")
    found = {
        "model": call.model,
        "answered_by": call.answered_by,
        "host": call.host,
        "prompt": prompt,
        "sha256": sha,
        **json.loads(call.sampling),
        "sample": call.sample,
        "imported" if call.published else "at": call.when,
        "request": call.request,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
