"""What is known of a published data set, and what a person wishes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from miko_clf.data.counts import Count
from miko_clf.errors import PostError, nearest

MADE = "files of that layout made on the spot"


class Known(NamedTuple):
    """A published data set that an adapter reads.

    `splits` gives the counts that the literature prints, None where they are not known here;
    `files` is by what it is recognised, `checked_on` what its adapter was tried on.
    """

    name: str
    what: str
    tasks: tuple[str, ...]
    splits: Mapping[str, Count | None]
    files: str
    checked_on: str = MADE


class Wish(NamedTuple):
    """What `open_folder` was asked for."""

    label_map: Mapping[str, str] = {}
    split_seed: int | None = None
    task: str | None = None


def chosen(path: Path, name: str, task: str | None, tasks: tuple[str, ...]) -> str:
    """Return the task, the first where none was asked for; PostError for one that is not there."""
    if task is None or task in tasks:
        return task or tasks[0]
    choice = f"choose from {', '.join(tasks)}" if len(tasks) > 1 else f"there is {tasks[0]}"
    raise PostError(f"{path}: {name} has no task {task!r}; {choice}{nearest(task, tasks)}")
