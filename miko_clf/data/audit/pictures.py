"""What pictures look like in few bits, and which of them are equal or nearly equal."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from miko_clf.data.audit.joined import Joined
from miko_clf.data.audit.watch import watched
from miko_clf.data.pixels import FORMATS, decode

BITS = 8
"""Bits of 64 in which each of the two hashes of nearly equal pictures may differ."""
GREY = 6.0
"""Grey levels by which nearly equal pictures differ on average, at 32 x 32 and equal contrast."""
_SIDE = 32
_AT_LEAST = (96, 96)  # under about 100 a side, shrinking while decoding shows in the hashes
_PLAIN = 3.0  # standard deviation in grey levels under which a hash has only noise in it
_CONTRAST = 50.0  # what it is brought to before pictures are compared
_BLOCK = 512  # rows compared at a time, and pairs verified at a time


class Looks(NamedTuple):
    """One picture: its bytes, its size, its difference hash and its cosine hash, and itself small.

    `dhash` and `phash` have 64 bits; `thumb` is grey, 32 x 32.
    """

    digest: str
    num_bytes: int
    width: int
    height: int
    dhash: np.uint64
    phash: np.uint64
    thumb: NDArray[np.uint8]


def look(source: Path | bytes) -> Looks:
    """Return the looks of a picture; raises PostError where it cannot be decoded."""
    content = source.read_bytes() if isinstance(source, Path) else source
    grey = decode(content, at_least=_AT_LEAST).convert("L")
    with Image.open(io.BytesIO(content), formats=FORMATS) as header:
        width, height = header.size
    thumb = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    strips = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR)).astype(np.int16)
    waves = dctn(thumb.astype(np.float64), norm="ortho")[:8, :8].ravel()
    return Looks(
        hashlib.sha256(content).hexdigest(),
        len(content),
        width,
        height,
        _bits(strips[:, 1:] > strips[:, :-1]),
        _bits(waves > np.median(waves[1:])),  # the first is the mean brightness
        thumb,
    )


def look_at_all(sources: Sequence[Path | bytes]) -> list[Looks]:
    """Return the looks of each picture, on every core, with a bar if it takes long."""
    with ThreadPoolExecutor(_threads()) as pool:
        return list(watched(pool.map(look, sources), len(sources), "looking at images"))


def near(looks: Sequence[Looks]) -> NDArray[np.int64]:
    """Return a group for each picture; a chain of nearly equal pictures is one group.

    Both hashes propose a pair, by at most `BITS`, and the small grey pictures decide, by at most
    `GREY`. A picture with next to no contrast is near to none but those of its own bytes.
    """
    joined = Joined(len(looks))
    firsts: dict[str, int] = {}
    for row, each in enumerate(looks):
        joined.join(firsts.setdefault(each.digest, row), row)
    rich = np.array([row for row in firsts.values() if not _plain(looks[row])], dtype=np.int64)
    dhash = np.array([looks[row].dhash for row in rich], dtype=np.uint64)
    phash = np.array([looks[row].phash for row in rich], dtype=np.uint64)
    for start in range(0, len(rich), _BLOCK):
        groups = joined.groups()[rich]
        close = _within(dhash, start) & _within(phash, start)
        close &= groups[start : start + _BLOCK, None] != groups[None, :]  # what is not known yet
        lower, higher = np.nonzero(close)
        for one, other in _verified(looks, rich[lower + start], rich[higher]):
            joined.join(one, other)
    return joined.groups()


def equal(
    sources: Sequence[Path | bytes], looks: Sequence[Looks], groups: NDArray[np.int64]
) -> list[str]:
    """Return for each picture what only pictures of the same decoded pixels share.

    Only pictures of one size that are nearly equal, or plain, are decoded whole for it.
    """
    alike = defaultdict(list)
    for row, each in enumerate(looks):
        kind = -1 if _plain(each) else int(groups[row])
        alike[kind, each.width, each.height].append(row)
    doubtful = [
        row for rows in alike.values() if len({looks[row].digest for row in rows}) > 1
        for row in rows
    ]  # fmt: skip
    found = [each.digest for each in looks]
    with ThreadPoolExecutor(_threads()) as pool:
        digests = pool.map(lambda row: _of_pixels(sources[row]), doubtful)
        watch = watched(digests, len(doubtful), "comparing pixels")
        for row, text in zip(doubtful, watch, strict=True):
            found[row] = text
    return found


def _of_pixels(source: Path | bytes) -> str:
    image = decode(source)
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _bits(flags: NDArray[np.bool_]) -> np.uint64:
    return np.uint64(np.packbits(flags.ravel()).view(">u8")[0])


def _plain(looks: Looks) -> bool:
    return float(looks.thumb.std()) < _PLAIN


def _within(hashes: NDArray[np.uint64], start: int) -> NDArray[np.bool_]:
    block = hashes[start : start + _BLOCK, None]
    close: NDArray[np.bool_] = np.bitwise_count(block ^ hashes[None, :]) <= BITS
    return close


def _verified(
    looks: Sequence[Looks], ones: NDArray[np.int64], others: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs that are nearly equal; a few are compared at a time to spare memory."""
    for start in range(0, len(ones), _BLOCK):
        pairs = list(zip(ones[start : start + _BLOCK], others[start : start + _BLOCK], strict=True))
        left, right = (_levelled([looks[row] for row in side]) for side in zip(*pairs, strict=True))
        apart = np.abs(left - right).mean(axis=(1, 2))
        yield from (
            (int(one), int(other))
            for (one, other), distance in zip(pairs, apart, strict=True)
            if distance <= GREY
        )


def _levelled(looks: Sequence[Looks]) -> NDArray[np.float32]:
    """Return pictures of mean 0 and equal contrast, so that brightness alone sets none apart."""
    grey = np.stack([each.thumb for each in looks]).astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    levelled: NDArray[np.float32] = grey * (_CONTRAST / grey.std(axis=(1, 2), keepdims=True))
    return levelled


def _threads() -> int:
    return len(os.sched_getaffinity(0))
