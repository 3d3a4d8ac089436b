"""A data folder: recognised by the files in it, and read one split at a time."""

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from miko_clf.data import splits
from miko_clf.data.labels import list_answers, list_names, rename_label
from miko_clf.data.post import Post
from miko_clf.data.preprocess import check_image
from miko_clf.data.readers import (
    IMAGE_SUFFIXES,
    TABLE_SUFFIXES,
    PostEntry,
    SkipReport,
    TableRow,
    check_post_file,
    parse_json_object,
    parse_post,
    read_entries,
    read_rows,
    refuse_post,
)
from miko_clf.data.sets import harmeme, hateful_memes, mami, mmsd, multioff, mustard, pridemm
from miko_clf.data.sets.base import CountCheck, FolderOptions, PublishedFolder
from miko_clf.data.splits import SPLIT_NAMES, FolderLayout, divide_table, make_split_sources
from miko_clf.errors import PostError, suggest_nearest
from miko_clf.progress import show_progress

# Hateful Memes stands before HarMeme: both may keep `annotations/train.jsonl` beside `images/`.
_RECOGNISERS = (
    hateful_memes.recognise_hateful_memes,
    harmeme.recognise_harmeme,
    mmsd.recognise_mmsd,
    mami.recognise_mami,
    multioff.recognise_multioff,
    pridemm.recognise_pridemm,
    mustard.recognise_mustard,
)
PUBLISHED_SETS = (
    *hateful_memes.HATEFUL_MEMES, *harmeme.HARMEME, *mmsd.MMSD, *mami.MAMI, *multioff.MULTIOFF,
    *pridemm.PRIDEMM, *mustard.MUSTARD,
)  # fmt: skip
_KNOWN_FOLDERS = (
    "train, val and test files (.jsonl, .csv or .parquet), one such file, a folder saved by "
    "datasets, pictures in class folders or beside a metadata file, or a published layout "
    f"({', '.join(known.name for known in PUBLISHED_SETS)})"
)
_THREADS = 2  # Pillow lets go of the interpreter while it decodes


class DataFolder:
    """The splits of a data folder. Reading train opens no file of another split.

    `notes` holds what there is to say of a published data set, and is told on stderr as it
    grows: counts that are not the published ones, and rows that were left out. `left` holds
    those rows one by one. `options` and `report` are what it was opened with.
    """

    def __init__(
        self,
        path: Path,
        layout: splits.FolderLayout,
        options: FolderOptions,
        report: SkipReport | None,
    ) -> None:
        self.path = path
        self.options = options
        self.report = report
        self.kind = layout.kind
        self.splits = tuple(layout.sources)
        self._sources = layout.sources
        self._places: dict[str, dict[str, str]] = {}
        self._fingerprints: dict[str, str] = {}
        self.notes: list[str] = []
        self._published = layout.published or PublishedFolder(layout.kind, SkipReport())
        self._check = CountCheck(self._published)
        self.left = self._published.left
        self._print_notes(self._published.notes)

    def has(self, split: str) -> bool:
        """Say whether a split can be read by this name, its own or an alias."""
        return self._resolve_alias(split) in self._sources

    def read(self, split: str) -> list[Post]:
        """Return the posts of a split, every image decoded once to see that it can be.

        Raises PostError for a split that is not there, a bad post (unless reports are kept), and
        an id that stands in another split read before.
        """
        split = self._resolve_split(split)
        self._places.pop(split, None)
        entries = list(self._refuse_known_ids(split, self._sources[split](self.report)))
        entries = keep_decodable(entries, self.report)
        if not entries:
            raise PostError(f"{self.path}: split {split!r} holds no post that can be used")
        posts = [entry.post for entry in entries]
        self._print_notes(self._check.check_split(split, posts, self.splits))
        self._places[split] = {entry.post.id: entry.where for entry in entries}
        if self.options.label_map:
            if split == "train":
                _check_label_map(self.options.label_map, posts, self.path)
            posts = [_relabel(post, self.options.label_map) for post in posts]
        self._fingerprints[split] = splits.fingerprint_posts(posts)
        return posts

    def fingerprint(self, split: str) -> str:
        """Return the SHA-256 of what the posts of a split say, in order, reading it if need be."""
        split = self._resolve_split(split)
        if split not in self._fingerprints:
            self.read(split)
        return self._fingerprints[split]

    def _resolve_alias(self, split: str) -> str:
        name = splits.SPLIT_NAMES.get(split, split)
        return self._published.aliases.get(name, name)

    def _resolve_split(self, split: str) -> str:
        name = self._resolve_alias(split)
        if name in self._sources:
            return name
        line = f"{self.path}: there is no split {split!r}; there is {', '.join(self.splits)}"
        if splits.UNSPLIT in self._sources:
            line += "; a split seed makes train, val and test of it"
        if name in self._published.instead:
            line += f"; {self._published.instead[name]}"
        raise PostError(line + suggest_nearest(split, self.splits))

    def _print_notes(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self.notes:
                self.notes.append(line)
                print(f"{self.path}: {line}", file=sys.stderr)

    def _refuse_known_ids(self, split: str, entries: Iterable[PostEntry]) -> Iterator[PostEntry]:
        """Refuse the posts whose id another split holds, unless the two were published so."""
        others = [s for s in self._places if not {s, split} <= self._published.shared]
        for entry in entries:
            other = next((s for s in others if entry.post.id in self._places[s]), None)
            if other is None:
                yield entry
                continue
            place = self._places[other][entry.post.id]
            line = f"id {entry.post.id!r} stands in {other} too, at {place}"
            refuse_post(entry.where, line, self.report)


def open_folder(
    path: Path,
    *,
    label_map: Mapping[str, str] | None = None,
    split_seed: int | None = None,
    report: SkipReport | None = None,
    task: str | None = None,
) -> DataFolder:
    """Return the data folder at a path, which may also be one file with a `split` column.

    `label_map` renames or merges labels. `split_seed` makes train, val and test (80/10/10, by
    group) where posts stand unsplit, and is of no effect elsewhere. `task` chooses what is to be
    predicted where a published data set has labels for several things, else the first of them.
    Raises PostError.
    """
    options = FolderOptions(dict(label_map or {}), split_seed, task)
    try:
        layout = _recognise_folder(path, options)
    except OSError as error:
        raise PostError(f"{path}: cannot be read: {error.strerror}") from error
    return DataFolder(path, layout, options, report)


def keep_decodable(entries: Sequence[PostEntry], report: SkipReport | None) -> list[PostEntry]:
    """Return the entries whose image decodes to its last byte; the rest raise or are reported."""
    decodable = []
    pool = ThreadPoolExecutor(_THREADS)
    try:
        faults = pool.map(_find_image_fault, entries)
        watched = show_progress(faults, "checking images", len(entries))
        for entry, fault in zip(entries, watched, strict=True):
            if fault:
                refuse_post(entry.where, fault, report)
            else:
                decodable.append(entry)
    finally:
        pool.shutdown(cancel_futures=True)
    return decodable


def _find_image_fault(entry: PostEntry) -> str:
    try:
        if entry.post.image is not None:
            check_image(entry.post.image)
    except PostError as error:
        return str(error)
    return ""


def _recognise_folder(path: Path, options: FolderOptions) -> splits.FolderLayout:
    layouts = (recognise(path, options) for recognise in _RECOGNISERS) if path.is_dir() else ()
    published = next((layout for layout in layouts if layout is not None), None)
    layout = published or _recognise_own_layout(path, options.split_seed)
    if options.task is not None and layout.published is None:
        choice = f"no task {options.task!r} to choose"
        raise PostError(f"{path}: has labels for one thing alone, so there is {choice}")
    return layout


def _recognise_own_layout(path: Path, split_seed: int | None) -> splits.FolderLayout:
    if not path.is_dir():
        check_post_file(path)
        return _open_one_file(path, split_seed)
    layout = (
        _recognise_split_files(path)
        or _recognise_only_file(path, split_seed)
        or _recognise_saved(path, split_seed)
        or recognise_image_folder(path, split_seed)
    )
    if layout is None:
        raise PostError(f"{path}: is not a data folder; it may hold {_KNOWN_FOLDERS}")
    return layout


def _recognise_split_files(path: Path) -> splits.FolderLayout | None:
    """Return the layout if the folder holds files named by split, all of one kind."""
    files: dict[str, Path] = {}
    for name, suffix in product(splits.SPLIT_NAMES, TABLE_SUFFIXES):
        split, file = splits.SPLIT_NAMES[name], path / f"{name}{suffix}"
        if not file.is_file():
            continue
        if split in files:
            raise PostError(f"{path}: holds {files[split].name} and {file.name}; keep one")
        files[split] = file
    kinds = {file.suffix: file.name for file in files.values()}
    if len(kinds) > 1:
        raise PostError(f"{path}: holds {' and '.join(kinds.values())}; splits must be of one kind")
    if not kinds:
        return None
    sources = {split: partial(read_entries, file) for split, file in files.items()}
    return splits.FolderLayout(next(iter(kinds))[1:], sources)


def _recognise_only_file(path: Path, split_seed: int | None) -> splits.FolderLayout | None:
    files = [file for file in path.iterdir() if file.suffix in TABLE_SUFFIXES and file.is_file()]
    files = [file for file in files if file.stem != "metadata"]
    return _open_one_file(files[0], split_seed) if len(files) == 1 else None


def _open_one_file(file: Path, split_seed: int | None) -> splits.FolderLayout:
    build = partial(parse_post, folder=file.parent)
    sources = splits.divide_table(str(file), partial(read_rows, file), build, split_seed)
    return splits.FolderLayout(file.suffix.lower()[1:], sources)


def _recognise_saved(path: Path, split_seed: int | None) -> splits.FolderLayout | None:
    """Return the layout if `datasets` saved this folder, as one dataset or as one for a split."""
    build = partial(parse_post, folder=path)
    if (path / "dataset_dict.json").is_file():
        names = [str(name) for name in _read_dataset_names(path / "dataset_dict.json")]
        parts = {splits.SPLIT_NAMES[name]: name for name in names if name in splits.SPLIT_NAMES}
        if not parts:
            known = f"its datasets are {str(names)[:200]}"
            raise PostError(f"{path}: {known}; train, val or test is needed")
        tables = {split: partial(_read_saved_folder, path / n, n) for split, n in parts.items()}
        return splits.FolderLayout("datasets", splits.make_split_sources(tables, build))
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        table = partial(_read_saved_folder, path, "row")
        sources = splits.divide_table(str(path), table, build, split_seed)
        return splits.FolderLayout("datasets", sources)
    return None


def _read_dataset_names(file: Path) -> list[Any]:
    try:
        names = parse_json_object(file.read_text(encoding="utf-8", errors="replace")).get("splits")
    except PostError as error:
        raise PostError(f"{file}: {error}") from None
    if not isinstance(names, list):
        raise PostError(f"{file}: splits must be a list")
    return names


def _read_saved_folder(path: Path, prefix: str) -> Iterator[TableRow]:
    try:
        reader = importlib.import_module("miko_clf.data.hf")
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        need = "pip install 'miko-clf[train]'"
        raise PostError(f"{path}: reading a datasets folder needs: {need}") from error
    table: Iterator[TableRow] = reader.read_saved_rows(path, prefix)
    return table


def _check_label_map(label_map: Mapping[str, str], posts: Iterable[Post], path: Path) -> None:
    """Raise `PostError` where a label that is to be renamed is that of no training post."""
    answers = (answer for post in posts for answer in list_answers(post.label).values())
    known = dict.fromkeys(name for answer in answers for name in list_names(answer))
    for name in label_map:
        if name not in known:
            raise PostError(
                f"{path}: no post of train is labelled {name!r}, which is to be renamed; "
                f"labels are {', '.join(sorted(known))}{suggest_nearest(name, list(known))}"
            )


def _relabel(post: Post, label_map: Mapping[str, str]) -> Post:
    label = rename_label(post.label, lambda name: label_map.get(name, name))
    return post.model_copy(update={"label": label})


def recognise_image_folder(path: Path, split_seed: int | None) -> FolderLayout | None:
    """Return the layout if pictures stand in class folders or beside a metadata file."""
    build = partial(parse_post, folder=path)
    if _find_metadata(path) is None:
        parts = _find_split_folders(path)
        if parts:
            tables = {split: partial(_read_part, part, path) for split, part in parts.items()}
            return FolderLayout("imagefolder", make_split_sources(tables, build))
        if not _has_classes(path):
            return None
    table = partial(_read_part, path, path)
    return FolderLayout("imagefolder", divide_table(str(path), table, build, split_seed))


def _find_split_folders(path: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for folder in _list_folders(path):
        split = SPLIT_NAMES.get(folder.name)
        if split is None or not (_find_metadata(folder) or _has_classes(folder)):
            continue
        if split in folders:
            names = f"{folders[split].name} and {folder.name}"
            raise PostError(f"{path}: {names} are one split; keep one")
        folders[split] = folder
    return folders


def _find_metadata(path: Path) -> Path | None:
    files = [path / f"metadata{suffix}" for suffix in TABLE_SUFFIXES]
    files = [file for file in files if file.is_file()]
    if len(files) > 1:
        raise PostError(f"{path}: holds {files[0].name} and {files[1].name}; keep one of them")
    return files[0] if files else None


def _has_classes(path: Path) -> bool:
    return any(
        file.suffix.lower() in IMAGE_SUFFIXES
        for folder in _list_folders(path)
        for file in folder.iterdir()
    )


def _list_folders(path: Path) -> list[Path]:
    return sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )


def _read_part(part: Path, root: Path) -> Iterator[TableRow]:
    """Yield rows whose ids and image paths start at the root, so that no two splits share one."""
    metadata = _find_metadata(part)
    if metadata is not None:
        yield from _read_metadata(metadata, part.relative_to(root))
        return
    for folder in _list_folders(part):
        for file in sorted(folder.iterdir()):
            if not file.name.startswith("."):
                name = str(file.relative_to(root))
                yield TableRow(str(file), {"id": name, "image": name, "label": folder.name})


def _read_metadata(metadata: Path, part: Path) -> Iterator[TableRow]:
    for row in read_rows(metadata, key="file_name"):
        cells = dict(row.cells)
        name = cells.pop("file_name", None)
        if row.fault:
            yield row
        elif not isinstance(name, str) or not name:
            yield TableRow(row.where, {}, "file_name is required and must be a string")
        else:
            image = str(part / name)
            split = SPLIT_NAMES.get(Path(name).parts[0])
            known = {"id": image, "image": image} | ({"split": split} if split else {})
            yield TableRow(row.where, known | {key: cells[key] for key in cells if key != "image"})
