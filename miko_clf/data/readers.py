"""Posts out of one JSONL, CSV or Parquet file; bad ones raise or are reported."""

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Never

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from miko_clf import manifest
from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Record
from miko_clf.errors import PostError, suggest_nearest

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_PARQUET_BATCH = 64  # rows of Parquet in memory at a time: they may hold images
_BAD_CSV = "not valid CSV: a quote is not closed, or a cell is longer than 131,072 characters"
_JSON_KINDS = {
    list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip
POST_KEYS = (*Post.model_fields, "split")
_RECORDS: dict[str, type[Record]] = {
    "intentions": Intention,
    "key_information": KeyInformation,
    "rationale": Rationale,
}
_EXPECTED = {  # a string where nothing stands here
    "image": "a path or encoded bytes",
    "label": "a class name or a list of class names, or an object of either by task",
    "key_information": "an object",
    "keywords": "a list of strings",
    "intentions": "a list of objects",
    "plausibility": "a number from 0 to 1",
    "typicality": "a number from 0 to 1",
    "rationale": "an object",
    "saw_label": "true or false",
    "provenance": "an object",
}
_EXPECTED_ENTRY = {"intentions": "an object", "keywords": "a string"}


class SkipReport:
    """Which posts were passed over, and why. The same finding is held once."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], None] = {}

    def add(self, where: str, reason: str) -> None:
        """Record that what stands at `where` was passed over."""
        self._entries[where, reason] = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._entries)

    def write(self, path: Path) -> None:
        """Write a JSON list of {where, reason}; the file is there whole or not at all."""
        manifest.write_json(path, [{"where": w, "reason": r} for w, r in self])


class PostEntry(NamedTuple):
    """A post and the file and line, or row, at which it stands."""

    where: str
    post: Post


class TableRow(NamedTuple):
    """The cells of a row or, where it could not be parsed, its fault."""

    where: str
    cells: Mapping[str, Any]
    fault: str = ""


def read_posts(path: Path, *, report: SkipReport | None = None) -> Iterator[Post]:
    """Yield the posts of one .jsonl, .csv or .parquet file; image files must exist.

    Raises PostError at the first bad post or, given a report, records it there and goes on.
    """
    for entry in read_entries(path, report):
        yield entry.post


def read_entries(path: Path, report: SkipReport | None) -> Iterator[PostEntry]:
    """Yield the posts of one file, each with its place, as `read_posts` does."""
    return build_entries(read_rows(path), partial(parse_post, folder=path.parent), report)


def build_entries(
    table: Iterable[TableRow], build: Callable[[Mapping[str, Any]], Post], report: SkipReport | None
) -> Iterator[PostEntry]:
    """Yield what `build` makes of each row, refusing an id that was used before."""
    first: dict[str, str] = {}
    for row in table:
        try:
            if row.fault:
                raise PostError(row.fault)
            post = build(row.cells)
            if post.id in first:
                raise PostError(f"id {post.id!r} was already used at {first[post.id]}")
            _check_image_file(post.image)
        except PostError as error:
            refuse_post(row.where, str(error), report)
            continue
        first[post.id] = row.where
        yield PostEntry(row.where, post)


def refuse_post(where: str, reason: str, report: SkipReport | None) -> None:
    """Record a bad post, or raise PostError where there is no report."""
    if report is None:
        raise PostError(f"{where}: {reason}")
    report.add(where, reason)


def _check_image_file(image: Path | bytes | None) -> None:
    if not isinstance(image, Path):
        return
    try:
        if image.is_file():
            return
        fault = "is a folder" if image.is_dir() else "does not exist"
    except OSError:  # a name that is too long, or a folder that may not be entered
        fault = "cannot be reached"
    raise PostError(f"image {str(image)!r} {fault}")


def read_rows(path: Path, *, key: str = "id") -> Iterator[TableRow]:
    """Yield every row; columns must include `key`. A file with no row at all raises PostError."""
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    empty = True
    try:
        check_post_file(path)
        for row in readers[path.suffix.lower()](path, key):
            empty = False
            yield row
    except OSError as error:
        raise PostError(f"{path}: cannot be read: {error.strerror or 'input error'}") from error
    if empty:
        raise PostError(f"{path}: holds no posts")


def check_post_file(path: Path) -> None:
    """Raise PostError unless this is a file of posts with something in it."""
    kinds = "a .jsonl, .csv or .parquet file of posts is expected"
    if path.is_dir():
        raise PostError(f"{path}: is a folder; {kinds}")
    if not path.exists():
        raise PostError(f"{path}: there is no such file")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise PostError(f"{path}: unknown kind {path.suffix!r}; {kinds}")
    if path.stat().st_size == 0:
        raise PostError(f"{path}: the file is empty")


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the object that the text holds; PostError gives the reason alone."""
    value = _parse_json(text)
    if not isinstance(value, dict):
        raise PostError(f"a JSON object is expected, not {_JSON_KINDS[type(value)]}")
    return value


def _read_jsonl(path: Path, key: str) -> Iterator[TableRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            bare = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            yield _parse_row(f"{path}:{number}", _parse_jsonl_line, bare)


def _parse_row(where: str, parse: Callable[..., dict[str, Any]], *given: Any) -> TableRow:
    """Return the row that `parse` makes of what is given, or that of its fault."""
    try:
        return TableRow(where, parse(*given))
    except PostError as error:
        return TableRow(where, {}, str(error))


def _parse_jsonl_line(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise PostError(f"byte {error.start + 1} of the line is not UTF-8") from None
    if not text.strip():
        raise PostError("the line is empty; every line holds one post")
    return parse_json_object(text)


def _parse_json(text: str) -> Any:
    try:
        value = json.loads(
            text, object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant
        )
        if "\\u" in text:  # the only way in for half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise PostError(f"not valid JSON at column {error.colno}") from None
    except UnicodeEncodeError:
        half = "half of a surrogate pair (\\ud800 to \\udfff)"
        raise PostError(f"{half} is not a character") from None
    except (ValueError, RecursionError):
        raise PostError("not valid JSON: a number is too long or the nesting too deep") from None
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PostError(f"key {twice!r} is given twice")
    return record


def _refuse_constant(word: str) -> Never:
    raise PostError(f"{word} is not JSON; write null for what is absent")


def _read_csv(path: Path, key: str) -> Iterator[TableRow]:
    with path.open("rb") as file:
        unreadable: list[int] = []
        reader = csv.reader(_decode_lines(file, unreadable), strict=True)
        header = _read_header(path, reader, unreadable, key)
        while True:
            where = f"{path}:{reader.line_num + 1}"
            try:
                row = _parse_row(where, _parse_csv_record, header, next(reader), unreadable)
            except StopIteration:
                return
            except csv.Error:
                row = TableRow(where, {}, _BAD_CSV)
            unreadable.clear()
            yield row


def _decode_lines(lines: Iterable[bytes], unreadable: list[int]) -> Iterator[str]:
    """Yield lines as text and note the number of each that is not UTF-8."""
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            unreadable.append(number)
            text = line.decode(errors="replace")
        yield text.removeprefix("\ufeff") if number == 1 else text


def _read_header(
    path: Path, reader: Iterator[list[str]], unreadable: list[int], key: str
) -> list[str]:
    try:
        header = next(reader)
        if unreadable:
            raise PostError("the line is not UTF-8")
        _check_columns(header, key)
    except (csv.Error, PostError) as error:
        reason = str(error) if isinstance(error, PostError) else "not a valid CSV header"
        raise PostError(f"{path}:1: {reason}") from None
    return header


def _check_columns(names: list[str], key: str) -> None:
    check_keys(names, (key,))
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise PostError(f"column {twice!r} stands twice")
    if key not in names:
        raise PostError(f"column {key!r} is required; the columns are {str(names)[:200]}")


def _parse_csv_record(header: list[str], cells: list[str], unreadable: list[int]) -> dict[str, Any]:
    """Return the cells that are not empty, with the JSON in them parsed."""
    if unreadable:
        raise PostError(f"line {unreadable[0]} is not UTF-8")
    if not any(cell.strip() for cell in cells):
        raise PostError("the line is empty; every line holds one post")
    if len(cells) != len(header):
        raise PostError(f"{len(cells)} cells under {len(header)} columns")
    record: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    for name in POST_KEYS:
        if str(record.get(name, "")).strip().lower() == "nan":
            raise PostError(f"{name} is {record[name]!r}; leave the cell empty where it is absent")
    return _parse_json_cells(record)


def _parse_json_cells(cells: dict[str, Any]) -> dict[str, Any]:
    """Parse the JSON in the cells that may hold some; a label may be a plain name too."""
    for name in (*_RECORDS, "label"):
        text = cells.get(name)
        if not isinstance(text, str) or (name == "label" and not text.startswith(("[", "{"))):
            continue
        try:
            cells[name] = _parse_json(text)
        except PostError as error:
            raise PostError(f"{name}: {error}") from None
    return cells


def _read_parquet(path: Path, key: str) -> Iterator[TableRow]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            try:
                _check_columns(names, key)
            except PostError as error:
                raise PostError(f"{path}: {error}") from None
            wanted = [name for name in names if name in (*POST_KEYS, key)]
            batches = file.iter_batches(_PARQUET_BATCH, columns=wanted)
            rows = (cells for batch in batches for cells in batch.to_pylist())
            for number, cells in enumerate(rows, 1):
                yield _parse_row(f"{path} row {number}", _parse_json_cells, cells)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PostError(f"{path}: is not a readable Parquet file") from error


def parse_post(cells: Mapping[str, Any], folder: Path) -> Post:
    """Return the post in a row; a relative image path starts at `folder`.

    Raises PostError with the reason alone: the caller knows the file and the line.
    """
    check_keys(cells)
    fields = {key: cells[key] for key in Post.model_fields if cells.get(key) is not None}
    if "image" in fields:
        fields["image"] = _parse_image(fields["image"], folder)
    if "label" in fields:
        fields["label"] = _parse_label(fields["label"])
    for key in _RECORDS.keys() & fields.keys():
        fields[key] = _drop_nulls(fields[key])
    try:
        return Post.model_validate(fields)
    except ValidationError as error:
        raise PostError(_explain_findings(error)) from None


def check_keys(keys: Iterable[str], also: tuple[str, ...] = ()) -> None:
    """Raise PostError for a key that is nearly one of ours; any other unknown key is ignored."""
    if fault := _find_near_miss(frozenset(keys), (*POST_KEYS, *also)):
        raise PostError(fault)


@lru_cache(maxsize=256)
def _find_near_miss(keys: frozenset[str], known: tuple[str, ...]) -> str:
    absent = [key for key in known if key not in keys]
    for key in sorted(keys.difference(known)):
        word = key.strip().lower()
        if any(part in known for part in word.split("_")) and word not in known:
            continue  # image_id, label_name: columns in their own right
        hint = suggest_nearest(word, absent)
        if word in absent or (hint and get_close_matches(word, absent, n=1, cutoff=0.75)):
            return f"unknown key {key!r}{hint}"
    return ""


def _parse_image(value: object, folder: Path) -> Path | bytes:
    """Return a path or bytes from a cell, which may be the {bytes, path} of `datasets`."""
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.strip():
        return folder / value
    raise PostError(f"image must be {_EXPECTED['image']}, not {_shorten(value)}")


def _parse_label(label: Any) -> Any:
    """Return a label whose every name can be one; of an object without a task nothing is left."""
    if not isinstance(label, Mapping):
        _check_names(label)
        return label
    answers = _drop_nulls(label)
    for task, names in answers.items():
        if not isinstance(task, str) or not task or task != task.strip():
            raise PostError(f"label: task {_shorten(task)} is empty or has blanks around it")
        _check_names(names)
    return answers or None


def _check_names(label: object) -> None:
    names = label if isinstance(label, list | tuple) else [label]
    for name in names:
        if not isinstance(name, str):
            raise PostError(f"label must be {_EXPECTED['label']}, not {_shorten(label)}")
        if not name or name != name.strip():
            raise PostError(f"label {_shorten(name)} is empty or has blanks around it")
    if len(set(names)) < len(names):
        raise PostError(f"label {_shorten(label)} names a class twice")


def _drop_nulls(value: Any) -> Any:
    """Drop the nulls by which a columnar file spells the keys that a record leaves out."""
    if isinstance(value, list):
        return [_drop_nulls(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: entry for key, entry in value.items() if entry is not None}
    return value


def _explain_findings(error: ValidationError) -> str:
    """Say the first of pydantic's findings in one line of our own words."""
    first = error.errors(include_url=False)[0]
    place = first["loc"][:1] if first["loc"][:1] == ("label",) else first["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]
    leaf = place[-1] if place else ""
    match first["type"]:
        case "missing":
            return f"{where} is required"
        case "value_error":
            return str(first["ctx"]["error"])
        case "extra_forbidden":
            record = _RECORDS[str(place[0])]
            hint = suggest_nearest(str(leaf), record.model_fields)
            return f"unknown key {where!r}; known are {', '.join(record.model_fields)}{hint}"
        case "literal_error":
            name = first["input"]
            hint = suggest_nearest(name, RELATIONS) if isinstance(name, str) else ""
            choice = f"choose from {', '.join(RELATIONS)}"
            return f"unknown relation {_shorten(name)} in {where}; {choice}{hint}"
        case "string_too_short":
            return f"{where} is empty"
    expected = _EXPECTED.get(str(leaf), "a string")
    expected = _EXPECTED_ENTRY[str(place[-2])] if isinstance(leaf, int) else expected
    return f"{where} must be {expected}, not {_shorten(first['input'])}"


def _shorten(value: object) -> str:
    return f"{value!r:.60}"
