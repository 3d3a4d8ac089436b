"""A folder is held by one process at a time, and goes on with the run that it holds."""

import fcntl
import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from miko_clf import manifest
from miko_clf.errors import BundleError, BusyError, DistilError


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


def test_a_run_goes_on_where_its_facts_are_those_of_before(tmp_path: Path) -> None:
    path, facts = tmp_path / "out" / "run.json", {"seed": 1, "sizes": (2, 3)}
    assert not manifest.claim_folder(path, facts, overwrite=False)
    assert manifest.claim_folder(path, facts, overwrite=False)
    assert json.loads(path.read_text()) == {"seed": 1, "sizes": [2, 3]}
    with pytest.raises(
        BundleError, match=r"holds a run with other seed; name another --out, or add --overwrite$"
    ):
        manifest.claim_folder(path, {**facts, "seed": 2}, overwrite=False)
    (path.parent / "weights").touch()
    assert not manifest.claim_folder(path, {**facts, "seed": 2}, overwrite=True)
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]


def test_what_may_grow_does_and_nothing_else_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "out" / "sweep.json"
    path.parent.mkdir()
    (path.parent / "thesis.txt").touch()
    with pytest.raises(DistilError, match=r"out holds something else; name another --out$"):
        manifest.claim_folder(path, {"seeds": 2}, what="sweep", error=DistilError)
    (path.parent / "thesis.txt").unlink()

    def claim(**facts: int) -> bool:
        return manifest.claim_folder(
            path, facts, what="sweep", may_grow=lambda name, old, new: name == "seeds" and old < new
        )

    assert not claim(seeds=2, folds=5)
    assert claim(seeds=3, folds=5)
    with pytest.raises(BundleError, match=r"holds a sweep with other seeds and folds; name"):
        claim(seeds=2, folds=4)
    assert json.loads(path.read_text()) == {"seeds": 3, "folds": 5}
    path.write_text("[1]")
    with pytest.raises(BundleError, match="not readable JSON"):
        claim(seeds=3, folds=5)
