"""Texts to token ids, the same way in training and in serving: one by one, or joined."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from miko_clf.data.post import Post
from miko_clf.data.preprocess import TEXT_INPUTS, LongMode, Preparation
from miko_clf.data.unicode_folding import fold_disguises
from miko_clf.errors import BundleError, EncoderError, PostError


class TextTokenizer:
    """A tokenizer, and a count of what its limit cut off.

    `fold` undoes disguises of letters first. `num_texts` counts the texts that were encoded,
    `num_cut` those that lost tokens.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int, *, fold: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.pad_id = pad_id
        self.fold = fold
        self.num_special = tokenizer.num_special_tokens_to_add(False)
        self.num_texts = 0
        self.num_cut = 0

    @classmethod
    def read(cls, path: Path, pad_id: int, *, fold: bool = False) -> "TextTokenizer":
        """Return the tokenizer that a `tokenizer.json` describes."""
        try:
            return cls(Tokenizer.from_file(str(path)), pad_id, fold=fold)
        except Exception:  # the Rust side raises bare Exception
            raise BundleError(f"{path}: not a readable tokenizer.json") from None

    def write(self, path: Path) -> None:
        """Write the tokenizer as `tokenizer.json`."""
        self.tokenizer.save(str(path))

    def clean(self, text: str) -> str:
        """Return a text as it is cut into tokens: one blank between words, disguises undone."""
        return collapse_whitespace(fold_disguises(text) if self.fold else text)

    def encode(
        self,
        texts: Sequence[str | None],
        max_length: int,
        *,
        long: LongMode = "cut",
        window: int | None = None,
    ) -> list[list[int]]:
        """Return the ids of each text, special tokens kept, at most `max_length` of them.

        Of a longer text `cut` keeps the head, `ends` the head and the tail. `chunk` lays
        windows of `window` ids end to end, each with special tokens of its own and all but the
        last full, as many as `max_length` holds. An absent or blank text has no ids at all.
        """
        plain = [self.clean(text or "") for text in texts]
        present = [text for text in plain if text]
        window = min(window or max_length, max_length)
        if window <= self.num_special:
            raise EncoderError(f"max_length {window} leaves no room for a word")
        if long == "cut":
            self.tokenizer.enable_truncation(window)
        else:
            self.tokenizer.no_truncation()
        encodings = self.tokenizer.encode_batch_fast(present)
        self.num_cut += sum(bool(row.overflowing) for row in encodings)
        encoded = iter([row.ids for row in encodings])
        rows = [next(encoded) if text else [] for text in plain]
        self.num_texts += len(present)
        if long == "ends":
            return [self._keep_ends(row, window) for row in rows]
        if long == "chunk":
            return [self._lay_windows(row, window, max_length // window) for row in rows]
        return rows

    def _keep_ends(self, row: list[int], max_length: int) -> list[int]:
        if len(row) <= max_length:
            return row
        self.num_cut += 1
        head = (max_length - self.num_special + 1) // 2 + self.num_before
        return row[:head] + row[len(row) - (max_length - head) :]

    def _lay_windows(self, row: list[int], window: int, most: int) -> list[int]:
        if len(row) <= window:
            return row
        first, last = self.num_before, len(row) - (self.num_special - self.num_before)
        room = window - self.num_special
        starts = range(first, last, room)
        self.num_cut += len(starts) > most
        pieces = [row[start : min(start + room, last)] for start in starts[:most]]
        return [i for piece in pieces for i in (*row[:first], *piece, *row[last:])]

    @cached_property
    def num_before(self) -> int:
        """Return how many special tokens stand before a text; the rest stands behind it."""
        self.tokenizer.no_truncation()
        mask = self.tokenizer.encode("a").special_tokens_mask
        return mask.index(0) if 0 in mask else 0


def read_tokenizer(path: Path, preparation: Preparation) -> TextTokenizer | None:
    """Return the tokenizer of a bundle, none where no input is a text."""
    if not preparation.texts:
        return None
    return TextTokenizer.read(path, preparation.pad_id, fold=preparation.fold)


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
    texts = [_select_texts([post], name)[0] for name in TEXT_INPUTS if name in inputs]
    if "intention" in inputs:
        texts += [intention.text for intention in post.intentions]
    return [text for text in texts if text]


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


def pad_ids(
    rows: Sequence[Sequence[int]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return ids and presence, both (row, longest), absent where a row ends; one column or more."""
    longest = max([1, *map(len, rows)])
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = True
    return ids, mask


_Ids = list[int]


def join_bare(parts: Sequence[Sequence[str]], words: TextTokenizer, max_length: int) -> list[_Ids]:
    """Return the ids of each post's texts written one behind the other, cut at the end.

    So MIKO's sarcasm experiment lays them together: no blank, no mark (Yang et al., ACM MM 2024).
    """
    return words.encode(["".join(texts) for texts in parts], max_length)


def join_separated(
    parts: Sequence[Sequence[str]], words: TextTokenizer, max_length: int
) -> list[_Ids]:
    """Return the ids of each post's texts, the mark that ends a text between any two.

    Where they do not fit, the longest are shortened until all have the same length or fit whole.
    Raises `EncoderError` for a tokenizer that has no such mark.
    """
    head, tail = _find_marks(words)
    cleaned = [[words.clean(text) for text in texts] for texts in parts]
    flat = [text for texts in cleaned for text in texts]
    words.tokenizer.no_truncation()
    present = [text for text in flat if text]
    encodings = words.tokenizer.encode_batch_fast(present, add_special_tokens=False)
    ids = iter(encoding.ids for encoding in encodings)
    rows = []
    for texts in cleaned:
        pieces = [next(ids) for text in texts if text]
        rows.append(_join_pieces(pieces, head, tail, words, max_length) if pieces else [])
    return rows


def _join_pieces(
    pieces: list[_Ids], head: _Ids, tail: _Ids, words: TextTokenizer, max_length: int
) -> _Ids:
    room = max_length - len(head) - len(tail) * len(pieces)
    if room < len(pieces):
        raise EncoderError(
            f"max_length {max_length} leaves no room for {len(pieces)} texts; make it longer"
        )
    cap = _find_cap([len(piece) for piece in pieces], room)
    words.num_texts += 1
    words.num_cut += any(len(piece) > cap for piece in pieces)
    return [*head, *(word for piece in pieces for word in (*piece[:cap], *tail))]


def _find_cap(lengths: Sequence[int], room: int) -> int:
    """Return the longest length at which every text may be cut so that all fit."""
    left, waiting = room, sorted(lengths)
    for place, length in enumerate(waiting):
        share = left // (len(waiting) - place)
        if length > share:
            return share
        left -= length
    return max(waiting)


def _find_marks(words: TextTokenizer) -> tuple[_Ids, _Ids]:
    """Return the marks that stand before and after every text."""
    words.tokenizer.no_truncation()
    marks, before = words.tokenizer.encode("").ids, words.num_before
    if not marks[before:]:
        raise EncoderError(
            "the tokenizer has no mark for the end of a text, so texts cannot be joined by it; "
            "set joined: bare"
        )
    return marks[:before], marks[before:]


def collapse_whitespace(text: str) -> str:
    """Return the text with each run of white space as one blank."""
    return " ".join(text.split())
