"""Groups of posts that are the same in one way or another."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

from miko_clf.data.audit.examine import KEYS, Examined
from miko_clf.data.audit.findings import Confounders, Group, Member, Overlap
from miko_clf.data.audit.glance import named
from miko_clf.data.audit.lookup import Lookup, look_up

_LOOKED_UP = ("id", "near text", "near image", "near post")


def overlaps(seen: Examined) -> tuple[Overlap, ...]:
    """Return, for each kind of key, the groups of posts that share one."""
    found = []
    for key, what in KEYS.items():
        groups = (_group(seen, rows) for rows in _alike(seen.keys[key]))
        found.append(Overlap(key=key, what=what, groups=_sorted(seen, groups)))
    return tuple(found)


def lookups(seen: Examined) -> tuple[Lookup, ...]:
    """Return what reading the label off the same post in train scores on each other split."""
    found = []
    labels = [named(post.label) for post in seen.posts]
    for split in (name for name in seen.order if name != "train"):
        for key in _LOOKED_UP:
            rows = [
                (place, (name, label))
                for place, name, label in zip(seen.splits, seen.keys[key], labels, strict=True)
                if label is not None
            ]
            known = [row for place, row in rows if place == "train"]
            found.append(look_up(key, split, known, [row for place, row in rows if place == split]))
    return tuple(each for each in found if each is not None)


def confounders(seen: Examined) -> tuple[Confounders, ...]:
    """Return the groups that share a text and differ in image and label, and the other way."""
    sides: tuple[tuple[Literal["text", "image"], str, str], ...] = (
        ("text", "near text", "near image"),
        ("image", "near image", "near text"),
    )
    found = []
    for shared, key, other in sides:
        groups = [
            _group(seen, rows)
            for rows in _alike(seen.keys[key])
            if _contrast(seen, rows, seen.keys[other])
        ]
        found.append(Confounders(shared=shared, groups=_sorted(seen, groups)))
    return tuple(found)


def _contrast(seen: Examined, rows: Sequence[int], other: Sequence[Hashable]) -> bool:
    """Return whether the label depends on the part that these posts do not share.

    So two labels stand beside two values of it; where posts are the same in both parts and
    labelled differently, it is a conflict and no contrast.
    """
    parts = {row: other[row] for row in rows if other[row] is not None}
    pairs = {(part, named(seen.posts[row].label)) for row, part in parts.items()}
    labels = {label for _, label in pairs if label is not None}
    return len(labels) > 1 and len({part for part, _ in pairs}) > 1


def _alike(keys: Sequence[Hashable]) -> list[list[int]]:
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key is not None:
            rows[key].append(row)
    return [group for group in rows.values() if len(group) > 1]


def _group(seen: Examined, rows: Sequence[int]) -> Group:
    """Return these posts as a group, by split and id."""
    members = [
        Member(split=seen.splits[row], id=seen.posts[row].id, label=named(seen.posts[row].label))
        for row in rows
    ]
    return Group(
        members=tuple(sorted(members, key=lambda each: (seen.order.index(each.split), each.id))),
        across=len({each.split for each in members}) > 1,
        conflict=len({each.label for each in members if each.label is not None}) > 1,
    )


def _sorted(seen: Examined, groups: Iterable[Group]) -> tuple[Group, ...]:
    """Return the groups across splits first, the larger ones before the smaller."""

    def rank(group: Group) -> tuple[object, ...]:
        names = [(seen.order.index(each.split), each.id) for each in group.members]
        return (not group.across, -len(names), names)

    return tuple(sorted(groups, key=rank))
