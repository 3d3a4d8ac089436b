"""The words that `cross` takes, and what it calls."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.cli.parser import Command, Parser, UsageError, cache_folder, label_map


def _words(parser: Parser) -> None:
    add = parser.add_argument
    add("bundles", type=Path, nargs="+", metavar="BUNDLE", help="bundles that fit has written")
    say = "folder or file of posts to try every bundle on; give it once for each"
    add("--data", action="append", default=[], metavar="D", help=say)
    say = "rows; every look at test is counted in the bundles (default: %(default)s)"
    add("--split", type=str, default="val", metavar="S", help=say)
    say = "what is measured (default: %(default)s)"
    add("--metric", choices=("macro_f1", "auroc", "accuracy"), default="macro_f1", help=say)
    say = "folder of matrix.json (default: the first bundle's path + .cross)"
    add("--out", type=Path, metavar="DIR", help=say)
    say = "rename or merge labels as posts are read"
    add("--label-map", type=str, metavar="A=B,C=B", help=say)
    say = "bootstrap resamples behind each interval (default: %(default)s)"
    add("--resamples", type=PositiveInt, default=1000, metavar="N", help=say)
    say = "folder for features of frozen towers (default: $MIKO_CACHE, here %(default)s)"
    add("--cache", type=Path, default=cache_folder(), metavar="DIR", help=say)
    add("--no-cache", action="store_true", help="run frozen towers again for every bundle")


def _cross(given: Namespace, line: str) -> None:
    if not given.data:
        raise UsageError("the following arguments are required: --data")
    from miko_clf import manifest
    from miko_clf.data.folder import open_folder

    renamed = label_map(given.label_map)
    folders = [open_folder(Path(path), label_map=renamed) for path in given.data]
    from miko_clf.evaluate.errors.matrix import matrix

    found = matrix(
        given.bundles,
        folders,
        given.split,
        None if given.no_cache else given.cache,
        metric=given.metric,
        num_resamples=given.resamples,
        command=line,
    )
    _show(found)
    first = given.bundles[0]
    out = given.out or first.with_name(f"{first.name}.cross")
    manifest.write_json(out / "matrix.json", {**found.as_json(), "command": line})
    print(f"matrix: {out / 'matrix.json'}")


def _show(found: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    columns = {cell.test: cell.posts for cell in found.cells}
    table = Table(box=box.SIMPLE_HEAD, title=f"{found.metric}, split {found.split}")
    table.add_column("trained as")
    for name, posts in columns.items():
        table.add_column(f"{escape(name)}\n{posts:,} posts", justify="right")
    for system in dict.fromkeys(cell.train for cell in found.cells):
        cells = [cell for cell in found.cells if cell.train == system]
        table.add_row(escape(system), *(escape(_cell(cell)) for cell in cells))
    console = Console()
    console.print(table)
    say = "* the data that the system was trained on. In brackets the 95 % interval over posts."
    console.print(say, highlight=False)


def _cell(cell: Any) -> str:
    value, low, high = cell.value
    return f"{value:.3f}{'*' if cell.home else ''} [{low:.3f}, {high:.3f}]"


COMMANDS: Mapping[str, Command] = {
    "cross": Command(
        "Try bundles on data that they were not trained on, each figure with its interval",
        "BUNDLE... --data D1 [--data D2 ...] [--split S] [options]",
        "runs/a runs/b --data data/a --data data/b",
        _words,
        "train",
    )
}
ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"cross": _cross}
