"""A tokenizer's pieces put together to the words that a person reads."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from numpy import ndarray
from tokenizers import Tokenizer

# How tokenizers mark that a piece goes on, begins or ends a word.
_MARKS = ("##", "▁", "Ġ", "</w>")


class Merger:
    """Merges pieces into words by the mark that most of the vocabulary bears."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        pieces = list(tokenizer.get_vocab())
        counts = {mark: sum(_bears(piece, mark) for piece in pieces) for mark in _MARKS}
        self.mark = max(_MARKS, key=lambda mark: counts[mark])
        added = tokenizer.get_added_tokens_decoder()
        self.special = {number for number, token in added.items() if token.special}

    def words(
        self, ids: Sequence[int], weights: Float[ndarray, " piece"]
    ) -> list[tuple[str, float]]:
        """Return each word with the sum of its pieces' weights; a special token is one itself."""
        pieces = [self.tokenizer.id_to_token(number) or "" for number in ids]
        starts = [place for place in range(len(ids)) if self._starts(place, ids, pieces)]
        return [
            (self._spell(ids[start:end], pieces[start:end]), float(weights[start:end].sum()))
            for start, end in pairwise([*starts, len(ids)])
        ]

    def _starts(self, place: int, ids: Sequence[int], pieces: Sequence[str]) -> bool:
        if place == 0 or ids[place] in self.special or ids[place - 1] in self.special:
            return True
        if self.mark == "##":
            return not pieces[place].startswith("##")
        if self.mark == "</w>":
            return pieces[place - 1].endswith("</w>")
        return pieces[place].startswith(self.mark)

    def _spell(self, ids: Sequence[int], pieces: Sequence[str]) -> str:
        if ids[0] not in self.special and self.tokenizer.decoder is not None:
            spelt: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
            return spelt.strip()
        return "".join(piece.replace(self.mark, "") for piece in pieces)


def _bears(piece: str, mark: str) -> bool:
    return piece.endswith(mark) if mark == "</w>" else piece.startswith(mark)
