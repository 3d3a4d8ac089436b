"""What every test stands on: closed sockets, checked shapes, one small world, one bundle."""

import importlib
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jaxtyping
import pytest
from filelock import FileLock

import miko_clf
from miko_clf.data.demo.world import write_world
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from tests.support.repository import SHARED
from tests.support.small_recipes import SMALL_KEYS

pytest.register_assert_rewrite("tests.support.command_line", "tests.support.killed_runs")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MIKO_ENCODERS", None)
_STATE = TemporaryDirectory(prefix="miko-clf-state-")
os.environ["MIKO_STATE"] = _STATE.name  # openings by tests are not the user's

# Nothing here imports torch, so that of several processes the one that only leads starts at once.
_HOOKED = ("miko_clf.encode", "miko_clf.fuse", "miko_clf.train.critic")
jaxtyping.install_import_hook(_HOOKED, "beartype.beartype")


@pytest.fixture(autouse=True, scope="session")
def _closed_sockets() -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True, scope="session")
def _untraced_exports() -> Iterator[None]:
    """Measure no lines while torch exports: none of them is ours, and measuring doubles it."""
    onnx = importlib.import_module("torch.onnx")
    export = onnx.export

    def untraced(*arguments: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return export(*arguments, **options)
        finally:
            sys.settrace(tracer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "export", untraced)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world, with `sarcasm` and `harm` in it."""
    return _copy_shared("world", lambda out: write_world(out, num_posts=240), tmp_path_factory)


@pytest.fixture(scope="session")
def small() -> Recipe:
    """The tiny recipe, smaller still."""
    return recipes.load_recipe("tiny", SMALL_KEYS)


@pytest.fixture(scope="session")
def bundle(world: Path, small: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system trained for moments on the small world, exported."""

    def make(out: Path) -> None:
        miko_clf.fit(small, world / "sarcasm", out)
        jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
        try:
            miko_clf.export(out)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return _copy_shared("small", make, tmp_path_factory)


def _copy_shared(
    name: str, make: Callable[[Path], object], factory: pytest.TempPathFactory
) -> Path:
    """Return this worker's copy of a folder that one of all workers makes."""
    home = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    whole, made = home / "shared" / name, home / "shared" / f"{name}.made"
    whole.parent.mkdir(exist_ok=True)
    with FileLock(made.with_suffix(".making")):  # `.lock` is what an export locks
        if not made.exists():
            make(whole)
            made.touch()
    return shutil.copytree(whole, factory.mktemp(name) / name)


@pytest.fixture(scope="session")
def harm_c() -> Path:
    """The real Harm-C folder."""
    return _real(SHARED / "data" / "harm-c")


@pytest.fixture(scope="session")
def encoders() -> Path:
    """The folder of real pretrained towers."""
    return _real(SHARED / "encoders")


def _real(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path.name} is not beside the project (MIKO_SHARED names its folder)")
    return path


# Files of many seconds and few tests, which a worker should not begin last.
LONG_FILES = (
    "test_every_recipe.py",
    "train/test_loop.py",
    "test_pipeline.py",
    "experiment/test_compare.py",
    "experiment/test_sweep.py",
    "export/test_graphs.py",
    "distil/test_transformers_server.py",
    "evaluate/test_comparison.py",
    "evaluate/test_thresholds.py",
    "distil/test_run.py",
    "train/test_intention_lm.py",
    "demo/test_world.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; every worker must sort alike."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next(
            (place for place, end in enumerate(LONG_FILES) if path.endswith(f"/{end}")),
            len(LONG_FILES),
        )

    items.sort(key=place)
