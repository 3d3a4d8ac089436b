"""Errors that the person at the keyboard can fix; the command line prints each as one line."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_MAX_SHOWN = 80  # characters of what was given


class MikoError(Exception):
    """Something the user gave cannot be used; the message says what, what is allowed, and where.

    `code` is what the command line exits with.
    """

    code = 1


class PostError(MikoError):
    """A post, or the file it stands in, cannot be read."""


class RecipeError(MikoError):
    """A recipe is unknown or holds a value that it may not."""


class EncoderError(MikoError):
    """A pretrained tower cannot be found or has no shape we can use."""


class DistilError(MikoError):
    """An LLM, its server, or what it is asked cannot be used, or a knowledge base cannot."""


class BundleError(MikoError):
    """A bundle is incomplete, was changed after it was written, or cannot be written."""


class BusyError(BundleError):
    """Another process is working in the folder."""


class ExportError(MikoError):
    """The exported graph does not agree with the model it came from."""


class DeviceError(MikoError):
    """The device or execution provider that was asked for is not the one in use."""


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known word, or an empty string."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shorten_value(value: object) -> str:
    """Return how a value is written in an error: quoted, and at most 80 characters of it."""
    text = repr(value[:200]) if isinstance(value, str | bytes) else f"{value!r:.200}"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def shorten_path(path: Path) -> str:
    """Return how a path is written in an error: quoted, with no part that is too long for one."""
    parts = [
        part if len(part) <= _MAX_SHOWN else f"{part[:40]}…{part[-30:]}" for part in path.parts
    ]
    text = repr(str(Path(*parts)))
    return text if len(text) <= 5 * _MAX_SHOWN else f"{text[:40]}…{text[-39:]}"
