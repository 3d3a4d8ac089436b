"""The parser of every command, and how a command is described."""

import os
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from miko_clf.errors import nearest


class UsageError(Exception):
    """The words of a command do not go together."""


class Parser(ArgumentParser):
    """Whole option names only; a mistyped one is answered with the nearest."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
            print_config=None,  # `fit` has one of its own, which prints a recipe
            **settings,
        )

    def error(self, message: str, ex: Exception | None = None) -> None:
        """Say on stderr what is wrong with the words, and exit with 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += nearest(unknown.split("=")[0].split()[0], self._option_string_actions)
        super().error(message, ex)


class Command(NamedTuple):
    """What a command is for; `extra` names what to install where a library of it is missing."""

    line: str
    usage: str
    example: str
    add: Callable[[Parser], None]
    extra: str = ""


def cache_folder() -> Path:
    """Return where features of frozen towers are kept unless a command says otherwise."""
    chosen = os.environ.get("MIKO_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(home, "miko_clf", "features")


def label_map(text: str | None) -> dict[str, str]:
    """Return `old=new,...` as a mapping; raises `UsageError`."""
    pairs = [pair.split("=") for pair in text.split(",")] if text else []
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise UsageError(f"--label-map {text}: old=new is needed, with commas between pairs")
    return dict(pairs)


def needed(given: Namespace, *names: str) -> None:
    """Raise `UsageError` unless every one of these options was given."""
    missing = [f"--{name}" for name in names if given[name] is None]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")
