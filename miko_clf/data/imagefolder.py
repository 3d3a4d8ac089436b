"""Pictures in class folders, or beside a metadata file, as posts."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from miko_clf.data.cells import TableRow, parse_post
from miko_clf.data.readers import IMAGE_SUFFIXES, TABLE_SUFFIXES, read_rows
from miko_clf.data.splits import SPLIT_NAMES, FolderLayout, divide_table, make_split_sources
from miko_clf.errors import PostError

# What file managers and archivers leave behind, beside all that begins with a dot.
_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


def is_litter(path: Path) -> bool:
    """Say whether a file or folder is what an operating system left there, and no post."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


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
        file.suffix.lower() in IMAGE_SUFFIXES and not is_litter(file)
        for folder in _list_folders(path)
        for file in folder.iterdir()
    )


def _list_folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not is_litter(folder))


def _read_part(part: Path, root: Path) -> Iterator[TableRow]:
    """Yield rows whose ids and image paths start at the root, so that no two splits share one."""
    metadata = _find_metadata(part)
    if metadata is not None:
        yield from _read_metadata(metadata, part.relative_to(root))
        return
    for folder in _list_folders(part):
        for file in sorted(folder.iterdir()):
            if not is_litter(file):
                name = str(file.relative_to(root))
                yield TableRow(str(file), {"id": name, "image": name, "label": folder.name})


def _read_metadata(metadata: Path, part: Path) -> Iterator[TableRow]:
    for row in read_rows(metadata, key="file_name"):
        cells = dict(row.cells)
        name = cells.pop("file_name", None)
        if row.lost:
            yield row
        elif not isinstance(name, str) or not name:
            yield TableRow(row.where, {}, "file_name is required and must be a string")
        else:
            image = str(part / name)
            split = SPLIT_NAMES.get(Path(name).parts[0])
            known = {"id": image, "image": image} | ({"split": split} if split else {})
            own = {key: cells[key] for key in cells if key != "image"}
            yield row._replace(cells=known | own)
