"""Posts to arrays under the names that the model and the exported graphs take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from miko_clf.data.post import RELATIONS, Post, Record
from miko_clf.data.preprocess import Preprocessing, preprocess_image
from miko_clf.data.tokenizer import LongMode, TextTokenizer, join_bare, join_separated, pad_ids
from miko_clf.errors import PostError

Arrays = dict[str, NDArray[Any]]
_TEXT_INPUTS = ("text", "description", "rationale")


class Preparation(Record):
    """What `preprocess.json` holds: how a post becomes arrays.

    `inputs` are the recipe's; `joined` says how its texts become one, `long` what becomes of a
    text that is too long, `window` how many tokens of it the tower reads at once; `image` is null
    where no input is one; `slots` says that the model can guess absent intentions; `golden` is the
    digest of a fixed picture, prepared.
    """

    inputs: tuple[str, ...]
    joined: Literal["no", "separated", "bare"] = "no"
    long: LongMode = "cut"
    window: int | None = None
    image: Preprocessing | None
    pad_id: int
    max_length: int = Field(gt=0)
    intention_length: int = Field(gt=0)
    slots: bool = False
    golden: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that the model sees as content; joined ones are one, called text."""
        names = tuple(name for name in _TEXT_INPUTS if name in self.inputs)
        return names if self.joined == "no" else ("text",)

    @property
    def reads_intentions(self) -> bool:
        """Whether intentions reach the model as such, and not as a part of its text."""
        return "intention" in self.inputs and self.joined == "no"


def read_tokenizer(path: Path, preparation: Preparation) -> TextTokenizer | None:
    """Return the tokenizer of a bundle, none where no input is a text."""
    return TextTokenizer.read(path, preparation.pad_id) if preparation.texts else None


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


def encode_texts(
    posts: Sequence[Post], preparation: Preparation, words: TextTokenizer
) -> dict[str, list[list[int]]]:
    """Return the ids of each text that the model sees as content, none where a post lacks it."""
    longest = preparation.max_length
    if preparation.joined == "no":
        long, window = preparation.long, preparation.window
        return {
            name: words.encode(_select_texts(posts, name), longest, long=long, window=window)
            for name in preparation.texts
        }
    parts = [_list_parts(post, preparation.inputs) for post in posts]
    join = join_bare if preparation.joined == "bare" else join_separated
    return {"text": join(parts, words, longest)}


def _list_parts(post: Post, inputs: Sequence[str]) -> list[str]:
    """Return the texts of a post that are inputs, in the order in which they are joined."""
    texts = [_select_texts([post], name)[0] for name in _TEXT_INPUTS if name in inputs]
    if "intention" in inputs:
        texts += [intention.text for intention in post.intentions]
    return [text for text in texts if text]


def stack_images(posts: Sequence[Post], preprocess: Preprocessing) -> Arrays:
    """Return pixels and image_present; a post without an image has black pixels."""
    blank = np.zeros((3, preprocess.height, preprocess.width), dtype=np.uint8)
    stack = [
        preprocess_image(post.image, preprocess) if post.image is not None else blank
        for post in posts
    ]
    present = [post.image is not None for post in posts]
    return {"pixels": np.stack(stack), "image_present": np.array(present, dtype=bool)}


def _select_texts(posts: Sequence[Post], name: str) -> list[str | None]:
    """Return the named text of each post, refusing a rationale that saw the label."""
    if name != "rationale":
        return [getattr(post, name) for post in posts]
    return [get_input_rationale(post) for post in posts]


def get_input_rationale(post: Post) -> str | None:
    """Return the rationale of a post as an input; raises `PostError` if it saw the label."""
    if post.rationale is not None and post.rationale.saw_label:
        raise PostError(
            f"post {post.id!r}: its rationale was written knowing the label, so it may be a "
            "training target and never an input; take rationale out of the recipe's inputs"
        )
    return post.rationale.text if post.rationale else None


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
