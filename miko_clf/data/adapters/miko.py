"""What MIKO released (arXiv 2402.18169), by the id of the image to which each post belongs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.adapters.cells import cell, listed, numbered_lines
from miko_clf.data.post import Intention, KeyInformation, Relation
from miko_clf.data.table import Row, json_object
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


class Told(NamedTuple):
    """What was released of one post; each intention names the file it is from."""

    description: str | None = None
    key_information: KeyInformation | None = None
    intentions: tuple[Intention, ...] = ()


NOTHING = Told()


def files(path: Path) -> tuple[Path, ...]:
    """Return the released files in a folder, or in `miko/` in it."""
    return tuple(
        file
        for folder in (path, path / "miko")
        for pattern in _PATTERNS
        for file in sorted(folder.glob(pattern))
    )


def note(released: tuple[Path, ...]) -> str:
    """Return what to know of posts that are joined with these files."""
    names = ", ".join(file.name for file in released)
    return (
        f"joined on the image id: {names}; the files differ in their share of classes, so compare "
        "within one of them (an intention's provenance names it); where they describe pictures, "
        "the words of the detector are not used"
    )


def told(released: tuple[Path, ...]) -> dict[str, Told]:
    """Return what the files tell of each image id; of two that tell the same, the first counts."""
    found: dict[str, Told] = {}
    for file in released:
        for row in _rows(file):
            try:
                name, new = _read(row.cells, file.name)
            except PostError as error:
                raise PostError(f"{row.where}: {error}") from None
            old = found.get(name, NOTHING)
            found[name] = Told(
                old.description or new.description,
                old.key_information or new.key_information,
                old.intentions or new.intentions,
            )
    return found


def _rows(file: Path) -> Iterator[Row]:
    if file.suffix == ".json":
        yield from listed(file)
        return
    for where, line in numbered_lines(file):
        try:
            yield Row(where, json_object(line))
        except PostError as error:
            raise PostError(f"{where}: {error}") from None


def _read(cells: Mapping[str, Any], source: str) -> tuple[str, Told]:
    if "image_name" in cells:
        marks = dict(enumerate(cell(cells, "intention_labels", list), 1))
        told = cell(cells, "intentions", dict)
        raw = "\n".join(f"{name}: {text}" for name, text in told.items())
        return Path(cell(cells, "image_name")).stem, Told(None, None, _placed(raw, source, marks))
    description = cell(cells, "image_descrption").strip()  # so the authors spell it
    return Path(cell(cells, "image_id")).stem, Told(
        description or None,
        key_information(cells.get("keyinfo") or ""),
        _placed(cells.get("intention") or "", source, {}),
    )


def _placed(raw: str, source: str, marks: Mapping[int, int]) -> tuple[Intention, ...]:
    """Return the intentions of an answer; its marks by people become plausibilities.

    A sentence that begins otherwise than its number says is left out, for whoever counts on
    after a gap has misnumbered what follows.
    """
    before, _, last = raw.rstrip().rpartition("\n")
    raw = before if "intention".startswith(last.strip().lower()) else raw  # cut by its length
    heads = list(_HEAD.finditer(raw))
    ends = [*(head.start() for head in heads), len(raw)][1:]
    found: dict[Relation, Intention] = {}
    for head, end in zip(heads, ends, strict=True):
        number, text = int(head[1]), " ".join(raw[head.end() : end].split())
        if not 1 <= number <= len(_NUMBERED) or not _whole(text):
            continue
        relation, start = _NUMBERED[number - 1]
        if text.lower().startswith(start) and relation not in found:
            mark = marks.get(number)
            found[relation] = Intention(
                relation=relation,
                text=text,
                plausibility=None if mark is None else float(mark),
                provenance={"source": source},
            )
    return tuple(found.values())


def _whole(text: str) -> bool:
    return len(text.split()) >= _FEWEST or text.endswith((".", "!", "?"))


def key_information(raw: str) -> KeyInformation | None:
    """Return the five fields of lines such as `Concept: ...`, or None where there are none."""
    found: dict[str, str] = {}
    for line in raw.splitlines():
        if field := _FIELD.match(line):
            found.setdefault(field[1].lower(), field[2].strip().rstrip("."))
    words = found.pop("keywords", "")
    parts = (part.strip() for part in words.split("," if "," in words else "/"))
    keywords = tuple(part for part in parts if part)
    fields = {name: text for name, text in found.items() if text}
    return KeyInformation(**fields, keywords=keywords) if fields or keywords else None
