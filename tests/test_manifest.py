"""A folder is held by one process at a time, however the lock file comes and goes."""

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from miko_clf import manifest
from miko_clf.errors import BusyError


def test_a_folder_that_is_held_is_refused_and_one_let_go_is_not(tmp_path: Path) -> None:
    for _ in range(2):
        with manifest.lock_folder(tmp_path / "out"):
            with pytest.raises(BusyError, match="another process is working there"):
                ExitStack().enter_context(manifest.lock_folder(tmp_path / "out"))
            with pytest.raises(BusyError, match="another process is working there"):
                ExitStack().enter_context(manifest.lock_folder(tmp_path / "out", patience=0.05))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_that_a_process_is_in_is_held_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with (
        manifest.lock_folder(Path()),
        pytest.raises(BusyError, match="another process is working there"),
    ):
        ExitStack().enter_context(manifest.lock_folder(tmp_path / "out"))


def test_a_lock_that_is_let_go_while_another_takes_it_has_one_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lock = ExitStack(), fcntl.flock

    def late(file: IO[str], how: int) -> None:
        """Lock what was opened while the first still held it, now that it is let go."""
        monkeypatch.setattr(fcntl, "flock", lock)
        first.close()
        lock(file, how)

    first.enter_context(manifest.lock_folder(tmp_path / "out"))
    monkeypatch.setattr(fcntl, "flock", late)
    with (
        manifest.lock_folder(tmp_path / "out"),
        pytest.raises(BusyError, match="another process is working there"),
    ):
        ExitStack().enter_context(manifest.lock_folder(tmp_path / "out"))
