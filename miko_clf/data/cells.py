"""The cells of a row, and the post that they make."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from pydantic import ValidationError

from miko_clf.data.labels import normalise_class
from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Record
from miko_clf.errors import PostError, shorten_path, shorten_value, suggest_nearest

POST_KEYS = (*Post.model_fields, "split")
_RECORDS: dict[str, type[Record]] = {
    "intentions": Intention,
    "key_information": KeyInformation,
    "rationale": Rationale,
}
RECORD_KEYS = tuple(_RECORDS)
_EXPECTED = {  # a string where nothing stands here
    "image": "a path or encoded bytes",
    "targets": "a name or a list of names of groups of people",
    "label": "a class name or a list of class names, or an object of either by task",
    "key_information": "an object",
    "keywords": "a list of strings",
    "intentions": "a list of objects",
    "plausibility": "a number from 0 to 1",
    "typicality": "a number from 0 to 1",
    "text_confidence": "a number from 0 to 1",
    "rationale": "an object",
    "saw_label": "true or false",
    "provenance": "an object",
}
_EXPECTED_ENTRY = {"intentions": "an object", "keywords": "a string", "targets": "a string"}
# Columns in their own right, though they are nearly `targets` and `date`.
_OTHER_WORDS = frozenset({"target", "data"})
_NAME_KEYS = ("id", "group")  # which tables may hold as numbers
_ABSENT_WORDS = frozenset({"nan", "na", "none", "null", "<na>"})
_NOT_A_NUMBER = "nan"  # by which pandas writes what is absent
# How JPEG, PNG, GIF, WebP and the boxes of HEIC and AVIF begin in base64.
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "AAAA")
_FEWEST_BASE64 = 64  # characters; a path is shorter, or holds a dot
_URL = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)


class TableRow(NamedTuple):
    """The cells of a row or, where it could not be parsed, its fault.

    `remarks` say what was assumed in reading it. A row at fault may be mended: `mend` then says
    how, and its cells are those of the mended row.
    """

    where: str
    cells: Mapping[str, Any]
    fault: str = ""
    remarks: tuple[str, ...] = ()
    mend: str = ""

    @property
    def lost(self) -> bool:
        """Whether nothing can be made of it."""
        return bool(self.fault) and not self.mend


def parse_post(cells: Mapping[str, Any], folder: Path) -> Post:
    """Return the post in a row; a relative image path starts at `folder`.

    A number is an id, a group or a class by its digits. Raises PostError with the reason alone:
    the caller knows the file and the line.
    """
    check_keys(cells)
    fields = {key: cells[key] for key in Post.model_fields if cells.get(key) is not None}
    for key in ("label", "image", "group"):
        if _is_not_a_number(fields.get(key)):
            raise PostError(f"{key} is {fields[key]!r}; leave the cell empty where it is absent")
    for key in _NAME_KEYS:
        if _is_whole_number(fields.get(key)):
            fields[key] = normalise_class(fields[key])
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


def _is_not_a_number(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() == _NOT_A_NUMBER
    return isinstance(value, float) and value != value


def _is_whole_number(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def list_remarks(cells: Mapping[str, Any], post: Post) -> list[str]:
    """Return what a person may not expect of the way in which cells became a post."""
    remarks = []
    for key in ("text", "description"):
        text = cells.get(key)
        if isinstance(text, str) and text.strip().lower() in _ABSENT_WORDS:
            remarks.append(f"{key} {text!r} was read as that word; leave it empty for none")
    given, label = cells.get("label"), post.label
    if isinstance(given, str | float) and label is not None and given != label:
        read = normalise_class(given)
        if read == label:
            remarks.append(f"label {shorten_value(given)} was read as {read!r}")
    name = cells.get("id")
    if isinstance(name, float):
        remarks.append(f"id {name} was read as {post.id!r}")
    elif isinstance(name, str) and name[:1] == "0" and name.isdigit() and len(name) > 1:
        remarks.append(f"id {name!r} keeps its leading zeros, so {name.lstrip('0')!r} is another")
    return remarks


def check_keys(keys: Iterable[str], also: tuple[str, ...] = ()) -> None:
    """Raise PostError for a key that is nearly one of ours; any other unknown key is ignored."""
    if fault := _find_near_miss(frozenset(keys), (*POST_KEYS, *also)):
        raise PostError(fault)


@lru_cache(maxsize=256)
def _find_near_miss(keys: frozenset[str], known: tuple[str, ...]) -> str:
    absent = [key for key in known if key not in keys]
    for key in sorted(keys.difference(known)):
        word = key.strip().lower()
        parts = {*word.split("_"), word}
        if word not in known and (parts & {*known, *_OTHER_WORDS}):
            continue  # image_id, label_name: columns in their own right
        hint = suggest_nearest(word, absent)
        if word in absent or (hint and get_close_matches(word, absent, n=1, cutoff=0.75)):
            return f"unknown key {key!r}{hint}"
    return ""


def check_columns(names: list[str], key: str) -> None:
    """Raise PostError where a column stands twice, is nearly one of ours, or `key` is not there."""
    check_keys(names, (key,))
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise PostError(f"column {twice!r} stands twice")
    if key not in names:
        raise PostError(f"column {key!r} is required; the columns are {str(names)[:200]}")


def _parse_image(value: object, folder: Path) -> Path | bytes | None:
    """Return a path or bytes from a cell: also of the {bytes, path} of `datasets`, a list of one.

    An object of nulls, and an empty list, is how some tables spell an absent image.
    """
    if isinstance(value, list):
        if len(value) > 1:
            raise PostError(f"image is a list of {len(value)}; a post has one, so write it alone")
        value = value[0] if value else None
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.strip():
        return _parse_image_text(value, folder)
    raise PostError(f"image must be {_EXPECTED['image']}, not {shorten_value(value)}")


def _parse_image_text(text: str, folder: Path) -> Path | bytes:
    """Return the path that a text is, or the bytes that it holds as a data URI or in base64."""
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma:
            raise PostError(f"image {shorten_value(text)} is a data URI without a comma")
        return (
            _decode_base64(unquote(body))
            if head.lower().endswith(";base64")
            else unquote_to_bytes(body)
        )
    if _URL.match(text):
        raise PostError(
            f"image {shorten_value(text)} is a URL, and nothing is fetched while posts are read; "
            "fetch it, such as by: curl -O URL (many: img2dataset), and write the file's path"
        )
    if len(text) >= _FEWEST_BASE64 and text.startswith(_BASE64_STARTS) and "." not in text:
        return _decode_base64(text)
    return folder / text


def _decode_base64(text: str) -> bytes:
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise PostError(f"image {shorten_value(text)} is base64 that does not decode") from None


def check_image_file(image: Path | bytes | None) -> None:
    """Raise PostError where the image of a post is a path at which there is no file."""
    if not isinstance(image, Path):
        return
    try:
        if image.is_file():
            return
        fault = "is a folder" if image.is_dir() else "does not exist"
    except (OSError, ValueError):  # a name that is too long or holds a null, a closed folder
        fault = "cannot be reached"
    raise PostError(f"image {shorten_path(image)} {fault}")


def _parse_label(label: Any) -> Any:
    """Return a label whose every name can be one; of an object without a task nothing is left."""
    if not isinstance(label, Mapping):
        return _parse_names(label)
    answers = {}
    for task, names in _drop_nulls(label).items():
        if not isinstance(task, str) or not task or task != task.strip():
            raise PostError(f"label: task {shorten_value(task)} is empty or has blanks around it")
        answers[task] = _parse_names(names)
    return answers or None


def _parse_names(label: Any) -> Any:
    """Return a class or a list of classes, each in its one spelling."""
    given = label if isinstance(label, list | tuple) else [label]
    names = []
    for name in given:
        if not (isinstance(name, str | bool) or _is_whole_number(name)):
            raise PostError(f"label must be {_EXPECTED['label']}, not {shorten_value(label)}")
        names.append(normalise_class(name))
        if not names[-1]:
            raise PostError(f"label {shorten_value(name)} is empty")
    if len(set(names)) < len(names):
        raise PostError(f"label {shorten_value(label)} names a class twice")
    return names if isinstance(label, list | tuple) else names[0]


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
            known = f"known are {', '.join(record.model_fields)}{hint}"
            return f"unknown key {shorten_value(where)}; {known}"
        case "literal_error" if leaf == "text_source":
            return f"text_source must be ocr, or absent, not {shorten_value(first['input'])}"
        case "literal_error":
            name = first["input"]
            hint = suggest_nearest(name, RELATIONS) if isinstance(name, str) else ""
            choice = f"choose from {', '.join(RELATIONS)}"
            return f"unknown relation {shorten_value(name)} in {where}; {choice}{hint}"
        case "string_too_short":
            return f"{where} is empty"
    expected = _EXPECTED.get(str(leaf), "a string")
    expected = _EXPECTED_ENTRY[str(place[-2])] if isinstance(leaf, int) else expected
    return f"{where} must be {expected}, not {shorten_value(first['input'])}"
