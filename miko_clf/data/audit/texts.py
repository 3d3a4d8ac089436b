"""Which texts say the same, and which nearly the same."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from miko_clf.data.audit.joined import Joined
from miko_clf.data.audit.watch import watched

JACCARD = 0.8
"""Share of five-character shingles in common from which two texts are nearly the same."""
_SHINGLE = 5
_PERMUTATIONS = 128
_CANDIDATES = 0.6  # where the index proposes a pair; far below JACCARD, so that few are missed


def shingles(text: str) -> frozenset[str]:
    """Return each run of five characters of a normalised text, or the whole of a shorter one."""
    return frozenset(text[at : at + _SHINGLE] for at in range(max(1, len(text) - _SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of shingles that two texts have in common."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def near(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a group for each normalised text; a chain of nearly equal texts is one group.

    MinHash (Broder, 1997) proposes a pair; the exact share of shingles in common decides, so that
    none is there by accident of a hash. Equal texts are one group, empty ones too.
    """
    joined = Joined(len(texts))
    firsts: dict[str, int] = {}
    for row, text in enumerate(texts):
        joined.join(firsts.setdefault(text, row), row)
    rows = [row for text, row in firsts.items() if text]
    pieces = {row: shingles(texts[row]) for row in rows}
    index = MinHashLSH(threshold=_CANDIDATES, num_perm=_PERMUTATIONS)
    for row in watched(rows, len(rows), "comparing texts"):
        sketch = _sketch(pieces[row])
        for other in index.query(sketch):
            known = joined.group(row) == joined.group(other)
            if not known and jaccard(pieces[row], pieces[other]) >= JACCARD:
                joined.join(row, other)
        index.insert(row, sketch)
    return joined.groups()


def _sketch(pieces: frozenset[str]) -> MinHash:
    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=crc32)
    sketch.update_batch([piece.encode() for piece in pieces])
    return sketch
