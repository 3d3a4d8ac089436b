"""How many different words a stream of texts holds, counted in memory that does not grow."""

import re
from itertools import pairwise
from math import log
from zlib import crc32

_BITS = 24
_SIZE = 1 << _BITS
_SPREAD = 0x9E3779B1  # an odd constant: the high bits of a product depend on all bits


class Distinct:
    """Words, and pairs of words, of all texts that were added, with how many are different.

    Linear counting (Whang et al., TODS 1990): each word sets one of 2^24 bits, 2 MiB, and the
    share of bits still unset tells how many there were. Exact but for chance collisions among
    few, within .1 % of up to 20 million.
    """

    def __init__(self) -> None:
        self.ones = Bits()
        self.twos = Bits()

    def add(self, text: str) -> None:
        """Count the words of a text."""
        words = re.findall(r"\w+(?:'\w+)?", text.lower())
        for word in words:
            self.ones.add(word)
        for one, two in pairwise(words):
            self.twos.add(f"{one} {two}")

    def join(self, other: "Distinct") -> None:
        """Take in all that another has counted."""
        self.ones |= other.ones
        self.twos |= other.twos


class Bits:
    """A set that knows about how many it holds, and how often something was put in."""

    def __init__(self) -> None:
        self.total = 0
        self.bits = bytearray(_SIZE // 8)

    def add(self, word: str) -> None:
        """Put a word in."""
        place = (crc32(word.encode()) * _SPREAD & 0xFFFFFFFF) >> (32 - _BITS)
        self.bits[place >> 3] |= 1 << (place & 7)
        self.total += 1

    def __or__(self, other: "Bits") -> "Bits":
        both = Bits()
        both.total = self.total + other.total
        joint = int.from_bytes(self.bits, "little") | int.from_bytes(other.bits, "little")
        both.bits = bytearray(joint.to_bytes(len(self.bits), "little"))
        return both

    @property
    def different(self) -> int:
        """About how many different words were put in."""
        unset = _SIZE - int.from_bytes(self.bits, "little").bit_count()
        return round(-_SIZE * log(max(unset, 1) / _SIZE))

    @property
    def share(self) -> float | None:
        """The different among all, distinct-n (Li et al., NAACL 2016); None where there are none.

        It falls as texts are added: compare numbers of like size.
        """
        return round(self.different / self.total, 4) if self.total else None
