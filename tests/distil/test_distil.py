"""The package as a function: posts in, answers kept; and the way that a post takes through it."""

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

import miko_clf
from miko_clf.distil.kb.store import open_for_reading
from miko_clf.errors import DistilError
from tests.support.command_line import run_python, write_posts_file
from tests.support.scripted_server import Scripted, serve_script

POSTS = ({"id": "a", "text": "so much fun"}, {"id": "b", "text": "a lovely @queue again"})


@contextmanager
def serve_in_a_thread() -> Iterator[Scripted]:
    """Serve a script beside the loop that a run makes for itself."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def call(method: str) -> Scripted | None:
        return await getattr(serving, method)(*((None,) * 3 if method == "__aexit__" else ()))

    serving = serve_script()
    try:
        server = asyncio.run_coroutine_threadsafe(call("__aenter__"), loop).result(10)
        assert server is not None
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(call("__aexit__"), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_call_asks_about_every_post_and_returns_what_was_done(tmp_path: Path) -> None:
    posts, kb = write_posts_file(tmp_path / "posts.jsonl", *POSTS), tmp_path / "kb.sqlite"
    prices = {"m": {"input": 1.0, "output": 4.0}}
    with serve_in_a_thread() as server:
        options = {"server": server.url, "model": "m", "prices": prices, "temperature": 0.1}
        tally = miko_clf.distil(str(posts), str(kb), **options)
        again = miko_clf.distil(posts, kb, limit=1, **options)
    assert (tally.posts, tally.paid) == ({"ok": 2}, 2)
    assert (again.posts, again.paid, again.reused) == ({"ok": 1}, 0, 1)
    asked = [body for body in server.heard if body["temperature"] == 0.1]
    assert len(asked) == 2
    assert "@queue" in json.dumps(asked)  # the server is on this machine
    with open_for_reading(kb) as db:
        assert db.execute("SELECT COUNT(*) FROM outcomes").fetchone() == (2,)
    db.close()


def test_what_cannot_be_asked_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistilError, match="name the model"):
        miko_clf.distil(tmp_path / "posts.jsonl", tmp_path / "kb", server="http://127.0.0.1:9/v1")
    with pytest.raises(DistilError, match="no job but intentions"):
        miko_clf.distil(tmp_path, tmp_path / "kb", server=f"local:{tmp_path}", job="debate")
    with pytest.raises(DistilError, match=r"holds no student\.json"):
        miko_clf.distil(tmp_path, tmp_path / "kb", server=f"local:{tmp_path}")


def test_the_package_says_what_its_call_takes() -> None:
    assert list(inspect.signature(miko_clf.distil).parameters)[:3] == ["posts", "kb", "server"]


def test_importing_the_package_imports_neither_torch_nor_a_client() -> None:
    heavy = "{'torch', 'transformers', 'openai', 'pyarrow'}"
    check = f"import sys, miko_clf.distil; print({heavy} & set(sys.modules))"
    assert run_python("-c", check).out == "set()\n"


def test_asking_a_server_needs_no_torch() -> None:
    check = (
        "import sys, miko_clf.distil.run; from miko_clf.distil import find_model, open_sender;"
        "open_sender('http://127.0.0.1:9/v1'); find_model('http://127.0.0.1:9/v1', 'm');"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert run_python("-c", check).out == "set()\n"


def test_every_step_of_the_way_of_a_post_is_there() -> None:
    steps = re.findall(
        r"^    ([a-z_.]+)\.(\w+(?:\.\w+)?) {2,}", miko_clf.distil.__doc__, re.MULTILINE
    )
    assert len(steps) == 11
    for module, name in steps:
        assert callable(attrgetter(name)(import_module(f"miko_clf.distil.{module}")))
