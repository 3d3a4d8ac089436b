"""Images: what is recognised, what is refused, and the array that comes out."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from pydantic import ValidationError
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from miko_clf.data.preprocess import (
    Preprocessing,
    check_image,
    decode_image,
    digest_golden_image,
    digest_image,
    preprocess_image,
)
from miko_clf.errors import PostError

HALF = (0.5, 0.5, 0.5)
SAVED_AS = [
    ("1", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("P", "GIF"), ("P", "PNG"), ("RGB", "JPEG"),
    ("RGB", "WEBP"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("I;16", "PNG"),
]  # fmt: skip


def preprocess(height=24, width=24, **options) -> Preprocessing:
    return Preprocessing(height=height, width=width, mean=HALF, std=HALF, **options)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    smooth = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"\x78\x9c")


def forged_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(noise(40, 30)))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def forged_gif(width: int, height: int) -> bytes:
    data = encoded(noise(40, 30), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    saved_as=st.sampled_from(SAVED_AS),
    resize=st.sampled_from(["squash", "crop", "pad"]),
    resample=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=150, deadline=None)
def test_any_picture_becomes_bytes_of_the_asked_shape(
    width, height, saved_as, resize, resample, size
):
    data = encoded(in_mode(noise(width, height), saved_as[0]), saved_as[1])
    array = preprocess_image(data, preprocess(*size, resize=resize, resample=resample))
    assert array.shape == (3, *size)
    assert array.dtype == np.uint8
    assert array.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("size", [(300, 500), (500, 301), (224, 224), (100, 60), (225, 224)])
def test_crop_is_torchvision_resize_and_centre_crop_to_the_bit(size):
    image = noise(*size)
    theirs = Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224)])(image)
    ours = preprocess_image(encoded(image, "PNG"), preprocess(224, 224))
    np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_a_crop_fraction_resizes_beyond_the_crop_as_timm_does():
    image = noise(400, 300)
    theirs = Compose([Resize(256, InterpolationMode.BILINEAR), CenterCrop(224)])(image)
    ours = preprocess_image(
        encoded(image, "PNG"), preprocess(224, 224, crop_fraction=0.875, resample="bilinear")
    )
    np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_squash_is_a_plain_resize():
    image = noise(301, 200)
    ours = preprocess_image(
        encoded(image, "PNG"), preprocess(20, 30, resize="squash", resample="lanczos")
    )
    theirs = np.asarray(image.resize((30, 20), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(ours, theirs.transpose(2, 0, 1))


def test_pad_keeps_the_whole_picture_on_the_mean_colour():
    array = preprocess_image(
        encoded(Image.new("RGB", (40, 20), "red"), "PNG"), preprocess(resize="pad")
    )
    assert (array[:, :6] == 128).all()
    assert (array[:, 18:] == 128).all()
    assert (array[:, 6:18].transpose(1, 2, 0) == (255, 0, 0)).all()


def test_a_picture_one_pixel_wide_costs_no_gigabytes(monkeypatch):
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a: sizes.append(size) or resize(self, size, *a)
    )
    data = encoded(Image.new("RGB", (1, 16_384), "navy"), "PNG")
    assert (preprocess_image(data, preprocess(224, 224))[2] == 128).all()
    assert sizes == [(224, 16 * 224)]


def test_a_jpeg_named_png_is_read_as_what_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(33, 21)))
    assert (
        decode_image(tmp_path / "a.png").tobytes() == decode_image(encoded(noise(33, 21))).tobytes()
    )


def test_the_first_frame_of_a_gif_is_read():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    image = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image.getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_is_laid_on_white(kind):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    read = decode_image(encoded(image, kind, lossless=True))
    assert read.getpixel((0, 0)) == (0, 0, 0)
    assert read.getpixel((5, 5)) == (255, 255, 255)


def test_a_transparent_palette_colour_is_laid_on_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    for kind in ("PNG", "GIF"):
        assert decode_image(encoded(image, kind, transparency=0)).getpixel((1, 1)) == (
            255,
            255,
            255,
        )


def test_sixteen_bits_of_grey_keep_their_high_byte():
    image = Image.fromarray(np.full((3, 3), 0xC0FF, dtype=np.uint16))
    assert decode_image(encoded(image, "PNG")).getpixel((1, 1)) == (0xC0, 0xC0, 0xC0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = noise(16, 8)
    read = decode_image(encoded(image, "PNG", exif=exif))
    turned = image
    if orientation in (2, 7):
        turned = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if orientation in (4, 5):
        turned = turned.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    angle = {3: 180, 5: -90, 6: -90, 7: -90, 8: 90}.get(orientation, 0)
    assert read.tobytes() == turned.rotate(angle, expand=True).tobytes()


def test_damaged_exif_says_nothing_against_the_picture():
    assert decode_image(encoded(noise(9, 7), exif=b"Exif\x00\x00II*\x00\xff\xff")).size == (9, 7)


def test_a_draft_is_never_smaller_than_twice_what_is_asked():
    data = encoded(noise(800, 640))
    assert decode_image(data, at_least=(100, 80)).size == (200, 160)
    assert decode_image(data, at_least=(101, 80)).size == (400, 320)
    assert decode_image(data).size == (800, 640)


def test_at_least_is_meant_for_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(noise(800, 80), exif=exif), at_least=(10, 100)).size == (20, 200)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {}), ("GIF", {}), ("AVIF", {})],
)
def test_a_truncated_picture_is_an_error_wherever_it_is_cut(kind, options):
    data = encoded(noise(200, 150), kind, **options)
    for end in range(0, int(0.97 * len(data)), max(1, len(data) // 60)):
        for read in (check_image, decode_image):
            with pytest.raises(PostError, match="not a readable JPEG, PNG, WebP or GIF"):
                read(data[:end])


def test_no_import_of_ours_lets_pillow_fill_up_truncated_files():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png_header(20_000, 20_000), "20000 x 20000"),
        (png_header(10_000, 10_000), "10000 x 10000"),
        (png_header(16_385, 1), "16385 x 1"),
        (forged_jpeg(65_500, 65_500), "65500 x 65500"),
        (forged_gif(60_000, 60_000), "60000 x 60000"),
    ],
)
def test_a_picture_too_large_is_refused_by_its_header(data, size, monkeypatch):
    def load(self):
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PostError, match=f"{size} pixels; at most 50,000,000 pixels") as caught:
            decode_image(data)
    assert "\n" not in str(caught.value)


def test_a_webp_too_large_for_its_decoder_is_refused():
    data = encoded(Image.new("RGBA", (8, 8)), "WEBP", lossless=True)
    data = data[:12] + b"VP8X" + struct.pack("<II", 10, 0) + b"\xfe\x3f\x00" * 2 + data[12:]
    with pytest.raises(PostError, match="has too many pixels; at most 50,000,000"):
        decode_image(data)


@pytest.mark.parametrize(
    "data", [b"", b"<html><body>404</body></html>", b"\xff\xd8\xff", b"II*\x00" + bytes(64)]
)
def test_what_is_no_picture_is_named_in_one_line(data, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(PostError, match="not a readable JPEG, PNG, WebP or GIF") as caught:
        check_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "identify" not in str(caught.value)


def test_a_file_that_cannot_be_opened_says_why(tmp_path, monkeypatch):
    for read in (decode_image, digest_image):
        with pytest.raises(PostError, match="no such file"):
            read(tmp_path / "none.jpg")
        with pytest.raises(PostError, match="it is a folder"):
            read(tmp_path)

    def denied(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(PostError, match="permission to read it is denied"):
        decode_image(tmp_path / "a.jpg")


def test_the_digest_is_of_the_encoded_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_image(b"abc") == digest_image(tmp_path / "a") == known


def test_the_golden_digest_tells_every_way_of_resizing_apart():
    ways = [
        preprocess(resize=resize, resample=resample)
        for resize in ("squash", "crop", "pad")
        for resample in ("bilinear", "bicubic", "lanczos")
    ]
    assert len({digest_golden_image(way) for way in ways}) == len(ways)
    assert digest_golden_image(ways[0]) == digest_golden_image(ways[0])


@pytest.mark.parametrize(
    "wrong", [{"crop_fraction": 0}, {"resize": "pad", "crop_fraction": 0.9}, {"height": 0}]
)
def test_an_impossible_preprocess_is_refused(wrong):
    with pytest.raises(ValidationError):
        preprocess(**wrong)
