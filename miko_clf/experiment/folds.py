"""Which posts a trial learns from, is judged by, and is asked about."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from miko_clf.data.controls import apply_control
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.data.splits import is_test_split
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
    found = _read(source, split, SkipReport() if source.skip_bad else None)
    for post in found:
        if post.label is None:
            raise PostError(f"{source.path}: post {post.id!r} of {split} has no label")
        if not isinstance(post.label, str):
            raise PostError(
                f"{source.path}: post {post.id!r} of {split} has label {post.label}; a comparison "
                "is of one question with one answer, so each post needs one label"
            )
    return found


def list_skipped_posts(source: PostSource, splits: Sequence[str]) -> SkipReport:
    """Return what of these splits is left out, as `skip_bad` tells."""
    report = SkipReport()
    for split in splits:
        _read(source, split, report)
    return report


def _read(source: PostSource, split: str, report: SkipReport | None) -> list[Post]:
    data = open_folder(
        Path(source.path),
        label_map=dict(source.label_map),
        split_seed=source.split_seed,
        report=report,
        task=source.task,
    )
    names = [split]
    if split == OUT_OF_FOLD:
        names = [name for name in data.splits if not is_test_split(name)]
    found: dict[str, Post] = {}  # the dev sets of Hateful Memes share posts
    for name in names:
        for post in data.read(name):
            found.setdefault(post.id, post)
    return list(found.values())


def split_trial_posts(experiment: Experiment, trial: Trial, split: str) -> TrialPosts:
    """Return the posts of a trial as its control makes them; each side is shuffled by itself."""
    if trial.fold is None:
        train, val = (read_labelled_posts(experiment.source, name) for name in ("train", "val"))
        ask = read_labelled_posts(experiment.source, split)
        rows = list(range(len(ask)))
    else:
        every = read_labelled_posts(experiment.source, OUT_OF_FOLD)
        learn, rows = _draw_fold(every, experiment.folds or 0, trial.seed, trial.fold)
        left = [every[row] for row in learn]
        train_rows, val_rows = _draw_fold(
            left, max(2, min(_JUDGES, _count_possible_folds(left))), trial.seed, 0
        )
        train = [every[learn[row]] for row in train_rows]
        val = [every[learn[row]] for row in val_rows]
        ask = [every[row] for row in rows]
    if trial.system.control is None:
        return TrialPosts(train, val, ask, rows, ask)
    changed_train, changed_val, changed = (
        apply_control(side, trial.system.control, train, trial.seed) for side in (train, val, ask)
    )
    return TrialPosts(changed_train, changed_val, changed, rows, ask)


def normalise_post_text(post: Post) -> str:
    """Return the words of a post by which it is known again, or its id where it has none."""
    return re.sub(r"\W+", " ", (post.text or "").casefold()).strip() or f"id {post.id}"


def group_alike_posts(every: Sequence[Post]) -> list[str]:
    """Return a name for each post, the same for those that must not stand on both sides.

    Posts of one group belong together, and posts of the same words, and whatever either joins.
    """
    names = [post.group or normalise_post_text(post) for post in every]
    marks = [("words", normalise_post_text(post)) for post in every]
    marks += [("group", name) for name in names]
    places = {mark: place for place, mark in enumerate(dict.fromkeys(marks), start=len(every))}
    links = np.tile(np.arange(len(every)), 2), np.array([places[mark] for mark in marks])
    size = len(every) + len(places)
    joined = coo_array((np.ones(len(marks)), links), shape=(size, size))
    parts = connected_components(joined, directed=False)[1][: len(every)]
    first: dict[int, str] = {}
    for part, name in zip(parts, names, strict=True):
        first[part] = min(first.get(part, name), name)
    return [first[part] for part in parts]


def _count_possible_folds(every: Sequence[Post]) -> int:
    """Return into how many parts posts can be cut so that each has some of every class."""
    return min(
        min(Counter(str(post.label) for post in every).values()), len(set(group_alike_posts(every)))
    )


def _draw_fold(every: list[Post], folds: int, seed: int, fold: int) -> tuple[list[int], list[int]]:
    """Return rows to learn from and rows to ask about, classes in like shares."""
    labels = [str(post.label) for post in every]
    groups = group_alike_posts(every)
    if _count_possible_folds(every) < folds:
        raise PostError(
            f"{len(every)} posts, {dict(Counter(labels))} in {len(set(groups))} groups of the same "
            f"text or group, are too few for {folds} parts of each class; give fewer folds"
        )
    found = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    learn, ask = list(found.split(np.zeros(len(every)), labels, groups))[fold]
    return learn.tolist(), ask.tolist()
