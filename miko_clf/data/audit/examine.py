"""The posts of a data folder with the keys under which two of them are the same."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from miko_clf.data.audit import pictures, texts
from miko_clf.data.audit.glance import normal
from miko_clf.data.audit.pictures import Looks
from miko_clf.data.folder import open_folder
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport

KEYS: Mapping[str, str] = {
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
FEWEST_LETTERS = 20
"""Letters and digits of a text from which it is a post by itself where there is no image."""

Keys = Mapping[str, Sequence[Hashable]]


class Examined(NamedTuple):
    """Every post that can be read, the split of each, and the keys of each (None for no key).

    `refused` holds (split, where, why) of what the reader passed over.
    """

    path: Path
    kind: str
    order: tuple[str, ...]
    posts: tuple[Post, ...]
    splits: tuple[str, ...]
    looks: tuple[Looks | None, ...]
    keys: Keys
    refused: tuple[tuple[str, str, str], ...]


def examine(
    path: Path, *, label_map: Mapping[str, str] | None = None, split_seed: int | None = None
) -> Examined:
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
    looks, keys = compared(posts)
    return Examined(
        path, folder.kind, folder.splits, tuple(posts), tuple(splits), looks, keys, tuple(refused)
    )


def compared(posts: Sequence[Post]) -> tuple[tuple[Looks | None, ...], Keys]:
    """Return the looks of each post's image and, for each kind of key, the key of each post."""
    wordings = [normal(post.text) for post in posts]
    near_text = texts.near(wordings).tolist()
    shown = [(row, post.image) for row, post in enumerate(posts) if post.image is not None]
    sources = [source for _, source in shown]
    seen = pictures.look_at_all(sources)
    groups = pictures.near(seen)
    pixels = pictures.equal(sources, seen, groups)
    looks: list[Looks | None] = [None] * len(posts)
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
    keys["post"] = _whole(wordings, keys["text"], image)
    keys["near post"] = _whole(wordings, keys["near text"], near_image)
    return tuple(looks), keys


def _whole(
    wordings: Sequence[str], texts: Sequence[Hashable], images: Sequence[Hashable]
) -> list[Hashable]:
    """Return the key of whole posts; a few words without an image are said twice by chance."""
    return [
        None if image is None and len(wording) < FEWEST_LETTERS else (text, image)
        for wording, text, image in zip(wordings, texts, images, strict=True)
    ]
