"""A data folder: recognised by the files in it, and read one split at a time."""

import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from miko_clf.data import splits
from miko_clf.data.cells import TableRow, parse_post
from miko_clf.data.imagefolder import is_litter, recognise_image_folder
from miko_clf.data.json_lines import parse_json_object
from miko_clf.data.labels import (
    FOLD,
    compile_label_map,
    fold_class,
    list_answers,
    list_label_notes,
    list_names,
    normalise_class,
    rename_label,
)
from miko_clf.data.post import Post
from miko_clf.data.preprocess import check_image
from miko_clf.data.readers import (
    TABLE_SUFFIXES,
    PostEntry,
    SkipReport,
    check_post_file,
    explain_no_posts,
    read_entries,
    read_rows,
    refuse_post,
)
from miko_clf.data.sets import harmeme, hateful_memes, mami, mmsd, multioff, mustard, pridemm
from miko_clf.data.sets.base import CountCheck, DatedSplit, FolderOptions, PublishedFolder
from miko_clf.errors import PostError, shorten_value, suggest_nearest
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
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}(?:-\w+)?")
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
        self._remarks = layout.remarks
        self._places: dict[str, dict[str, str]] = {}
        self._fingerprints: dict[str, str] = {}
        self.notes: list[str] = []
        self._is_published = layout.published is not None
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
        self._print_notes(self._remarks)
        if self._is_published:  # whose authors wrote `null` and `None` into texts
            entries = [entry._replace(remarks=()) for entry in entries]
        entries = keep_decodable(entries, self.report)
        if not entries:
            raise PostError(f"{self.path}: split {split!r} holds {explain_no_posts(self.report)}")
        posts = [entry.post for entry in entries]
        self._print_notes(f"{split}: {line}" for line in _summarise_remarks(entries))
        self._print_notes(self._check.check_split(split, posts, self.splits))
        self._places[split] = {entry.post.id: entry.where for entry in entries}
        if self.options.label_map:
            posts = self._relabel(split, posts)
        self._print_notes(f"{split}: {line}" for line in list_label_notes(posts))
        self._fingerprints[split] = splits.fingerprint_posts(posts)
        return posts

    def _relabel(self, split: str, posts: list[Post]) -> list[Post]:
        """Return posts labelled as the label map says, without those of which it leaves no label.

        Raises PostError for a name that no post of train has, and where no post is left.
        """
        if split == "train":
            _check_label_map(self.options.label_map, posts, self.path)
        change = compile_label_map(self.options.label_map)
        labels = [rename_label(post.label, change) for post in posts]
        renamed = [
            post.model_copy(update={"label": label})
            for post, label in zip(posts, labels, strict=True)
            if label is not None or post.label is None
        ]
        if not renamed:
            raise PostError(f"{self.path}: the label map leaves no post of split {split!r}")
        if len(renamed) < len(posts):
            num_left = len(posts) - len(renamed)
            self._print_notes([f"{split}: posts left out by the label map: {num_left:,}"])
        return renamed

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
            line = f"id {shorten_value(entry.post.id)} stands in {other} too, at {place}"
            refuse_post(entry.where, line, self.report)


def open_folder(
    path: Path,
    *,
    label_map: Mapping[str, str] | None = None,
    split_seed: int | None = None,
    report: SkipReport | None = None,
    task: str | None = None,
    dated: DatedSplit | None = None,
) -> DataFolder:
    """Return the data folder at a path, which may also be one file with a `split` column.

    `label_map` renames or merges labels. `split_seed` makes train, val and test (80/10/10, by
    group) where posts stand unsplit, and is of no effect elsewhere; `dated` makes them of all
    posts, however they stand. `task` chooses what is to be predicted where a published data set
    has labels for several things, else the first of them. Raises PostError.
    """
    if dated is not None and split_seed is not None:
        raise PostError(f"{path}: posts are split by date or by a seed; choose one")
    options = FolderOptions(dict(label_map or {}), split_seed, task, dated)
    try:
        layout = _recognise_folder(path, options)
    except OSError as error:
        raise PostError(f"{path}: cannot be read: {error.strerror}") from error
    return DataFolder(path, layout, options, report)


def keep_decodable(entries: Sequence[PostEntry], report: SkipReport | None) -> list[PostEntry]:
    """Return the entries whose image decodes to its last byte; the rest raise or are reported."""
    decodable: list[PostEntry] = []
    pool = ThreadPoolExecutor(_THREADS)
    try:
        findings = pool.map(_check_image, entries)
        watched = show_progress(findings, "checking images", len(entries))
        for entry, (fault, remark) in zip(entries, watched, strict=True):
            if fault:
                refuse_post(entry.where, fault, report)
            else:
                decodable.append(
                    entry._replace(remarks=(*entry.remarks, remark)) if remark else entry
                )
    finally:
        pool.shutdown(cancel_futures=True)
    return decodable


def _check_image(entry: PostEntry) -> tuple[str, str]:
    """Return why the image of a post cannot be read, and what of it is lost."""
    try:
        return "", "" if entry.post.image is None else check_image(entry.post.image)
    except PostError as error:
        return str(error), ""


def _summarise_remarks(entries: Iterable[PostEntry]) -> list[str]:
    remarks = SkipReport()
    for entry in entries:
        for remark in entry.remarks:
            remarks.add(entry.where, remark)
    return remarks.summarise(most=8)


def _recognise_folder(path: Path, options: FolderOptions) -> splits.FolderLayout:
    layouts = (recognise(path, options) for recognise in _RECOGNISERS) if path.is_dir() else ()
    published = next((layout for layout in layouts if layout is not None), None)
    layout = published or _recognise_own_layout(path, options.split_seed)
    if options.task is not None and layout.published is None:
        choice = f"no task {options.task!r} to choose"
        raise PostError(f"{path}: has labels for one thing alone, so there is {choice}")
    return (
        layout if options.dated is None else splits.divide_by_date(str(path), layout, options.dated)
    )


def _recognise_own_layout(path: Path, split_seed: int | None) -> splits.FolderLayout:
    if not path.is_dir():
        check_post_file(path)
        return _open_one_file(path, split_seed)
    layout = (
        _recognise_split_files(path)
        or _recognise_shards(path)
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


def _recognise_shards(path: Path) -> splits.FolderLayout | None:
    """Return the layout if the folder is one of the hub: `data/train-00000-of-00002.parquet`."""
    folder = path / "data" if (path / "data").is_dir() else path
    parts: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        name = _SHARD.fullmatch(file.stem)
        if name and name[1] in splits.SPLIT_NAMES:
            parts.setdefault(splits.SPLIT_NAMES[name[1]], []).append(file)
    if not parts:
        return None
    tables = {split: partial(_read_shards, files) for split, files in parts.items()}
    build = partial(parse_post, folder=folder)
    return splits.FolderLayout("parquet", splits.make_split_sources(tables, build))


def _read_shards(files: Sequence[Path]) -> Iterator[TableRow]:
    for file in files:
        yield from read_rows(file)


def _recognise_only_file(path: Path, split_seed: int | None) -> splits.FolderLayout | None:
    files = [file for file in path.iterdir() if file.suffix in TABLE_SUFFIXES and file.is_file()]
    files = [file for file in files if file.stem != "metadata" and not is_litter(file)]
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
    spell = fold_class if FOLD in label_map else normalise_class
    spellings = {spell(name) for name in known}
    for name in label_map:
        if name != FOLD and spell(name) not in spellings:
            raise PostError(
                f"{path}: no post of train is labelled {name!r}, which is to be renamed; "
                f"labels are {', '.join(sorted(known))}{suggest_nearest(name, list(known))}"
            )
