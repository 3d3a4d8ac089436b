"""Bundles on the hub: pushed and fetched by the hub's own client, from a hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import miko_clf
from miko_clf.errors import BundleError
from tests.support.local_hub import LocalHub, serve_hub

POSTS = [{"text": "lovely weather"}, {"id": "b", "text": "so kind of you"}]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def run(hub: LocalHub, tmp_path: Path) -> Run:
    """Runs code whose caches are empty at first, and returns what it shows as JSON.

    A process of its own, as the client reads the address of the hub when it is imported.
    """

    def run(code: str, **environment: str) -> Any:
        names = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": hub.token,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        start = (
            "import json, miko_clf\nfrom miko_clf.errors import BundleError\n"
            "def show(value): print(json.dumps(value))\n"
            "def fail(call, *given, **options):\n"
            "    try: call(*given, **options)\n"
            "    except BundleError as error: return str(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", start + code],
            env={**os.environ, **names, **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def _list_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_pushed_bundle_comes_back_and_scores_as_before(
    hub: LocalHub, run: Run, bundle: Path, tmp_path: Path
) -> None:
    local = shutil.copytree(bundle, tmp_path / "local")
    (local / "notes.txt").write_text("not for everyone")
    hub.files["us/demo"] = {"earlier.bin": b"of another bundle"}
    code = f"""
address = miko_clf.push({str(local)!r}, "us/demo", private=True)
scores = miko_clf.load("us/demo").score({POSTS!r})
show([address, [score.model_dump(mode="json") for score in scores]])
"""
    address, scores = run(code)
    assert address == f"{hub.url}/us/demo"
    assert hub.private["us/demo"]
    assert sorted(hub.files["us/demo"]) == _list_files(bundle)
    assert scores == [s.model_dump(mode="json") for s in miko_clf.load(bundle).score(POSTS)]
    (folder,) = (tmp_path / "cache" / "miko_clf" / "hub" / "us--demo").iterdir()
    assert _list_files(folder) == _list_files(bundle)
    assert not any(path.is_symlink() for path in folder.rglob("*"))

    offline = run(
        f'show([s.label for s in miko_clf.load("us/demo").score({POSTS!r})])', HF_HUB_OFFLINE="1"
    )
    assert offline == [score["label"] for score in scores]


def test_a_bundle_that_was_changed_on_the_hub_is_refused_and_not_kept(
    hub: LocalHub, run: Run, bundle: Path, tmp_path: Path
) -> None:
    hub.files["us/changed"] = {n: (bundle / n).read_bytes() for n in _list_files(bundle)}
    hub.files["us/changed"]["labels.json"] = b'["sarcastic", "sincere"]'
    error, kept = run(
        'error = fail(miko_clf.load, "us/changed")\n'
        "from pathlib import Path\n"
        f'show([error, list(map(str, Path({str(tmp_path)!r}, "cache").rglob("*.json")))])'
    )
    assert error == (
        "us/changed on the hub: file labels.json was changed after it was written (sha256)"
    )
    assert kept == []


def test_what_the_hub_refuses_is_one_line(run: Run, bundle: Path) -> None:
    absent, refused = run(
        f'show([fail(miko_clf.load, "us/nothing"),'
        f' fail(miko_clf.push, {str(bundle)!r}, "us/x", token="hf_other")])'
    )
    assert absent.startswith("us/nothing: no such folder, and not on the hub: ")
    assert refused.startswith("cannot push to us/x: ")
    assert "\n" not in absent + refused


def test_paths_and_broken_bundles_never_reach_the_hub(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^us/demo: not a bundle"):
        miko_clf.load(Path("us/demo"))
    with pytest.raises(BundleError, match=r"^us/demo: not a bundle"):
        miko_clf.load("./us/demo/")
    changed = shutil.copytree(bundle, tmp_path / "changed")
    (changed / "labels.json").write_text("[]")
    with pytest.raises(BundleError, match=r"labels\.json was changed"):
        miko_clf.push(changed, "us/changed")
