"""The words that `data` takes, and what it calls."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import Namespace

from miko_clf.cli.parser import Command, Parser


def _words(parser: Parser) -> None:
    say = "folder or file of posts; without it, the published layouts that are known are listed"
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help=say)
    say = "which of the tasks that a published data set has"
    parser.add_argument("--task", type=str, metavar="NAME", help=say)


def _data(given: Namespace, line: str) -> None:
    if given.data is None:
        _list()
    else:
        _look(given.data, given.task)


def _list() -> None:
    from miko_clf.data.adapters import known

    for each in known():
        print(f"{each.name}: {each.what}")
        print(f"  tasks   {', '.join(each.tasks)}")
        for split, count in each.splits.items():
            print(f"  {split:<12}  {count.line() if count else 'counts unknown'}")
        print(f"  known by  {each.files}")
        print(f"  tried on  {each.checked_on}")


def _look(path: Path, task: str | None) -> None:
    from miko_clf.data.folder import open_folder
    from miko_clf.data.labels import flat
    from miko_clf.data.read import SkipReport

    report = SkipReport()
    data = open_folder(path, report=report, task=task)
    print(f"{path}: {data.kind}")
    for split in data.splits:
        posts = data.read(split)
        classes = Counter(name for post in posts for name in flat(post.label))
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(classes.items()))
        images = sum(post.image is not None for post in posts)
        intended = sum(bool(post.intentions) for post in posts)
        print(f"  {split:<12}  {len(posts):,} posts: {shown or 'no labels'}")
        print(f"  {'':<12}  {images:,} with an image, {intended:,} with intentions")
    if len(report):
        print(f"  {len(report):,} rows cannot be used; the first: {': '.join(next(iter(report)))}")


COMMANDS: Mapping[str, Command] = {
    "data": Command(
        "List the published data sets that are read as they are, or say what is in a folder",
        "[DATA] [--task NAME]",
        "../data/harm-c",
        _words,
    ),
}
ACTS: Mapping[str, Callable[[Namespace, str], None]] = {"data": _data}
