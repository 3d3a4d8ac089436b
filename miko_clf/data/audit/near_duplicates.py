"""Texts and images that are equal or nearly equal, found by MinHash and perceptual hashes."""

import hashlib
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

from miko_clf.data.image_formats import HEAD_BYTES, name_image_format
from miko_clf.data.preprocess import decode_image, read_image_size
from miko_clf.data.splits import DisjointSets
from miko_clf.progress import show_progress

MIN_JACCARD = 0.8
"""Share of five-character shingles in common from which two texts are nearly the same."""
_SHINGLE_LENGTH = 5
_NUM_PERMUTATIONS = 128
_MIN_CANDIDATE_JACCARD = 0.6  # where the index proposes a pair: far below, so that few are missed


def cut_shingles(text: str) -> frozenset[str]:
    """Return each run of five characters of a normalised text, or the whole of a shorter one."""
    return frozenset(
        text[at : at + _SHINGLE_LENGTH] for at in range(max(1, len(text) - _SHINGLE_LENGTH + 1))
    )


def measure_jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of shingles that two texts have in common."""
    return len(one & other) / len(one | other)


def group_near_texts(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return a group for each normalised text; a chain of nearly equal texts is one group.

    MinHash (Broder, 1997) proposes a pair; the exact share of shingles in common decides, so that
    none is there by accident of a hash. Equal texts are one group, empty ones too.
    """
    groups = DisjointSets([[text] for text in texts])
    rows = [row for row in np.unique(groups.find_all()).tolist() if texts[row]]
    pieces = {row: cut_shingles(texts[row]) for row in rows}
    index = MinHashLSH(threshold=_MIN_CANDIDATE_JACCARD, num_perm=_NUM_PERMUTATIONS)
    for row in show_progress(rows, "comparing texts"):
        sketch = _compute_minhash(pieces[row])
        for other in index.query(sketch):
            known = groups.find(row) == groups.find(other)
            if not known and measure_jaccard(pieces[row], pieces[other]) >= MIN_JACCARD:
                groups.union(row, other)
        index.insert(row, sketch)
    return groups.find_all()


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
_MAX_PLAIN_DEVIATION = 3.0  # of grey levels, under which a hash has only noise in it
_EQUAL_CONTRAST = 50.0  # what it is brought to before pictures are compared
_BLOCK_ROWS = 512  # rows compared at a time, and pairs verified at a time


class ImageFingerprint(NamedTuple):
    """One picture: its bytes, its size, its difference hash and its cosine hash, and itself small.

    `dhash` and `phash` have 64 bits; `thumb` is grey, 32 x 32. `format` is JPEG, PNG and so on.
    """

    digest: str
    num_bytes: int
    width: int
    height: int
    dhash: np.uint64
    phash: np.uint64
    thumb: NDArray[np.uint8]
    format: str


def fingerprint_image(source: Path | bytes) -> ImageFingerprint:
    """Return what a picture is known by; raises PostError where it cannot be decoded."""
    content = source.read_bytes() if isinstance(source, Path) else source
    grey = decode_image(content, at_least=_MIN_DECODED_SIZE).convert("L")
    size = read_image_size(content)
    thumb = np.asarray(grey.resize((_THUMB_SIDE, _THUMB_SIDE), Image.Resampling.BILINEAR))
    strips = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR)).astype(np.int16)
    waves = dctn(thumb.astype(np.float64), norm="ortho")[:8, :8].ravel()
    dhash = _pack_bits(strips[:, 1:] > strips[:, :-1])
    phash = _pack_bits(waves > np.median(waves[1:]))  # the first is the mean brightness
    form = str(name_image_format(content[:HEAD_BYTES]))
    digest = hashlib.sha256(content).hexdigest()
    return ImageFingerprint(digest, len(content), *size, dhash, phash, thumb, form)


def fingerprint_images(sources: Sequence[Path | bytes]) -> list[ImageFingerprint]:
    """Return the fingerprint of each picture, on every core, with a bar if it takes long."""
    with ThreadPoolExecutor(_count_cores()) as pool:
        fingerprints = pool.map(fingerprint_image, sources)
        return list(show_progress(fingerprints, "looking at images", len(sources)))


def group_near_images(fingerprints: Sequence[ImageFingerprint]) -> NDArray[np.int64]:
    """Return a group for each picture; a chain of nearly equal pictures is one group.

    Both hashes propose a pair, by at most `MAX_HASH_BITS`, and the small grey pictures decide, by
    at most `MAX_GREY_DISTANCE`. A picture with next to no contrast is near to none but those of its
    own bytes.
    """
    groups = DisjointSets([[image.digest] for image in fingerprints])
    firsts = np.unique(groups.find_all())
    rich = np.array([row for row in firsts if not _is_plain(fingerprints[row])], dtype=np.int64)
    dhash = np.array([fingerprints[row].dhash for row in rich], dtype=np.uint64)
    phash = np.array([fingerprints[row].phash for row in rich], dtype=np.uint64)
    for start in range(0, len(rich), _BLOCK_ROWS):
        known = groups.find_all()[rich]
        close = _compare_hashes(dhash, start) & _compare_hashes(phash, start)
        close &= known[start : start + _BLOCK_ROWS, None] != known[None, :]
        lower, higher = np.nonzero(close)
        for one, other in _verify_pairs(fingerprints, rich[lower + start], rich[higher]):
            groups.union(one, other)
    return groups.find_all()


def digest_pixels(
    sources: Sequence[Path | bytes],
    fingerprints: Sequence[ImageFingerprint],
    groups: NDArray[np.int64],
) -> list[str]:
    """Return for each picture what only pictures of the same decoded pixels share.

    Only pictures of one size that are nearly equal, or plain, are decoded whole for it.
    """
    alike = defaultdict(list)
    for row, image in enumerate(fingerprints):
        kind = -1 if _is_plain(image) else int(groups[row])
        alike[kind, image.width, image.height].append(row)
    digests = [image.digest for image in fingerprints]
    doubtful = [
        row for rows in alike.values() if len({digests[r] for r in rows}) > 1 for row in rows
    ]

    def hash_pixels(row: int) -> str:
        image = decode_image(sources[row])
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()

    with ThreadPoolExecutor(_count_cores()) as pool:
        hashes = pool.map(hash_pixels, doubtful)
        watched = show_progress(hashes, "comparing pixels", len(doubtful))
        for row, pixels in zip(doubtful, watched, strict=True):
            digests[row] = pixels
    return digests


def _pack_bits(flags: NDArray[np.bool_]) -> np.uint64:
    return np.uint64(np.packbits(flags.ravel()).view(">u8")[0])


def _is_plain(image: ImageFingerprint) -> bool:
    return float(image.thumb.std()) < _MAX_PLAIN_DEVIATION


def _compare_hashes(hashes: NDArray[np.uint64], start: int) -> NDArray[np.bool_]:
    block = hashes[start : start + _BLOCK_ROWS, None]
    close: NDArray[np.bool_] = np.bitwise_count(block ^ hashes[None, :]) <= MAX_HASH_BITS
    return close


def _verify_pairs(
    fingerprints: Sequence[ImageFingerprint], ones: NDArray[np.int64], others: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs that are nearly equal; a few are compared at a time to spare memory."""
    for start in range(0, len(ones), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        sides = ([fingerprints[row] for row in side[block]] for side in (ones, others))
        left, right = map(_level_contrast, sides)
        near = np.abs(left - right).mean(axis=(1, 2)) <= MAX_GREY_DISTANCE
        yield from zip(ones[block][near].tolist(), others[block][near].tolist(), strict=True)


def _level_contrast(fingerprints: Sequence[ImageFingerprint]) -> NDArray[np.float32]:
    """Return pictures of mean 0 and equal contrast, so that brightness alone sets none apart."""
    grey = np.stack([image.thumb for image in fingerprints]).astype(np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    levelled: NDArray[np.float32] = grey * (_EQUAL_CONTRAST / grey.std(axis=(1, 2), keepdims=True))
    return levelled


def _count_cores() -> int:
    return len(os.sched_getaffinity(0))
