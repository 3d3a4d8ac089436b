"""Worlds in which one thing alone decides, and systems that learned them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.evaluate.predictions import Predictor, SystemPredictions, predict_system
from miko_clf.pipeline import fit
from miko_clf.recipe import schema as recipes

LABELS = ("kind", "cruel")
COLOURS = ((30, 60, 230), (230, 40, 30))
NOISE = ("tea", "rain", "train", "shop", "dog", "song", "door", "road")
DEEDS = ("comfort", "mock")
SIZES = {"train": 160, "val": 40, "test": 40}
TINY = {
    "image.size": 16,
    "image.width": 16,
    "text.width": 32,
    "text.layers": 1,
    "fusion.modality_dropout": 0.0,
    "task.optimiser.gate_factor": 10.0,
    "text.vocabulary": 300,
    "fusion.width": 32,
    "fusion.layers": 1,
    "fusion.slots": False,
    "intention.dropout": 0.1,
    "reasoning.epochs": 0,
    "task.optimiser.rate": 3.0e-3,
    "task.optimiser.average": 0.0,
    "task.early.metric": "loss",
}


def train_where_image_decides(folder: Path, *, epochs: int = 4) -> SystemPredictions:
    """A system that learned posts of which the colour of the image is the label."""
    return _learned(folder, _coloured, epochs, {"inputs": ["image", "text"]})


def train_where_intent_decides(folder: Path, *, epochs: int = 12) -> SystemPredictions:
    """A system that learned posts of which the intention under xIntent is the label."""
    return _learned(folder, _intended, epochs, {"inputs": ["text", "intention"], "image": None})


def train_mean_where_intent_decides(folder: Path, *, epochs: int = 12) -> SystemPredictions:
    """The same posts, learned by a linear classifier over the mean of the intentions."""
    changes = {"inputs": ["text", "intention"], "image": None, "fusion": {"kind": "pooled"}}
    return _learned(folder, _intended, epochs, changes)


def open_subject(
    path: Path, posts: Sequence[Post], train: Sequence[Post] = ()
) -> SystemPredictions:
    """The subject of a bundle on some posts."""
    found = bundles.load_bundle(path)
    predictor = Predictor(found, list(posts), None)
    made = predict_system(
        found, predictor, predictor.feed.truth.split_by_question()[0], train, None
    )
    assert made is not None
    return made


def _learned(
    folder: Path, write: Callable[[Path, int, Random], dict], epochs: int, changes: dict
) -> SystemPredictions:
    random = Random(0)
    for split, size in SIZES.items():
        rows = [write(folder, place, random) for place in range(size)]
        named = [{"id": f"{split}-{place}", **row} for place, row in enumerate(rows)]
        lines = "".join(json.dumps(row) + "\n" for row in named)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    own = TINY if "fusion" not in changes else _not_of_the_reader(TINY)
    recipe = recipes.load_recipe("tiny", own | {"task.epochs": epochs} | changes)
    data = open_folder(folder)
    path = fit(recipe, data, folder / "learned", positive="cruel", leaks=True)
    return open_subject(path, data.read("test"), data.read("train"))


def _not_of_the_reader(keys: dict) -> dict:
    return {key: value for key, value in keys.items() if not key.startswith("fusion.")}


def _coloured(folder: Path, place: int, random: Random) -> dict:
    label = place % 2
    name = f"{LABELS[label]}.png"
    if not (folder / name).exists():
        Image.new("RGB", (16, 16), COLOURS[label]).save(folder / name)
    return {"text": _words(random), "image": name, "label": LABELS[label]}


def _intended(folder: Path, place: int, random: Random) -> dict:
    """Every post has xIntent, two in three have xReact, which says nothing."""
    label = place % 2
    intentions = [{"relation": "xIntent", "text": f"to {DEEDS[label]} them"}]
    if place % 3:
        intentions.insert(0, {"relation": "xReact", "text": f"glad of the {_words(random)}"})
    return {"text": _words(random), "intentions": intentions, "label": LABELS[label]}


def _words(random: Random) -> str:
    return " ".join(random.choices(NOISE, k=4))
