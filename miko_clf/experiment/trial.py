"""One trial: train a system from one seed, and keep what it says of the posts it is asked about."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.held import Held, fingerprint
from miko_clf.data.post import Post
from miko_clf.data.split import is_test
from miko_clf.errors import BundleError
from miko_clf.evaluate.predict import Predictor
from miko_clf.experiment.plan import Experiment, Trial, bundle_of, scores_of
from miko_clf.experiment.sides import Sides, sides
from miko_clf.pipeline import Plan, fit


class Said(NamedTuple):
    """What a trial says in one arm of the posts it was asked about, (row, label)."""

    probabilities: Float[np.ndarray, "row label"]
    threshold: float | None


class Answer(NamedTuple):
    """What a trial says of posts: by reported arm, of which rows, and how long it trained."""

    said: dict[str, Said]
    rows: list[int]
    labels: tuple[str, ...]
    seconds: float


def run(out: Path, experiment: Experiment, trial: Trial, split: str, cache: Path | None) -> None:
    """Train what is not trained and score what is not scored.

    The bundle of a fold is given up once its scores are kept. Raises a `MikoError`.
    """
    kept, place = scores_of(out, trial, split), bundle_of(out, trial)
    if kept.exists():
        return
    posts = sides(experiment, trial, split)
    if not place.exists():
        if is_test(split):
            raise BundleError(f"{place}: not trained; finish the comparison by miko-clf compare")
        _train(experiment, trial, posts, place, cache)
    manifest.write_json(kept, _answer(bundle.read(place), trial, posts, cache))
    if trial.fold is not None:
        shutil.rmtree(place)


def answer(out: Path, trial: Trial, split: str, asked: list[Post]) -> Answer:
    """Return what a trial said; raises `BundleError` where it said it of other posts."""
    path = scores_of(out, trial, split)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows, expected = found["rows"], found["fingerprint"]
        mark = fingerprint([asked[row] for row in rows])
        said = {
            arm: Said(np.array(each["probabilities"]), each["threshold"])
            for arm, each in found["arms"].items()
        }
        result = Answer(said, rows, tuple(found["labels"]), found["seconds"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise BundleError(f"{path}: not readable; delete it and give the command again") from None
    if mark != expected:
        raise BundleError(f"{path}: scores other posts than those of {split}; name another --out")
    return result


def _train(
    experiment: Experiment, trial: Trial, posts: Sides, place: Path, cache: Path | None
) -> None:
    recipe, twin = (
        one.model_copy(update={"seed": trial.seed}) if one is not None else None
        for one in (trial.system.recipe, trial.system.twin)
    )
    assert recipe is not None
    data = Held(Path(experiment.source.path), {"train": posts.train, "val": posts.val})
    settings: dict[str, Any] = {"positive": experiment.positive, "leaks": experiment.leaks}
    if experiment.one_order:
        settings["lengths"] = tuple(map(_num_words, posts.train))
    fit(recipe, data, Plan(place, cache=cache, twin=twin, **settings))


def _num_words(post: Post) -> int:
    return len(f"{post.text or ''} {post.description or ''}".split())


def _answer(opened: Bundle, trial: Trial, posts: Sides, cache: Path | None) -> dict[str, Any]:
    predictor = Predictor(opened, posts.ask, cache)
    arms = {}
    for reported, arm in trial.system.reported.items():
        threshold = opened.calibration.thresholds.get(arm)
        arms[reported] = {
            "probabilities": predictor.probabilities(arm).tolist(),
            "threshold": threshold if isinstance(threshold, float) else None,
        }
    return {
        "rows": posts.rows,
        "labels": list(opened.labels),
        "fingerprint": fingerprint(posts.plain),
        "seconds": opened.manifest["seconds"],
        "arms": arms,
    }
