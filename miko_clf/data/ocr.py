"""Words that stand on a picture: their order, and posts whose text they become."""

import importlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from miko_clf.data import readers
from miko_clf.data.cells import TableRow, parse_post
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image
from miko_clf.data.readers import PostEntry, SkipReport
from miko_clf.data.splits import PostSplits, fingerprint_posts
from miko_clf.errors import MikoError, PostError
from miko_clf.manifest import write_atomically
from miko_clf.progress import print_notice, show_progress

LEAST_LINE_SCORE = 0.8
"""Score below which a line is left out: few of those between RapidOCR's own 0.5 and this are words.
"""
CACHE_FILE = "ocr.jsonl"
"""Name of the file in a cache folder that keeps what was read."""


class RecognisedLine(NamedTuple):
    """A line of text on a picture: what it says, how sure that is, and its box in pixels."""

    text: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """How high its box is."""
        return self.bottom - self.top

    @property
    def centre(self) -> float:
        """How far down the middle of its box is."""
        return (self.top + self.bottom) / 2


class PictureText(NamedTuple):
    """The text on a picture and the mean score of its characters, both none where there is none."""

    text: str | None
    confidence: float | None


class PictureReader(Protocol):
    """What reads pictures, from any thread; `engine` names it and its version."""

    engine: str

    def read(self, source: Path | bytes, until: float = math.inf) -> PictureText:
        """Return the text that stands on a picture.

        Raises `PostError` where it cannot be decoded, TimeoutError where it takes longer than
        `until` (seconds, monotonic).
        """


def open_picture_reader(threads: int | None = None) -> PictureReader:
    """Return what reads pictures; `threads` compute one of them, by default one a core.

    Raises `MikoError` where the libraries for it are not installed.
    """
    try:
        engine = importlib.import_module("miko_clf.data.ocr_engine")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("miko_clf"):
            raise
        need = "pip install 'miko-clf[ocr,cpu]'"
        raise MikoError(f"reading pictures needs {error.name}: {need}") from None
    reader: PictureReader = engine.RapidOcrReader(threads)
    return reader


def order_lines(lines: Iterable[RecognisedLine]) -> list[RecognisedLine]:
    """Return lines as they are read: rows from top to bottom, each from left to right.

    Two lines are of one row where the centre of each lies within the height of the other, so that
    a line that stands higher than all of another is read before it, whatever its column.
    """
    rows: list[list[RecognisedLine]] = []
    for line in sorted(lines, key=lambda line: line.centre):
        first = rows[-1][0] if rows else None
        if first and line.centre - first.centre < min(line.height, first.height) / 2:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.left)]


def join_lines(lines: Iterable[RecognisedLine], least: float = LEAST_LINE_SCORE) -> PictureText:
    """Return the text of the lines whose score is `least` or more, one under the other.

    Its confidence is the mean of their scores, each counted as often as it has characters.
    """
    sure = [line for line in order_lines(lines) if line.score >= least]
    num_characters = sum(len(line.text) for line in sure)
    if not num_characters:
        return PictureText(None, None)
    confidence = sum(line.score * len(line.text) for line in sure) / num_characters
    return PictureText("\n".join(line.text for line in sure), round(min(confidence, 1.0), 4))


def lacks_text(post: Post) -> bool:
    """Say whether a post has a picture that may be read and no text."""
    return post.text is None and post.image is not None


def fill_text(post: Post, reader: PictureReader, until: float = math.inf) -> Post:
    """Return the post with the text of its picture if it has no other; raises as a reader does."""
    if post.text is not None or post.image is None:
        return post
    found = reader.read(post.image, until)
    if found.text is None:
        return post
    update = {"text": found.text, "text_source": "ocr", "text_confidence": found.confidence}
    return post.model_copy(update=update)


class CachedPictureReader:
    """A reader that reads no picture twice, known by its content, and keeps what it read in a file.

    A line is in the file as soon as its picture was read; one that a kill cut off, or that another
    engine wrote, is passed over. Several processes may write to one file. Without a path nothing
    outlives the process. `num_read` pictures took `seconds`; `num_known` were there before.
    """

    def __init__(self, reader: PictureReader, path: Path | None = None) -> None:
        self.engine = reader.engine
        self.num_read, self.seconds = 0, 0.0
        self._reader, self._path = reader, path
        content = path.read_bytes() if path is not None and path.exists() else b""
        self._known = dict(_parse_journal(content, self.engine))
        self.num_known = len(self._known)
        self._lead = b"" if content.endswith(b"\n") or not content else b"\n"

    def read(self, source: Path | bytes, until: float = math.inf) -> PictureText:
        """Return the text that stands on a picture, as any reader does."""
        key = digest_image(source)
        if key not in self._known:
            started = time.monotonic()
            found = self._reader.read(source, until)
            self.num_read += 1
            self.seconds += time.monotonic() - started
            self._append(key, found)
            self._known[key] = found
        return self._known[key]

    def _append(self, key: str, found: PictureText) -> None:
        if self._path is None:
            return
        row = {"image": key, **found._asdict(), "engine": self.engine}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:  # whole lines, whoever else appends
            file.write(self._lead + json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._lead = b""


def _parse_journal(content: bytes, engine: str) -> Iterator[tuple[str, PictureText]]:
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
            if row["engine"] == engine:
                yield row["image"], PictureText(row["text"], row["confidence"])
        except (ValueError, TypeError, KeyError):
            continue


class OcrSplits:
    """Splits of posts, of which those without a text have that of their picture.

    What was read is said on stderr, once for each split.
    """

    def __init__(self, data: PostSplits, reader: PictureReader) -> None:
        self.path, self.splits = data.path, data.splits
        self.engine = reader.engine
        self._data, self._reader = data, reader
        self._fingerprints: dict[str, str] = {}

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name."""
        return self._data.has(split)

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split; raises PostError where it is not there."""
        posts = self._data.read(split)
        silent = [post for post in posts if lacks_text(post)]
        watched = show_progress(silent, "reading pictures")
        filled = {post.id: fill_text(post, self._reader) for post in watched}
        posts = [filled.get(post.id, post) for post in posts]
        if split not in self._fingerprints:
            empty = sum(map(lacks_text, posts))
            print_notice(
                f"{split}: of {len(silent):,} posts without text {len(silent) - empty:,} have one "
                f"by OCR, and on {empty:,} pictures nothing was found"
            )
        self._fingerprints[split] = fingerprint_posts(posts)
        return posts

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order, reading it if need be."""
        if split not in self._fingerprints:
            self.read(split)
        return self._fingerprints[split]


def describe_ocr(data: PostSplits, posts: Mapping[str, Sequence[Post]]) -> dict[str, Any]:
    """Return how many texts of each split were read by OCR, and by what; nothing if none was.

    The engine is null where the posts came with such texts.
    """
    counts = {s: sum(post.text_source == "ocr" for post in part) for s, part in posts.items()}
    if not any(counts.values()):
        return {}
    engine = data.engine if isinstance(data, OcrSplits) else None
    return {"ocr": {"engine": engine, "texts": counts}}


class ReadingSummary(NamedTuple):
    """What became of the posts of a file.

    `read` have the text of their picture and `empty` a picture without any, `given` had a text,
    and `bad` were passed over. `milliseconds` is what a picture took, null where none was read.
    """

    read: int
    empty: int
    given: int
    bad: int
    milliseconds: float | None


def write_texts(
    posts: Path, out: Path, reader: PictureReader, *, skip_bad: bool = False
) -> ReadingSummary:
    """Write the posts of a .jsonl, .csv or .parquet file as JSONL, with texts read by OCR.

    Every key of a row is kept, and image paths are written as they are from `out`. What was read
    is kept in `OUT.journal` until `out` is whole, so that a run that was stopped goes on. A post
    that cannot be read raises `PostError` or, with `skip_bad`, is named in `OUT.skipped.json`.
    """
    _check_out(out, posts)
    report = SkipReport() if skip_bad else None
    rows = {row.where: row for row in readers.read_rows(posts)}
    build = partial(parse_post, folder=posts.parent)
    entries = list(readers.build_entries(rows.values(), build, report))
    _refuse_bytes(entries, rows)
    journal = out.with_name(f"{out.name}.journal")
    cached = CachedPictureReader(reader, journal)
    if cached.num_known:
        print_notice(f"going on after {cached.num_known:,} pictures, see {journal}")
    counts = Counter[str]()
    with write_atomically(out) as beside:
        with beside.open("w", encoding="utf-8") as file:
            for entry, post in _fill_entries(entries, cached, report):
                counts[_name_outcome(entry.post, post)] += 1
                changes = _list_changes(post, posts.parent, out.parent)
                row = {**rows[entry.where].cells, **changes}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        if report is not None and len(report):
            report.write(out.with_name(f"{out.name}.skipped.json"))
    journal.unlink(missing_ok=True)
    spent = 1000 * cached.seconds / cached.num_read if cached.num_read else None
    return ReadingSummary(
        counts["read"], counts["empty"], counts["given"], len(report or ()), spent
    )


def _check_out(out: Path, posts: Path) -> None:
    if out.suffix.lower() != ".jsonl" or out.is_dir():
        raise MikoError(f"cannot write {out}: name a .jsonl file")
    if out.exists() and posts.exists() and out.samefile(posts):
        raise MikoError(f"cannot write {out}: the posts are read from it; name another file")


def _refuse_bytes(entries: Iterable[PostEntry], rows: Mapping[str, TableRow]) -> None:
    for entry in entries:
        embedded = isinstance(entry.post.image, bytes)
        if embedded and not isinstance(rows[entry.where].cells["image"], str):
            raise PostError(
                f"{entry.where}: its image is bytes, which JSONL cannot hold; fit, evaluate and "
                "score read such posts as they are, with --ocr"
            )


def _fill_entries(
    entries: Sequence[PostEntry], reader: PictureReader, report: SkipReport | None
) -> Iterator[tuple[PostEntry, Post]]:
    """Yield each post as it was and with the text of its picture; bad ones raise or are noted."""
    for entry in show_progress(entries, "reading pictures"):
        try:
            yield entry, fill_text(entry.post, reader)
        except PostError as error:
            readers.refuse_post(entry.where, str(error), report)


def _name_outcome(before: Post, after: Post) -> str:
    if before.text is not None:
        return "given"
    return "empty" if after.text is None else "read"


def _list_changes(post: Post, source: Path, target: Path) -> dict[str, Any]:
    """Return the cells of a post that change as it moves from a file of one folder to another."""
    changes: dict[str, Any] = {}
    if isinstance(post.image, Path) and source.resolve() != target.resolve():
        changes["image"] = os.path.relpath(post.image.absolute(), target.resolve())
    if post.text_source is not None:
        changes |= {
            "text": post.text,
            "text_source": post.text_source,
            "text_confidence": post.text_confidence,
        }
    return changes
