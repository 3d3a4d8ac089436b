"""How the classes are spread over the splits, and whether the splits agree."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2_contingency

from miko_clf.data.audit.cues import class_names
from miko_clf.data.audit.examine import Examined
from miko_clf.data.audit.findings import Shift, Split
from miko_clf.data.audit.glance import normal
from miko_clf.data.labels import flat
from miko_clf.data.post import Post

MOVED = 0.05
"""Share of posts by which a class must move between splits, with p under 0.01, to be told."""
_P = 0.01


def splits(seen: Examined) -> tuple[Split, ...]:
    """Return what each split holds and lacks."""
    found = []
    classes = class_names(seen.posts)
    for name in seen.order:
        posts = _of(seen, name)
        counts = _counts(posts)
        found.append(
            Split(
                name=name,
                posts=len(posts),
                labels={label: counts[label] for label in classes},
                unlabelled=sum(post.label is None for post in posts),
                without_text=sum(not normal(post.text) for post in posts),
                without_image=sum(post.image is None for post in posts),
                refused=sum(split == name for split, _, _ in seen.refused),
            )
        )
    return tuple(found)


def shifts(seen: Examined) -> tuple[Shift, ...]:
    """Return how far the share of every class is from its share in train, split by split."""
    train = [post for post in _of(seen, "train") if post.label is not None]
    found = []
    for split in (name for name in seen.order if name != "train"):
        posts = [post for post in _of(seen, split) if post.label is not None]
        if not train or not posts:
            continue
        before, after = _counts(train), _counts(posts)
        for label in class_names([*train, *posts]):
            table = [
                [counts[label], total - counts[label]]
                for counts, total in ((before, len(train)), (after, len(posts)))
            ]
            shares = before[label] / len(train), after[label] / len(posts)
            p = _p(np.array(table))
            found.append(
                Shift(
                    split=split,
                    label=label,
                    train_share=round(shares[0], 4),
                    share=round(shares[1], 4),
                    p=round(p, 6),
                    warn=p < _P and abs(shares[0] - shares[1]) > MOVED,
                )
            )
    return tuple(found)


def _p(table: np.ndarray) -> float:
    """Return how often two samples of one population differ as much as these, by chi-square."""
    if not table.sum(axis=0).all():
        return 1.0
    return float(chi2_contingency(table).pvalue)


def _of(seen: Examined, name: str) -> list[Post]:
    return [post for post, split in zip(seen.posts, seen.splits, strict=True) if split == name]


def _counts(posts: Sequence[Post]) -> Counter[str]:
    return Counter(name for post in posts for name in flat(post.label))
