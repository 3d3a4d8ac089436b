"""How a post becomes arrays, and of an image the array that a tower reads."""

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from pydantic import Field, model_validator

from miko_clf.data.image_formats import (
    HEAD_BYTES,
    MendedImage,
    explain_image_format,
    mend_image,
    open_image,
)
from miko_clf.data.post import Post, Record
from miko_clf.errors import PostError, shorten_path

Arrays = dict[str, NDArray[Any]]
LongMode = Literal["cut", "ends", "chunk"]
TEXT_INPUTS = ("text", "description", "rationale")
_MAX_PIXELS = 50_000_000
_MAX_SIDE = 16_384
_MAX_ASPECT = 16
_MAX_MENDED = 64 * 1024 * 1024  # bytes of a picture that is read again, mended
_GREY = 127, 129  # between them lies what a JPEG decodes to where its data is lost
_TURNS = (  # to upright, of the orientations 2 to 8 of EXIF
    "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE",
    "ROTATE_90",
)  # fmt: skip
_UPRIGHT = {place: Image.Transpose[name] for place, name in enumerate(_TURNS, 2)}
_LIMITS = f"at most {_MAX_PIXELS:,} pixels and {_MAX_SIDE:,} a side are read"


class Preprocessing(Record):
    """How a picture becomes `[3, height, width]`; the graph itself normalises by mean and std.

    `crop` resizes the short side to size / crop_fraction (timm's crop_pct) and cuts the centre;
    `squash` ignores the aspect ratio; `pad` keeps the whole picture on a ground of the given
    colour, or of the mean. `half` says where a cut of an odd margin falls: torchvision rounds
    half a pixel to the even one, transformers down.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    resize: Literal["squash", "crop", "pad"] = "crop"
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    crop_fraction: float = Field(default=1.0, ge=0.1, le=1.0)
    half: Literal["even", "down"] = "even"
    ground: tuple[int, int, int] | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @model_validator(mode="after")
    def _is_possible(self) -> "Preprocessing":
        if self.resize == "pad" and self.crop_fraction != 1.0:
            raise ValueError("crop_fraction must be 1 with resize pad, which cuts nothing off")
        if not all(0.0 < value < float("inf") for value in self.std):
            raise ValueError("std must be three numbers above 0")
        return self


class Preparation(Record):
    """What `preprocess.json` holds: how a post becomes arrays.

    `inputs` are the recipe's; `joined` says how its texts become one, `long` what becomes of a
    text that is too long, `window` how many tokens of it the tower reads at once, and `fold` that
    disguises of letters are undone before a text is cut into tokens; `image` is null
    where no input is one; `slots` says that the model can guess absent intentions; `golden` is the
    digest of a fixed picture, prepared.
    """

    inputs: tuple[str, ...]
    joined: Literal["no", "separated", "bare"] = "no"
    long: LongMode = "cut"
    window: int | None = None
    fold: bool = False
    image: Preprocessing | None
    pad_id: int
    max_length: int = Field(gt=0)
    intention_length: int = Field(gt=0)
    slots: bool = False
    golden: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that the model sees as content; joined ones are one, called text."""
        names = tuple(name for name in TEXT_INPUTS if name in self.inputs)
        return names if self.joined == "no" else ("text",)

    @property
    def reads_intentions(self) -> bool:
        """Whether intentions reach the model as such, and not as a part of its text."""
        return "intention" in self.inputs and self.joined == "no"


class DecodedImage(NamedTuple):
    """An upright RGB picture, and what of it is lost or was passed over, nothing as a rule."""

    picture: Image.Image
    remark: str


def decode_image(source: Path | bytes, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Return the upright RGB picture, its first frame, with transparency laid on white.

    `at_least` is (width, height): a JPEG may then come out smaller than it is, but never
    smaller than twice that. Raises PostError where any part of the picture cannot be decoded, but
    for the end of a JPEG of which most is there, which is grey as in a browser.
    """
    return _read_image(source, at_least).picture


def check_image(source: Path | bytes) -> str:
    """Return what of the picture is lost, if anything; raises PostError as `decode_image` does."""
    return _read_image(source, (1, 1)).remark


def read_image_size(source: Path | bytes) -> tuple[int, int]:
    """Return the width and height of a picture as it is stored, by its header."""
    with _open_source(source) as file:
        return open_image(file).size


def _read_image(source: Path | bytes, at_least: tuple[int, int] | None) -> DecodedImage:
    name = _name_source(source)
    try:
        with _open_source(source) as file:
            return DecodedImage(_turn(*_decode(file, name, at_least)), "")
    except PostError:
        raise
    except Image.DecompressionBombError as error:
        raise PostError(f"{name} has too many pixels; {_LIMITS}") from error
    except Exception as error:  # Pillow's readers raise a dozen types on damaged bytes
        return _read_damaged(source, name, error)


def _decode(
    file: io.BufferedReader | io.BytesIO, name: str, at_least: tuple[int, int] | None
) -> tuple[Image.Image, Image.Transpose | None]:
    """Return the RGB picture as it is stored, and how it is turned upright."""
    image = open_image(file)
    if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
        size = f"{image.width} x {image.height} pixels"
        raise PostError(f"{name} has {size}; {_LIMITS}")
    if at_least is not None and isinstance(image, JpegImageFile):
        width, height = at_least[::-1] if _read_orientation(image) >= 5 else at_least
        image.draft(None, (2 * width, 2 * height))
    image.load()
    return _convert_to_rgb(image), _UPRIGHT.get(_read_orientation(image))


def _turn(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _read_damaged(source: Path | bytes, name: str, error: Exception) -> DecodedImage:
    """Return a picture that could not be decoded as it is, mended where that can be."""
    try:
        with _open_source(source) as file:
            content = file.read(_MAX_MENDED + 1)
    except OSError:
        content = b""
        reason = _explain_error(error)
    else:
        reason = f": {explain_image_format(content[:HEAD_BYTES])}"
    mended = mend_image(content, error) if len(content) <= _MAX_MENDED else None
    if mended is not None and (image := _decode_mended(mended, name)) is not None:
        return image
    raise PostError(f"{name} is not a readable JPEG, PNG, WebP or GIF{reason}") from error


def _decode_mended(mended: MendedImage, name: str) -> DecodedImage | None:
    """Return a mended picture, none where it cannot be decoded or most of it is lost."""
    try:
        picture, turn = _decode(io.BytesIO(mended.content), name, None)
    except Exception:  # of which the first error has told
        return None
    num_lost = _count_lost_rows(picture) if mended.cut else 0
    if 2 * num_lost > picture.height:
        return None
    lost = f"{num_lost} of its {picture.height} rows are lost, and grey"
    remark = f"{mended.remark}: {lost}" if num_lost else mended.remark
    return DecodedImage(_turn(picture, turn), remark)


def _count_lost_rows(image: Image.Image) -> int:
    """Return how many rows at the foot of a JPEG are of the grey that stands for lost data."""
    rows = np.asarray(image)
    kept = np.flatnonzero(((rows < _GREY[0]) | (rows > _GREY[1])).any(axis=(1, 2)))
    return len(rows) - 1 - int(kept[-1]) if len(kept) else len(rows)


def preprocess_image(source: Path | bytes, preprocess: Preprocessing) -> NDArray[np.uint8]:
    """Return the picture as uint8 [3, height, width]."""
    return _make_array(decode_image(source), preprocess)


def stack_images(
    posts: Sequence[Post], preprocess: Preprocessing, remarks: list[str] | None = None
) -> Arrays:
    """Return pixels and image_present; a post without an image has black pixels.

    What is lost of a picture is added to `remarks`.
    """
    blank = np.zeros((3, preprocess.height, preprocess.width), dtype=np.uint8)
    stack = []
    for post in posts:
        if post.image is None:
            stack.append(blank)
            continue
        image = _read_image(post.image, None)
        stack.append(_make_array(image.picture, preprocess))
        if image.remark and remarks is not None:
            remarks.append(image.remark)
    present = [post.image is not None for post in posts]
    return {"pixels": np.stack(stack), "image_present": np.array(present, dtype=bool)}


def digest_image(source: Path | bytes) -> str:
    """Return the SHA-256 of the encoded bytes, the key under which an image is cached."""
    try:
        with _open_source(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PostError(f"{_name_source(source)} cannot be read{_explain_error(error)}") from error


def digest_golden_image(preprocess: Preprocessing) -> str:
    """Return the SHA-256 of one fixed picture, preprocessed: another resize code gives another."""
    row, column = np.mgrid[0:199, 0:307]
    picture = np.stack(
        (column * 255 // 306, row * 255 // 198, (column // 9 + row // 5) % 2 * 255), axis=-1
    ).astype(np.uint8)
    picture[(row - 99) ** 2 + (column - 120) ** 2 < 60**2] ^= 0xA5
    array = _make_array(Image.fromarray(picture), preprocess)
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def _make_array(image: Image.Image, preprocess: Preprocessing) -> NDArray[np.uint8]:
    fits = {"squash": _resize_squashed, "crop": _resize_and_crop, "pad": _resize_and_pad}
    picture = fits[preprocess.resize](image, preprocess)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _resize_squashed(image: Image.Image, preprocess: Preprocessing) -> Image.Image:
    return _cut_centre(_resize(image, _size_before_cut(preprocess), preprocess), preprocess)


def _resize_and_crop(image: Image.Image, preprocess: Preprocessing) -> Image.Image:
    width, height = _size_before_cut(preprocess)
    image = _trim_ribbon(image, max(width / height, height / width))
    if width * image.height <= height * image.width:
        width = int(height * image.width / image.height)
    else:
        height = int(width * image.height / image.width)
    return _cut_centre(_resize(image, (width, height), preprocess), preprocess)


def _resize_and_pad(image: Image.Image, preprocess: Preprocessing) -> Image.Image:
    width, height = preprocess.width, preprocess.height
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    mean = (min(255, max(0, round(255 * value))) for value in preprocess.mean)
    page = Image.new("RGB", (width, height), preprocess.ground or tuple(mean))
    corner = ((width - size[0]) // 2, (height - size[1]) // 2)
    page.paste(_resize(image, size, preprocess), corner)
    return page


def _resize(image: Image.Image, size: tuple[int, int], preprocess: Preprocessing) -> Image.Image:
    return image.resize(size, Image.Resampling[preprocess.resample.upper()])


def _size_before_cut(preprocess: Preprocessing) -> tuple[int, int]:
    share = preprocess.crop_fraction
    return int(preprocess.width / share), int(preprocess.height / share)


def _cut_centre(image: Image.Image, preprocess: Preprocessing) -> Image.Image:

    nearest = round if preprocess.half == "even" else math.floor
    left = nearest((image.width - preprocess.width) / 2)
    top = nearest((image.height - preprocess.height) / 2)
    return image.crop((left, top, left + preprocess.width, top + preprocess.height))


def _trim_ribbon(image: Image.Image, aspect: float) -> Image.Image:
    """Shorten a ribbon: what is cut off never reaches the crop, and resizing it takes gigabytes."""
    longest = int(_MAX_ASPECT * aspect * min(image.size))
    if max(image.size) <= longest:
        return image
    width, height = min(image.width, longest), min(image.height, longest)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _name_source(source: Path | bytes) -> str:
    return f"image {shorten_path(source)}" if isinstance(source, Path) else "the image"


def _open_source(source: Path | bytes) -> io.BufferedReader | io.BytesIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _explain_error(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return ": there is no such file"
    if isinstance(error, IsADirectoryError):
        return ": it is a folder"
    if isinstance(error, PermissionError):
        return ": permission to read it is denied"
    return ""


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing against the picture
        return 1


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, of which the high byte is kept
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
