"""The tables of a knowledge base, and how its file is opened."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

VERSION = 1
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


def opened(path: Path, *, write: bool) -> sqlite3.Connection:
    """Return a connection; raises `sqlite3.Error` where the file is none of ours."""
    where = f"file:{quote(path.absolute().as_posix())}?mode={'rwc' if write else 'ro'}"
    db = sqlite3.connect(where, uri=True, check_same_thread=False, isolation_level=None)
    try:
        _prepare(db, write)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, write: bool) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"its version is {version}, this program reads {VERSION}")
    if write:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version = {VERSION}")
    elif version == 0:
        raise sqlite3.DatabaseError("it holds no such tables")
