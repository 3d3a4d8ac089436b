"""All texts of a post as one: with the tokenizer's own separator between them, or with nothing."""

from collections.abc import Sequence

from miko_clf.data.words import Words, clean
from miko_clf.errors import EncoderError

Ids = list[int]


def bare(parts: Sequence[Sequence[str]], words: Words, max_length: int) -> list[Ids]:
    """Return the ids of each post's texts written one behind the other, cut at the end.

    So MIKO's sarcasm experiment lays them together: no blank, no mark (Yang et al., ACM MM 2024).
    """
    return words.encode(["".join(texts) for texts in parts], max_length)


def separated(parts: Sequence[Sequence[str]], words: Words, max_length: int) -> list[Ids]:
    """Return the ids of each post's texts, the mark that ends a text between any two.

    Where they do not fit, the longest are shortened until all have the same length or fit whole.
    Raises `EncoderError` for a tokenizer that has no such mark.
    """
    head, tail = _frame(words)
    flat = [clean(text) for texts in parts for text in texts]
    words.tokenizer.no_truncation()
    encodings = words.tokenizer.encode_batch_fast(
        [text for text in flat if text], add_special_tokens=False
    )
    pieces = iter(encoding.ids for encoding in encodings)
    return [
        _joined([next(pieces) for text in texts if clean(text)], head, tail, words, max_length)
        for texts in parts
    ]


def _joined(pieces: list[Ids], head: Ids, tail: Ids, words: Words, max_length: int) -> Ids:
    if not pieces:
        return []
    room = max_length - len(head) - len(tail) * len(pieces)
    if room < len(pieces):
        raise EncoderError(
            f"max_length {max_length} leaves no room for {len(pieces)} texts; make it longer"
        )
    cap = _cap([len(piece) for piece in pieces], room)
    words.num_texts += 1
    words.num_cut += any(len(piece) > cap for piece in pieces)
    return [*head, *(word for piece in pieces for word in (*piece[:cap], *tail))]


def _cap(lengths: Sequence[int], room: int) -> int:
    """Return the longest length at which every text may be cut so that all fit."""
    left, waiting = room, sorted(lengths)
    for place, length in enumerate(waiting):
        share = left // (len(waiting) - place)
        if length > share:
            return share
        left -= length
    return max(waiting)


def _frame(words: Words) -> tuple[Ids, Ids]:
    """Return the marks that stand before and after every text."""
    words.tokenizer.no_truncation()
    marks = words.tokenizer.encode("").ids
    if not marks:
        raise EncoderError(
            "the tokenizer has no mark for the end of a text, so texts cannot be joined by it; "
            "set joined: bare"
        )
    return marks[:-1], marks[-1:]
