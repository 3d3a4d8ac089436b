"""What is published of a data set, and how cells of its files are read."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post
from miko_clf.data.readers import IMAGE_SUFFIXES, SkipReport, TableRow, parse_post
from miko_clf.errors import PostError, suggest_nearest


class PublishedCount(NamedTuple):
    """How many posts a split is published with; any one of `classes` may be what is found.

    No classes: how many there are of each is not known here.
    """

    size: int
    classes: tuple[Mapping[str, int], ...] = ()

    def line(self) -> str:
        """Say it in a few words."""
        counts = " or ".join(map(_format_counts, self.classes))
        return f"{self.size:,} ({counts or 'by class unknown'})"


class PublishedFolder(NamedTuple):
    """What is known of a folder in a published layout.

    `aliases` are other names of its splits, `instead` says why a split has no such name, `shared`
    are splits that hold some posts in common by design, `notes` is what to know before reading,
    `left` fills with the rows that its reader leaves out.
    """

    name: str
    left: SkipReport
    counts: Mapping[str, PublishedCount] = {}
    whole: PublishedCount | None = None
    aliases: Mapping[str, str] = {}
    instead: Mapping[str, str] = {}
    shared: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class CountCheck:
    """The splits of a folder that were read so far, held against what was published of them."""

    def __init__(self, published: PublishedFolder) -> None:
        self._published = published
        self._sizes: dict[str, int] = {}
        self._classes: dict[str, Counter[str]] = {}
        self._num_described = 0

    def check_split(self, split: str, posts: Sequence[Post], splits: Sequence[str]) -> list[str]:
        """Count the posts of a split and return one line for each thing to be told of them."""
        self._sizes[split] = len(posts)
        self._classes[split] = Counter(name for post in posts for name in flatten_label(post.label))
        expected = self._published.counts.get(split)
        lines = self._describe_left_out(split)
        lines.append(self._compare(split, len(posts), self._classes[split], expected))
        if set(splits) == set(self._sizes):
            size, classes = sum(self._sizes.values()), sum(self._classes.values(), Counter())
            lines.append(self._compare("in all", size, classes, self._published.whole))
        return [line for line in lines if line]

    def _compare(
        self, where: str, size: int, classes: Mapping[str, int], expected: PublishedCount | None
    ) -> str:
        """Say how posts differ from what is published of them, if anything is and they do."""
        if expected is None:
            return ""
        agree = not expected.classes or not classes or classes in expected.classes
        if size == expected.size and agree:
            return ""
        counts = f" ({_format_counts(classes)})" if classes else ""
        name = self._published.name
        return f"{where}: {size:,}{counts} posts, where {name} is published with {expected.line()}"

    def _describe_left_out(self, split: str) -> list[str]:
        """Return a line for each reason for which rows were left out since the last call."""
        rows = list(self._published.left)[self._num_described :]
        self._num_described += len(rows)
        counts = Counter(reason for _, reason in rows)
        first = {reason: where for where, reason in reversed(rows)}
        return [
            f"{split}: {count:,} row{'s' * (count > 1)} left out, the first at {first[reason]}: "
            f"{reason}"
            for reason, count in counts.items()
        ]


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


_MADE_HERE = "files of that layout made on the spot"


class PublishedSet(NamedTuple):
    """A published data set that an adapter reads.

    `splits` gives the counts that the literature prints, None where they are not known here;
    `files` is by what it is recognised, `checked_on` what its adapter was tried on.
    """

    name: str
    what: str
    tasks: tuple[str, ...]
    splits: Mapping[str, PublishedCount | None]
    files: str
    checked_on: str = _MADE_HERE


class DatedSplit(NamedTuple):
    """From which ISO date on posts are test, and val; of the time before, val is the last 15 %."""

    test_from: str
    val_from: str | None = None


class FolderOptions(NamedTuple):
    """What `open_folder` was asked for."""

    label_map: Mapping[str, str] = {}
    split_seed: int | None = None
    task: str | None = None
    dated: DatedSplit | None = None


def choose_task(path: Path, name: str, task: str | None, tasks: tuple[str, ...]) -> str:
    """Return the task, the first where none was asked for; PostError for one that is not there."""
    if task is None or task in tasks:
        return task or tasks[0]
    choice = f"choose from {', '.join(tasks)}" if len(tasks) > 1 else f"there is {tasks[0]}"
    raise PostError(f"{path}: {name} has no task {task!r}; {choice}{suggest_nearest(task, tasks)}")


_TYPE_NAMES: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


@contextmanager
def _name_faults(file: Path) -> Iterator[None]:
    """Raise what goes wrong with a file as PostError."""
    try:
        yield
    except UnicodeDecodeError:
        raise PostError(f"{file}: is not UTF-8") from None
    except OSError as error:
        raise PostError(f"{file}: cannot be read: {error.strerror}") from error


def read_delimited(file: Path, delimiter: str, columns: Iterable[str] = ()) -> Iterator[TableRow]:
    """Yield the rows of delimited text by column name; quotes may hold delimiters and lines.

    Raises PostError for a file that lacks one of `columns`.
    """
    table = read_delimited_lines(file, delimiter)
    where, header = next(table, (str(file), []))
    missing = [name for name in columns if name not in header]
    if missing:
        raise PostError(f"{where}: column {missing[0]!r} is required; there is {header!r:.200}")
    for place, cells in table:
        if len(cells) == len(header):
            yield TableRow(place, dict(zip(header, cells, strict=True)))
        else:
            yield TableRow(place, {}, f"{len(cells)} cells under {len(header)} columns")


def read_delimited_lines(file: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line of delimited text that has no header."""
    with _name_faults(file), file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        while True:
            where = f"{file}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise PostError(f"{where}: {error}") from None
            if cells is None:
                return
            if cells:
                yield where, [cell.strip() for cell in cells]


def read_numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each line."""
    with _name_faults(file), file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            yield f"{file}:{number}", line


def read_json_document(file: Path) -> Any:
    """Return what a JSON file holds; PostError where it is none."""
    try:
        with _name_faults(file):
            return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"column {error.colno} of line {error.lineno}"
        raise PostError(f"{file}: not valid JSON at {place}: {error.msg}") from None


def read_json_list(file: Path) -> Iterator[TableRow]:
    """Yield the objects of a JSON list."""
    rows = read_json_document(file)
    if not isinstance(rows, list):
        raise PostError(f"{file}: a JSON list is expected")
    for number, cells in enumerate(rows, 1):
        where = f"{file} row {number}"
        if isinstance(cells, dict):
            yield TableRow(where, cells)
        else:
            yield TableRow(where, {}, "a JSON object is expected")


def leave_out_rows(
    table: Iterable[TableRow],
    reason: Callable[[Mapping[str, Any]], str],
    left: SkipReport,
    report: SkipReport | None,
) -> Iterator[TableRow]:
    """Yield the rows for which there is no reason to leave them out, and record the others."""
    for row in table:
        why = "" if row.fault else reason(row.cells)
        if not why:
            yield row
            continue
        left.add(row.where, why)
        if report is not None:
            report.add(row.where, why)


def get_cell(cells: Mapping[str, Any], name: str, kind: type = str) -> Any:
    """Return a cell, which must be of a kind."""
    value = cells.get(name)
    if not isinstance(value, kind):
        raise PostError(f"{name} must be {_TYPE_NAMES[kind]}, not {value!r:.60}")
    return value


def decode_class(cells: Mapping[str, Any], name: str, names: Mapping[str, str]) -> str:
    """Return the class that a cell stands for; `1`, `1.0` and 1 are the same code."""
    value = cells.get(name)
    code = str(value).strip().removesuffix(".0")
    if code not in names:
        raise PostError(f"{name} must be {' or '.join(names)}, not {value!r:.60}")
    return names[code]


def build_post(image: Path | None, **fields: Any) -> Post:
    """Return the post with these fields; PostError, without the place, for what is no post."""
    return parse_post({**fields, "image": None if image is None else str(image)}, Path())


def find_split_files(folder: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """Return the files that a folder holds, of one name a split."""
    files = {split: folder / name for split, name in names.items()}
    return {split: file for split, file in files.items() if file.is_file()}


def find_pictures(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the folder if a picture lies in it, else the note that posts are read without."""
    if folder.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir()):
        return folder, ()
    return None, (f"no pictures lie in {folder.name}/, so posts are read as text alone",)
