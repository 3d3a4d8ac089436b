"""Pictures that are told apart by what they show, and folders of posts with them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def drawn(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Return a picture of soft blots; another seed gives one that looks otherwise."""
    blots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


def folder(path: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Path:
    """Write posts as JSONL files; an `image` that is a number becomes the picture of that seed."""
    (path / "images").mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        with (path / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                image = row.get("image")
                if isinstance(image, int):
                    name = f"images/{image}.png"
                    if not (path / name).exists():
                        drawn(image).save(path / name)
                    row = {**row, "image": name}
                file.write(json.dumps(row) + "\n")
    return path


def words(seed: int, count: int = 9) -> str:
    """Return a sentence of made-up words; another seed gives another."""
    letters = np.random.default_rng(10_000 + seed).integers(97, 123, (count, 6))
    return " ".join("".join(map(chr, word)) for word in letters)
