"""Folds: every post is asked once, and groups and same words stay on one side."""

import operator
from pathlib import Path

from miko_clf.data.dataset import open_folder
from miko_clf.data.splits import normalise_post_text
from miko_clf.experiment import folds
from miko_clf.experiment.design import Experiment, PostSource, Trial


def test_folds_ask_every_post_once_and_keep_groups_together(world: Path) -> None:
    source = PostSource(path=str(world / "sarcasm"))
    experiment = Experiment(("tiny",), source, seeds=1, folds=4)
    (system, *_) = experiment.systems()
    asked: list[str] = []
    for fold in range(4):
        found = folds.split_trial_posts(experiment, Trial(system, 0, fold), folds.OUT_OF_FOLD)
        for mark in (normalise_post_text, operator.attrgetter("group")):
            learned = {mark(post) for post in [*found.train, *found.val]} - {None}
            assert not learned & {mark(post) for post in found.ask}
        assert not {p.group for p in found.train} & {p.group for p in found.val}
        asked += [post.id for post in found.ask]
    data = open_folder(world / "sarcasm")
    assert sorted(asked) == sorted(post.id for s in ("train", "val") for post in data.read(s))


def test_a_seed_draws_its_own_folds(world: Path) -> None:
    source = PostSource(path=str(world / "sarcasm"))
    experiment = Experiment(("tiny",), source, seeds=2, folds=4)
    (system, *_) = experiment.systems()
    first, second = (
        folds.split_trial_posts(experiment, Trial(system, seed, 0), folds.OUT_OF_FOLD).rows
        for seed in (0, 1)
    )
    assert first != second
