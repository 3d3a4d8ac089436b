"""Commands run in this process or in a new one, and how they ended."""

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from miko_clf.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_command(*words: object) -> Ended:
    """Run `miko-clf` in this process."""
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["miko-clf", *map(str, words)])
        patch.delenv("COLUMNS", raising=False)
        try:
            main.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def run_python(*words: str, cwd: Path | None = None) -> Ended:
    """Run Python in a new process."""
    command = [sys.executable, *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def assert_one_line_error(ended: Ended, *parts: str) -> None:
    """Assert that a command failed as one that a person can mend."""
    assert ended.code == 1, ended
    assert ended.err.startswith("miko-clf: error: ")
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1
    for part in parts:
        assert part in ended.err


def assert_fits_80_columns(ended: Ended) -> None:
    """Assert that a command that printed into a pipe broke no line of a screen."""
    assert max(map(len, ended.out.splitlines())) <= 80, ended.out


def write_posts_file(path: Path, *rows: dict) -> Path:
    """Write posts as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
