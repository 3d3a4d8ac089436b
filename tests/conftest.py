"""What every test stands on: closed sockets, checked shapes, one small world, one bundle."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

import miko_clf
from miko_clf.data.demo.world import write_world
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from tests.support.repository import SHARED
from tests.support.small_recipes import SMALL_KEYS

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("MIKO_ENCODERS", None)

with jaxtyping.install_import_hook(["miko_clf.encode", "miko_clf.fuse"], "beartype.beartype"):
    from miko_clf.pipeline import fit


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


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world, with `sarcasm` and `harm` in it."""
    return write_world(tmp_path_factory.mktemp("world") / "world", num_posts=240)


@pytest.fixture(scope="session")
def small() -> Recipe:
    """The tiny recipe, smaller still."""
    return recipes.load_recipe("tiny", SMALL_KEYS)


@pytest.fixture(scope="session")
def bundle(world: Path, small: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system trained for moments on the small world, exported."""
    out = tmp_path_factory.mktemp("bundle") / "small"
    fit(small, world / "sarcasm", str(out))
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        miko_clf.export(out)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return out


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
