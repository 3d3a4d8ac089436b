"""Texts to token ids, the same way in training and in serving."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from miko_clf.errors import BundleError, EncoderError


class Words:
    """A tokenizer, and a count of what its limit cut off.

    `num_texts` counts the texts that were encoded, `num_cut` those that lost tokens.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.pad_id = pad_id
        self.num_special = tokenizer.num_special_tokens_to_add(False)
        self.num_texts = 0
        self.num_cut = 0

    @classmethod
    def read(cls, path: Path, pad_id: int) -> "Words":
        """Return the tokenizer that a `tokenizer.json` describes."""
        try:
            return cls(Tokenizer.from_file(str(path)), pad_id)
        except Exception:  # the Rust side raises bare Exception
            raise BundleError(f"{path}: not a readable tokenizer.json") from None

    def write(self, path: Path) -> None:
        """Write the tokenizer as `tokenizer.json`."""
        self.tokenizer.save(str(path))

    def encode(self, texts: Sequence[str | None], max_length: int) -> list[list[int]]:
        """Return the ids of each text, special tokens kept, at most `max_length` of them.

        An absent or blank text has no ids at all.
        """
        if max_length <= self.num_special:
            raise EncoderError(f"max_length {max_length} leaves no room for a word")
        present = [clean(text) if text else "" for text in texts]
        self.tokenizer.enable_truncation(max_length)
        encodings = self.tokenizer.encode_batch_fast([text for text in present if text])
        rows = iter(encodings)
        encoded = [next(rows) if text else None for text in present]
        self.num_texts += len(encodings)
        self.num_cut += sum(bool(row.overflowing) for row in encodings)
        return [row.ids if row is not None else [] for row in encoded]


def clean(text: str) -> str:
    """Return the text with each run of white space as one blank."""
    return " ".join(text.split())


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return ids and presence, both (row, longest), absent where a row ends; one column or more."""
    longest = max([1, *map(len, rows)])
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = True
    return ids, mask
