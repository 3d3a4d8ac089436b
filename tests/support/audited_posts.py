"""Pictures told apart by what they show, folders of posts with them, and audits of these."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from PIL import Image

from miko_clf.data.audit.audit import audit_posts
from miko_clf.data.audit.findings import Audit
from miko_clf.data.audit.overlaps import read_compared_posts

FEW_EXAMPLES = settings(max_examples=40, deadline=None)


def draw_picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Return a picture of soft blots; another seed gives one that looks otherwise."""
    blots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


def write_folder(path: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Path:
    """Write posts as JSONL files; an `image` that is a number becomes the picture of that seed."""
    (path / "images").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        with (path / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                image = row.get("image")
                if isinstance(image, int):
                    name = f"images/{image}.png"
                    if not (path / name).exists():
                        draw_picture(image).save(path / name)
                    row = {**row, "image": name}
                file.write(json.dumps(row) + "\n")
    return path


def make_words(seed: int, count: int = 9) -> str:
    """Return a sentence of made-up words; another seed gives another."""
    letters = np.random.default_rng(10_000 + seed).integers(97, 123, (count, 6))
    return " ".join("".join(map(chr, word)) for word in letters)


Rows = list[dict[str, Any]]
LABELS = ("harmless", "harmful")


def make_plain_rows(start: int, count: int, **more: object) -> Rows:
    """Return posts of their own text and image, labelled by turns."""
    return [
        {"id": f"p{row}", "text": make_words(row), "image": row, "label": LABELS[row % 2], **more}
        for row in range(start, start + count)
    ]


def run_audit(path: Path) -> Audit:
    """Return the audit of a folder."""
    return audit_posts(read_compared_posts(path))


def count_findings(found: Audit, key: str) -> tuple[int, int, int]:
    """Return groups, groups across splits and groups labelled differently."""
    each = next(each for each in found.overlaps if each.key == key)
    return each.num_groups, each.num_across, each.num_conflicts


def make_partition(groups: np.ndarray) -> set[frozenset[int]]:
    """Return the groups as sets of places."""
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in set(groups.tolist())}
