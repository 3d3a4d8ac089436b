"""Posts whose words tell their labels, and a recipe that learns to read them in seconds."""

import json
from pathlib import Path
from random import Random
from typing import Any

from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe

HARMS = ("fire", "stone", "water")
TONES = ("calm", "angry", "sad")
SIZES = {"train": 240, "val": 60, "test": 60}
RECIPE = {
    "name": "words",
    "inputs": ["text"],
    "text": {"source": "tiny", "frozen": False, "width": 32, "layers": 1, "vocabulary": 90},
    "fusion": {"kind": "pooled", "dropout": 0.0, "input_dropout": 0.0},
    "task": {"epochs": 10, "optimiser": {"rate": 0.01}, "early": {"metric": "loss"}},
    "batch_size": 12,
}


def row(kind: str, number: int, random: Random) -> dict[str, Any]:
    """Return a post whose words tell its labels; tasks are silent on some posts."""
    harms = [name for name in HARMS if random.random() < 0.4]
    tone = random.choice(TONES if kind == "three" else TONES[:2])
    words = [*harms, tone, *random.sample(["the", "a", "of", "on", "it"], 3)]
    label: Any = {"many": harms, "three": tone, "tasks": {"tone": tone, "harm": harms}}[kind]
    if kind == "tasks" and number % 3:
        del label[("tone", "harm")[number % 3 - 1]]
    return {
        "id": f"{kind}-{number}",
        "text": " ".join(random.sample(words, len(words))),
        "label": label,
    }


def write_worded_folder(folder: Path, kind: str) -> Path:
    """Return a folder of posts of a kind: many (labels), tasks or three (classes)."""
    folder.mkdir()
    random = Random(kind)
    for place, (split, size) in enumerate(SIZES.items()):
        rows = [row(kind, 1000 * place + number, random) for number in range(size)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_words_recipe(**changed: Any) -> Recipe:
    """Return a recipe that reads the words alone, and learns them in a few epochs."""
    return recipes.parse_recipe({**RECIPE, **changed}, "words.yaml")
