"""The shelf: one SQLite file that holds every answer that was paid for, and loses none."""

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.distil.call import Call, Reply, Status
from miko_clf.distil.lock import claimed
from miko_clf.distil.tables import opened
from miko_clf.distil.writer import Writer
from miko_clf.errors import DistilError

_KEEP = f"INSERT OR IGNORE INTO calls VALUES ({', '.join('?' * 22)})"


class Row(NamedTuple):
    """An answer as it is kept. `status` is None until the raw text has been read."""

    key: bytes
    status: Status | None
    reason: str
    raw: str
    finish: str
    model: str


class Outcome(NamedTuple):
    """How a post ended in a task. `uses` are (stage, key) of the calls that answered for it,
    `read` the rows among them, with the status that reading them gave."""

    post: str
    task: str
    sample: int
    status: Status
    reason: str
    uses: tuple[tuple[str, bytes], ...] = ()
    read: tuple[Row, ...] = ()


class PostRow(NamedTuple):
    """A post as it is kept: where it stood, its fields as JSON without the image, the image's
    path (empty where its file holds the bytes, null for none), and the run that read it last."""

    id: str
    place: str
    record: str
    image: str | None
    run: int


class Score(NamedTuple):
    """What a judge (`llm:NAME`, `critic:NAME` or `human:NAME`) says of one intention."""

    post: str
    relation: str
    sample: int
    judge: str
    plausibility: float | None
    typicality: float | None


class Shelf:
    """A knowledge base: posts, the calls that were paid for, and what they are used for.

    One process writes at a time. Every answer is committed and flushed to disk, as it came,
    before anything is made of it. `db` is there to read from. Raises `DistilError` where the file
    cannot be used or another process writes there. `run` counts how often it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                held.enter_context(claimed(path))
                self.db = held.enter_context(closing(opened(path, write=True)))
                self._hand = held.enter_context(closing(opened(path, write=True)))
                ballast = path.with_name(f".{path.name}.ballast")
                self._writer = held.enter_context(closing(Writer(self._hand, ballast)))
                self.run = _next_run(self._hand)
                _count_lost(self._hand)
                self._held = held.pop_all()
        except sqlite3.Error as error:
            raise DistilError(f"{path}: not a knowledge base that can be used: {error}") from None
        except OSError as error:
            raise DistilError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what is being written and let the file go."""
        self._held.close()

    @property
    def full(self) -> bool:
        """Whether the disk was full: what is under way is still kept, nothing more should start."""
        return self._writer.full

    def row(self, key: bytes) -> Row | None:
        """Return the answer under a key, if there is one."""
        found = self.db.execute(
            "SELECT key, status, reason, raw, finish, model FROM calls WHERE key = ?", (key,)
        ).fetchone()
        return Row(*found) if found else None

    def post(self, name: str) -> PostRow | None:
        """Return a post by its id, if it is known."""
        found = self.db.execute("SELECT * FROM posts WHERE id = ?", (name,)).fetchone()
        return PostRow(*found) if found else None

    def ended(self, outcome: Outcome) -> bool:
        """Say whether a post is known to have ended like this, by the same calls."""
        where = (outcome.post, outcome.task, outcome.sample)
        same = "post = ? AND task = ? AND sample = ?"
        status = self.db.execute(f"SELECT status FROM outcomes WHERE {same}", where).fetchone()
        uses = self.db.execute(f"SELECT stage, key FROM uses WHERE {same}", where).fetchall()
        return status == (outcome.status,) and set(uses) == set(outcome.uses)

    def spent(self) -> float:
        """Return the dollars that this file has cost, calls that a kill cut off included."""
        (calls,) = self.db.execute("SELECT TOTAL(usd) FROM calls").fetchone()
        return float(calls + (self.fact("lost") or {"usd": 0.0})["usd"])

    def fact(self, name: str) -> Any:
        """Return a fact by name, None where there is none."""
        found = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    async def state(self, name: str, value: Any) -> None:
        """Keep a fact under a name."""
        row = (name, json.dumps(value))
        await self._writer.do(lambda db: db.execute("REPLACE INTO facts VALUES (?, ?)", row))

    async def place(self, posts: Sequence[PostRow]) -> None:
        """Keep posts."""
        say = "REPLACE INTO posts VALUES (?, ?, ?, ?, ?)"
        await self._writer.do(lambda db: db.executemany(say, posts))

    async def depart(self, key: bytes, usd: float) -> None:
        """Note that a call is about to be sent, and what it may cost."""
        row = (key, usd, time.time())
        say = "REPLACE INTO flights VALUES (?, ?, ?)"
        await self._writer.do(lambda db: db.execute(say, row), patient=True)

    async def land(self, key: bytes) -> None:
        """Note that a call is no longer under way, and was not answered."""
        row = (key,)
        await self._writer.do(lambda db: db.execute("DELETE FROM flights WHERE key = ?", row))

    async def keep(self, call: Call, reply: Reply, usd: float) -> Row:
        """Commit what came back, unread; an earlier failure of the same call makes way."""
        values = record(call, reply, usd)
        await self._writer.do(lambda db: _keep(db, values))
        return Row(call.key, reply.status, reply.reason, reply.raw, reply.finish, call.model)

    async def adopt(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Keep calls that others made, as rows of `calls`; one that is known stays as it is."""
        await self._writer.do(lambda db: db.executemany(_KEEP, calls))

    async def conclude(self, outcome: Outcome) -> None:
        """Commit how a post ended, which calls answered for it, and how they were read."""
        await self._writer.do(lambda db: _conclude(db, outcome), patient=True)

    async def score(self, scores: Sequence[Score]) -> None:
        """Keep what a judge says, in place of what it said before."""
        say = "REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)"
        await self._writer.do(lambda db: db.executemany(say, scores))


def reading(path: Path) -> sqlite3.Connection:
    """Return a connection that reads a knowledge base, while another process may write there."""
    if not path.is_file():
        raise DistilError(f"{path}: there is no such knowledge base")
    try:
        return opened(path, write=False)
    except sqlite3.Error as error:
        raise DistilError(f"{path}: not a knowledge base that can be read: {error}") from None


def record(call: Call, reply: Reply, usd: float) -> tuple[Any, ...]:
    """Return the columns of `calls` for what came of a call."""
    prompt = f"{call.prompt.name}.{call.prompt.version} {call.prompt.sha256[:16]}"
    return (
        call.key, call.stage, prompt, call.model, reply.model, reply.host,
        json.dumps(call.sampling._asdict()), call.index, int(call.saw_label),
        reply.status, reply.reason, reply.raw, reply.finish, *_tokens(reply), usd, reply.tries,
        reply.lost, reply.request, reply.seconds, time.time(),
    )  # fmt: skip


def _tokens(reply: Reply) -> tuple[int, int, int]:
    return reply.usage.prompt, reply.usage.cached, reply.usage.completion


def _keep(db: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    failed = "calls WHERE key = ? AND status = 'failed'"
    before = db.execute(f"SELECT usd, tries, lost FROM {failed}", values[:1]).fetchone()
    if before:  # what an earlier failure has cost stays in the books
        db.execute(f"DELETE FROM {failed}", values[:1])
    db.execute(_KEEP, values)
    if before:
        say = "UPDATE calls SET usd = usd + ?, tries = tries + ?, lost = lost + ? WHERE key = ?"
        db.execute(say, (*before, *values[:1]))
    db.execute("DELETE FROM flights WHERE key = ?", values[:1])


def _conclude(db: sqlite3.Connection, outcome: Outcome) -> None:
    post, task, sample, status, reason, uses, read = outcome
    say = "UPDATE calls SET status = ?, reason = ? WHERE key = ?"
    db.executemany(say, [(row.status, row.reason, row.key) for row in read])
    where = (post, task, sample)
    same = "post = ? AND task = ? AND sample = ?"
    before = db.execute(f"SELECT stage, key FROM uses WHERE {same}", where).fetchall()
    if task == "intentions" and before and set(before) != set(uses):  # marks were of other texts
        db.execute("DELETE FROM scores WHERE post = ? AND sample = ?", (post, sample))
    db.execute(f"DELETE FROM uses WHERE {same}", where)
    say = "REPLACE INTO uses VALUES (?, ?, ?, ?, ?)"
    db.executemany(say, [(post, task, sample, stage, key) for stage, key in uses])
    row = (post, task, sample, status, reason, time.time())
    db.execute("REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", row)


def _next_run(db: sqlite3.Connection) -> int:
    say = "INSERT INTO facts VALUES ('run', '1') ON CONFLICT DO UPDATE SET value = value + 1"
    db.execute(say)
    (run,) = db.execute("SELECT value FROM facts WHERE name = 'run'").fetchone()
    return int(run)


def _count_lost(db: sqlite3.Connection) -> None:
    """Add the calls that a kill cut off to the fact `lost`: they may have been billed."""
    calls, usd = db.execute("SELECT COUNT(*), TOTAL(usd) FROM flights").fetchone()
    if not calls:
        return
    found = db.execute("SELECT value FROM facts WHERE name = 'lost'").fetchone()
    before = json.loads(found[0]) if found else {"calls": 0, "usd": 0.0}
    lost = {"calls": before["calls"] + calls, "usd": before["usd"] + usd}
    with db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("REPLACE INTO facts VALUES ('lost', ?)", (json.dumps(lost),))
        db.execute("DELETE FROM flights")
