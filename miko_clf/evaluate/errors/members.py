"""Which posts belong to which target group: by their own word for it, or by words in their text."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from miko_clf.data.post import Post
from miko_clf.errors import MikoError

MOST = 20
"""Values of `group` above which it names threads or pictures and no target groups."""
FEWEST = 10
"""Posts, of a group and of the rest, under which nothing is said of a group."""
Words = Mapping[str, Sequence[str]]


class GroupsError(MikoError):
    """A file of target groups cannot be used."""


def enough(inside: NDArray[np.bool_]) -> bool:
    """Say whether a group has posts enough, and leaves enough, for something to be said of it."""
    return bool(FEWEST <= inside.sum() <= len(inside) - FEWEST)


def group_members(posts: Sequence[Post]) -> dict[str, NDArray[np.bool_]]:
    """Return the posts of each `group`; none where it takes one value, or more than `MOST`.

    Nor where most of its values stand for one post alone: then it names the post's picture.
    """
    counts = Counter(post.group for post in posts if post.group is not None)
    alone = sum(count == 1 for count in counts.values())
    if not 2 <= len(counts) <= MOST or 2 * alone > len(counts):
        return {}
    return {name: np.array([post.group == name for post in posts]) for name in sorted(counts)}


def word_members(posts: Sequence[Post], words: Words) -> dict[str, NDArray[np.bool_]]:
    """Return the posts whose text holds one of a group's words, whole and in any case."""
    found = {}
    for name, listed in words.items():
        known = sorted(filter(str.strip, listed), key=len, reverse=True)
        if not known:  # no word would otherwise stand in every text
            continue
        either = "|".join(map(re.escape, known))
        pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
        found[name] = np.array([bool(pattern.search(post.text or "")) for post in posts])
    return found


def read_groups(path: Path) -> dict[str, list[str]]:
    """Return the groups of a YAML or JSON file, `{group: [words...]}`; raises `GroupsError`."""
    shape = "an object of lists of words is needed, such as {women: [woman, women]}"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise GroupsError(f"{path}: cannot be read: {reason}") from None
    except yaml.YAMLError:
        raise GroupsError(f"{path}: is neither YAML nor JSON; {shape}") from None
    if not isinstance(found, dict) or not found:
        raise GroupsError(f"{path}: {shape}")
    for name, words in found.items():
        listed = isinstance(words, list) and all(isinstance(w, str) and w.strip() for w in words)
        if not isinstance(name, str) or not listed or not words:
            raise GroupsError(f"{path}: group {str(name)[:40]!r}: {shape}")
    return found
