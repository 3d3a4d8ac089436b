"""Splits of posts that are read already, and what stands for the content of one."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from miko_clf.data.post import Post
from miko_clf.errors import PostError


class Splits(Protocol):
    """What has splits to be read: a `DataFolder`, or posts in memory."""

    path: Path
    splits: tuple[str, ...]

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name."""

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split; raises PostError where it is not there."""

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order."""


class Held:
    """Posts in memory, by split; `path` says where they come from."""

    def __init__(self, path: Path, posts: Mapping[str, Sequence[Post]]) -> None:
        self.path = path
        self.splits = tuple(posts)
        self._posts = {split: list(each) for split, each in posts.items()}

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name."""
        return split in self._posts

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split; raises PostError where it is not there."""
        if not self.has(split):
            known = ", ".join(self.splits)
            raise PostError(f"{self.path}: there is no split {split!r}; there is {known}")
        return list(self._posts[split])

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order."""
        return fingerprint(self.read(split))


def fingerprint(posts: Iterable[Post]) -> str:
    """Return the SHA-256 of what posts say, in order.

    An image counts by its file name and size, or by its bytes where a file embeds them.
    """
    content = hashlib.sha256()
    for post in posts:
        fields = post.model_dump(mode="json", exclude={"image"})
        if isinstance(post.image, Path):
            fields["image"] = [post.image.name, post.image.stat().st_size]
        elif post.image is not None:
            fields["image"] = hashlib.sha256(post.image).hexdigest()
        content.update(json.dumps(fields, sort_keys=True).encode() + b"\n")
    return content.hexdigest()
