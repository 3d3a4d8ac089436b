"""HarMeme version 1: Harm-C and Harm-P.

Pramanick et al., MOMENTA, Findings of EMNLP 2021; captions and rationales as Mr.Harm (Lin et
al., Findings of EMNLP 2023) lays them beside it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data.post import Post, Rationale
from miko_clf.data.readers import PostEntry, SkipReport, TableRow, build_entries, read_rows
from miko_clf.data.sets import base
from miko_clf.data.splits import SPLITS, FolderLayout, SplitSource
from miko_clf.errors import PostError

_TASKS = ("harm", "target")
_HARM = {"not harmful": "harmless", "somewhat harmful": "harmful", "very harmful": "harmful"}
_TARGETS = ("individual", "organization", "community", "society")
_OBSOLETE_TEST = 1063
_V0 = "the obsolete version 0 of HarMeme"
_TAKE = "take version 1"
_UNLABELLED = "has no label, as one train row of Harm-P was published"
_UNAIMED = "is not harmful, so it has no target"


def _make_count(very: int, somewhat: int, none: int) -> base.PublishedCount:
    classes = {"harmful": very + somewhat, "harmless": none}
    return base.PublishedCount(very + somewhat + none, (classes,))


_HARM_C = {
    "train": _make_count(182, 882, 1949),
    "val": base.PublishedCount(177, ({"harmful": 61, "harmless": 116},)),
    "test": _make_count(21, 103, 230),
}
_HARM_P = {
    # 2,938 are printed, with 1,488 and 1,450, and one of them has no label.
    "train": base.PublishedCount(
        2937, ({"harmful": 1487, "harmless": 1450}, {"harmful": 1488, "harmless": 1449})
    ),
    "val": _make_count(8, 81, 88),
    "test": _make_count(12, 159, 184),
}
HARMEME = (
    base.PublishedSet(
        "Harm-C", "memes on COVID-19, harmful or not, and at whom (HarMeme version 1)", _TASKS,
        _HARM_C, "annotations/{train,val,test}.jsonl beside images/", "the real files",
    ),
    base.PublishedSet(
        "Harm-P", "memes on US politics, harmful or not, and at whom (HarMeme version 1)", _TASKS,
        _HARM_P, "{train,val,test}_v1.jsonl, in annotations/ or not, beside images/",
    ),
)  # fmt: skip


class _Beside(NamedTuple):
    """What is known of the posts beside their annotations, and which labels keep their name."""

    images: Path
    captions: Mapping[str, str]
    rationales: Mapping[str, str]
    kept: frozenset[str]
    task: str


def recognise_harmeme(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if annotations of Harm-C or Harm-P stand beside `images/`.

    Labels are harmful (very or somewhat) and harmless, where a level that the label map names
    is kept; or, of harmful memes alone, the target.
    """
    inside, names = path / "annotations", {split: f"{split}_v1.jsonl" for split in SPLITS}
    harm_c = base.find_split_files(inside, {split: f"{split}.jsonl" for split in SPLITS})
    harm_p = base.find_split_files(inside, names) or base.find_split_files(path, names)
    if not (harm_c or harm_p) or not (path / "images").is_dir():
        return None
    if harm_c and harm_p:
        raise PostError(f"{path}: holds annotations of Harm-C and of Harm-P; keep one of them")
    name, files, counts = HARMEME[0].name, harm_c, _HARM_C
    if harm_p:
        name, files, counts = HARMEME[1].name, harm_p, _HARM_P
    task = base.choose_task(path, name, options.task, _TASKS)
    if task != "harm" or options.label_map.keys() & _HARM.keys():
        counts = {}
    published = base.PublishedFolder(name, SkipReport(), counts)
    kept = frozenset(options.label_map)
    source = partial(_read_split, path, files, kept, task, published.left)
    sources: dict[str, SplitSource] = {split: partial(source, split) for split in files}
    return FolderLayout("harmeme", sources, published)


def _read_split(
    path: Path,
    files: Mapping[str, Path],
    kept: frozenset[str],
    task: str,
    left: SkipReport,
    split: str,
    report: SkipReport | None,
) -> Iterator[PostEntry]:
    file = files[split]
    table = list(read_rows(file))
    _refuse_obsolete(file, table)
    if split != "train" and "train" in files:
        _refuse_overlap(file, table, files["train"])
    captions, rationales = map(_read_texts, (path / "captions.json", path / "rationales.json"))
    beside = _Beside(path / "images", captions, rationales, kept, task)
    reason = partial(_explain_outside, task, file.stem.endswith("_v1"))
    return build_entries(
        base.leave_out_rows(table, reason, left, report), partial(_parse_meme, beside), report
    )


def _explain_outside(task: str, of_harm_p: bool, cells: Mapping[str, Any]) -> str:
    """Return why a row is left out though nothing is wrong with the folder, if it is."""
    labels = cells.get("labels")
    if of_harm_p and labels in ([], [""]):
        return _UNLABELLED
    unaimed = isinstance(labels, list) and labels[:1] == ["not harmful"]
    return _UNAIMED if task == "target" and unaimed else ""


def _refuse_obsolete(file: Path, table: list[TableRow]) -> None:
    """Raise PostError for the files that version 1 replaced, which give other scores."""
    if len(table) == _OBSOLETE_TEST:
        raise PostError(
            f"{file}: holds 1,063 rows, an obsolete file of which only the first 354 are the test "
            "of Harm-C (then follow its val and rows of Harm-P); keep those"
        )
    first: dict[str, str] = {}
    for row in table:
        name = row.cells.get("id")
        if isinstance(name, str) and first.setdefault(name, row.where) != row.where:
            raise PostError(
                f"{row.where}: id {name!r} was already used at {first[name]}; {_V0} repeats ids, "
                f"and 260 of its 355 Harm-P test rows stand in train; {_TAKE}"
            )


def _refuse_overlap(file: Path, table: list[TableRow], train: Path) -> None:
    """Raise PostError for a val or test that shares memes with train, as version 0 does."""
    seen = {row.cells.get("id") for row in read_rows(train)} - {None}
    shared = [row for row in table if row.cells.get("id") in seen]
    if shared:
        raise PostError(
            f"{file}: {len(shared)} of {len(table)} rows stand in {train.name} too, as 260 of 355 "
            f"Harm-P test rows do in {_V0}; {_TAKE}"
        )


def _read_texts(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    texts = base.read_json_document(file)
    if not isinstance(texts, dict):
        kind = "a list" if isinstance(texts, list) else f"{texts!r:.60}"
        raise PostError(f"{file}: a JSON object is expected, not {kind}")
    for name, text in texts.items():
        if not isinstance(text, str):
            raise PostError(f"{file}: the text of {name!r} must be a string, not {text!r:.60}")
    return {name: text for name, text in texts.items() if text.strip()}


def _parse_meme(beside: _Beside, cells: Mapping[str, Any]) -> Post:
    name, text, image = (_get_string(cells, key) for key in ("id", "text", "image"))
    reason, source = beside.rationales.get(name), {"source": "rationales.json"}
    return base.build_post(
        _find_image(beside.images, image, name),
        id=name,
        text=text.strip(),
        label=_choose_label(cells.get("labels"), beside),
        description=beside.captions.get(name),
        rationale=Rationale(text=reason, saw_label=True, provenance=source) if reason else None,
    )


def _get_string(cells: Mapping[str, Any], key: str) -> str:
    value: str = base.get_cell(cells, key)
    if not value and key != "text":
        raise PostError(f"{key} must be a string, not {value!r:.60}")
    return value


def _find_image(folder: Path, image: str, name: str) -> Path:
    """Return the annotated file or, where pictures were re-encoded, `<id>.jpg`."""
    recoded = folder / f"{name}.jpg"
    return folder / image if (folder / image).is_file() or not recoded.is_file() else recoded


def _choose_label(labels: object, beside: _Beside) -> str:
    level, *target = labels if isinstance(labels, list) and labels else [None]
    if not isinstance(level, str) or level not in _HARM:
        raise PostError(f"labels {labels!r:.60} must begin with {' or '.join(map(repr, _HARM))}")
    if beside.task == "harm":
        return level if level in beside.kept else _HARM[level]
    if not target or target[0] not in _TARGETS:
        raise PostError(f"labels {labels!r:.60} must name a target, {' or '.join(_TARGETS)}")
    return str(target[0])
