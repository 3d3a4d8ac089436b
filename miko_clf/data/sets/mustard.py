"""MUStARD (Castro et al., ACL 2019): lines of television comedies, sarcastic or not."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport, TableRow
from miko_clf.data.sets import base
from miko_clf.data.splits import DisjointSets, FolderLayout, divide_table, make_split_sources
from miko_clf.errors import PostError

_TASKS = ("sarcasm", "sarcasm-in-context")
_FILE = "sarcasm_data.json"
_HELD_OUT = "FRIENDS"
_TELLING = 4  # words: a shorter line ("What?") stands in many scenes
_WHOLE = base.PublishedCount(690, ({"sarcastic": 345, "not_sarcastic": 345},))
_NOTE = (
    "the split is the published one by show: test is FRIENDS, train the others, and there is no "
    "val; a split seed makes train, val and test in which no scene crosses"
)
MUSTARD = (
    base.PublishedSet(
        "MUStARD",
        "690 lines of comedies, 345 sarcastic, without pictures: the line alone (sarcasm) or after "
        "those before it (sarcasm-in-context); the speaker is never read",
        _TASKS, {"train": None, "test": None}, "sarcasm_data.json, in data/ or not",
    ),
)  # fmt: skip


def recognise_mustard(path: Path, options: base.FolderOptions) -> FolderLayout | None:
    """Return the layout if `sarcasm_data.json` stands here.

    Lines are grouped by scene. Without a seed, the split is that by show, where shows are named.
    The folds of the published cross-validation are a pickle, and pickles are not opened.
    """
    file = next((f for f in (path / _FILE, path / "data" / _FILE) if f.is_file()), None)
    if file is None:
        return None
    task = base.choose_task(path, MUSTARD[0].name, options.task, _TASKS)
    lines = _read_lines(file)
    build = partial(_parse_line, task)
    by_show = options.split_seed is None and all(
        row.cells.get("show") for row in lines if not row.fault
    )
    if by_show:
        test = [row for row in lines if row.cells.get("show") == _HELD_OUT]
        train = [row for row in lines if row.cells.get("show") != _HELD_OUT]
        sources = make_split_sources({"train": lambda: train, "test": lambda: test}, build)
    else:
        sources = divide_table(str(file), lambda: lines, build, options.split_seed)
    published = base.PublishedFolder(
        "MUStARD", SkipReport(), whole=_WHOLE, notes=(_NOTE,) if by_show else ()
    )
    return FolderLayout("mustard", sources, published)


def _read_lines(file: Path) -> list[TableRow]:
    lines = base.read_json_document(file)
    if not isinstance(lines, dict):
        raise PostError(f"{file}: a JSON object of lines by id is expected")
    rows = [
        TableRow(f"{file} {name!r}", {**cells, "id": name})
        if isinstance(cells, dict)
        else TableRow(f"{file} {name!r}", {}, "a JSON object is expected")
        for name, cells in lines.items()
    ]
    scenes = _name_scenes([_list_spoken(row.cells) for row in rows])
    return [
        row._replace(cells={**row.cells, "scene": scene})
        for row, scene in zip(rows, scenes, strict=True)
    ]


def _list_spoken(cells: Mapping[str, Any]) -> list[str]:
    """Return the lines that are long enough to tell a scene, the one to judge among them."""
    context = cells.get("context")
    lines = [*(context if isinstance(context, list) else []), cells.get("utterance")]
    spoken = [" ".join(str(line).lower().split()) for line in lines]
    return [line for line in spoken if len(line.split()) >= _TELLING]


def _name_scenes(spoken: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each post, one for all that are linked by a line which they share."""
    firsts = DisjointSets(spoken).find_all().tolist()
    names = (repr(spoken[first] or first) for first in firsts)
    return [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names]


def _parse_line(task: str, cells: Mapping[str, Any]) -> Post:
    before = base.get_cell(cells, "context", list) if task == "sarcasm-in-context" else ()
    spoken = [*map(str, before), base.get_cell(cells, "utterance")]
    if not isinstance(cells.get("sarcasm"), bool):
        raise PostError(f"sarcasm must be true or false, not {cells.get('sarcasm')!r:.60}")
    return base.build_post(
        None,
        id=cells["id"],
        text="\n".join(spoken),
        label="sarcastic" if cells["sarcasm"] else "not_sarcastic",
        group=cells["scene"],
    )
