"""Which posts a trial learns from, is judged by, and is asked about."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from miko_clf.data.controls import apply_control
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.data.splits import group_alike_posts, is_test_split
from miko_clf.errors import PostError
from miko_clf.experiment.design import Experiment, PostSource, Trial

OUT_OF_FOLD = "folds"
_JUDGES = 8  # one in so many of the posts to learn from picks the epoch and the threshold


class TrialPosts(NamedTuple):
    """Posts of a trial; `rows` are the places of those that are asked about among all.

    `plain` are those that are asked about before a control changed them.
    """

    train: list[Post]
    val: list[Post]
    ask: list[Post]
    rows: list[int]
    plain: list[Post]


@lru_cache(maxsize=4)
def read_labelled_posts(source: PostSource, split: str) -> list[Post]:
    """Return the labelled posts of a split; of `folds` all that stand in no test split."""
    posts = _read_posts(source, split, SkipReport() if source.skip_bad else None)
    for post in posts:
        if post.label is None:
            raise PostError(f"{source.path}: post {post.id!r} of {split} has no label")
        if not isinstance(post.label, str):
            raise PostError(
                f"{source.path}: post {post.id!r} of {split} has label {post.label}; a comparison "
                "is of one question with one answer, so each post needs one label"
            )
    return posts


def list_skipped_posts(source: PostSource, splits: Sequence[str]) -> SkipReport:
    """Return what of these splits is left out, as `skip_bad` tells."""
    report = SkipReport()
    for split in splits:
        _read_posts(source, split, report)
    return report


def _read_posts(source: PostSource, split: str, report: SkipReport | None) -> list[Post]:
    seed, task, label_map = source.split_seed, source.task, dict(source.label_map)
    path = Path(source.path)
    data = open_folder(
        path, label_map=label_map, split_seed=seed, report=report, task=task, dated=source.dated
    )
    names = [split]
    if split == OUT_OF_FOLD:
        names = [name for name in data.splits if not is_test_split(name)]
    posts: dict[str, Post] = {}  # the dev sets of Hateful Memes share posts
    for name in names:
        for post in data.read(name):
            posts.setdefault(post.id, post)
    return list(posts.values())


def split_trial_posts(experiment: Experiment, trial: Trial, split: str) -> TrialPosts:
    """Return the posts of a trial as its control makes them; each side is shuffled by itself."""
    if trial.fold is None:
        train, val = (read_labelled_posts(experiment.source, name) for name in ("train", "val"))
        ask = read_labelled_posts(experiment.source, split)
        rows = list(range(len(ask)))
    else:
        posts = read_labelled_posts(experiment.source, OUT_OF_FOLD)
        learn_rows, rows = _draw_fold(posts, experiment.folds or 0, trial.seed, trial.fold)
        learn = [posts[row] for row in learn_rows]
        judges = max(2, min(_JUDGES, _count_possible_folds(learn)))
        train_rows, val_rows = _draw_fold(learn, judges, trial.seed, 0)
        train, val = [learn[row] for row in train_rows], [learn[row] for row in val_rows]
        ask = [posts[row] for row in rows]
    control = trial.system.control
    if control is None:
        return TrialPosts(train, val, ask, rows, ask)
    sides = (apply_control(side, control, train, trial.seed) for side in (train, val, ask))
    learned, judged, asked = sides
    return TrialPosts(learned, judged, asked, rows, ask)


def _draw_fold(posts: list[Post], folds: int, seed: int, fold: int) -> tuple[list[int], list[int]]:
    """Return rows to learn from and rows to ask about, classes in like shares."""
    labels = [str(post.label) for post in posts]
    groups = group_alike_posts(posts)
    if _count_possible_folds(posts) < folds:
        raise PostError(
            f"{len(posts)} posts, {dict(Counter(labels))} in {len(set(groups))} groups of the same "
            f"text or group, are too few for {folds} parts of each class; give fewer folds"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    learn, ask = list(splitter.split(np.zeros(len(posts)), labels, groups))[fold]
    return learn.tolist(), ask.tolist()


def _count_possible_folds(posts: Sequence[Post]) -> int:
    """Return into how many parts posts can be cut so that each has some of every class."""
    classes = Counter(str(post.label) for post in posts)
    return min(min(classes.values()), len(set(group_alike_posts(posts))))
