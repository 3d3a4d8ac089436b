"""Texts and images that are equal or nearly equal, found by MinHash and perceptual hashes."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from miko_clf.data.preprocess import IMAGE_FORMATS, decode_image
from miko_clf.data.splits import DisjointSets
from miko_clf.progress import show_progress

MIN_JACCARD = 0.8
"""Share of five-character shingles in common from which two texts are nearly the same."""
_SHINGLE_LENGTH = 5
_NUM_PERMUTATIONS = 128
_MIN_CANDIDATE_JACCARD = (
    0.6  # where the index proposes a pair; far below JACCARD, so that few are missed
)


def cut_shingles(text: str) -> frozenset[str]:
    """Return each run of five characters of a normalised text, or the whole of a shorter one."""
    return frozenset(
        text[at : at + _SHINGLE_LENGTH] for at in range(max(1, len(text) - _SHINGLE_LENGTH + 1))
    )


def measure_jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of shingles that two texts have in common."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def group_near_texts(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a group for each normalised text; a chain of nearly equal texts is one group.

    MinHash (Broder, 1997) proposes a pair; the exact share of shingles in common decides, so that
    none is there by accident of a hash. Equal texts are one group, empty ones too.
    """
    joined = DisjointSets(len(texts))
    firsts: dict[str, int] = {}
    for row, text in enumerate(texts):
        joined.join(firsts.setdefault(text, row), row)
    rows = [row for text, row in firsts.items() if text]
    pieces = {row: cut_shingles(texts[row]) for row in rows}
    index = MinHashLSH(threshold=_MIN_CANDIDATE_JACCARD, num_perm=_NUM_PERMUTATIONS)
    for row in show_progress(rows, len(rows), "comparing texts"):
        sketch = _compute_minhash(pieces[row])
        for other in index.query(sketch):
            known = joined.group(row) == joined.group(other)
            if not known and measure_jaccard(pieces[row], pieces[other]) >= MIN_JACCARD:
                joined.join(row, other)
        index.insert(row, sketch)
    return joined.groups()


def _compute_minhash(pieces: frozenset[str]) -> MinHash:
    sketch = MinHash(num_perm=_NUM_PERMUTATIONS, seed=1, hashfunc=crc32)
    sketch.update_batch([piece.encode() for piece in pieces])
    return sketch


MAX_HASH_BITS = 8
"""Bits of 64 in which each of the two hashes of nearly equal pictures may differ."""
MAX_GREY_DISTANCE = 6.0
"""Grey levels by which nearly equal pictures differ on average, at 32 x 32 and equal contrast."""
_THUMB_SIDE = 32
_MIN_DECODED_SIZE = (96, 96)  # under about 100 a side, shrinking while decoding shows in the hashes
_MAX_PLAIN_DEVIATION = (
    3.0  # standard deviation in grey levels under which a hash has only noise in it
)
_EQUAL_CONTRAST = 50.0  # what it is brought to before pictures are compared
_BLOCK_ROWS = 512  # rows compared at a time, and pairs verified at a time


class ImageFingerprint(NamedTuple):
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


def fingerprint_image(source: Path | bytes) -> ImageFingerprint:
    """Return the looks of a picture; raises PostError where it cannot be decoded."""
    content = source.read_bytes() if isinstance(source, Path) else source
    grey = decode_image(content, at_least=_MIN_DECODED_SIZE).convert("L")
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as header:
        width, height = header.size
    thumb = np.asarray(grey.resize((_THUMB_SIDE, _THUMB_SIDE), Image.Resampling.BILINEAR))
    strips = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR)).astype(np.int16)
    waves = dctn(thumb.astype(np.float64), norm="ortho")[:8, :8].ravel()
    return ImageFingerprint(
        hashlib.sha256(content).hexdigest(),
        len(content),
        width,
        height,
        _pack_bits(strips[:, 1:] > strips[:, :-1]),
        _pack_bits(waves > np.median(waves[1:])),  # the first is the mean brightness
        thumb,
    )


def fingerprint_images(sources: Sequence[Path | bytes]) -> list[ImageFingerprint]:
    """Return the looks of each picture, on every core, with a bar if it takes long."""
    with ThreadPoolExecutor(_count_cores()) as pool:
        return list(
            show_progress(pool.map(fingerprint_image, sources), len(sources), "looking at images")
        )


def group_near_images(looks: Sequence[ImageFingerprint]) -> NDArray[np.int64]:
    """Return a group for each picture; a chain of nearly equal pictures is one group.

    Both hashes propose a pair, by at most `BITS`, and the small grey pictures decide, by at most
    `GREY`. A picture with next to no contrast is near to none but those of its own bytes.
    """
    joined = DisjointSets(len(looks))
    firsts: dict[str, int] = {}
    for row, each in enumerate(looks):
        joined.join(firsts.setdefault(each.digest, row), row)
    rich = np.array([row for row in firsts.values() if not _is_plain(looks[row])], dtype=np.int64)
    dhash = np.array([looks[row].dhash for row in rich], dtype=np.uint64)
    phash = np.array([looks[row].phash for row in rich], dtype=np.uint64)
    for start in range(0, len(rich), _BLOCK_ROWS):
        groups = joined.groups()[rich]
        close = _compare_hashes(dhash, start) & _compare_hashes(phash, start)
        close &= (
            groups[start : start + _BLOCK_ROWS, None] != groups[None, :]
        )  # what is not known yet
        lower, higher = np.nonzero(close)
        for one, other in _verify_pairs(looks, rich[lower + start], rich[higher]):
            joined.join(one, other)
    return joined.groups()


def digest_pixels(
    sources: Sequence[Path | bytes], looks: Sequence[ImageFingerprint], groups: NDArray[np.int64]
) -> list[str]:
    """Return for each picture what only pictures of the same decoded pixels share.

    Only pictures of one size that are nearly equal, or plain, are decoded whole for it.
    """
    alike = defaultdict(list)
    for row, each in enumerate(looks):
        kind = -1 if _is_plain(each) else int(groups[row])
        alike[kind, each.width, each.height].append(row)
    doubtful = [
        row for rows in alike.values() if len({looks[row].digest for row in rows}) > 1
        for row in rows
    ]  # fmt: skip
    found = [each.digest for each in looks]
    with ThreadPoolExecutor(_count_cores()) as pool:
        digests = pool.map(lambda row: _hash_pixels(sources[row]), doubtful)
        watch = show_progress(digests, len(doubtful), "comparing pixels")
        for row, text in zip(doubtful, watch, strict=True):
            found[row] = text
    return found


def _hash_pixels(source: Path | bytes) -> str:
    image = decode_image(source)
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _pack_bits(flags: NDArray[np.bool_]) -> np.uint64:
    return np.uint64(np.packbits(flags.ravel()).view(">u8")[0])


def _is_plain(looks: ImageFingerprint) -> bool:
    return float(looks.thumb.std()) < _MAX_PLAIN_DEVIATION


def _compare_hashes(hashes: NDArray[np.uint64], start: int) -> NDArray[np.bool_]:
    block = hashes[start : start + _BLOCK_ROWS, None]
    close: NDArray[np.bool_] = np.bitwise_count(block ^ hashes[None, :]) <= MAX_HASH_BITS
    return close


def _verify_pairs(
    looks: Sequence[ImageFingerprint], ones: NDArray[np.int64], others: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs that are nearly equal; a few are compared at a time to spare memory."""
    for start in range(0, len(ones), _BLOCK_ROWS):
        pairs = list(
            zip(ones[start : start + _BLOCK_ROWS], others[start : start + _BLOCK_ROWS], strict=True)
        )
        left, right = (
            _level_contrast([looks[row] for row in side]) for side in zip(*pairs, strict=True)
        )
        apart = np.abs(left - right).mean(axis=(1, 2))
        yield from (
            (int(one), int(other))
            for (one, other), distance in zip(pairs, apart, strict=True)
            if distance <= MAX_GREY_DISTANCE
        )


def _level_contrast(looks: Sequence[ImageFingerprint]) -> NDArray[np.float32]:
    """Return pictures of mean 0 and equal contrast, so that brightness alone sets none apart."""
    grey = np.stack([each.thumb for each in looks]).astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    levelled: NDArray[np.float32] = grey * (_EQUAL_CONTRAST / grey.std(axis=(1, 2), keepdims=True))
    return levelled


def _count_cores() -> int:
    return len(os.sched_getaffinity(0))
