"""The writer: what was acknowledged outlives a kill and a full disk."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from miko_clf.distil.kb.store import KnowledgeBase
from miko_clf.distil.kb.writer import CommitWriter

# Keeps answers, and names each once it is kept, until it is killed or the disk is full.
_KEEPS = """
import asyncio, sys
from pathlib import Path
from shelved import call
from miko_clf.distil.call import Reply
from miko_clf.distil.shelf import Shelf

async def main():
    with Shelf(Path(sys.argv[1])) as shelf:
        n = 0
        while not shelf.full:
            calls = [call(str(n + more)) for more in range(8)]
            n += 8
            await asyncio.gather(*(shelf.keep(each, Reply("x" * 4000), 0.1) for each in calls))
            print(*(each.key.hex() for each in calls), sep="\\n", flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path):
    path = tmp_path / "kb.sqlite"
    said = []
    with keeping(path) as process:
        assert process.stdout
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == 40:
                process.kill()
    with KnowledgeBase(path) as shelf:
        assert shelf.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = [shelf.row(bytes.fromhex(key)) for key in said]
    assert len(found) >= 40
    assert None not in found


def test_at_a_full_disk_the_ballast_goes_and_what_was_under_way_is_written(tmp_path: Path):
    db = sqlite3.connect(tmp_path / "kb.sqlite", check_same_thread=False, isolation_level=None)
    db.execute("CREATE TABLE t (n)")
    ballast = tmp_path / "ballast"
    writer = CommitWriter(db, ballast)

    def act(db: sqlite3.Connection) -> None:
        if ballast.exists():
            raise sqlite3.OperationalError("database or disk is full")
        db.execute("INSERT INTO t VALUES (1)")

    async def both() -> None:
        await asyncio.gather(writer.do(act), writer.do(act))

    assert not writer.full
    asyncio.run(both())
    assert writer.full
    assert db.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)
    writer.close()
    db.close()


def test_a_disk_that_fills_up_loses_no_answer_under_way(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if not _mounts(small):
        pytest.skip("no small file system may be mounted here")
    script = f"mount -t tmpfs -o size=12m none {small} && {sys.executable} -c '{_KEEPS}' " + (
        f"{small}/kb.sqlite && cp {small}/kb.sqlite* {tmp_path}"
    )
    ended = _alone(script)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.split()
    with KnowledgeBase(tmp_path / "kb.sqlite") as shelf:
        assert shelf.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert None not in [shelf.row(bytes.fromhex(key)) for key in said]
    assert len(said) > 100


def keeping(path: Path) -> subprocess.Popen[str]:
    """Run a process that keeps answers without end."""
    command = [sys.executable, "-c", _KEEPS, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_paths())


def _alone(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that may mount what nobody else sees."""
    command: Sequence[str] = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=_paths(), timeout=60)


def _mounts(folder: Path) -> bool:
    if not shutil.which("unshare"):
        return False
    return _alone(f"mount -t tmpfs -o size=1m none {folder}").returncode == 0


def _paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
