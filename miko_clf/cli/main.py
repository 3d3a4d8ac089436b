"""The command line: which command calls what, and one line for every error."""

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from textwrap import fill
from typing import NoReturn

from jsonargparse import Namespace

from miko_clf.cli import compare, data, distil, kb, ocr, train
from miko_clf.cli.parser import Command, Parser, UsageError
from miko_clf.errors import MikoError, suggest_nearest

_TABLES = (
    data.DATA_COMMANDS
    | ocr.OCR_COMMANDS
    | distil.DISTIL_COMMANDS
    | kb.KB_COMMANDS
    | train.TRAIN_COMMANDS
    | compare.COMPARE_COMMANDS
)
_FAMILIES = {
    "look at data": ("world", "data", "audit", "ocr"),
    "ask an LLM what authors intend, and keep the answers": (
        "distil", "kb stats", "kb show", "kb export", "kb import", "kb leak", "distil train-lm",
    ),
    "judge the intentions": (
        "kb judge", "kb export-annotation", "kb import-annotation", "kb train-critic",
        "kb apply-critic", "kb agreement",
    ),
    "train": ("recipes", "fit", "sweep", "compare"),
    "evaluate": ("evaluate", "cross"),
    "use a trained bundle": ("export", "score", "reason", "serve", "ask"),
    "this machine": ("doctor",),
}  # fmt: skip
COMMANDS: dict[str, Command] = {
    name: _TABLES[name] for family in _FAMILIES.values() for name in family
}
_NEW_NAMES = {
    "kb annotate": "miko-clf kb export-annotation",
    "kb annotated": "miko-clf kb import-annotation",
    "kb critic": "miko-clf kb train-critic",
    "kb weigh": "miko-clf kb apply-critic",
    "kb agree": "miko-clf kb agreement",
    "kb bench": "python benchmarks/generators.py",
    "distil student": "miko-clf distil train-lm",
}
_HELP = """\
first steps:
  miko-clf doctor
  miko-clf world runs/world
  miko-clf fit tiny --data runs/world/sarcasm --out runs/demo
  miko-clf evaluate runs/demo --data runs/world/sarcasm --split test

A command exits with 0, with 1 for an error, which is one line on stderr, 2 for
wrong usage, 3 where a budget is spent, and 130 where it was stopped: the same
command then goes on. Commands that print a table take --json."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_STOPPED = 130  # as a shell says of Ctrl-C


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
        if name in _NEW_NAMES:
            _stop_with(f"{name} is now called: {_NEW_NAMES[name]}", 2)
    parser = Parser(
        prog="miko-clf",
        usage="miko-clf COMMAND ...\n       miko-clf COMMAND --help",
        description="Distil, train, compare, export and serve multimodal post classifiers.",
        epilog="\n".join([*_list_commands(), _HELP]),
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="one of the commands below")
    args = parser.parse_args(words)
    if args.version:
        from miko_clf import __version__

        print(f"miko-clf {__version__}")
        return
    name = " ".join(args.command[:2])
    fault = f"no command called {name!r}" if name else "a command is needed"
    family = [known for known in COMMANDS if name and known.split()[0] == name.split()[0]]
    hint = suggest_nearest(name, COMMANDS)
    parser.error(f"{fault}; choose from {', '.join(family or COMMANDS)}{hint}")


def run_command(name: str, prog: str, words: Sequence[str] | None = None) -> None:
    """Run one command on words, by default those of this process, and exit as `main` does."""
    words = sys.argv[1:] if words is None else words
    command = COMMANDS[name]
    parser = Parser(
        prog=prog,
        usage=f"{prog} {command.usage}",
        description="\n\n".join(
            fill(text, 79, break_on_hyphens=False)
            for text in (f"{command.line}.", " ".join(command.about.split()))
        ).rstrip(),
        epilog=f"example:\n  {prog} {command.example}",
    )
    command.add(parser)
    args = parser.parse_args(list(words))
    try:
        _act_in_one_line(command, args, shlex.join([*prog.split(), *words]))
    except UsageError as error:
        parser.error(str(error))


def _list_commands() -> list[str]:
    """Return every command with its line, family by family, in 80 columns."""
    wide = max(map(len, COMMANDS)) + 4
    lines = []
    for title, names in _FAMILIES.items():
        lines.append(f"{title}:")
        for name in names:
            lead = f"  {name}".ljust(wide)
            lines.append(fill(lead + COMMANDS[name].line, 79, subsequent_indent=" " * wide))
        lines.append("")
    return lines


def _act_in_one_line(command: Command, args: Namespace, line: str) -> None:
    """Act; what a person can fix becomes one line on stderr, all else keeps its traceback."""
    try:
        command.act(args, line)
        sys.stdout.flush()
    except MikoError as error:
        _stop_with(str(error) if error.code == _STOPPED else f"error: {error}", error.code)
    except KeyboardInterrupt as error:
        _stop_with(str(error) or "stopped", _STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ModuleNotFoundError as error:
        if not command.extra or str(error.name).startswith("miko_clf"):
            raise
        _stop_with(f"error: {error.name} is not installed; pip install 'miko-clf[{command.extra}]'")
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_FULL:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _stop_with(f"error: {place}{error.strerror}")


def _stop_with(text: str, code: int = 1) -> NoReturn:
    print("miko-clf:", " ".join(text.splitlines()), file=sys.stderr)
    sys.exit(code)
