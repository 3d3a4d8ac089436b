"""Errors that the person at the keyboard can fix; the command line prints each as one line."""

from collections.abc import Iterable
from difflib import get_close_matches


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
