"""The picture of a post as a server is sent it: made small, once it is really sent."""

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from miko_clf.data.pixels import decode, digest
from miko_clf.errors import PostError

SIDE = 512  # pixels of the longer side: what vision models resize to or less, at a tenth the bytes
QUALITY = 85


class Picture(NamedTuple):
    """A picture by its content: the sha256 of the file, and the file itself.

    What is sent follows from the bytes, `SIDE` and `QUALITY`, so they stand for it in keys.
    """

    sha256: str
    source: Path | bytes

    def identity(self) -> str:
        """Return what determines the bytes that are sent."""
        return f"{self.sha256}/{SIDE}/{QUALITY}"

    def url(self) -> str:
        """Return the picture as a data URL of a small JPEG; raises `PostError`."""
        return _url(self)


def picture(source: Path | bytes) -> Picture:
    """Return the picture of a post; raises `PostError` where the file cannot be read."""
    return Picture(digest(source), source)


@lru_cache(maxsize=64)
def _url(shown: Picture) -> str:
    small = decode(shown.source, at_least=(SIDE, SIDE))
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    try:
        small.save(file, "JPEG", quality=QUALITY)
    except OSError as error:
        raise PostError(f"picture {shown.sha256[:12]} cannot be made a JPEG: {error}") from error
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
