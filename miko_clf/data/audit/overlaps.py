"""Posts that are the same in one way or another, within a split and across splits."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from miko_clf.data.audit import near_duplicates
from miko_clf.data.audit.findings import (
    ContrastSets,
    Lookup,
    Overlap,
    OverlapGroup,
    OverlapMember,
    score_lookup,
)
from miko_clf.data.audit.near_duplicates import ImageFingerprint
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import name_label
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
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
    looks: tuple[ImageFingerprint | None, ...]
    keys: _KeysByKind
    refused: tuple[tuple[str, str, str], ...]


def read_compared_posts(
    path: Path, *, label_map: Mapping[str, str] | None = None, split_seed: int | None = None
) -> ComparedPosts:
    """Read every split, bad posts passed over, and compare all posts with each other.

    Splits are opened apart from each other, so that an id in two of them is found and not
    refused. Raises PostError where a split cannot be read at all.
    """
    folder = open_folder(path, label_map=label_map, split_seed=split_seed)
    posts: list[Post] = []
    splits: list[str] = []
    refused: list[tuple[str, str, str]] = []
    for split in folder.splits:
        report = SkipReport()
        alone = open_folder(path, label_map=label_map, split_seed=split_seed, report=report)
        found = alone.read(split)
        posts += found
        splits += [split] * len(found)
        refused += [(split, where, why) for where, why in report]
    looks, keys = compute_post_keys(posts)
    return ComparedPosts(
        path, folder.kind, folder.splits, tuple(posts), tuple(splits), looks, keys, tuple(refused)
    )


def compute_post_keys(
    posts: Sequence[Post],
) -> tuple[tuple[ImageFingerprint | None, ...], _KeysByKind]:
    """Return the looks of each post's image and, for each kind of key, the key of each post."""
    wordings = [normalise_text(post.text) for post in posts]
    near_text = near_duplicates.group_near_texts(wordings).tolist()
    shown = [(row, post.image) for row, post in enumerate(posts) if post.image is not None]
    sources = [source for _, source in shown]
    seen = near_duplicates.fingerprint_images(sources)
    groups = near_duplicates.group_near_images(seen)
    pixels = near_duplicates.digest_pixels(sources, seen, groups)
    looks: list[ImageFingerprint | None] = [None] * len(posts)
    image: list[Hashable] = [None] * len(posts)
    near_image: list[Hashable] = [None] * len(posts)
    for place, (row, _) in enumerate(shown):
        looks[row], image[row], near_image[row] = seen[place], pixels[place], int(groups[place])
    keys: dict[str, Sequence[Hashable]] = {
        "id": [post.id for post in posts],
        "group": [post.group for post in posts],
        "text": [text or None for text in wordings],
        "near text": [
            group if text else None for text, group in zip(wordings, near_text, strict=True)
        ],
        "file": [each.digest if each else None for each in looks],
        "image": image,
        "near image": near_image,
    }
    keys["post"] = _join_post_keys(wordings, keys["text"], image)
    keys["near post"] = _join_post_keys(wordings, keys["near text"], near_image)
    return tuple(looks), keys


def _join_post_keys(
    wordings: Sequence[str], texts: Sequence[Hashable], images: Sequence[Hashable]
) -> list[Hashable]:
    """Return the key of whole posts; a few words without an image are said twice by chance."""
    return [
        None if image is None and len(wording) < MIN_POST_LETTERS else (text, image)
        for wording, text, image in zip(wordings, texts, images, strict=True)
    ]


_LOOKUP_KEYS = ("id", "near text", "near image", "near post")


def find_overlaps(seen: ComparedPosts) -> tuple[Overlap, ...]:
    """Return, for each kind of key, the groups of posts that share one."""
    found = []
    for key, what in OVERLAP_KEYS.items():
        groups = (_make_group(seen, rows) for rows in _group_rows(seen.keys[key]))
        found.append(Overlap(key=key, what=what, groups=_sort_groups(seen, groups)))
    return tuple(found)


def measure_lookup_gains(seen: ComparedPosts) -> tuple[Lookup, ...]:
    """Return what reading the label off the same post in train scores on each other split."""
    found = []
    labels = [name_label(post.label) for post in seen.posts]
    for split in (name for name in seen.order if name != "train"):
        for key in _LOOKUP_KEYS:
            rows = [
                (place, (name, label))
                for place, name, label in zip(seen.splits, seen.keys[key], labels, strict=True)
                if label is not None
            ]
            known = [row for place, row in rows if place == "train"]
            found.append(
                score_lookup(key, split, known, [row for place, row in rows if place == split])
            )
    return tuple(each for each in found if each is not None)


def find_contrast_sets(seen: ComparedPosts) -> tuple[ContrastSets, ...]:
    """Return the groups that share a text and differ in image and label, and the other way."""
    sides: tuple[tuple[Literal["text", "image"], str, str], ...] = (
        ("text", "near text", "near image"),
        ("image", "near image", "near text"),
    )
    found = []
    for shared, key, other in sides:
        groups = [
            _make_group(seen, rows)
            for rows in _group_rows(seen.keys[key])
            if _is_contrast(seen, rows, seen.keys[other])
        ]
        found.append(ContrastSets(shared=shared, groups=_sort_groups(seen, groups)))
    return tuple(found)


def _is_contrast(seen: ComparedPosts, rows: Sequence[int], other: Sequence[Hashable]) -> bool:
    """Return whether the label depends on the part that these posts do not share.

    So two labels stand beside two values of it; where posts are the same in both parts and
    labelled differently, it is a conflict and no contrast.
    """
    parts = {row: other[row] for row in rows if other[row] is not None}
    pairs = {(part, name_label(seen.posts[row].label)) for row, part in parts.items()}
    labels = {label for _, label in pairs if label is not None}
    return len(labels) > 1 and len({part for part, _ in pairs}) > 1


def _group_rows(keys: Sequence[Hashable]) -> list[list[int]]:
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key is not None:
            rows[key].append(row)
    return [group for group in rows.values() if len(group) > 1]


def _make_group(seen: ComparedPosts, rows: Sequence[int]) -> OverlapGroup:
    """Return these posts as a group, by split and id."""
    members = [
        OverlapMember(
            split=seen.splits[row], id=seen.posts[row].id, label=name_label(seen.posts[row].label)
        )
        for row in rows
    ]
    return OverlapGroup(
        members=tuple(sorted(members, key=lambda each: (seen.order.index(each.split), each.id))),
        across=len({each.split for each in members}) > 1,
        conflict=len({each.label for each in members if each.label is not None}) > 1,
    )


def _sort_groups(seen: ComparedPosts, groups: Iterable[OverlapGroup]) -> tuple[OverlapGroup, ...]:
    """Return the groups across splits first, the larger ones before the smaller."""

    def rank(group: OverlapGroup) -> tuple[object, ...]:
        names = [(seen.order.index(each.split), each.id) for each in group.members]
        return (not group.across, -len(names), names)

    return tuple(sorted(groups, key=rank))
