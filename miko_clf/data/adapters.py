"""Published layouts of research data, read as their authors publish them.

HarMeme (Pramanick et al., MOMENTA, Findings of EMNLP 2021), version 1; captions and rationales
as Mr.Harm (Lin et al., Findings of EMNLP 2023) lays them beside it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.layout import Layout, Source
from miko_clf.data.post import Post, Rationale
from miko_clf.data.read import Entry, SkipReport, entries
from miko_clf.data.split import SPLITS
from miko_clf.data.table import Row, json_object, rows
from miko_clf.errors import PostError

_HARM = {
    "not harmful": "harmless",
    "somewhat harmful": "harmful",
    "very harmful": "harmful",
}
_OBSOLETE_TEST = 1063


class _HarMeme(NamedTuple):
    """What is known of the posts beside their annotations, and which labels keep their name."""

    images: Path
    captions: Mapping[str, str]
    rationales: Mapping[str, str]
    kept: frozenset[str]


def harmeme(path: Path, label_map: Mapping[str, str]) -> Layout | None:
    """Return the layout if `annotations/{train,val,test}.jsonl` stand beside `images/`.

    Labels are harmful (very or somewhat) and harmless; a level that `label_map` names is kept.
    """
    files = {split: path / "annotations" / f"{split}.jsonl" for split in SPLITS}
    present = {split: file for split, file in files.items() if file.is_file()}
    if not present or not (path / "images").is_dir():
        return None
    kept = frozenset(label_map)
    sources: dict[str, Source] = {
        split: partial(_harmeme_entries, path, file, kept) for split, file in present.items()
    }
    return Layout("harmeme", sources)


def _harmeme_entries(
    path: Path, file: Path, kept: frozenset[str], report: SkipReport | None
) -> Iterator[Entry]:
    table = list(rows(file))
    _refuse_obsolete(file, table)
    known = _HarMeme(
        path / "images",
        _texts_by_id(path / "captions.json"),
        _texts_by_id(path / "rationales.json"),
        kept,
    )
    return entries(table, partial(_harmeme_post, known), report)


def _refuse_obsolete(file: Path, table: list[Row]) -> None:
    """Raise PostError for the files that version 1 replaced, which give other scores."""
    if len(table) == _OBSOLETE_TEST:
        raise PostError(
            f"{file}: holds 1,063 rows, an obsolete file of which only the first 354 are the test "
            "of Harm-C; keep those"
        )
    first: dict[str, str] = {}
    for row in table:
        name = row.cells.get("id")
        if isinstance(name, str) and first.setdefault(name, row.where) != row.where:
            raise PostError(
                f"{row.where}: id {name!r} was already used at {first[name]}; the obsolete "
                "version 0 of HarMeme repeats ids, take version 1"
            )


def _texts_by_id(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        found = json_object(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise PostError(f"{file}: is not UTF-8") from None
    except OSError as error:
        raise PostError(f"{file}: cannot be read: {error.strerror}") from error
    except PostError as error:
        raise PostError(f"{file}: {error}") from None
    for name, text in found.items():
        if not isinstance(text, str):
            raise PostError(f"{file}: the text of {name!r} must be a string, not {text!r:.60}")
    return {name: text for name, text in found.items() if text.strip()}


def _harmeme_post(known: _HarMeme, cells: Mapping[str, Any]) -> Post:
    name, text, image = (_string(cells, key) for key in ("id", "text", "image"))
    reason = known.rationales.get(name)
    rationale = reason and Rationale(
        text=reason, saw_label=True, provenance={"source": "rationales.json"}
    )
    return Post(
        id=name,
        text=text.strip(),
        image=_image(known.images, image, name),
        label=_label(cells.get("labels"), known.kept),
        description=known.captions.get(name),
        rationale=rationale or None,
    )


def _string(cells: Mapping[str, Any], key: str) -> str:
    value = cells.get(key)
    if not isinstance(value, str) or (not value and key != "text"):
        raise PostError(f"{key} must be a string, not {value!r:.60}")
    return value


def _image(folder: Path, image: str, name: str) -> Path:
    """Return the annotated file or, where pictures were re-encoded, `<id>.jpg`."""
    recoded = folder / f"{name}.jpg"
    return folder / image if (folder / image).is_file() or not recoded.is_file() else recoded


def _label(labels: object, kept: frozenset[str]) -> str:
    level = labels[0] if isinstance(labels, list) and labels else None
    if not isinstance(level, str) or level not in _HARM:
        raise PostError(f"labels {labels!r:.60} must begin with {' or '.join(map(repr, _HARM))}")
    return level if level in kept else _HARM[level]
