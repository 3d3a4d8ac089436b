"""The knowledge base: one SQLite file with every answer that was paid for."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from miko_clf.data.post import Post
from miko_clf.distil.request import Request
from miko_clf.distil.response import CallStatus, Response
from miko_clf.errors import DistilError
from miko_clf.manifest import try_lock

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
_INSERT_CALL = f"INSERT OR IGNORE INTO calls VALUES ({', '.join('?' * 22)})"
_BALLAST_BYTES = 8 << 20  # beside the file, let go once, so that a full disk loses nothing
_COMPANY_SECONDS = 0.02

_Act = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[_Act, asyncio.Future[None]]


class CallRow(NamedTuple):
    """An answer as it is kept. `status` is None until the raw text has been read."""

    key: bytes
    status: CallStatus | None
    reason: str
    raw: str
    finish: str
    model: str


class JobOutcome(NamedTuple):
    """How a post ended in a job. `uses` are (stage, key) of the calls that answered for it,
    `read` the rows among them, with the status that reading them gave."""

    post: str
    job: str
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


PlacedPosts = Iterator[tuple[Post, PostRow]]


class JudgeScore(NamedTuple):
    """What a judge (`llm:NAME`, `critic:NAME` or `human:NAME`) says of one intention."""

    post: str
    relation: str
    sample: int
    judge: str
    plausibility: float | None
    typicality: float | None


def make_post_row(post: Post, place: str, run: int) -> PostRow:
    """Return a post as a knowledge base keeps it."""
    embedded = "" if post.image is not None else None
    image = str(post.image.absolute()) if isinstance(post.image, Path) else embedded
    fields = post.model_dump(mode="json", exclude={"image"}, exclude_defaults=True)
    return PostRow(post.id, place, json.dumps(fields, ensure_ascii=False), image, run)


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
            with ExitStack() as stack:
                lock_path = path.with_name(f".{path.name}.lock")
                if (lock := try_lock(lock_path)) is None:
                    raise DistilError(f"{path}: another process is writing there")
                stack.enter_context(lock)
                stack.callback(lock_path.unlink, missing_ok=True)
                self.db = stack.enter_context(closing(_open_database(path, write=True)))
                written = stack.enter_context(closing(_open_database(path, write=True)))
                ballast = path.with_name(f".{path.name}.ballast")
                self._writer = stack.enter_context(closing(CommitWriter(written, ballast)))
                self.run = _count_run(written)
                _count_cut_off(written)
                self._stack = stack.pop_all()
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
        self._stack.close()

    @property
    def full(self) -> bool:
        """Whether the disk was full: what is under way is still kept, nothing more should start."""
        return self._writer.full

    def get_call(self, key: bytes) -> CallRow | None:
        """Return the answer under a key, if there is one."""
        row = self.db.execute(
            "SELECT key, status, reason, raw, finish, model FROM calls WHERE key = ?", (key,)
        ).fetchone()
        return CallRow(*row) if row else None

    def get_post(self, name: str) -> PostRow | None:
        """Return a post by its id, if it is known."""
        row = self.db.execute("SELECT * FROM posts WHERE id = ?", (name,)).fetchone()
        return PostRow(*row) if row else None

    def has_outcome(self, outcome: JobOutcome) -> bool:
        """Say whether a post is known to have ended like this, by the same calls."""
        place = (outcome.post, outcome.job, outcome.sample)
        where = "post = ? AND task = ? AND sample = ?"
        status = self.db.execute(f"SELECT status FROM outcomes WHERE {where}", place).fetchone()
        uses = self.db.execute(f"SELECT stage, key FROM uses WHERE {where}", place).fetchall()
        return status == (outcome.status,) and set(uses) == set(outcome.uses)

    def sum_cost(self) -> float:
        """Return the dollars that this file has cost, calls that a kill cut off included."""
        (calls,) = self.db.execute("SELECT TOTAL(usd) FROM calls").fetchone()
        return float(calls + read_cut_off(self.db)["usd"])

    def get_fact(self, name: str) -> Any:
        """Return a fact by name, None where there is none."""
        row = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    async def put_fact(self, name: str, value: Any) -> None:
        """Keep a fact under a name."""
        row = (name, json.dumps(value))
        await self._writer.do(lambda db: db.execute("REPLACE INTO facts VALUES (?, ?)", row))

    async def put_posts(self, posts: Sequence[PostRow]) -> None:
        """Keep posts."""
        say = "REPLACE INTO posts VALUES (?, ?, ?, ?, ?)"
        await self._writer.do(lambda db: db.executemany(say, posts))

    async def open_flight(self, key: bytes, usd: float) -> None:
        """Note that a request is about to be sent, and what it may cost."""
        row = (key, usd, time.time())
        say = "REPLACE INTO flights VALUES (?, ?, ?)"
        await self._writer.do(lambda db: db.execute(say, row), patient=True)

    async def close_flight(self, key: bytes) -> None:
        """Note that a request is no longer under way, and was not answered."""
        row = (key,)
        await self._writer.do(lambda db: db.execute("DELETE FROM flights WHERE key = ?", row))

    async def put_response(self, request: Request, response: Response, usd: float) -> CallRow:
        """Commit what came back, unread; an earlier failure of the same request makes way."""
        prompt = f"{request.prompt.name}.{request.prompt.version} {request.prompt.sha256[:16]}"
        values = (
            request.key, request.stage, prompt, request.model, response.model, response.host,
            json.dumps(request.sampling._asdict()), request.index, int(request.saw_label),
            response.status, response.reason, response.raw, response.finish, *response.usage, usd,
            response.tries, response.lost, response.request, response.seconds, time.time(),
        )  # fmt: skip
        await self._writer.do(lambda db: _put_call(db, values))
        answer = response.status, response.reason, response.raw, response.finish
        return CallRow(request.key, *answer, request.model)

    async def put_calls(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Keep calls that others made, as rows of `calls`; one that is known stays as it is."""
        await self._writer.do(lambda db: db.executemany(_INSERT_CALL, calls))

    async def put_outcome(self, outcome: JobOutcome) -> None:
        """Commit how a post ended, which calls answered for it, and how they were read."""
        await self._writer.do(lambda db: _put_outcome(db, outcome), patient=True)

    async def put_scores(self, scores: Sequence[JudgeScore]) -> None:
        """Keep what a judge says, in place of what it said before."""
        say = "REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)"
        await self._writer.do(lambda db: db.executemany(say, scores))


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that reads a knowledge base, while another process may write there."""
    if not path.is_file():
        raise DistilError(f"{path}: there is no such knowledge base")
    try:
        return _open_database(path, write=False)
    except sqlite3.Error as error:
        raise DistilError(f"{path}: not a knowledge base that can be read: {error}") from None


def read_cut_off(db: sqlite3.Connection) -> dict[str, float]:
    """Return the number of `calls` that kills cut off, and the `usd` that they may have cost."""
    row = db.execute("SELECT value FROM facts WHERE name = 'lost'").fetchone()
    return dict(json.loads(row[0])) if row else {"calls": 0, "usd": 0.0}


def _open_database(path: Path, *, write: bool) -> sqlite3.Connection:
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


def _put_call(db: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    failed = "calls WHERE key = ? AND status = 'failed'"
    before = db.execute(f"SELECT usd, tries, lost FROM {failed}", values[:1]).fetchone()
    if before:  # what an earlier failure has cost stays in the books
        db.execute(f"DELETE FROM {failed}", values[:1])
    db.execute(_INSERT_CALL, values)
    if before:
        say = "UPDATE calls SET usd = usd + ?, tries = tries + ?, lost = lost + ? WHERE key = ?"
        db.execute(say, (*before, *values[:1]))
    db.execute("DELETE FROM flights WHERE key = ?", values[:1])


def _put_outcome(db: sqlite3.Connection, outcome: JobOutcome) -> None:
    post, job, sample, status, reason, uses, rows = outcome
    say = "UPDATE calls SET status = ?, reason = ? WHERE key = ?"
    db.executemany(say, [(row.status, row.reason, row.key) for row in rows])
    place, where = (post, job, sample), "post = ? AND task = ? AND sample = ?"
    before = db.execute(f"SELECT stage, key FROM uses WHERE {where}", place).fetchall()
    if job == "intentions" and before and set(before) != set(uses):  # marks were of other texts
        db.execute("DELETE FROM scores WHERE post = ? AND sample = ?", (post, sample))
    db.execute(f"DELETE FROM uses WHERE {where}", place)
    say = "REPLACE INTO uses VALUES (?, ?, ?, ?, ?)"
    db.executemany(say, [(*place, stage, key) for stage, key in uses])
    row = (*place, status, reason, time.time())
    db.execute("REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", row)


def _count_run(db: sqlite3.Connection) -> int:
    db.execute("INSERT INTO facts VALUES ('run', '1') ON CONFLICT DO UPDATE SET value = value + 1")
    (run,) = db.execute("SELECT value FROM facts WHERE name = 'run'").fetchone()
    return int(run)


def _count_cut_off(db: sqlite3.Connection) -> None:
    """Add the requests that a kill cut off to the fact `lost`: they may have been billed."""
    calls, usd = db.execute("SELECT COUNT(*), TOTAL(usd) FROM flights").fetchone()
    if not calls:
        return
    before = read_cut_off(db)
    lost = {"calls": before["calls"] + calls, "usd": before["usd"] + usd}
    with db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("REPLACE INTO facts VALUES ('lost', ?)", (json.dumps(lost),))
        db.execute("DELETE FROM flights")


class CommitWriter:
    """Commits acts on a database, flushed to disk, in the order in which they were given.

    What is handed in while the disk is busy goes into the next commit, so an act is a function
    that waits in a queue. `full` is set once the disk was full: what was under way could be
    written still, and nothing more should be begun.
    """

    def __init__(self, connection: sqlite3.Connection, ballast: Path) -> None:
        self._connection = connection
        self._ballast = ballast
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commits")
        self._waiting: list[_Waiting] = []
        self._busy: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._urgent = False
        self.full = False
        self.num_commits = 0
        try:
            ballast.write_bytes(bytes(_BALLAST_BYTES))  # zeros that are really there, unlike a hole
        except OSError:
            ballast.unlink(missing_ok=True)
            raise

    async def do(self, act: _Act, *, patient: bool = False) -> None:
        """Return once the act is committed; raises `DistilError` where it cannot be.

        A patient act waits a moment for company, so that one commit serves several.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((act, done))
        if not patient:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(_COMPANY_SECONDS, self._begin)
        await done

    def close(self) -> None:
        """Wait for the last commit, and let the ballast go."""
        self._thread.shutdown()
        self._ballast.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Commit what waits as soon as the disk is free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._urgent = True
        if self._busy is None or self._busy.done():
            self._busy = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        while self._urgent:
            self._urgent = False
            waiting, self._waiting = self._waiting, []
            fault = await self._try_commit(waiting)
            if fault and len(waiting) > 1:  # one that cannot be written is to cost no other
                for act in waiting:
                    _notify([act], await self._try_commit([act]))
            else:
                _notify(waiting, fault)

    async def _try_commit(self, waiting: list[_Waiting]) -> DistilError | None:
        try:
            await self._commit([act for act, _ in waiting])
        except Exception as fault:  # whoever waits must hear of it, whatever it is
            return DistilError(f"the knowledge base cannot be written: {fault}")
        return None

    async def _commit(self, acts: list[_Act]) -> None:
        try:
            await self._transact(acts)
        except sqlite3.OperationalError as error:
            if "full" not in str(error) or not self._ballast.exists():
                raise
            self._ballast.unlink()
            self.full = True
            await self._transact(acts)

    async def _transact(self, acts: list[_Act]) -> None:
        """Act here, and wait for the disk in the thread.

        The acts are many steps of microseconds; in a thread each would first wait for the
        interpreter, which a busy loop hands over every five milliseconds.
        """
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            for act in acts:
                act(db)
            await asyncio.get_running_loop().run_in_executor(self._thread, db.commit)
        except BaseException:
            db.rollback()
            raise
        self.num_commits += 1


def _notify(waiting: list[_Waiting], fault: DistilError | None) -> None:
    for _, done in waiting:
        if not done.cancelled():
            done.set_exception(fault) if fault else done.set_result(None)
