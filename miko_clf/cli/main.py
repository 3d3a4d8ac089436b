"""The command line: which command calls what, and one line for every error."""

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from jsonargparse import Namespace

from miko_clf.cli import compare, data, distil, kb, sweep, train
from miko_clf.cli.parser import Parser, UsageError
from miko_clf.errors import MikoError, suggest_nearest

COMMANDS = {
    **data.AUDIT_COMMANDS,
    **data.DATA_COMMANDS,
    **distil.DISTIL_COMMANDS,
    **kb.KB_COMMANDS,
    **train.TRAIN_COMMANDS,
    **compare.COMPARE_COMMANDS,
    **compare.CROSS_COMMANDS,
    **sweep.SWEEP_COMMANDS,
}
_ACTS = {
    **data.AUDIT_ACTS,
    **data.DATA_ACTS,
    **distil.DISTIL_ACTS,
    **kb.KB_ACTS,
    **train.TRAIN_ACTS,
    **compare.COMPARE_ACTS,
    **compare.CROSS_ACTS,
    **sweep.SWEEP_ACTS,
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    """Run `miko-clf COMMAND ...` and exit: 0, 1 for an error, 2 for wrong usage, 130 if stopped.

    A budget that is spent exits with 3: nothing failed, and there is more to do.
    """
    words = sys.argv[1:]
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS and len(words) >= length:
            run_command(name, f"miko-clf {name}", words[length:])
            return
    wide = max(map(len, COMMANDS))
    lines = [f"  {name:{wide}}  {command.line}" for name, command in COMMANDS.items()]
    parser = Parser(
        prog="miko-clf",
        usage="miko-clf COMMAND ...\n       miko-clf COMMAND --help",
        description="Distil, train, compare, export and serve multimodal post classifiers.",
        epilog="\n".join(["commands:", *lines, "", "example:", "  miko-clf doctor"]),
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="one of the commands below")
    given = parser.parse_args(words)
    if given.version:
        from miko_clf import __version__

        print(f"miko-clf {__version__}")
        return
    named = " ".join(given.command[:2])
    family = [name for name in COMMANDS if name.split()[0] == named.split()[0]] if named else []
    fault = f"no command called {named!r}" if named else "a command is needed"
    hint = suggest_nearest(named, COMMANDS)
    parser.error(f"{fault}; choose from {', '.join(family or COMMANDS)}{hint}")


def run_command(name: str, prog: str, words: Sequence[str] | None = None) -> None:
    """Run one command on words, by default those of this process, and exit as `main` does."""
    words = sys.argv[1:] if words is None else words
    command = COMMANDS[name]
    parser = Parser(
        prog=prog,
        usage=f"{prog} {command.usage}",
        description=f"{command.line}.",
        epilog=f"example:\n  {prog} {command.example}",
    )
    command.add(parser)
    if name == "fit":
        from miko_clf.recipe.schema import Recipe

        train.add_recipe_options(parser, Recipe)
    given = parser.parse_args(list(words))
    try:
        _act_in_one_line(name, given, shlex.join([*prog.split(), *words]))
    except UsageError as error:
        parser.error(str(error))


def _act_in_one_line(name: str, given: Namespace, line: str) -> None:
    """Act; what a person can fix becomes one line on stderr, all else keeps its traceback."""
    try:
        _ACTS[name](given, line)
        sys.stdout.flush()
    except MikoError as error:
        _stop_with(f"error: {error}", error.code)
    except KeyboardInterrupt as error:
        _stop_with(str(error) or "stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = COMMANDS[name].extra
        if not extra or str(error.name).startswith("miko_clf"):
            raise
        _stop_with(f"error: {error.name} is not installed; pip install 'miko-clf[{extra}]'")
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_FULL:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _stop_with(f"error: {place}{error.strerror}")


def _stop_with(text: str, code: int = 1) -> NoReturn:
    print("miko-clf:", " ".join(text.splitlines()), file=sys.stderr)
    sys.exit(code)
