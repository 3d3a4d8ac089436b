"""The test split is opened by evaluation alone, every opening is counted, and val is not test."""

import json
import shutil
from pathlib import Path

import pytest

from miko_clf import bundle as bundles
from miko_clf.data.folder import open_folder
from miko_clf.data.held import Held
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.lockbox import unlock


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle whose manifest may change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def openings(path: Path) -> list[dict]:
    """What the manifest of a bundle has counted."""
    return json.loads((path / "manifest.json").read_text()).get("openings", [])


def test_every_opening_of_test_is_counted_and_no_other_split_is(own: Path, world: Path) -> None:
    data, before = open_folder(world / "sarcasm"), len(openings(own))
    assert len(unlock([bundles.read(own)], data, "val", "look")) == before
    assert len(openings(own)) == before
    for count in (1, 2):
        found = unlock([bundles.read(own)], data, "test", f"look {count}")
        assert len(openings(own)) == before + count
        assert found[-1]["fingerprint"] == data.fingerprint("test")
    assert bundles.read(own).manifest["openings"][-1]["command"] == "look 2"


def test_a_test_that_is_validation_under_other_ids_is_refused(own: Path, world: Path) -> None:
    val = open_folder(world / "sarcasm").read("val")
    renamed = [post.model_copy(update={"id": f"other-{post.id}"}) for post in reversed(val)]
    with pytest.raises(PostError, match="stand in val"):
        unlock([bundles.read(own)], Held(world, {"val": val, "test": renamed}), "test", "look")
    assert all(each["command"] != "look" for each in openings(own))


def test_a_bundle_is_not_tested_on_what_it_was_fitted_on(own: Path, world: Path) -> None:
    val = open_folder(world / "sarcasm").read("val")
    with pytest.raises(BundleError, match="was fitted on the very posts"):
        unlock([bundles.read(own)], Held(world, {"test": val}), "test", "look")
