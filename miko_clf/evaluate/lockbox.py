"""The test split stays shut; each opening is checked, and counted in its bundles."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.splits import PostSplits, is_test_split
from miko_clf.errors import BundleError, PostError

_OPENINGS_KEY = "openings"
_PATIENCE = 20.0  # seconds that an opening waits for others to be written
_ALIKE = 0.5  # share of the test posts in val from which on the two are called the same


def open_lockbox(
    bundles: Sequence[Bundle], data: PostSplits, split: str, command: str
) -> list[Mapping[str, Any]]:
    """Return every opening of a test split that these bundles have seen, this one included.

    Call it before the posts are scored. A split that is no test counts as no opening. Raises
    `PostError` where test holds what val holds, `BundleError` where a bundle was fitted on it or
    another process does not let go of it.
    """
    if is_test_split(split):
        _refuse_same(data, split)
        mark = data.fingerprint(split)
        for opened in bundles:
            if mark in opened.manifest.get("data", {}).values():
                raise BundleError(
                    f"{opened.path}: was fitted on the very posts of {data.path}, {split}; "
                    "what it scores there says nothing"
                )
        now = datetime.now(UTC).replace(tzinfo=None)
        opening = {
            "split": split,
            "fingerprint": mark,
            "when": f"{now.isoformat(timespec='milliseconds')}Z",
            "command": command,
        }
        for opened in bundles:
            _record(opened.path, opening)
    openings = [
        opening
        for opened in bundles
        for opening in bundle.load_bundle(opened.path).manifest.get(_OPENINGS_KEY, [])
    ]
    unique = {json.dumps(opening, sort_keys=True): opening for opening in openings}
    return sorted(unique.values(), key=lambda opening: str(opening["when"]))


def describe_openings(openings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a report says of the openings."""
    return {"openings": len(openings), "of": [dict(opening) for opening in openings]}


def _record(folder: Path, opening: Mapping[str, Any]) -> None:
    path = folder / manifest.MANIFEST_FILE
    with manifest.lock_folder(folder, patience=_PATIENCE):
        known = json.loads(path.read_text(encoding="utf-8"))
        files = {name: mark for name, mark in known["files"].items() if name != manifest.CARD_FILE}
        openings = [*known.get(_OPENINGS_KEY, []), opening]
        manifest.write_json(path, {**known, "files": files, _OPENINGS_KEY: openings})


def _refuse_same(data: PostSplits, split: str) -> None:
    """Raise `PostError` where half of the test posts stand in val; fewer is the audit's concern."""
    if not data.has("val"):
        return
    val, test = set(_contents(data.read("val"))), list(_contents(data.read(split)))
    both = sum(content in val for content in test)
    if both >= _ALIKE * len(test):
        raise PostError(
            f"{data.path}: {both} of {len(test)} test posts stand in val, content and label alike; "
            "epoch, temperature and threshold were chosen on val, so another test is needed"
        )


def _contents(posts: Iterable[Post]) -> Iterable[str]:
    for post in posts:
        image = None if post.image is None else digest_image(post.image)
        content = json.dumps([post.text, image, post.model_dump(mode="json")["label"]])
        yield hashlib.sha256(content.encode()).hexdigest()
