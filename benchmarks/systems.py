"""Train every system on a data set from several seeds, and print the table of models/README.md.

    python benchmarks/systems.py harm-c ../shared/data/harm-c --seeds 3 --out runs/table-harm-c

A seed whose bundle is there already is not trained again, so a run that was stopped goes on, and
what another process with the same --out is training is left to it. Once all are trained the
reported split is opened, which is counted in every bundle if it is a test.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import ROOT, surroundings
from rich.console import Console

from miko_clf import bundle
from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.labels import find_questions
from miko_clf.data.post import Post
from miko_clf.errors import BundleError, BusyError, MikoError
from miko_clf.evaluate import evaluator
from miko_clf.evaluate.lockbox import open_lockbox
from miko_clf.evaluate.predictions import Predictor
from miko_clf.evaluate.seeds import SeedPredictions, summarise_seeds
from miko_clf.manifest import write_json, write_text
from miko_clf.pipeline import fit
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train.predict import list_serving_arms

SHOWN = {"accuracy": "accuracy", "macro_f1": "macro-F1", "auroc": "AUROC", "ece": "ECE"}


class System(NamedTuple):
    """A row of the table: a shipped recipe, and what is changed of it."""

    name: str
    recipe: str
    changes: tuple[tuple[str, Any], ...] = ()


class Set(NamedTuple):
    """A data set: which systems are run on it, and the split that is reported.

    `baselines` are mixes of texts for TF-IDF. Systems stand roughly from the quickest to the
    slowest, and are trained the other way round, so that no process waits long for another's last.
    """

    split: str
    systems: tuple[System, ...]
    baselines: tuple[tuple[str, ...], ...] = ()


def plain(*names: str) -> tuple[System, ...]:
    """Return shipped recipes as they are."""
    return tuple(System(name, name) for name in names)


STUDENT = "mobilenet-minilm-student"
UNREASONED = System(f"{STUDENT}, no reasoning stage", STUDENT, (("reasoning.epochs", 0),))
# The whole recipe would take one core an hour and a half a seed on 17,000 posts.
SHORT = (("text.unfreeze", 1), ("task.epochs", 2))
TUNED = System("minilm-tuned, one block, two epochs", "minilm-tuned", SHORT)
SETS = {
    "harm-c": Set(
        "test",
        (
            *plain(
                "knn-mobilenet-minilm",
                "linear-mobilenet-minilm",
                "text-only-minilm",
                "image-only-mobilenet",
                "miko-text-d-minilm",
                "miko-text-td-minilm",
                "hate-clipper-align-mobilenet-minilm",
                "hate-clipper-cross-mobilenet-minilm",
                "retrieval-mobilenet-minilm",
                "mobilenet-minilm-without",
                "mobilenet-minilm-mixture",
                STUDENT,
            ),
            UNREASONED,
            *plain("mobilenet-minilm-tuned"),
        ),
        (("text",), ("text", "description")),
    ),
    "mmsd2": Set(
        "test",
        (
            *plain("miko-text-d-minilm", "miko-text-td-minilm"),
            *plain("text-only-minilm", "minilm-without"),
            TUNED,
        ),
        (("text",), ("text", "description")),
    ),
}


def main() -> None:
    """Train what is missing, measure everything, write JSON and print the table."""
    given = _arguments()
    found, data = SETS[given.set], _with_test(open_folder(given.data), given.out / "posts")
    wanted = [(system, seed) for seed in range(given.seeds) for system in found.systems]
    for system, seed in wanted:
        _refuse_other(system, seed, given)
    for system in reversed(found.systems):
        for seed in range(given.seeds):
            _train(system, seed, data, given)
    if given.train_only:
        return
    command = f"python benchmarks/systems.py {given.set} DATA --seeds {given.seeds}"
    trained = [bundle.load_bundle(_place(system, seed, given)) for system, seed in wanted]
    open_lockbox(trained, data, found.split, command)
    rows = _rows(found, data, given)
    result = {
        **surroundings(command),
        "split": found.split,
        "posts": {split: len(data.read(split)) for split in ("train", "val", found.split)},
        "fingerprint": data.fingerprint(found.split),
        "seeds": given.seeds,
        "seconds_of_training": round(sum((row["seconds"] or 0) * row["seeds"] for row in rows)),
        "rows": rows,
    }
    write_json(ROOT / "benchmarks" / "results" / "systems" / f"{given.set}.json", result)
    print(table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown: mean over seeds, deviation, interval."""
    lines = [
        f"| system | arm | seeds | {' | '.join(SHOWN.values())} | seconds a seed |",
        f"| --- | --- | ---: |{' --- |' * len(SHOWN)} ---: |",
    ]
    for row in rows:
        cells = [row["system"], row["arm"], str(row["seeds"])]
        for name in SHOWN:
            cells.append(_cell(row["metrics"][name], row["seeds"]))
        cells.append(f"{row['seconds']:.0f}" if row["seconds"] is not None else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: dict[str, float], seeds: int) -> str:
    spread = f" ± {found['deviation']:.3f}" if seeds > 1 else ""
    return f"{found['mean']:.3f}{spread} [{found['low']:.3f}, {found['high']:.3f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("set", choices=list(SETS), help="which systems are run")
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each system (default: 3)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundles")
    parser.add_argument("--cache", type=Path, help="folder of features (default: OUT/features)")
    parser.add_argument("--train-only", action="store_true", help="train, and make no table")
    parser.add_argument("--resamples", type=int, default=1000, help="default: 1000")
    return parser.parse_args()


def _train(system: System, seed: int, data: DataFolder, given: argparse.Namespace) -> None:
    out = _place(system, seed, given)
    if out.exists():
        return
    Console(stderr=True).print(f"{system.name}, seed {seed}", highlight=False)
    try:
        fit(_recipe(system, seed), data, out, cache=_cache(given))
    except BusyError:
        Console(stderr=True).print("  another process is training it", highlight=False)


def _recipe(system: System, seed: int) -> Recipe:
    return recipes.load_recipe(system.recipe, {**dict(system.changes), "seed": seed})


def _refuse_other(system: System, seed: int, given: argparse.Namespace) -> None:
    """Raise `BundleError` where the bundle that stands for a system was trained otherwise."""
    place = _place(system, seed, given)
    if not place.exists():
        return
    before = recipes.load_recipe(place / bundle.RECIPE_FILE).model_dump()
    wanted = _recipe(system, seed).model_dump()
    differ = [name for name in wanted if before[name] != wanted[name]]
    if differ:
        raise BundleError(
            f"{place}: was trained with other {' and '.join(differ)} than {system.name} has now; "
            "move it away, or name another --out"
        )


def _with_test(data: DataFolder, folder: Path) -> DataFolder:
    """Return the data; where it has no test split, its val is the test and a tenth of train is val.

    Which training posts those are hangs on their text, so that equal texts stay together.
    """
    if "test" in data.splits:
        return data
    posts: dict[str, list[Post]] = {"train": [], "val": [], "test": data.read("val")}
    for post in data.read("train"):
        text = re.sub(r"\W+", "", (post.text or "").casefold())
        tenth = int(sha256(text.encode()).hexdigest(), 16) % 10 == 0
        posts["val" if tenth else "train"].append(post)
    for split, rows in posts.items():
        lines = [
            json.dumps(post.model_dump(mode="json", exclude_defaults=True)) + "\n" for post in rows
        ]
        write_text(folder / f"{split}.jsonl", "".join(lines))
    return open_folder(folder)


def _place(system: System, seed: int, given: argparse.Namespace) -> Path:
    name = system.name.replace(", ", "-").replace(" ", "-")
    return Path(given.out) / f"{name}-{seed}"


def _cache(given: argparse.Namespace) -> Path:
    return given.cache or given.out / "features"


def _rows(found: Set, data: DataFolder, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    train, posts = data.read("train"), data.read(found.split)
    (question,) = find_questions(train)
    names, positive = question.labels, question.positive
    truth = np.array([names.index(str(post.label)) for post in posts])
    rows = []

    def add(system: str, arm: str, seeds: list[SeedPredictions], seconds: float | None) -> None:
        metrics = summarise_seeds(seeds, truth, positive=positive, num_resamples=given.resamples)
        spreads = {
            name: {
                key: None if np.isnan(value) else value for key, value in spread._asdict().items()
            }
            for name, spread in metrics.items()
        }
        row = {"system": system, "arm": arm, "seeds": len(seeds), "seconds": seconds}
        rows.append({**row, "metrics": spreads})

    for name, probabilities in _baselines(found, train, posts, names):
        add(name, "-", [SeedPredictions(probabilities, None)], None)
    for system in found.systems:
        Console(stderr=True).print(f"scoring {system.name}", highlight=False)
        seeds, arm, seconds = _scores(system, posts, given)
        add(system.name, arm, seeds, seconds)
        if given.seeds > 1:
            add(f"{system.name}, mean of seeds", arm, [_together(seeds)], None)
    return rows


def _scores(
    system: System, posts: list[Post], given: argparse.Namespace
) -> tuple[list[SeedPredictions], str, float]:
    seeds, seconds = [], []
    for seed in range(given.seeds):
        opened = bundle.load_bundle(_place(system, seed, given))
        arm = list_serving_arms(opened.recipe)[0]
        probabilities = Predictor(opened, posts, _cache(given)).probabilities(arm)
        seeds.append(SeedPredictions(probabilities, opened.calibration.thresholds.get(arm)))
        seconds.append(opened.manifest["seconds"])
    return seeds, arm, float(np.mean(seconds))


def _together(seeds: Sequence[SeedPredictions]) -> SeedPredictions:
    """Return the mean of the seeds' probabilities and of their thresholds."""
    thresholds = [one.threshold for one in seeds if one.threshold is not None]
    mean = np.mean([one.probabilities for one in seeds], axis=0)
    return SeedPredictions(mean, float(np.mean(thresholds)) if thresholds else None)


def _baselines(
    found: Set, train: list[Post], posts: list[Post], names: tuple[str, ...]
) -> list[tuple[str, np.ndarray]]:
    truth = np.array([names.index(str(post.label)) for post in train])
    rows = [("majority", evaluator.predict_majority(truth, len(names), len(posts)))]
    for mix in found.baselines:
        texts, asked = (
            [" ".join(getattr(post, name) or "" for name in mix) for post in many]
            for many in (train, posts)
        )
        scored = evaluator.predict_tfidf_logistic(texts, truth, asked, len(names))
        rows.append((f"TF-IDF + logistic, {' + '.join(mix)}", scored))
    return rows


if __name__ == "__main__":
    try:
        main()
    except MikoError as error:
        sys.exit(f"systems.py: error: {error}")
