"""Train the demo's recipe on its world again and again, and say how many trainings agree.

    python benchmarks/demo.py runs/demo-seeds --seeds 10

Every seed is trained by each kind of code that torch has for the processor, since what hangs on the
last digits of floating point differs between them; each training is a process of its own with one
thread. A bundle that is there already is not trained again, so a run that was stopped goes on. A
figure is the mean over all trainings, and where a table has an interval stand the least and the
most of them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import ROOT, surroundings
from numpy.typing import NDArray
from rich.console import Console
from table import table

from miko_clf.bundle import Bundle, load_bundle
from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.demo.captions import AIM_INTENTIONS
from miko_clf.data.demo.world import (
    DEMO_CLASSES,
    compute_best_auroc,
    draft_world,
    write_world,
)
from miko_clf.data.post import Post
from miko_clf.evaluate.lockbox import open_lockbox
from miko_clf.evaluate.predictions import Predictor
from miko_clf.manifest import write_json
from miko_clf.metrics import measure_classification

RECIPE = "models/tiny.yaml"
# Of ATen; the one that is best for the processor, avx512 on many, is close to avx2 in code.
CAPABILITIES = ("default", "avx2")
# Rows of the table, and what is hidden in them beside the intentions.
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "with": ("with", ()),
    "student": ("student", ()),
    "masked": ("without", ()),
    "masked, image only": ("without", ("text",)),
    "masked, text only": ("without", ("image",)),
}
FROM_BEST = 0.05  # AUROC that a training may lie from the best that is possible
LEAST_SARCASM = 0.97  # AUROC of sarcasm, given intentions or not


class Training(NamedTuple):
    """One training: its seed, the code that torch ran, and where its bundle stands."""

    seed: int
    capability: str
    place: Path


def main() -> None:
    """Train what is missing, measure everything, write JSON and print the table."""
    given = _arguments()
    write_world(given.out / "world")
    data = open_folder(given.out / "world" / "both")
    trainings = [
        Training(seed, capability, given.out / f"{capability}-{seed}")
        for seed in range(given.seeds)
        for capability in CAPABILITIES
    ]
    for training in trainings:
        _train(training, data.path)
    if given.train_only:
        return
    command = f"python benchmarks/demo.py OUT --seeds {given.seeds}"
    result = {**surroundings(command), "torch": torch.__version__, **_measure_all(trainings, data)}
    path = ROOT / "benchmarks" / "results" / "demo.json"
    write_json(path, result)
    print(table(path))
    print(f"{sum(not row['faults'] for row in result['trainings'])} of {len(trainings)} agree")


def list_faults(figures: Mapping[str, Mapping[str, float]], best: Mapping[str, float]) -> list[str]:
    """Return what keeps a training from the verdict that the world is made for, nothing if all."""
    faults = []
    for name, row in figures.items():
        holds = abs(row["auroc"] - best[name]) <= FROM_BEST
        if name.startswith("sarcasm") and not name.endswith("only"):
            holds = row["auroc"] >= LEAST_SARCASM
        if not holds:
            faults.append(f"{name}: {row['auroc']:.3f}")
    return faults


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the world and of the bundles")
    parser.add_argument("--seeds", type=int, default=10, help="of each capability (default: 10)")
    parser.add_argument("--train-only", action="store_true", help="train, and make no table")
    given = parser.parse_args()
    given.out = given.out.resolve()  # trainings run in the project's folder
    return given


def _train(training: Training, data: Path) -> None:
    if training.place.exists():
        return
    Console(stderr=True).print(f"seed {training.seed}, {training.capability}", highlight=False)
    words = ["--data", str(data), "--out", str(training.place), "--seed", str(training.seed)]
    subprocess.run(
        [sys.executable, "train.py", RECIPE, *words],
        check=True,
        cwd=ROOT,
        env={**os.environ, "ATEN_CPU_CAPABILITY": training.capability, "OMP_NUM_THREADS": "1"},
    )


def _measure_all(trainings: Sequence[Training], data: DataFolder) -> dict[str, Any]:
    """Return what the trainings score on the test posts, each by itself and together."""
    bundles = [load_bundle(training.place) for training in trainings]
    open_lockbox(bundles, data, "test", " ".join(sys.argv))
    posts = data.read("test")
    measured, best = [_measure(bundle, posts) for bundle in bundles], measure_best(posts)
    by_construction = {
        f"{task}/{arm}": compute_best_auroc(task, intentions=arm == "with")
        for task in DEMO_CLASSES
        for arm in ("with", "masked")
    }
    rows = [
        {
            "seed": training.seed,
            "capability": training.capability,
            "seconds": bundle.manifest["seconds"],
            "faults": list_faults(figures, best),
            "auroc": {name: row["auroc"] for name, row in figures.items()},
        }
        for training, bundle, figures in zip(trainings, bundles, measured, strict=True)
    ]
    return {
        "posts": {split: len(data.read(split)) for split in ("train", "val", "test")},
        "fingerprint": data.fingerprint("test"),
        "best": best,
        "best_by_construction": by_construction,
        "trainings": rows,
        "rows": _summarise(measured),
    }


def _measure(bundle: Bundle, posts: list[Post]) -> dict[str, dict[str, float]]:
    """Return the metrics of each question in each arm, by `QUESTION/ARM`."""
    predictor = Predictor(bundle, posts, None)
    figures = {}
    for arm, (mode, hidden) in ARMS.items():
        probabilities = predictor.probabilities(mode, hidden)
        fitted = zip(bundle.questions.spans(), bundle.calibrations, strict=True)
        for (question, span), calibration in fitted:
            truth = np.array([question.labels.index(_read_label(p, question.name)) for p in posts])
            figures[f"{question.name}/{arm}"] = measure_classification(
                probabilities[:, span],
                truth,
                positive=question.positive,
                threshold=calibration.thresholds.get(mode),
            )
    return figures


def measure_best(posts: Sequence[Post]) -> dict[str, float]:
    """Return by `QUESTION/ARM` what whoever knows how the world is made scores on the posts."""
    pennants = {draft.picture.name: draft.picture.pennant for draft in draft_world()}
    hidden = np.array([not pennants[Path(str(post.image)).stem] for post in posts])
    best = {}
    for task, classes in DEMO_CLASSES.items():
        truth = np.array([classes.index(_read_label(post, task)) for post in posts])
        seen = np.where(truth == 1, 1.0, 0.0)
        for arm in ARMS:
            if arm.endswith("only") and (task == "sarcasm" or "text" in arm):
                scores = np.full(len(posts), 0.5)
            elif task == "sarcasm":
                scores = seen
            else:
                scores = np.where(hidden, _count_hints(posts) if arm == "with" else 0.5, seen)
            pair = np.stack([1 - scores, scores], axis=1)
            found = measure_classification(pair, truth, positive=1, names=["auroc"])
            best[f"{task}/{arm}"] = found["auroc"]
    return best


def _count_hints(posts: Sequence[Post]) -> NDArray[np.float64]:
    """Return of each post a share above .5 where most intentions on its aim speak of harm."""
    held = [
        [said.text in AIM_INTENTIONS[said.relation][0] for said in post.intentions
         if said.relation in AIM_INTENTIONS]
        for post in posts
    ]  # fmt: skip
    return 0.25 + 0.5 * np.array(held).mean(axis=1)


def _read_label(post: Post, task: str) -> str:
    assert isinstance(post.label, Mapping)
    return str(post.label[task])


def _summarise(measured: Sequence[Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return for each question and arm the mean over trainings, the least and the most."""
    rows = []
    for name in sorted(measured[0], key=lambda name: name.split("/")[0], reverse=True):
        question, arm = name.split("/")
        metrics = {}
        for metric in measured[0][name]:
            values = [figures[name][metric] for figures in measured]
            metrics[metric] = {
                "value": float(np.mean(values)),
                "low": min(values),
                "high": max(values),
            }
        rows.append({"system": question, "arm": arm, "metrics": metrics})
    return rows


if __name__ == "__main__":
    main()
