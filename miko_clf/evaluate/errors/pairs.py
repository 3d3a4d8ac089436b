"""Confounders: posts that share their image or their text, and differ in the rest and the label."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from miko_clf.data.audit.glance import normal
from miko_clf.data.pixels import digest
from miko_clf.data.post import Post
from miko_clf.evaluate import weighted
from miko_clf.evaluate.errors.rates import RESAMPLES, around, wilson
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.subject import Subject

KINDS = ("same image, another text", "same text, another image")


@dataclass(frozen=True)
class Pairs:
    """On how many confounder pairs a system is right about both posts.

    What reads only the part that a pair shares is right about both of none of them.
    """

    kind: str
    pairs: int
    both_right: Interval


def pairs(subject: Subject, *, num_resamples: int = RESAMPLES, seed: int = 0) -> list[Pairs]:
    """Return each kind of pair that there is (Kiela et al., NeurIPS 2020).

    Images are the same where their bytes are, texts where they are without punctuation, case and
    white space; a text of one word is shared by chance. The interval is over resamples of the
    shared images, or texts: pairs that share one are drawn together. It is Wilson's over these
    where all pairs are right, or none.
    """
    right = subject.decided == subject.truth
    found = []
    for kind, families in zip(KINDS, confounders(subject.posts, subject.truth), strict=True):
        if not families:
            continue
        both = np.array([sum(right[a] and right[b] for a, b in family) for family in families])
        count = np.array([len(family) for family in families])
        drawn = weighted.draw(len(families), num_resamples, np.random.default_rng(seed))
        sample = (drawn @ both) / (drawn @ count)
        share = float(both.sum() / count.sum())
        whole = share in (0.0, 1.0)
        interval = wilson(int(share) * len(both), len(both)) if whole else around(share, sample)
        found.append(Pairs(kind, int(count.sum()), interval))
    return found


Family = list[tuple[int, int]]


def confounders(posts: Sequence[Post], truth: np.ndarray) -> tuple[list[Family], list[Family]]:
    """Return the pairs of row numbers by what they share: of each image, and of each text."""
    images = [None if post.image is None else digest(post.image) for post in posts]
    texts = [normal(p.text) if len((p.text or "").split()) > 1 else None for p in posts]
    return _families(images, texts, truth), _families(texts, images, truth)


def _families(
    shared: Sequence[Hashable], other: Sequence[Hashable], truth: np.ndarray
) -> list[Family]:
    rows = defaultdict(list)
    for row, key in enumerate(shared):
        if key is not None:
            rows[key].append(row)
    found = [
        [(a, b) for a, b in combinations(some, 2) if other[a] != other[b] and truth[a] != truth[b]]
        for some in rows.values()
    ]
    return [family for family in found if family]
