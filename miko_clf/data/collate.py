"""Posts to arrays under the names that the model and the exported graphs take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miko_clf.data.pixels import Preprocess, pixels
from miko_clf.data.post import RELATIONS, Post, Record
from miko_clf.data.words import Words, pad
from miko_clf.errors import PostError

Arrays = dict[str, NDArray[Any]]


class Preparation(Record):
    """What `preprocess.json` holds: how a post becomes arrays.

    `inputs` are the recipe's; `image` is null where none of them is an image; `slots` says that
    the model can guess absent intentions; `golden` is the digest of a fixed picture, prepared.
    """

    inputs: tuple[str, ...]
    image: Preprocess | None
    pad_id: int
    max_length: int = Field(gt=0)
    intention_length: int = Field(gt=0)
    slots: bool = False
    golden: str | None = None


def collate(posts: Sequence[Post], preparation: Preparation, words: Words) -> Arrays:
    """Return every array that the inputs call for.

    pixels uint8 (post, 3, height, width), image_present bool (post,); for each text NAME
    NAME_ids int64 and NAME_mask bool (post, token); intention_ids and intention_mask
    (post, intention, token), relation int64 (post, intention). What a post lacks is masked.
    Raises `PostError` where a rationale that saw the label would be read.
    """
    arrays: Arrays = {}
    if preparation.image is not None:
        arrays |= images(posts, preparation.image)
    for name in ("text", "description", "rationale"):
        if name in preparation.inputs:
            rows = words.encode(content_text(posts, name), preparation.max_length)
            arrays[f"{name}_ids"], arrays[f"{name}_mask"] = pad(rows, words.pad_id)
    if "intention" in preparation.inputs:
        arrays |= intentions(posts, preparation.intention_length, words)
    return arrays


def images(posts: Sequence[Post], preprocess: Preprocess) -> Arrays:
    """Return pixels and image_present; a post without an image has black pixels."""
    blank = np.zeros((3, preprocess.height, preprocess.width), dtype=np.uint8)
    stack = [pixels(post.image, preprocess) if post.image is not None else blank for post in posts]
    present = [post.image is not None for post in posts]
    return {"pixels": np.stack(stack), "image_present": np.array(present, dtype=bool)}


def content_text(posts: Sequence[Post], name: str) -> list[str | None]:
    """Return the named text of each post, refusing a rationale that saw the label."""
    if name != "rationale":
        return [getattr(post, name) for post in posts]
    return [input_rationale(post) for post in posts]


def input_rationale(post: Post) -> str | None:
    """Return the rationale of a post as an input; raises `PostError` if it saw the label."""
    if post.rationale is not None and post.rationale.saw_label:
        raise PostError(
            f"post {post.id!r}: its rationale was written knowing the label, so it may be a "
            "training target and never an input; take rationale out of the recipe's inputs"
        )
    return post.rationale.text if post.rationale else None


def intentions(posts: Sequence[Post], max_length: int, words: Words) -> Arrays:
    """Return intention_ids, intention_mask and relation; one absent one where none is given."""
    counts = [len(post.intentions) for post in posts]
    rows = words.encode([one.text for post in posts for one in post.intentions], max_length)
    flat_ids, flat_mask = pad(rows, words.pad_id)
    shape = (len(posts), max([1, *counts]))
    ids = np.full((*shape, flat_ids.shape[1]), words.pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    relation = np.zeros(shape, dtype=np.int64)
    start = 0
    for place, (post, count) in enumerate(zip(posts, counts, strict=True)):
        ids[place, :count] = flat_ids[start : start + count]
        mask[place, :count] = flat_mask[start : start + count]
        relation[place, :count] = [RELATIONS.index(one.relation) for one in post.intentions]
        start += count
    return {"intention_ids": ids, "intention_mask": mask, "relation": relation}


def drop(arrays: Arrays, gone: Mapping[str, NDArray[np.bool_]]) -> Arrays:
    """Return the arrays with an input masked for the posts that `gone[input]` marks."""
    changed = dict(arrays)
    for name, posts in gone.items():
        key = "image_present" if name == "image" else f"{name}_mask"
        if key in changed:
            keep = ~posts.reshape(-1, *[1] * (changed[key].ndim - 1))
            changed[key] = changed[key] & keep
    return changed
