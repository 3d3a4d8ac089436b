"""The knowledge base: one SQLite file with every answer that was paid for."""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from miko_clf.data.post import Post
from miko_clf.distil.kb.writer import CommitWriter
from miko_clf.distil.request import Request
from miko_clf.distil.response import CallStatus, Response
from miko_clf.errors import DistilError


_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS posts (
  id TEXT PRIMARY KEY, place TEXT NOT NULL, record TEXT NOT NULL, image TEXT, run INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
  key BLOB NOT NULL UNIQUE, stage TEXT NOT NULL, prompt TEXT NOT NULL, model TEXT NOT NULL,
  answered_by TEXT NOT NULL, host TEXT NOT NULL, sampling TEXT NOT NULL, sample INTEGER NOT NULL,
  saw_label INTEGER NOT NULL, status TEXT, reason TEXT NOT NULL, raw TEXT NOT NULL,
  finish TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL, usd REAL NOT NULL, tries INTEGER NOT NULL,
  lost INTEGER NOT NULL, request TEXT NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS uses (
  post TEXT NOT NULL, task TEXT NOT NULL, sample INTEGER NOT NULL, stage TEXT NOT NULL,
  key BLOB NOT NULL, PRIMARY KEY (post, task, sample, stage)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
  post TEXT NOT NULL, task TEXT NOT NULL, sample INTEGER NOT NULL, status TEXT NOT NULL,
  reason TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (post, task, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flights (
  key BLOB PRIMARY KEY, usd REAL NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
  post TEXT NOT NULL, relation TEXT NOT NULL, sample INTEGER NOT NULL, judge TEXT NOT NULL,
  plausibility REAL, typicality REAL, PRIMARY KEY (post, relation, sample, judge)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def open_database(path: Path, *, write: bool) -> sqlite3.Connection:
    """Return a connection; raises `sqlite3.Error` where the file is none of ours."""
    where = f"file:{quote(path.absolute().as_posix())}?mode={'rwc' if write else 'ro'}"
    db = sqlite3.connect(where, uri=True, check_same_thread=False, isolation_level=None)
    try:
        _prepare_tables(db, write)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _prepare_tables(db: sqlite3.Connection, write: bool) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"its version is {version}, this program reads {_VERSION}")
    if write:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    elif version == 0:
        raise sqlite3.DatabaseError("it holds no such tables")


@contextmanager
def hold_write_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file; raises `DistilError` where another process has it.

    A process that is killed lets go of it by that.
    """
    where = path.with_name(f".{path.name}.lock")
    with _lock_file(path, where):
        try:
            yield
        finally:
            where.unlink(missing_ok=True)


def _lock_file(path: Path, where: Path) -> IO[str]:
    while True:
        lock = where.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DistilError(f"{path}: another process is writing there") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), where.stat()):
                return lock
        lock.close()  # it was let go, and unlinked, between opening and locking


_INSERT_CALL = f"INSERT OR IGNORE INTO calls VALUES ({', '.join('?' * 22)})"


class CallRow(NamedTuple):
    """An answer as it is kept. `status` is None until the raw text has been read."""

    key: bytes
    status: CallStatus | None
    reason: str
    raw: str
    finish: str
    model: str


class JobOutcome(NamedTuple):
    """How a post ended in a task. `uses` are (stage, key) of the calls that answered for it,
    `read` the rows among them, with the status that reading them gave."""

    post: str
    task: str
    sample: int
    status: CallStatus
    reason: str
    uses: tuple[tuple[str, bytes], ...] = ()
    read: tuple[CallRow, ...] = ()


class PostRow(NamedTuple):
    """A post as it is kept: where it stood, its fields as JSON without the image, the image's
    path (empty where its file holds the bytes, null for none), and the run that read it last."""

    id: str
    place: str
    record: str
    image: str | None
    run: int


class JudgeScore(NamedTuple):
    """What a judge (`llm:NAME`, `critic:NAME` or `human:NAME`) says of one intention."""

    post: str
    relation: str
    sample: int
    judge: str
    plausibility: float | None
    typicality: float | None


def make_post_row(post: Post, where: str, run: int) -> PostRow:
    """Return a post as the shelf keeps it."""
    embedded = "" if post.image is not None else None
    image = str(post.image.absolute()) if isinstance(post.image, Path) else embedded
    fields = post.model_dump(mode="json", exclude={"image"}, exclude_defaults=True)
    return PostRow(post.id, where, json.dumps(fields, ensure_ascii=False), image, run)


class KnowledgeBase:
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
                held.enter_context(hold_write_lock(path))
                self.db = held.enter_context(closing(open_database(path, write=True)))
                self._hand = held.enter_context(closing(open_database(path, write=True)))
                ballast = path.with_name(f".{path.name}.ballast")
                self._writer = held.enter_context(closing(CommitWriter(self._hand, ballast)))
                self.run = _next_run(self._hand)
                _count_lost(self._hand)
                self._held = held.pop_all()
        except sqlite3.Error as error:
            raise DistilError(f"{path}: not a knowledge base that can be used: {error}") from None
        except OSError as error:
            raise DistilError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> "KnowledgeBase":
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

    def row(self, key: bytes) -> CallRow | None:
        """Return the answer under a key, if there is one."""
        found = self.db.execute(
            "SELECT key, status, reason, raw, finish, model FROM calls WHERE key = ?", (key,)
        ).fetchone()
        return CallRow(*found) if found else None

    def post(self, name: str) -> PostRow | None:
        """Return a post by its id, if it is known."""
        found = self.db.execute("SELECT * FROM posts WHERE id = ?", (name,)).fetchone()
        return PostRow(*found) if found else None

    def ended(self, outcome: JobOutcome) -> bool:
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

    async def keep(self, call: Request, reply: Response, usd: float) -> CallRow:
        """Commit what came back, unread; an earlier failure of the same call makes way."""
        values = make_call_values(call, reply, usd)
        await self._writer.do(lambda db: _keep_call(db, values))
        return CallRow(call.key, reply.status, reply.reason, reply.raw, reply.finish, call.model)

    async def adopt(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Keep calls that others made, as rows of `calls`; one that is known stays as it is."""
        await self._writer.do(lambda db: db.executemany(_INSERT_CALL, calls))

    async def conclude(self, outcome: JobOutcome) -> None:
        """Commit how a post ended, which calls answered for it, and how they were read."""
        await self._writer.do(lambda db: _conclude_job(db, outcome), patient=True)

    async def score(self, scores: Sequence[JudgeScore]) -> None:
        """Keep what a judge says, in place of what it said before."""
        say = "REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)"
        await self._writer.do(lambda db: db.executemany(say, scores))


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that reads a knowledge base, while another process may write there."""
    if not path.is_file():
        raise DistilError(f"{path}: there is no such knowledge base")
    try:
        return open_database(path, write=False)
    except sqlite3.Error as error:
        raise DistilError(f"{path}: not a knowledge base that can be read: {error}") from None


def make_call_values(call: Request, reply: Response, usd: float) -> tuple[Any, ...]:
    """Return the columns of `calls` for what came of a call."""
    prompt = f"{call.prompt.name}.{call.prompt.version} {call.prompt.sha256[:16]}"
    return (
        call.key, call.stage, prompt, call.model, reply.model, reply.host,
        json.dumps(call.sampling._asdict()), call.index, int(call.saw_label),
        reply.status, reply.reason, reply.raw, reply.finish, *_list_tokens(reply), usd, reply.tries,
        reply.lost, reply.request, reply.seconds, time.time(),
    )  # fmt: skip


def _list_tokens(reply: Response) -> tuple[int, int, int]:
    return reply.usage.prompt, reply.usage.cached, reply.usage.completion


def _keep_call(db: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    failed = "calls WHERE key = ? AND status = 'failed'"
    before = db.execute(f"SELECT usd, tries, lost FROM {failed}", values[:1]).fetchone()
    if before:  # what an earlier failure has cost stays in the books
        db.execute(f"DELETE FROM {failed}", values[:1])
    db.execute(_INSERT_CALL, values)
    if before:
        say = "UPDATE calls SET usd = usd + ?, tries = tries + ?, lost = lost + ? WHERE key = ?"
        db.execute(say, (*before, *values[:1]))
    db.execute("DELETE FROM flights WHERE key = ?", values[:1])


def _conclude_job(db: sqlite3.Connection, outcome: JobOutcome) -> None:
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
