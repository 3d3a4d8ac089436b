"""What a file is told to be by its first bytes, and the pictures that are mended."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from miko_clf.data.image_formats import (
    explain_image_format,
    is_readable_format,
    mend_image,
    name_image_format,
    open_image,
)
from miko_clf.data.preprocess import check_image, decode_image, read_image_size
from miko_clf.errors import PostError
from tests.support.odd_inputs import encode_picture


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "empty"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heicmif1", "HEIC"),
        (b"\0\0\0\x10ftypisom\0\0\0\0heic", "MP4"),  # the brand stands behind the box
        (b"\xef\xbb\xbf<!-- x --><svg width='1'>", "SVG"),
        (b"\n<!DOCTYPE HTML><body><svg>", "SVG"),
        (b"\n<HTML>\n<BODY>", "HTML"),
        (b"plain text", None),
    ],
)
def test_a_format_is_known_by_the_first_bytes(head: bytes, name: str | None) -> None:
    assert name_image_format(head) == name


def test_heic_without_its_library_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"
    assert is_readable_format("HEIC")
    assert explain_image_format(head) == "it is HEIC, damaged or cut off"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert not is_readable_format("HEIC")
    assert explain_image_format(head) == "it is HEIC; pip install 'miko-clf[heif]' to read it"
    with pytest.raises(PostError, match=r"pip install 'miko-clf\[heif\]'"):
        check_image(head)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused_or_read_with_a_remark(progressive: bool) -> None:
    whole = encode_picture("JPEG", progressive=progressive)
    pixels = np.asarray(decode_image(whole)).astype(int)
    seen = set()
    for end in range(0, len(whole), 9):
        try:
            remark = check_image(whole[:end])
        except PostError as error:
            seen.add("refused" if "damaged or cut off" in str(error) else f"refused at {end}")
            continue
        assert "without an end marker" in remark
        read = np.asarray(decode_image(whole[:end])).astype(int)
        lost = int(remark.split(": ")[1].split()[0]) if ": " in remark else 0
        assert lost <= len(pixels) / 2
        if not progressive and lost:
            assert (abs(read[len(read) - lost :] - 128) <= 1).all()
        seen.add("read")
    assert seen == {"refused at 0", "refused", "read"}


def test_a_jpeg_that_lacks_its_marker_alone_has_the_pixels_of_the_whole() -> None:
    whole = encode_picture("JPEG")
    assert decode_image(whole[:-2]).tobytes() == decode_image(whole).tobytes()
    assert check_image(whole) == ""


def test_only_what_browsers_pass_over_is_mended() -> None:
    png, jpeg = encode_picture("PNG"), encode_picture("JPEG")
    assert mend_image(png, OSError("image file is truncated")) is None
    assert mend_image(jpeg, OSError("broken data stream when reading image file")) is None
    mended = mend_image(png, ValueError("Decompressed data too large"))
    assert mended is not None
    assert mended.content == png  # it has no text to be left out


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_the_size_of_a_picture_is_read_by_its_header(kind: str) -> None:
    assert read_image_size(encode_picture(kind, Image.new("RGB", (31, 17)))) == (31, 17)


def test_bytes_that_nobody_reads_are_an_error() -> None:
    with pytest.raises(OSError, match="no reader knows"):
        open_image(io.BytesIO(b"hello"))
