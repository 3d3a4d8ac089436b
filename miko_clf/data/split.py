"""Train, val and test out of one set of posts, never parting the posts of one group."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from miko_clf.data.labels import flat
from miko_clf.data.post import Post
from miko_clf.errors import PostError

SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)
_EVERY = ""  # counted for each post beside its labels, so that sizes come out right too


def is_test(split: str) -> bool:
    """Say whether a split is a test, of which a data set may have several: `test_seen`."""
    return split == "test" or split.startswith("test_")


def split_by_group(posts: Sequence[Post], seed: int) -> list[str]:
    """Return for each post the split its group falls in, 80/10/10 and stratified by every label.

    A post without a group is a group of its own. Large groups are placed first, each where
    the counts of its labels come nearest to their share; the seed decides the order of equals.
    """
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for post in posts:
        groups[_group(post)].update(_strata(post))
    wanted = sum(groups.values(), Counter())
    held: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    place: dict[tuple[str, str], str] = {}
    for group in sorted(groups, key=lambda group: (-groups[group][_EVERY], _draw(seed, group))):
        costs = [
            _cost(groups[group], held[split], wanted, share)
            for split, share in zip(SPLITS, SHARES, strict=True)
        ]
        place[group] = SPLITS[costs.index(min(costs))]
        held[place[group]].update(groups[group])
    if not all(held.values()):
        raise PostError(
            f"{len(groups)} groups of posts are too few to make train, val and test of; give more"
        )
    return [place[_group(post)] for post in posts]


def _cost(group: Counter[str], held: Counter[str], wanted: Counter[str], share: float) -> float:
    """Return how far the chi-square distance from the wanted counts moves, less is better."""
    return sum(
        count * (2 * (held[name] - share * wanted[name]) + count) / (share * wanted[name])
        for name, count in group.items()
    )


def _group(post: Post) -> tuple[str, str]:
    return ("id", post.id) if post.group is None else ("group", post.group)


def _strata(post: Post) -> tuple[str, ...]:
    return (_EVERY, *flat(post.label))


def _draw(seed: int, group: tuple[str, str]) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()
