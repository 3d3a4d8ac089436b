"""Whether a tower's library and our own preprocessing see the same picture."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from miko_clf.data.preprocess import Preprocessing, preprocess_image
from miko_clf.errors import EncoderError

_MAX_GREY_LEVELS = 1.0  # grey levels, on average over a picture
_See = Callable[[Image.Image], NDArray[np.float32]]


def check_preprocessing(preprocess: Preprocessing, see: _See, name: str) -> float:
    """Return the largest mean difference, in grey levels, between `see` and `preprocess_image`.

    `see` is the library's own way from a picture to normalised (3, height, width). Raises
    `EncoderError` above 1, because training and serving would then see other pictures.
    """
    differences = {
        kind: _measure_difference(source, preprocess, see)
        for kind, source in _draw_pictures().items()
    }
    worst = max(differences, key=lambda kind: differences[kind])
    difference = differences[worst]
    if not difference <= _MAX_GREY_LEVELS:
        raise EncoderError(
            f"{name}: its own preprocessing differs from what is served by {difference:.1f} grey "
            f"levels on average on a {worst} picture, more than {_MAX_GREY_LEVELS:.0f}; served is "
            f"{preprocess.resize} to {preprocess.width} x {preprocess.height}, "
            f"{preprocess.resample}, mean {preprocess.mean}, std {preprocess.std}"
        )
    return difference


def _measure_difference(source: bytes, preprocess: Preprocessing, see: _See) -> float:
    theirs = np.asarray(see(Image.open(io.BytesIO(source)).convert("RGB")), dtype=np.float64)
    ours = preprocess_image(source, preprocess)
    if theirs.shape != ours.shape:
        return float("inf")
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (preprocess.mean, preprocess.std))
    return float(np.abs((theirs * std + mean) * 255 - ours).mean())


@cache
def _draw_pictures() -> dict[str, bytes]:
    """Return fixed pictures, encoded: what resizing and cutting go wrong on."""
    return {
        "smooth": _encode_picture(_draw_scene(360, 481)),
        "checked": _encode_picture(_draw_checks(200, 200)),
        "written": _encode_picture(_draw_lines(300, 500)),
        "wide": _encode_picture(_draw_lines(150, 900)),
        "tall": _encode_picture(_draw_scene(901, 151)),
        "tiny": _encode_picture(_draw_scene(14, 21)),
        "large JPEG": _encode_picture(_draw_lines(900, 1201), "JPEG"),
    }


def _encode_picture(picture: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **({} if kind == "JPEG" else {"compress_level": 1}))
    return file.getvalue()


def _draw_scene(height: int, width: int) -> NDArray[np.uint8]:
    row, column = np.mgrid[0:height, 0:width]
    ramps = np.stack(
        (column * 255 // width, row * 255 // height, (row + column) * 255 // (height + width)), -1
    ).astype(np.uint8)
    ramps[
        (row - height // 2) ** 2 + (column - width // 3) ** 2 < (min(height, width) // 4) ** 2
    ] ^= 0x5A
    return ramps


def _draw_checks(height: int, width: int) -> NDArray[np.uint8]:
    row, column = np.mgrid[0:height, 0:width]
    return np.repeat(((row // 7 + column // 11) % 2 * 255)[..., None], 3, -1).astype(np.uint8)


def _draw_lines(height: int, width: int) -> NDArray[np.uint8]:
    """Return strokes of fixed random lengths on lines, as print has them."""
    ink = np.random.default_rng(0).random((height // 16 + 1, width // 5 + 1)) < 0.6
    page = np.repeat(np.repeat(ink, 16, 0), 5, 1)[:height, :width]
    page[np.arange(height) % 16 > 9] = False
    return np.repeat(np.where(page, 20, 235)[..., None], 3, -1).astype(np.uint8)
