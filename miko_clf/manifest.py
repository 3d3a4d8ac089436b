"""What a folder holds, file by file, and files that are never half-written."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from miko_clf.errors import BundleError, BusyError, MikoError

MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"  # for people: it may be added to, so no digest vouches for it
_LOCK_PAUSE = 0.02  # seconds between two tries to hold a folder


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file or fill a folder at; on success it becomes `path`.

    Contents are flushed to disk before the rename. On any exception nothing is left and
    what stood at `path` before stands there still. A folder at `path` is replaced whole.
    Raises `BundleError` where the place cannot be written.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    before = beside.with_name(f"{beside.name}.before")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        for file in (beside, *beside.rglob("*")):
            if file.is_file():
                _flush(file)
        if path.is_dir() and beside.is_dir():
            os.rename(path, before)
        os.replace(beside, path)
        _flush(path.parent)
        _discard(before)
    except OSError as error:
        place = error.filename or path
        raise BundleError(f"cannot write {path}: {error.strerror or error} ({place})") from error
    finally:
        _discard(beside)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with write_atomically(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file, or leave what was there; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a folder: `facts`, and the sha256 of every file in it but the card."""
    files = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (MANIFEST_FILE, CARD_FILE)
        and not path.name.startswith(".")
    }
    write_json(folder / MANIFEST_FILE, {**facts, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, after every file was found unchanged.

    Raises `BundleError` naming the first file that is missing or whose bytes changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        files = manifest["files"]
    except FileNotFoundError:
        raise BundleError(f"{folder}: not a bundle, it holds no {MANIFEST_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{folder / MANIFEST_FILE}: not a readable manifest") from None
    for name, expected in files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or path.is_symlink():
            raise BundleError(f"{folder / MANIFEST_FILE}: file name {name!r} leaves the bundle")
        if not path.is_file():
            raise BundleError(f"{folder}: file {name} is missing")
        if hash_file(path) != expected:
            raise BundleError(f"{folder}: file {name} was changed after it was written (sha256)")
    return manifest


@contextmanager
def lock_folder(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder, made if need be, against other processes; raises `BusyError` if one has it.

    Before that it is asked for anew for `patience` seconds. The lock lies beside the folder and
    goes with the process that holds it.
    """
    real, until = folder.resolve(), time.monotonic() + patience
    where = real.with_name(real.name + ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (lock := try_lock(where)) is None:
            if time.monotonic() >= until:
                raise BusyError(f"{folder}: another process is working there")
            time.sleep(_LOCK_PAUSE)
    except OSError as error:
        raise BundleError(f"cannot write {folder}: {error.strerror}") from None
    with lock:
        try:
            yield
        finally:
            where.unlink(missing_ok=True)


def try_lock(where: Path) -> IO[str] | None:
    """Return the locked file, none where another process has it."""
    while True:
        lock = where.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), where.stat()):
                return lock
        except BlockingIOError:
            lock.close()
            return None
        except FileNotFoundError:
            pass
        lock.close()  # it was let go, and unlinked, between opening and locking


def claim_folder(
    path: Path,
    facts: Mapping[str, Any],
    *,
    what: str = "run",
    error: type[MikoError] = BundleError,
    overwrite: bool | None = None,
    may_grow: Callable[[str, Any, Any], bool] = lambda name, before, now: False,
) -> bool:
    """Write the facts of a run to `path` in a new folder; return True where the run is there.

    A run with other facts is refused by `error`, unless `may_grow` allows it by the name of the
    fact, its value before and its value now. With `overwrite` the folder is emptied instead. Where
    that is no option (None), a folder that holds anything else is refused as well.
    """
    folder, facts = path.parent, json.loads(json.dumps(facts))
    if not path.exists():
        if overwrite is None and folder.exists() and any(folder.iterdir()):
            raise error(f"{folder} holds something else; name another --out")
        write_json(path, facts)
        return False
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise error(f"{path}: not readable JSON") from None
    changed = [name for name in facts if before.get(name) != facts[name]]
    other = [name for name in changed if not may_grow(name, before.get(name), facts[name])]
    if other and overwrite:
        shutil.rmtree(folder)
        folder.mkdir()
        write_json(path, facts)
        return False
    if other:
        rest = "" if overwrite is None else ", or add --overwrite"
        differ = " and ".join(other)
        raise error(f"{folder} holds a {what} with other {differ}; name another --out{rest}")
    if changed:
        write_json(path, facts)
    return True


def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in ("miko-clf", "torch", "transformers", "timm", "open_clip_torch", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
