"""Posts that are the same in one way or another, within a split and across splits."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from miko_clf.data.audit import findings, near_duplicates
from miko_clf.data.audit.findings import Overlap, OverlapGroup
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import name_label
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.data.sets.base import DatedSplit
from miko_clf.data.splits import group_rows
from miko_clf.data.text import normalise_text

OVERLAP_KEYS: Mapping[str, str] = {
    "id": "the same id",
    "group": "the same declared group",
    "text": "identical texts",
    "near text": "near-identical texts",
    "file": "identical image files",
    "image": "identical pixels",
    "near image": "near-identical images",
    "post": "identical posts, text and image",
    "near post": "near-identical posts, text and image",
}
"""The keys, in the order in which they are reported, and what posts of one key share."""
MIN_POST_LETTERS = 20
"""Letters and digits of a text from which it is a post by itself where there is no image."""

_KeysByKind = Mapping[str, Sequence[Hashable]]


class ComparedPosts(NamedTuple):
    """Every post that can be read, the split of each, and the keys of each (None for no key).

    `refused` holds (split, where, why) of what the reader passed over.
    """

    path: Path
    kind: str
    order: tuple[str, ...]
    posts: tuple[Post, ...]
    splits: tuple[str, ...]
    fingerprints: tuple[near_duplicates.ImageFingerprint | None, ...]
    keys: _KeysByKind
    refused: tuple[tuple[str, str, str], ...]


def read_compared_posts(
    path: Path,
    *,
    label_map: Mapping[str, str] | None = None,
    split_seed: int | None = None,
    dated: DatedSplit | None = None,
) -> ComparedPosts:
    """Read every split, bad posts passed over, and compare all posts with each other.

    Splits are opened apart from each other, so that an id in two of them is found and not
    refused. Raises PostError where a split cannot be read at all.
    """
    folder = open_folder(path, label_map=label_map, split_seed=split_seed, dated=dated)
    posts: list[Post] = []
    splits: list[str] = []
    refused: list[tuple[str, str, str]] = []
    for split in folder.splits:
        report = SkipReport()
        alone = open_folder(
            path, label_map=label_map, split_seed=split_seed, report=report, dated=dated
        )
        posts += alone.read(split)
        splits += [split] * (len(posts) - len(splits))
        refused += [(split, where, why) for where, why in report]
    found = tuple(posts), tuple(splits), *compute_post_keys(posts), tuple(refused)
    return ComparedPosts(path, folder.kind, folder.splits, *found)


def compute_post_keys(
    posts: Sequence[Post],
) -> tuple[tuple[near_duplicates.ImageFingerprint | None, ...], _KeysByKind]:
    """Return each post's image's fingerprint and, for each kind of key, the key of each post."""
    wordings = [normalise_text(post.text) for post in posts]
    text_groups = near_duplicates.group_near_texts(wordings).tolist()
    sources = {row: post.image for row, post in enumerate(posts) if post.image is not None}
    images = list(sources.values())
    prints = near_duplicates.fingerprint_images(images)
    image_groups = near_duplicates.group_near_images(prints)
    pixels = dict(
        zip(sources, near_duplicates.digest_pixels(images, prints, image_groups), strict=True)
    )
    near_images = dict(zip(sources, image_groups.tolist(), strict=True))
    by_row = dict(zip(sources, prints, strict=True))
    fingerprints = tuple(by_row.get(row) for row in range(len(posts)))
    keys: dict[str, Sequence[Hashable]] = {
        "id": [post.id for post in posts],
        "group": [post.group for post in posts],
        "text": [text or None for text in wordings],
        "near text": [
            group if text else None for text, group in zip(wordings, text_groups, strict=True)
        ],
        "file": [image.digest if image else None for image in fingerprints],
        "image": [pixels.get(row) for row in range(len(posts))],
        "near image": [near_images.get(row) for row in range(len(posts))],
    }
    keys["post"] = _join_post_keys(wordings, keys["text"], keys["image"])
    keys["near post"] = _join_post_keys(wordings, keys["near text"], keys["near image"])
    return fingerprints, keys


def _join_post_keys(
    wordings: Sequence[str], texts: Sequence[Hashable], images: Sequence[Hashable]
) -> list[Hashable]:
    """Return the key of whole posts; a few words without an image are said twice by chance."""
    return [
        None if image is None and len(wording) < MIN_POST_LETTERS else (text, image)
        for wording, text, image in zip(wordings, texts, images, strict=True)
    ]


_LOOKUP_KEYS = ("id", "near text", "near image", "near post")


def find_overlaps(data: ComparedPosts) -> tuple[Overlap, ...]:
    """Return, for each kind of key, the groups of posts that share one."""
    return tuple(
        Overlap(key=key, what=what, groups=_make_groups(data, group_rows(data.keys[key])))
        for key, what in OVERLAP_KEYS.items()
    )


def measure_lookup_gains(data: ComparedPosts) -> tuple[findings.Lookup, ...]:
    """Return what reading the label off the same post in train scores on each other split."""
    lookups = []
    labels = [name_label(post.label) for post in data.posts]
    for split, key in product(data.order, _LOOKUP_KEYS):
        rows: dict[str, list[tuple[Hashable, str]]] = defaultdict(list)
        for place, name, label in zip(data.splits, data.keys[key], labels, strict=True):
            if label is not None:
                rows[place].append((name, label))
        if split != "train":
            lookups.append(findings.score_lookup(key, split, rows["train"], rows[split]))
    return tuple(lookup for lookup in lookups if lookup is not None)


def find_contrast_sets(data: ComparedPosts) -> tuple[findings.ContrastSets, ...]:
    """Return the groups that share a text and differ in image and label, and the other way."""
    sides: tuple[tuple[Literal["text", "image"], str, str], ...] = (
        ("text", "near text", "near image"),
        ("image", "near image", "near text"),
    )
    sets = []
    for shared, key, other in sides:
        groups = group_rows(data.keys[key])
        groups = [rows for rows in groups if _is_contrast(data, rows, data.keys[other])]
        sets.append(findings.ContrastSets(shared=shared, groups=_make_groups(data, groups)))
    return tuple(sets)


def _is_contrast(data: ComparedPosts, rows: Sequence[int], other: Sequence[Hashable]) -> bool:
    """Return whether the label depends on the part that these posts do not share.

    So two labels stand beside two values of it; where posts are the same in both parts and
    labelled differently, it is a conflict and no contrast.
    """
    parts = {row: other[row] for row in rows if other[row] is not None}
    pairs = {(part, name_label(data.posts[row].label)) for row, part in parts.items()}
    labels = {label for _, label in pairs if label is not None}
    return len(labels) > 1 and len({part for part, _ in pairs}) > 1


def _make_groups(data: ComparedPosts, groups: Iterable[Sequence[int]]) -> tuple[OverlapGroup, ...]:
    """Return groups of rows as findings: those across splits first, the larger before the smaller.

    Members stand by split and id.
    """

    def rank_member(member: findings.OverlapMember) -> tuple[int, str]:
        return data.order.index(member.split), member.id

    def rank_group(group: OverlapGroup) -> tuple[object, ...]:
        return not group.across, -len(group.members), [rank_member(m) for m in group.members]

    ranked = []
    for rows in groups:
        here = ((data.splits[row], data.posts[row]) for row in rows)
        members = [
            findings.OverlapMember(split=split, id=post.id, label=name_label(post.label))
            for split, post in here
        ]
        labels = {member.label for member in members if member.label is not None}
        across = len({member.split for member in members}) > 1
        members.sort(key=rank_member)
        conflict = len(labels) > 1
        ranked.append(OverlapGroup(members=tuple(members), across=across, conflict=conflict))
    return tuple(sorted(ranked, key=rank_group))
