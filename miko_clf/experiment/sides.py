"""Which posts a trial learns from, is judged by, and is asked about."""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from miko_clf.data.controls import controlled
from miko_clf.data.folder import open_folder
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.errors import PostError
from miko_clf.experiment.plan import Experiment, Source, Trial

OUT_OF_FOLD = "folds"
_JUDGES = 8  # one in so many of the posts to learn from picks the epoch and the threshold


class Sides(NamedTuple):
    """Posts of a trial; `rows` are the places of those that are asked about among all.

    `plain` are those that are asked about before a control changed them.
    """

    train: list[Post]
    val: list[Post]
    ask: list[Post]
    rows: list[int]
    plain: list[Post]


@lru_cache(maxsize=4)
def posts(source: Source, split: str) -> list[Post]:
    """Return the labelled posts of a split; of `folds` all that stand in no test split."""
    report = SkipReport() if source.skip_bad else None
    data = open_folder(
        Path(source.path),
        label_map=dict(source.label_map),
        split_seed=source.split_seed,
        report=report,
        task=source.task,
    )
    names = [split]
    if split == OUT_OF_FOLD:
        names = [name for name in data.splits if name != "test"]
    found = [post for name in names for post in data.read(name)]
    for post in found:
        if post.label is None:
            raise PostError(f"{source.path}: post {post.id!r} of {split} has no label")
        if not isinstance(post.label, str):
            raise PostError(
                f"{source.path}: post {post.id!r} of {split} has label {post.label}; a comparison "
                "is of one question with one answer, so each post needs one label"
            )
    return found


def sides(experiment: Experiment, trial: Trial, split: str) -> Sides:
    """Return the posts of a trial as its control makes them; each side is shuffled by itself."""
    if trial.fold is None:
        train, val = (posts(experiment.source, name) for name in ("train", "val"))
        ask = posts(experiment.source, split)
        rows = list(range(len(ask)))
    else:
        every = posts(experiment.source, OUT_OF_FOLD)
        learn, rows = _fold(every, experiment.folds or 0, trial.seed, trial.fold)
        train_rows, val_rows = _fold([every[row] for row in learn], _JUDGES, trial.seed, 0)
        train = [every[learn[row]] for row in train_rows]
        val = [every[learn[row]] for row in val_rows]
        ask = [every[row] for row in rows]
    if trial.system.control is None:
        return Sides(train, val, ask, rows, ask)
    changed_train, changed_val, changed = (
        controlled(side, trial.system.control, train, trial.seed) for side in (train, val, ask)
    )
    return Sides(changed_train, changed_val, changed, rows, ask)


def same_text(post: Post) -> str:
    """Return what posts have in common that must not stand on both sides: group, or text."""
    return post.group or re.sub(r"\W+", " ", (post.text or post.id).casefold()).strip()


def _fold(every: list[Post], folds: int, seed: int, fold: int) -> tuple[list[int], list[int]]:
    """Return rows to learn from and rows to ask about, classes in like shares."""
    labels = [str(post.label) for post in every]
    groups = [same_text(post) for post in every]
    if len(set(groups)) < folds:
        raise PostError(f"{len(set(groups))} groups of posts are too few for {folds} folds")
    found = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    learn, ask = list(found.split(np.zeros(len(every)), labels, groups))[fold]
    return learn.tolist(), ask.tolist()
