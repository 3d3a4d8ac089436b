"""Posts whose intentions are not their own: a gain from these is not understanding."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from miko_clf.data.post import Intention, Post

Control = Literal["shuffled", "other-post", "empty", "noise"]
CONTROLS: tuple[Control, ...] = get_args(Control)
CONTROL_MEANINGS = {
    "shuffled": "the intentions of another post of the same split",
    "other-post": "the intentions of a training post, drawn by the shares of the classes",
    "empty": "no intentions, read by the same model",
    "noise": "as many words, drawn at random from all intentions",
}


def apply_control(
    posts: Sequence[Post], control: Control, train: Sequence[Post], seed: int
) -> list[Post]:
    """Return the posts of a split with the intentions that a control gives them.

    `shuffled` moves the sets of intentions among the posts that have any, none staying where it
    was where there are two. `other-post` draws each from `train`, the donor's class by the shares
    of the classes here and whatever the class of the post that gets it, so nothing tells of the
    label. `noise` keeps relations and the number of words of each and draws the words, as often as
    they are used, from `train`. A post without intentions stays without.
    """
    random = np.random.default_rng([seed, CONTROLS.index(control), len(posts)])
    rows = [row for row, post in enumerate(posts) if post.intentions]
    changed = list(posts)
    sets = _CONTROL_FUNCTIONS[control]([posts[row] for row in rows], train, random) if rows else []
    for row, intentions in zip(rows, sets, strict=True):
        changed[row] = posts[row].model_copy(update={"intentions": intentions})
    return changed


_Posts = Sequence[Post]
_Random = np.random.Generator
_IntentionSets = list[tuple[Intention, ...]]


def _shuffle_intentions(posts: _Posts, train: _Posts, random: _Random) -> _IntentionSets:
    """Return everybody's intentions, moved along one random circle."""
    order = random.permutation(len(posts))
    donors = np.empty_like(order)
    donors[order] = np.roll(order, 1)
    return [posts[donor].intentions for donor in donors]


def _draw_from_train(posts: _Posts, train: _Posts, random: _Random) -> _IntentionSets:
    by_class: dict[str, list[Post]] = defaultdict(list)
    for post in train:
        if post.intentions:
            by_class[str(post.label)].append(post)
    known = [str(post.label) for post in posts if str(post.label) in by_class]
    drawn = []
    for post in posts:
        donors = by_class[str(random.choice(known))] if known else []
        others = [donor for donor in donors if donor.id != post.id] or [post]
        drawn.append(others[int(random.integers(len(others)))].intentions)
    return drawn


def _remove_intentions(posts: _Posts, train: _Posts, random: _Random) -> _IntentionSets:
    return [() for _ in posts]


def _scramble_words(posts: _Posts, train: _Posts, random: _Random) -> _IntentionSets:
    words: list[str] = []
    for source in (train, posts):  # the posts' own where no training post has an intention
        texts = [intention.text for post in source for intention in post.intentions]
        words = words or " ".join(texts).split()

    def scramble(intention: Intention) -> Intention:
        drawn = random.integers(len(words), size=len(intention.text.split()))
        text = " ".join(words[place] for place in drawn)
        return Intention(relation=intention.relation, text=text)

    return [tuple(map(scramble, post.intentions)) for post in posts]


_CONTROL_FUNCTIONS = {
    "shuffled": _shuffle_intentions,
    "other-post": _draw_from_train,
    "empty": _remove_intentions,
    "noise": _scramble_words,
}
