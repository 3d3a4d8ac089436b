"""An epoch with and without kept features, real towers: python benchmarks/cache.py"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, surroundings, write

from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train import optim
from miko_clf.train.dataloader import EncodedDataset, LengthGroupedBatchSampler
from miko_clf.train.stages import TaskStage

POSTS, EPOCHS = 256, 3
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a linear classifier on frozen towers": ("linear-mobilenet-minilm", {}),
    "fusion by cross-attention on frozen towers": ("mobilenet-minilm-without", {}),
    "a linear classifier, the last block of each tower unfrozen": (
        "linear-mobilenet-minilm",
        {"image.unfreeze": 1, "text.unfreeze": 1},
    ),
}


class Course:
    """A recipe in training, with its features kept or not."""

    def __init__(self, recipe: Recipe, posts: list[Post], cache: Path | None) -> None:
        questions = find_questions(posts, None)
        self.model = build_model(recipe, questions.names, [])
        started = time.perf_counter()
        preparation = build_preparation(recipe, self.model)
        self.feed = EncodedDataset(posts, questions, self.model, preparation, cache=cache)
        self.filling = time.perf_counter() - started
        self.stage = TaskStage(recipe, self.feed)
        self.order = LengthGroupedBatchSampler(
            [self.feed.length(i) for i in range(len(posts))], recipe.batch_size, recipe.seed
        )
        self.optimiser = optim.build_optimiser(
            self.model, recipe.task.optimiser, ("image_tower.", "text_tower.")
        )

    def epoch(self, number: int) -> tuple[float, float]:
        """Return the seconds that an epoch took, and those of the processor."""
        started, worked = time.perf_counter(), time.process_time()
        self.order.epoch = number
        self.model.train()
        for indices in self.order:
            self.optimiser.zero_grad(set_to_none=True)
            self.stage.loss(self.model, self.feed.batch(indices)).backward()
            self.optimiser.step()
        return time.perf_counter() - started, time.process_time() - worked


def measure(name: str, keys: Mapping[str, Any], posts: list[Post]) -> dict[str, Any]:
    """Return the seconds of each epoch of one recipe both ways, taken in turn."""
    recipe = recipes.load_recipe(name, dict(keys))
    with tempfile.TemporaryDirectory() as folder:
        kept, plain = Course(recipe, posts, Path(folder)), Course(recipe, posts, None)
        seconds = [(kept.epoch(number), plain.epoch(number)) for number in range(EPOCHS)]
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.f16"))
    kept_s, plain_s = ([each[way] for each in seconds] for way in (0, 1))
    ratios = [
        [round(without[clock] / with_[clock], 1) for clock in (0, 1)] for with_, without in seconds
    ]
    return {
        "recipe": name,
        "keys": dict(keys),
        "filling_seconds": round(kept.filling, 2),
        "kept_megabytes": round(size / 1e6, 1),
        "epochs": "wall seconds, processor seconds",
        "epochs_kept": [[round(one, 3) for one in each] for each in kept_s],
        "epochs_plain": [[round(one, 3) for one in each] for each in plain_s],
        "times_faster": ratios,
        "second_epoch_times_faster": ratios[1][1],  # by the processor, whatever else it does
    }


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    given = parser.parse_args()
    os.environ.setdefault("MIKO_ENCODERS", str(given.shared / "encoders"))
    torch.set_num_threads(1)
    found = surroundings()
    posts = open_folder(given.shared / "data" / "harm-c").read("train")[:POSTS]
    found |= {"torch": version("torch"), "threads": 1, "posts": len(posts)}
    for title, (name, keys) in SYSTEMS.items():
        found[title] = measure(name, keys, posts)
    write("../speed/cache.json", found)


if __name__ == "__main__":
    main()
