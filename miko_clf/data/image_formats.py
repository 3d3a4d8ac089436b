"""What the bytes of a picture are: their format, who reads it, and the mend where nobody does."""

import re
import struct
from importlib import import_module
from typing import IO, NamedTuple

from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

HEAD_BYTES = 512  # by which a format is known
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {
    _JPEG: "JPEG",
    _PNG: "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "PSD",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"%PDF": "PDF",
    b"PK\3\4": "ZIP",
    b"version https://git-lfs": "a pointer of Git LFS",
}
_MARKUP = {  # of which one may stand in the head of the other
    "SVG": re.compile(rb"<svg[\s>]", re.IGNORECASE),
    "HTML": re.compile(rb"<(?:!doctype html|html|head|body|title)[\s>]", re.IGNORECASE),
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"}
# The plugins and not `Image.open`: the latter raises, or warns on the user's terminal, over a
# large header before anyone can ask it for the size.
_READERS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "AVIF": AvifImageFile,
}
_CONVERT = "convert it, such as by: magick IN OUT.png"
_MENDS = {
    "HEIC": "pip install 'miko-clf[heif]' to read it",
    "AVIF": "pip install a Pillow that reads it, as its wheels do",
    "BMP": _CONVERT,
    "TIFF": _CONVERT,
    "PSD": _CONVERT,
    "JPEG XL": _CONVERT,
    "JPEG 2000": _CONVERT,
    "SVG": "draw it, such as by: rsvg-convert IN -o OUT.png",
    "HTML": "a page came where a picture was asked for, so fetch it again",
    "MP4": "take a frame of it, such as by: ffmpeg -i IN -frames:v 1 OUT.png",
    "PDF": "draw it, such as by: pdftoppm -png IN OUT",
    "ZIP": "unpack it",
    "a pointer of Git LFS": "fetch the file by: git lfs pull",
    "empty": "fetch it again",
}
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}


class MendedImage(NamedTuple):
    """The bytes of a picture so changed that they decode, and what that says of them.

    `cut` says that its end may be lost.
    """

    content: bytes
    remark: str
    cut: bool = False


def name_image_format(head: bytes) -> str | None:
    """Return the format that the first bytes of a file show, `empty`, or None if unknown."""
    if not head:
        return "empty"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _name_box_format(head)
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    return next((name for name, mark in _MARKUP.items() if mark.search(head)), None)


def _name_box_format(head: bytes) -> str:
    """Return the format of a file of ISO boxes, by the brands that its first box lists."""
    box = head[: int.from_bytes(head[:4], "big")]
    brands = {box[place : place + 4] for place in range(8, len(box), 4)}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else "MP4"


def is_readable_format(name: str | None) -> bool:
    """Say whether pictures of a format are read by what is installed here."""
    return name is not None and _find_reader(name) is not None


def explain_image_format(head: bytes) -> str:
    """Return what the first bytes show, with the mend, of a picture that could not be read."""
    name = name_image_format(head)
    if name is None:
        return "its bytes are of no kind of picture that is known"
    if is_readable_format(name):
        return f"it is {name}, damaged or cut off"
    return f"it is {name}; {_MENDS[name]}"


def open_image(file: IO[bytes]) -> ImageFile:
    """Return the picture with its header read, known by its content and never by its name."""
    file.seek(0)
    reader = _find_reader(name_image_format(file.read(HEAD_BYTES)) or "")
    if reader is None:
        raise OSError("no reader knows these bytes")
    file.seek(0)
    return reader(file)


def _find_reader(name: str) -> type[ImageFile] | None:
    if name != "HEIC":
        return _READERS.get(name)
    try:  # an extra: few have such pictures, and its library is large
        reader: type[ImageFile] = import_module("pillow_heif").HeifImageFile
    except ImportError:
        return None
    return reader


def mend_image(content: bytes, error: Exception) -> MendedImage | None:
    """Return the picture as browsers show it, where `error` is one that they pass over.

    A JPEG that ends too early is ended; of a PNG whose texts or colour profile pass Pillow's
    limits those are left out, and its pixels stay.
    """
    if content.startswith(_JPEG) and "image file is truncated" in str(error):
        return MendedImage(
            content + b"\xff\xd9",
            "a JPEG without an end marker, whose last rows may be grey",
            cut=True,
        )
    if content.startswith(_PNG) and isinstance(error, ValueError):
        remark = (
            "a PNG with too large a text or colour profile, which was left out; no pixel is lost"
        )
        return MendedImage(_strip_texts(content), remark)
    return None


def _strip_texts(content: bytes) -> bytes:
    """Return a PNG without the chunks of text and of colour profile."""
    kept, place = [content[:8]], 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind not in _TEXT_CHUNKS:
            kept.append(content[place : place + length + 12])
        place += length + 12
    return b"".join(kept)
