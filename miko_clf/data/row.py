"""One row of a file as a post, with an error line for each way in which it is not one."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Post, Rationale, Record
from miko_clf.errors import PostError, nearest

KEYS = (*Post.model_fields, "split")
_RECORDS: dict[str, type[Record]] = {
    "intentions": Intention,
    "key_information": KeyInformation,
    "rationale": Rationale,
}
_EXPECTED = {
    "id": "a string",
    "text": "a string",
    "image": "a path or encoded bytes",
    "label": "a class name or a list of class names, or an object of either by task",
    "description": "a string",
    "key_information": "an object",
    "concept": "a string",
    "action": "a string",
    "object": "a string",
    "emotion": "a string",
    "keywords": "a list of strings",
    "intentions": "a list of objects",
    "plausibility": "a number from 0 to 1",
    "typicality": "a number from 0 to 1",
    "rationale": "an object",
    "saw_label": "true or false",
    "provenance": "an object",
    "group": "a string",
}
_EXPECTED_ENTRY = {"intentions": "an object", "keywords": "a string"}


def post_of(cells: Mapping[str, Any], folder: Path) -> Post:
    """Return the post in a row; a relative image path starts at `folder`.

    Raises PostError with the reason alone: the caller knows the file and the line.
    """
    check_keys(cells)
    fields = {key: cells[key] for key in Post.model_fields if cells.get(key) is not None}
    if "image" in fields:
        fields["image"] = _image(fields["image"], folder)
    if "label" in fields:
        fields["label"] = _label(fields["label"])
    for key in _RECORDS.keys() & fields.keys():
        fields[key] = _without_nulls(fields[key])
    try:
        return Post.model_validate(fields)
    except ValidationError as error:
        raise PostError(_line(error)) from None


def check_keys(keys: Iterable[str], also: tuple[str, ...] = ()) -> None:
    """Raise PostError for a key that is nearly one of ours; any other unknown key is ignored."""
    fault = _near_miss(frozenset(keys), (*KEYS, *also))
    if fault:
        raise PostError(fault)


@lru_cache(maxsize=256)
def _near_miss(keys: frozenset[str], known: tuple[str, ...]) -> str:
    absent = [key for key in known if key not in keys]
    for key in sorted(keys.difference(known)):
        word = key.strip().lower()
        if any(part in known for part in word.split("_")) and word not in known:
            continue  # image_id, label_name: columns in their own right
        hint = nearest(word, absent)
        if word in absent or (hint and _is_close(word, absent)):
            return f"unknown key {key!r}{hint}"
    return ""


def _is_close(word: str, known: Iterable[str]) -> bool:
    return bool(get_close_matches(word, list(known), n=1, cutoff=0.75))


def _image(value: object, folder: Path) -> Path | bytes:
    """Return a path or bytes from a cell, which may be the {bytes, path} of `datasets`."""
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.strip():
        return folder / value
    raise PostError(f"image must be {_EXPECTED['image']}, not {_shown(value)}")


def _label(label: Any) -> Any:
    """Return a label whose every name can be one; of an object without a task nothing is left."""
    if not isinstance(label, Mapping):
        _check_names(label)
        return label
    answers = _without_nulls(label)
    for task, names in answers.items():
        if not isinstance(task, str) or not task or task != task.strip():
            raise PostError(f"label: task {_shown(task)} is empty or has blanks around it")
        _check_names(names)
    return answers or None


def _check_names(label: object) -> None:
    names = label if isinstance(label, list | tuple) else [label]
    for name in names:
        if not isinstance(name, str):
            raise PostError(f"label must be {_EXPECTED['label']}, not {_shown(label)}")
        if not name or name != name.strip():
            raise PostError(f"label {_shown(name)} is empty or has blanks around it")
    if len(set(names)) < len(names):
        raise PostError(f"label {_shown(label)} names a class twice")


def _without_nulls(value: Any) -> Any:
    """Drop the nulls by which a columnar file spells the keys that a record leaves out."""
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: entry for key, entry in value.items() if entry is not None}
    return value


def _line(error: ValidationError) -> str:
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
            hint = nearest(str(leaf), record.model_fields)
            return f"unknown key {where!r}; known are {', '.join(record.model_fields)}{hint}"
        case "literal_error":
            choice = f"choose from {', '.join(RELATIONS)}"
            given = first["input"]
            hint = nearest(given, RELATIONS) if isinstance(given, str) else ""
            return f"unknown relation {_shown(given)} in {where}; {choice}{hint}"
        case "string_too_short":
            return f"{where} is empty"
    if isinstance(leaf, int):
        return f"{where} must be {_EXPECTED_ENTRY[str(place[-2])]}, not {_shown(first['input'])}"
    return f"{where} must be {_EXPECTED[str(leaf)]}, not {_shown(first['input'])}"


def _shown(value: object) -> str:
    return f"{value!r:.60}"
