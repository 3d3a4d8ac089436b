"""The parser of every command, how one is described, and what several commands share."""

import json
import os
import shlex
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from functools import partial
from inspect import cleandoc
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.errors import suggest_nearest

LABEL_MAP_HELP = (
    "rename or merge labels as posts are read; C= leaves posts of C out, and the word fold makes "
    "one label of those that differ in case, blanks, hyphens or underscores alone"
)


class UsageError(Exception):
    """The words of a command do not go together."""


def add_option(
    group: Any, words: str, kind: Any, say: str = "", default: Any = None, **settings: Any
) -> None:
    """Add `--out DIR` or `posts POSTS` to a parser or a group of it.

    Its kind is a type, bool for a flag, list for what may be repeated, or a tuple of choices. A
    default is told at the end of the help, unless the help tells it already.
    """
    names, _, metavar = words.partition(" ")
    if kind is bool:
        settings["action"] = "store_true"
    elif kind is list:
        settings |= {"action": "append", "default": []}
    else:
        settings["choices" if isinstance(kind, tuple) else "type"] = kind
    if metavar:
        settings["metavar"] = metavar
    if default is not None:
        settings["default"] = default
        say = say if "%(default)s" in say else f"{say} (default: %(default)s)".lstrip()
    group.add_argument(*names.split(","), help=say, **settings)


def add_split_options(add: Callable[..., None]) -> None:
    """Add how train, val and test are made of posts."""
    say = "make train, val and test (80/10/10, by group) of posts that stand unsplit"
    add("--split-seed N", int, say)
    say = "make train, val and test of all posts by date, whatever splits they stand in"
    add("--split-by", ("date",), say)
    add("--test-from DATE", str, "with --split-by date: test is what is dated from here on")
    say = (
        "with --split-by date: val is from here on (default: the last 15 %% of what precedes test)"
    )
    add("--val-from DATE", str, say)


class Parser(ArgumentParser):
    """Whole option names only; a mistyped one is answered with the nearest."""

    add_option = add_option

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
            name = unknown.split("=")[0].split()[0]
            message += suggest_nearest(name, self._option_string_actions)
        super().error(message, ex)

    def start_group(self, title: str) -> Callable[..., None]:
        """Return what `add_option` is, for options under a title of their own."""
        return partial(add_option, self.add_argument_group(title))

    def add_data_options(self) -> None:
        """Add which posts are read, and how."""
        add = self.start_group("posts")
        add("--data D", Path, "folder or file of posts")
        say = "which task of a published data set that has several (see miko-clf data)"
        add("--task NAME", str, say)
        add("--label-map A=B,C=B", str, LABEL_MAP_HELP)
        add_split_options(add)
        add("--skip-bad", bool, "pass over bad posts and list them in a file")
        self.add_cache_options()

    def add_cache_options(self) -> None:
        add = self.start_group("features of frozen towers")
        say = "folder that keeps them (default: $MIKO_CACHE, here %(default)s)"
        add("--cache DIR", Path, say, find_cache_folder())
        add("--no-cache", bool, "compute them again each time")

    def add_training_options(self) -> None:
        """Add what every command that trains a classifier takes."""
        say = "positive class of two, TASK=NAME,... where there are tasks (default: the rarer)"
        self.add_option("--positive NAME", str, say)
        say = "read a description, intentions or a rationale that give the label away all the same"
        self.add_option("--i-know-it-leaks", bool, say)

    def add_resamples_option(self) -> None:
        say = "bootstrap resamples behind each interval"
        self.add_option("--resamples N", PositiveInt, say, 1000)

    def add_json_option(self) -> None:
        say = "print one JSON document, of the same figures, and nothing else on stdout"
        self.add_option("--json", bool, say)


class Command(NamedTuple):
    """How a command is called, and the function that is given its words and the typed line.

    What `--help` says of it is the docstring of `act`. `extra` names what to install where a
    library of it is missing.
    """

    usage: str
    example: str
    add: Callable[[Parser], None]
    act: Callable[[Namespace, str], None]
    extra: str = ""

    @property
    def line(self) -> str:
        """What it is for, in one line."""
        return cleandoc(self.act.__doc__ or "").partition("\n")[0].rstrip(".")

    @property
    def about(self) -> str:
        """What there is to know besides."""
        return cleandoc(self.act.__doc__ or "").partition("\n")[2].strip()


def find_cache_folder() -> Path:
    """Return where features of frozen towers are kept unless a command says otherwise."""
    chosen = os.environ.get("MIKO_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(home, "miko_clf", "features")


def choose_cache(args: Namespace) -> Path | None:
    return None if args.no_cache else args.cache


def parse_label_map(text: str | None) -> dict[str, str]:
    """Return `old=new,...` as a mapping, in which the word `fold` is one too; raises `UsageError`.

    Posts of a class that is to become nothing, `old=`, are left out.
    """
    from miko_clf.data.labels import FOLD

    words = text.split(",") if text else []
    pairs = [[FOLD, word] if word == "fold" else word.split("=") for word in words]
    if any(len(pair) != 2 or not pair[0] for pair in pairs):
        raise UsageError(
            f"--label-map {text}: old=new is needed, with commas between pairs, old= to leave "
            "posts of it out, or the word fold"
        )
    return dict(pairs)


def require_options(args: Namespace, *names: str) -> None:
    """Raise `UsageError` unless every one of these options was given."""
    missing = [f"--{name}" for name in names if args[name] in (None, [])]
    if missing:
        raise UsageError(f"the following arguments are required: {', '.join(missing)}")


def parse_dated_split(args: Namespace) -> Any:
    """Return the dates at which posts are to be split, None for no such split; `UsageError`."""
    from miko_clf.data.sets.base import DatedSplit

    if args.split_by is None:
        if args.test_from or args.val_from:
            raise UsageError("--test-from and --val-from are for --split-by date; add that")
        return None
    if args.test_from is None:
        raise UsageError("--split-by date needs --test-from, the first day of test")
    if args.split_seed is not None:
        raise UsageError("--split-by date and --split-seed are two ways to split; choose one")
    return DatedSplit(args.test_from, args.val_from)


def format_split_options(args: Namespace) -> str:
    """Return the words, with a blank before, that read the same splits in another command."""
    given = {"split-seed": args.split_seed, "split-by": args.split_by}
    given |= {"test-from": args.test_from, "val-from": args.val_from}
    return "".join(
        f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )


def open_data(args: Namespace) -> tuple[Any, Any]:
    """Return the data folder and the report of skipped posts, none where a bad post raises."""
    from miko_clf.data.dataset import open_folder
    from miko_clf.data.readers import SkipReport

    report = SkipReport() if args.skip_bad else None
    data = open_folder(
        args.data,
        label_map=parse_label_map(args.label_map),
        split_seed=args.split_seed,
        report=report,
        task=args.task,
        dated=parse_dated_split(args),
    )
    return data, report


def write_skipped_posts(report: Any, path: Path) -> None:
    """Write which posts were passed over, if any were, and say so on stderr."""
    if report is not None and len(report):
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}", file=sys.stderr)
        for line in report.summarise():
            print(f"  {line}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print plain values, and pydantic models among them."""
    dump = methodcaller("model_dump", mode="json")
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=dump))
