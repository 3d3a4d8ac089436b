"""The parser of every command, how one is described, and the options that several share."""

import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from miko_clf.errors import suggest_nearest


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
            message += suggest_nearest(
                unknown.split("=")[0].split()[0], self._option_string_actions
            )
        super().error(message, ex)


class Command(NamedTuple):
    """What a command is for; `extra` names what to install where a library of it is missing."""

    line: str
    usage: str
    example: str
    add: Callable[[Parser], None]
    extra: str = ""


def find_cache_folder() -> Path:
    """Return where features of frozen towers are kept unless a command says otherwise."""
    chosen = os.environ.get("MIKO_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(home, "miko_clf", "features")


def parse_label_map(text: str | None) -> dict[str, str]:
    """Return `old=new,...` as a mapping; raises `UsageError`."""
    pairs = [pair.split("=") for pair in text.split(",")] if text else []
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise UsageError(f"--label-map {text}: old=new is needed, with commas between pairs")
    return dict(pairs)


def require_options(given: Namespace, *names: str) -> None:
    """Raise `UsageError` unless every one of these options was given."""
    missing = [f"--{name}" for name in names if given[name] is None]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")


def add_data_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--data", type=Path, metavar="D", help="folder or file of posts")
    say = "which task of a published data set that has several (see miko-clf data)"
    add("--task", type=str, metavar="NAME", help=say)
    say = "rename or merge labels as posts are read"
    add("--label-map", type=str, metavar="A=B,C=B", help=say)
    say = "make train, val and test (80/10/10, by group) of posts that stand unsplit"
    add("--split-seed", type=int, metavar="N", help=say)
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")
    say = "folder for features of frozen towers (default: $MIKO_CACHE, here %(default)s)"
    add("--cache", type=Path, default=find_cache_folder(), metavar="DIR", help=say)
    add("--no-cache", action="store_true", help="run frozen towers again in every epoch")


def choose_cache(given: Namespace) -> Path | None:
    return None if given.no_cache else given.cache


def open_data(given: Namespace) -> tuple[Any, Any]:
    """Return the data folder and the report of skipped posts, none where a bad post raises."""
    from miko_clf.data.dataset import open_folder
    from miko_clf.data.readers import SkipReport

    report = SkipReport() if given.skip_bad else None
    data = open_folder(
        given.data,
        label_map=parse_label_map(given.label_map),
        split_seed=given.split_seed,
        report=report,
        task=given.task,
    )
    return data, report


def write_skipped_posts(report: Any, path: Path) -> None:
    if report is not None and len(report):
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}", file=sys.stderr)
