"""The test split stays shut; each opening is checked, and counted in bundles and for the user."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.contents import mark_contents
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.splits import PostSplits, is_test_split
from miko_clf.errors import BundleError, PostError

_OPENINGS_KEY = "openings"
_PATIENCE = 20.0  # seconds that an opening waits for others to be written
_MOST_OVERLAP = 0.1  # share of the test posts that may stand among those it was fitted on
_NUM_NAMED = 3  # posts that an error names
_ALIKE = 0.5  # share of the test posts in val from which on the two are called the same


class ContentOverlap(NamedTuple):
    """Which posts a bundle was fitted on, by row, and how many share words or picture alone."""

    rows: list[int]
    same_text: int
    same_image: int


def open_lockbox(
    bundles: Sequence[Bundle],
    data: PostSplits,
    split: str,
    command: str,
    *,
    allow_overlap: bool = False,
) -> list[Mapping[str, Any]]:
    """Return every opening of a test split that these bundles have seen, this one included.

    Call it before the posts are scored. A split that is no test counts as no opening. Raises
    `PostError` where test holds what val holds or, unless they are allowed to `overlap`, where a
    bundle was fitted on more than a tenth of the posts, and `BundleError` where it was fitted on
    the split itself or another process does not let go of it.
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
        if not allow_overlap:
            _refuse_overlap(bundles, data, split)
        now = datetime.now(UTC).replace(tzinfo=None)
        opening = {
            "split": split,
            "fingerprint": mark,
            "when": f"{now.isoformat(timespec='milliseconds')}Z",
            "command": command,
        }
        for opened in bundles:
            _record(opened.path, opening)
        _record_for_user(opening, bundles)
    openings = [
        opening
        for opened in bundles
        for opening in bundle.load_bundle(opened.path).manifest.get(_OPENINGS_KEY, [])
    ]
    unique = {json.dumps(opening, sort_keys=True): opening for opening in openings}
    return sorted(unique.values(), key=lambda opening: str(opening["when"]))


def describe_openings(
    openings: Sequence[Mapping[str, Any]], fingerprint: str = ""
) -> dict[str, Any]:
    """Return what a report says of the openings, those by other bundles of this user's too."""
    known = [each for each in read_ledger() if each.get("fingerprint") == fingerprint]
    bundles = {name for each in known for name in each.get("bundles", ())}
    by_user = {"openings": len(known), "bundles": len(bundles)}
    found = {"openings": len(openings), "of": [dict(opening) for opening in openings]}
    return {**found, "by_user": by_user} if known else found


def find_overlap(opened: Bundle, posts: Sequence[Post]) -> ContentOverlap | None:
    """Return which posts the bundle was fitted on, None where it does not know.

    A post is the same whose words and picture are; bundles of before contents were kept know none.
    """
    path = opened.path / bundle.CONTENTS_FILE
    if not path.is_file():
        return None
    contents = json.loads(path.read_text(encoding="utf-8"))
    seen = {
        kind: {mark for split in contents.values() for mark in split[kind] if mark}
        for kind in ("text", "image", "both")
    }
    own = mark_contents(posts)
    inside = {kind: [mark in seen[kind] for mark in marks] for kind, marks in own.items()}
    rows = [row for row, same in enumerate(inside["both"]) if same]
    return ContentOverlap(rows, sum(inside["text"]), sum(inside["image"]))


def read_ledger() -> list[dict[str, Any]]:
    """Return every opening that was counted for this user on this machine."""
    try:
        lines = _locate_ledger().read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the line that a killed process was at
    return found


def _locate_ledger() -> Path:
    """Return the user's file of openings, `$MIKO_STATE/openings.jsonl` where that is set."""
    own = os.environ.get("MIKO_STATE")
    if own:
        return Path(own) / "openings.jsonl"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "miko_clf" / "openings.jsonl"


def _record_for_user(opening: Mapping[str, Any], bundles: Sequence[Bundle]) -> None:
    """Append an opening to the user's file; a machine that keeps none has none."""
    marks = [str(opened.manifest.get("files", {}).get(bundle.WEIGHTS_FILE)) for opened in bundles]
    line = json.dumps({**opening, "bundles": marks}) + "\n"
    path = _locate_ledger()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError:
        return


def _refuse_overlap(bundles: Sequence[Bundle], data: PostSplits, split: str) -> None:
    """Raise `PostError` where a bundle was fitted on too many of the posts of a test split."""
    posts = data.read(split)
    for opened in bundles:
        overlap = find_overlap(opened, posts)
        if overlap is None or len(overlap.rows) <= _MOST_OVERLAP * len(posts):
            continue
        named = ", ".join(posts[row].id for row in overlap.rows[:_NUM_NAMED])
        raise PostError(
            f"{opened.path}: was fitted on {len(overlap.rows):,} of the {len(posts):,} posts of "
            f"{split}, text and image alike ({named}, ...); at most a tenth may be, or "
            "--allow-overlap, which scores the rest by itself too"
        )


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
        label = post.model_dump(mode="json", include={"label"})["label"]
        content = json.dumps([post.text, image, label])
        yield hashlib.sha256(content.encode()).hexdigest()
