"""Posts to arrays, all at once, under the names that the model and the exported graphs take."""

from collections.abc import Sequence

import numpy as np

from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.preprocess import Arrays, Preparation, stack_images
from miko_clf.data.tokenizer import TextTokenizer, encode_texts, pad_ids


def collate_posts(
    posts: Sequence[Post], preparation: Preparation, words: TextTokenizer | None
) -> Arrays:
    """Return every array that the inputs call for; `words` is null where none of them is a text.

    pixels uint8 (post, 3, height, width), image_present bool (post,); for each text NAME
    NAME_ids int64 and NAME_mask bool (post, token); intention_ids and intention_mask
    (post, intention, token), relation int64 (post, intention). What a post lacks is masked.
    Raises `PostError` where a rationale that saw the label would be read.
    """
    arrays: Arrays = {}
    if preparation.image is not None:
        arrays |= stack_images(posts, preparation.image)
    if words is None:
        return arrays
    for name, rows in encode_texts(posts, preparation, words).items():
        arrays[f"{name}_ids"], arrays[f"{name}_mask"] = pad_ids(rows, words.pad_id)
    if preparation.reads_intentions:
        arrays |= _encode_intentions(posts, preparation.intention_length, words)
    return arrays


def _encode_intentions(posts: Sequence[Post], max_length: int, words: TextTokenizer) -> Arrays:
    """Return intention_ids, intention_mask and relation; one absent one where none is given."""
    counts = [len(post.intentions) for post in posts]
    texts = [intention.text for post in posts for intention in post.intentions]
    rows = words.encode(texts, max_length)
    flat_ids, flat_mask = pad_ids(rows, words.pad_id)
    shape = (len(posts), max([1, *counts]))
    ids = np.full((*shape, flat_ids.shape[1]), words.pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    relation = np.zeros(shape, dtype=np.int64)
    start = 0
    for place, (post, count) in enumerate(zip(posts, counts, strict=True)):
        ids[place, :count] = flat_ids[start : start + count]
        mask[place, :count] = flat_mask[start : start + count]
        relation[place, :count] = [RELATIONS.index(each.relation) for each in post.intentions]
        start += count
    return {"intention_ids": ids, "intention_mask": mask, "relation": relation}
