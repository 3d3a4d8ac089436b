"""One trial: a system trained from one seed, and what it says of the posts asked about."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from miko_clf import bundle, manifest
from miko_clf.bundle import Bundle
from miko_clf.data.post import Post
from miko_clf.data.splits import PostsInMemory, fingerprint_posts, is_test_split
from miko_clf.errors import BundleError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.experiment.design import Experiment, Trial, locate_bundle, locate_scores
from miko_clf.experiment.folds import TrialPosts, split_trial_posts
from miko_clf.pipeline import FitOptions, fit


class TrialArmPredictions(NamedTuple):
    """What a trial says in one arm of the posts it was asked about, (row, label)."""

    probabilities: Float[np.ndarray, "row label"]
    threshold: float | None


class TrialPredictions(NamedTuple):
    """What a trial says of posts: by reported arm, of which rows, and how long it trained."""

    said: dict[str, TrialArmPredictions]
    rows: list[int]
    labels: tuple[str, ...]
    seconds: float


def run_trial(
    out: Path, experiment: Experiment, trial: Trial, split: str, cache: Path | None
) -> None:
    """Train what is not trained and score what is not scored.

    The bundle of a fold is given up once its scores are kept. Raises a `MikoError`.
    """
    kept, place = locate_scores(out, trial, split), locate_bundle(out, trial)
    if kept.exists():
        return
    posts = split_trial_posts(experiment, trial, split)
    if not place.exists():
        if is_test_split(split):
            raise BundleError(f"{place}: not trained; finish the comparison by miko-clf compare")
        _train(experiment, trial, posts, place, cache)
    manifest.write_json(kept, _predict_arms(bundle.load_bundle(place), trial, posts, cache))
    if trial.fold is not None:
        shutil.rmtree(place)


def read_trial_predictions(
    out: Path, trial: Trial, split: str, asked: list[Post]
) -> TrialPredictions:
    """Return what a trial said; raises `BundleError` where it said it of other posts."""
    path = locate_scores(out, trial, split)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows, expected = found["rows"], found["fingerprint"]
        mark = fingerprint_posts([asked[row] for row in rows])
        said = {
            arm: TrialArmPredictions(np.array(each["probabilities"]), each["threshold"])
            for arm, each in found["arms"].items()
        }
        result = TrialPredictions(said, rows, tuple(found["labels"]), found["seconds"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise BundleError(f"{path}: not readable; delete it and give the command again") from None
    if mark != expected:
        raise BundleError(f"{path}: scores other posts than those of {split}; name another --out")
    return result


def _train(
    experiment: Experiment, trial: Trial, posts: TrialPosts, place: Path, cache: Path | None
) -> None:
    recipe, twin = (
        one.model_copy(update={"seed": trial.seed}) if one is not None else None
        for one in (trial.system.recipe, trial.system.twin)
    )
    assert recipe is not None
    data = PostsInMemory(Path(experiment.source.path), {"train": posts.train, "val": posts.val})
    settings: dict[str, Any] = {"positive": experiment.positive, "leaks": experiment.leaks}
    if experiment.one_order:
        settings["lengths"] = tuple(map(_num_words, posts.train))
    fit(recipe, data, FitOptions(place, cache=cache, twin=twin, **settings))


def _num_words(post: Post) -> int:
    return len(f"{post.text or ''} {post.description or ''}".split())


def _predict_arms(
    opened: Bundle, trial: Trial, posts: TrialPosts, cache: Path | None
) -> dict[str, Any]:
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
        "fingerprint": fingerprint_posts(posts.plain),
        "seconds": opened.manifest["seconds"],
        "arms": arms,
    }
