"""ImageFolder: pictures in folders named by class, or beside a metadata file that names them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from miko_clf.data.layout import SPLIT_NAMES, Layout, divided, in_order, one_split
from miko_clf.data.row import post_of
from miko_clf.data.table import SUFFIXES, Row, rows
from miko_clf.errors import PostError

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


def image_folder(path: Path, split_seed: int | None) -> Layout | None:
    """Return the layout if pictures stand in class folders or beside a metadata file."""
    build = partial(post_of, folder=path)
    table = partial(_table, path, path)
    if _metadata(path) is None:
        parts = _split_folders(path)
        if parts:
            tables = {split: partial(_table, part, path) for split, part in parts.items()}
            sources = {split: one_split(table, build) for split, table in tables.items()}
            return Layout("imagefolder", in_order(sources))
        if not _has_classes(path):
            return None
    return Layout("imagefolder", divided(str(path), table, build, split_seed))


def _split_folders(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(path):
        split = SPLIT_NAMES.get(folder.name)
        if split is None or not (_metadata(folder) or _has_classes(folder)):
            continue
        if split in found:
            raise PostError(
                f"{path}: {found[split].name} and {folder.name} are one split; keep one"
            )
        found[split] = folder
    return found


def _metadata(path: Path) -> Path | None:
    found = [path / f"metadata{suffix}" for suffix in SUFFIXES]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        raise PostError(f"{path}: holds {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _has_classes(path: Path) -> bool:
    return any(
        file.suffix.lower() in _PICTURES for folder in _folders(path) for file in folder.iterdir()
    )


def _folders(path: Path) -> list[Path]:
    return sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )


def _table(part: Path, root: Path) -> Iterator[Row]:
    """Yield rows whose ids and image paths start at the root, so that no two splits share one."""
    metadata = _metadata(part)
    return _classes(part, root) if metadata is None else _named(metadata, part.relative_to(root))


def _classes(part: Path, root: Path) -> Iterator[Row]:
    for folder in _folders(part):
        for file in sorted(folder.iterdir()):
            if not file.name.startswith("."):
                name = str(file.relative_to(root))
                yield Row(str(file), {"id": name, "image": name, "label": folder.name})


def _named(metadata: Path, part: Path) -> Iterator[Row]:
    for row in rows(metadata, key="file_name"):
        cells = dict(row.cells)
        name = cells.pop("file_name", None)
        if row.fault:
            yield row
        elif not isinstance(name, str) or not name:
            yield Row(row.where, {}, "file_name is required and must be a string")
        else:
            image = str(part / name)
            split = SPLIT_NAMES.get(Path(name).parts[0])
            found = {"id": image, "image": image} | ({"split": split} if split else {})
            yield Row(row.where, found | {key: cells[key] for key in cells if key != "image"})
