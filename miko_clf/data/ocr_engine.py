"""RapidOCR's detector and recogniser (PP-OCRv6); imported only where pictures are to be read."""

import math
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401, which RapidOCR looks for only once a picture is there
import rapidocr
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rapidocr.main import RapidOCR, RapidOCRError

from miko_clf.data.ocr import PictureText, RecognisedLine, join_lines
from miko_clf.data.preprocess import decode_image
from miko_clf.errors import MikoError

_DETECTOR, _RECOGNISER = "PP-OCRv6_det_small", "PP-OCRv6_rec_small"
_REVISION = 1  # of how this module shows pictures to the engine
_LONGEST_SIDE = 2000  # pixels, to which a larger picture is shrunk
_SHORTEST_SIDE = 736  # pixels, to which the detector enlarges a smaller one
_LINES_AT_ONCE = 6

Pixels = NDArray[np.uint8]


class RapidOcrReader:
    """One detector and one recogniser, of the weights in RapidOCR's wheel.

    `read` may be called from any thread; `threads` compute one picture, by default one a core.
    `engine` names what reads: the same picture gives the same text under the same name. Raises
    `MikoError` where the wheel that is installed holds other weights.
    """

    def __init__(self, threads: int | None = None) -> None:
        version = metadata.version("rapidocr")
        self.engine = f"rapidocr {version} {_DETECTOR} {_RECOGNISER} {_REVISION}"
        folder = Path(rapidocr.__file__).parent / "models"
        paths = {name: folder / f"{name}.onnx" for name in (_DETECTOR, _RECOGNISER)}
        for name, path in paths.items():
            if not path.is_file():
                raise MikoError(f"rapidocr {version} holds no {name}; pip install 'miko-clf[ocr]'")
        # Lines that stand upside down are rare, and the classifier that turns them errs on others.
        self._engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Global.use_vertical_padding": False,
                "Det.model_path": str(paths[_DETECTOR]),
                "Det.limit_side_len": _SHORTEST_SIDE,
                "Rec.model_path": str(paths[_RECOGNISER]),
                "Rec.rec_batch_num": _LINES_AT_ONCE,
                "EngineConfig.onnxruntime.intra_op_num_threads": int(threads or -1),
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def read(self, source: Path | bytes, until: float = math.inf) -> PictureText:
        """Return the text that stands on a picture.

        Raises `PostError` where it cannot be decoded, TimeoutError where it takes longer than
        `until` (seconds, monotonic).
        """
        return join_lines(self.read_lines(source, until))

    def read_lines(self, source: Path | bytes, until: float = math.inf) -> list[RecognisedLine]:
        """Return every line on a picture, doubtful ones too, in no order; raises as `read` does."""
        half = _LONGEST_SIDE // 2
        picture = _frame_picture(decode_image(source, at_least=(half, half)))
        _check_clock(until)
        pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])  # as OpenCV has colours
        try:
            crops, found = self._engine.detect_and_crop(pixels, {})
        except RapidOCRError:  # its word for a picture without text
            return []
        assert found.boxes is not None
        places = sorted(range(len(crops)), key=lambda place: _measure_aspect(crops[place]))
        lines: list[RecognisedLine] = []
        for start in range(0, len(places), _LINES_AT_ONCE):
            _check_clock(until)
            batch = places[start : start + _LINES_AT_ONCE]
            said = self._engine.recognize_txt([crops[place] for place in batch])
            assert said.txts is not None
            lines += _make_lines(said.txts, said.scores, found.boxes[batch])
        return lines


def _make_lines(
    texts: Iterable[str], scores: Iterable[float], boxes: NDArray[np.float32]
) -> Iterator[RecognisedLine]:
    """Yield the lines that say something; a box is the four corners of one."""
    for text, score, corners in zip(texts, scores, boxes, strict=True):
        if text.strip():
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            yield RecognisedLine(
                text.strip(), float(score), *map(float, (left, top, right, bottom))
            )


def _frame_picture(picture: Image.Image) -> Image.Image:
    """Return a picture of at most 2000 pixels a side that is no ribbon, on black ground.

    The detector enlarges what it is given until the short side is 736: a ribbon, to gigabytes.
    """
    scale = _LONGEST_SIDE / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    least = math.ceil(max(picture.size) * _SHORTEST_SIDE / _LONGEST_SIDE)
    width, height = (max(least, side) for side in picture.size)
    return ImageOps.expand(picture, (0, 0, width - picture.width, height - picture.height))


def _measure_aspect(crop: Pixels) -> float:
    height, width = crop.shape[:2]
    return width / height


def _check_clock(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError
