"""What MIKO released (arXiv 2402.18169), by the image id of each post."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.cells import TableRow
from miko_clf.data.json_lines import parse_json_object
from miko_clf.data.post import Intention, KeyInformation, Relation
from miko_clf.data.sets.base import get_cell, read_json_list, read_numbered_lines
from miko_clf.errors import PostError

_PATTERNS = ("MIKO_benchmark.json", "*_intention_make_up.jsonl", "keyinfo_*.jsonl")
# What the authors' prompt numbers 1 to 10, and how a sentence of each begins.
_NUMBERED: tuple[tuple[Relation, str], ...] = (
    ("xWant", "after posting"), ("oEffect", "after viewing"), ("xAttr", "the user"),
    ("xIntent", "the user"), ("xReact", "after posting"), ("oReact", "after viewing"),
    ("oWant", "after viewing"), ("xEffect", "after posting"), ("xNeed", "before posting"),
    ("Open", "the user"),
)  # fmt: skip
_HEAD = re.compile(r"^\W*intention[ \t]*(\d+)[ \t]*[:.]?[ \t]*", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(r"^\s*(concept|action|object|emotion|keywords)\s*:(.*)$", re.IGNORECASE)
_FEWEST = 6  # words: fewer, without an end, are a sentence that was cut off at once


class MikoRelease(NamedTuple):
    """What was released of one post; each intention names the file it is from."""

    description: str | None = None
    key_information: KeyInformation | None = None
    intentions: tuple[Intention, ...] = ()


def find_miko_files(path: Path) -> tuple[Path, ...]:
    """Return the released files in a folder, or in `miko/` in it."""
    return tuple(
        file
        for folder in (path, path / "miko")
        for pattern in _PATTERNS
        for file in sorted(folder.glob(pattern))
    )


def describe_miko_files(released: tuple[Path, ...]) -> str:
    """Return what to know of posts that are joined with these files."""
    names = ", ".join(file.name for file in released)
    return (
        f"joined on the image id: {names}; the files differ in their share of classes, so compare "
        "within one of them (an intention's provenance names it); where they describe pictures, "
        "the words of the detector are not used"
    )


def read_miko_files(released: tuple[Path, ...]) -> dict[str, MikoRelease]:
    """Return what the files tell of each image id; of two that tell the same, the first counts."""
    releases: dict[str, MikoRelease] = {}
    for file in released:
        for row in _read_file(file):
            try:
                name, new = _parse_release(row.cells, file.name)
            except PostError as error:
                raise PostError(f"{row.where}: {error}") from None
            old = releases.get(name, MikoRelease())
            releases[name] = MikoRelease(
                old.description or new.description,
                old.key_information or new.key_information,
                old.intentions or new.intentions,
            )
    return releases


def _read_file(file: Path) -> Iterator[TableRow]:
    if file.suffix == ".json":
        yield from read_json_list(file)
        return
    for where, line in read_numbered_lines(file):
        try:
            yield TableRow(where, parse_json_object(line))
        except PostError as error:
            raise PostError(f"{where}: {error}") from None


def _parse_release(cells: Mapping[str, Any], source: str) -> tuple[str, MikoRelease]:
    if "image_name" in cells:
        marks = dict(enumerate(get_cell(cells, "intention_labels", list), 1))
        sentences = get_cell(cells, "intentions", dict)
        raw = "\n".join(f"{name}: {text}" for name, text in sentences.items())
        release = MikoRelease(intentions=_place_intentions(raw, source, marks))
        return Path(get_cell(cells, "image_name")).stem, release
    description = get_cell(cells, "image_descrption").strip()  # so the authors spell it
    return Path(get_cell(cells, "image_id")).stem, MikoRelease(
        description or None,
        parse_key_information(cells.get("keyinfo") or ""),
        _place_intentions(cells.get("intention") or "", source, {}),
    )


def _place_intentions(raw: str, source: str, marks: Mapping[int, int]) -> tuple[Intention, ...]:
    """Return the intentions of an answer; its marks by people become plausibilities.

    A sentence that begins otherwise than its number says is left out, for whoever counts on
    after a gap has misnumbered what follows.
    """
    before, _, last = raw.rstrip().rpartition("\n")
    raw = before if "intention".startswith(last.strip().lower()) else raw  # cut by its length
    heads = list(_HEAD.finditer(raw))
    ends = [*(head.start() for head in heads), len(raw)][1:]
    placed: dict[Relation, Intention] = {}
    for head, end in zip(heads, ends, strict=True):
        number, text = int(head[1]), " ".join(raw[head.end() : end].split())
        whole = len(text.split()) >= _FEWEST or text.endswith((".", "!", "?"))
        if not 1 <= number <= len(_NUMBERED) or not whole:
            continue
        relation, start = _NUMBERED[number - 1]
        if text.lower().startswith(start) and relation not in placed:
            mark = marks.get(number)
            placed[relation] = Intention(
                relation=relation,
                text=text,
                plausibility=None if mark is None else float(mark),
                provenance={"source": source},
            )
    return tuple(placed.values())


def parse_key_information(raw: str) -> KeyInformation | None:
    """Return the five fields of lines such as `Concept: ...`, or None where there are none."""
    lines: dict[str, str] = {}
    for line in raw.splitlines():
        if field := _FIELD.match(line):
            lines.setdefault(field[1].lower(), field[2].strip().rstrip("."))
    words = lines.pop("keywords", "")
    parts = (part.strip() for part in words.split("," if "," in words else "/"))
    keywords = tuple(part for part in parts if part)
    fields = {name: text for name, text in lines.items() if text}
    return KeyInformation(**fields, keywords=keywords) if fields or keywords else None
