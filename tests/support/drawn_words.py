"""Pictures with words drawn on them, as a meme has."""

import io
from typing import Any

from PIL import Image, ImageDraw, ImageFont


def draw_words(
    *words: tuple[str, int, int], size: tuple[int, int] = (480, 360), height: int = 34
) -> Image.Image:
    """Return a picture with each text drawn in black from (left, top) on."""
    picture = Image.new("RGB", size, (235, 225, 170))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=height)
    for text, left, top in words:
        draw.text((left, top), text, fill="black", font=font)
    return picture


def draw_meme(top: str, bottom: str) -> Image.Image:
    """Return a picture with a caption above and one below."""
    return draw_words((top, 40, 12), (bottom, 40, 300))


def encode_png(picture: Image.Image, **settings: Any) -> bytes:
    """Return a picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", **settings)
    return file.getvalue()


def normalise_words(text: str | None) -> str:
    """Return a text in capitals, without what stands between its letters and figures."""
    return "".join(letter for letter in (text or "").upper() if letter.isalnum())
