"""How far the posts of a split are from those of train: their words, and their pictures."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import xlogy
from scipy.stats import norm
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from miko_clf.data.audit.findings import Drift, MeanShift, WordShift, measure_auroc
from miko_clf.data.audit.near_duplicates import ImageFingerprint
from miko_clf.data.post import Post
from miko_clf.intervals import NORMAL_QUANTILE, Interval

MIN_DRIFT_AUROC = 0.6
"""AUROC from which on a split is said to have other words than train."""
_WORD = re.compile(r"\w+")
_NUM_FOLDS = 5
_MAX_POSTS = 5000  # of a side that are told apart: more would take longer and say the same
_MAX_WORDS = 10  # that are listed of those that rose, and of those that fell
_MAX_P = 0.01  # of a word, times the number of words
_Pictures = Sequence[ImageFingerprint | None]


def measure_drift(
    split: str,
    train: Sequence[Post],
    posts: Sequence[Post],
    pictures: tuple[_Pictures, _Pictures] | None = None,
) -> Drift:
    """Return how far posts are from those of train; `pictures` are those of both, if known.

    `auroc` is that with which held-out posts of the split are told from those of train by their
    words (a classifier two-sample test, Lopez-Paz and Oquab, ICLR 2017); posts of a group share a
    fold. Labels count for nothing here.
    """
    words, train_words = (
        [_WORD.findall((post.text or "").casefold()) for post in side] for side in (posts, train)
    )
    auroc = _tell_apart(train, posts)
    unseen = _measure_unseen(words, train_words, posts)
    out = _choose_folds(train) == 0
    within = _measure_unseen(
        [own for own, held in zip(train_words, out, strict=True) if held],
        [own for own, held in zip(train_words, out, strict=True) if not held],
        [post for post, held in zip(train, out, strict=True) if held],
    )
    shifts = _compare_words((train_words, train), (words, posts))
    types = {word for own in words for word in own}
    known = {word for own in train_words for word in own}
    return Drift(
        split=split,
        auroc=auroc and round(auroc.value, 4),
        low=auroc and round(auroc.low, 4),
        high=auroc and round(auroc.high, 4),
        unseen_words=round(len(types - known) / len(types), 4) if types else None,
        unseen_tokens=unseen and round(unseen.value, 4),
        unseen_low=unseen and round(unseen.low, 4),
        unseen_high=unseen and round(unseen.high, 4),
        unseen_within=within and round(within.value, 4),
        risen=tuple(shift for shift in shifts if shift.z > 0)[:_MAX_WORDS],
        fallen=tuple(shift for shift in reversed(shifts) if shift.z < 0)[:_MAX_WORDS],
        pictures=tuple(_compare_pictures(*pictures)) if pictures else (),
    )


def describe_drift(drift: Drift) -> str:
    """Return in a line that a split has other words than train, nothing where it has not."""
    if drift.low is None or drift.low <= MIN_DRIFT_AUROC:
        return ""
    told = f"its words tell {drift.split} from train with AUROC {drift.auroc:.2f}"
    parts = [
        f"{way} are {', '.join(_format_shift(shift) for shift in shifts[:3])}"
        for way, shifts in (("risen", drift.risen), ("fallen", drift.fallen))
        if shifts
    ]
    return "; ".join([told, *parts])


def _format_shift(shift: WordShift) -> str:
    return f"{shift.word!r} ({shift.train_share:.1%} of train posts, {shift.share:.1%} here)"


def _name_units(posts: Sequence[Post]) -> list[str]:
    """Return a name for each post, one for all of a group: such posts are no draws of their own."""
    return [f"group {post.group}" if post.group else f"post {post.id}" for post in posts]


def _choose_folds(posts: Sequence[Post]) -> NDArray[np.int64]:
    return np.array([crc32(name.encode()) % _NUM_FOLDS for name in _name_units(posts)])


def _tell_apart(train: Sequence[Post], posts: Sequence[Post]) -> Interval | None:
    """Return the AUROC with which words tell posts that have a text from those of train."""
    sides = [_draw_posts([post for post in side if post.text]) for side in (train, posts)]
    every = [*sides[0], *sides[1]]
    inside = np.arange(len(every)) >= len(sides[0])
    if not all(sides):
        return None
    hashed = HashingVectorizer(
        n_features=2**16, alternate_sign=False, token_pattern=r"(?u)\b\w+\b"
    )  # fmt: skip
    features: sparse.csr_matrix = hashed.transform([post.text or "" for post in every])
    folds = _choose_folds(every)
    scores = np.full(len(every), np.nan)
    for fold in range(_NUM_FOLDS):
        held = folds == fold
        if held.any() and len(np.unique(inside[~held])) == 2:
            model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=200)
            model.fit(features[~held], inside[~held])
            scores[held] = model.decision_function(features[held])
    return measure_auroc(scores, inside, np.unique(_name_units(every), return_inverse=True)[1])


def _draw_posts(posts: Sequence[Post]) -> list[Post]:
    """Return the posts, of many a sample that their ids decide."""
    if len(posts) <= _MAX_POSTS:
        return list(posts)
    return sorted(posts, key=lambda post: crc32(post.id.encode()))[:_MAX_POSTS]


def _measure_unseen(
    words: Sequence[Sequence[str]], known_words: Sequence[Sequence[str]], posts: Sequence[Post]
) -> Interval | None:
    """Return the share of running words that no known text has, with its 95 % interval.

    The interval is that of a ratio over posts by linearisation (Cochran, 1977), posts of a group
    taken as one.
    """
    known = {word for own in known_words for word in own}
    units: dict[str, NDArray[np.float64]] = {}
    for own, name in zip(words, _name_units(posts), strict=True):
        counts = np.array([sum(word not in known for word in own), len(own)], dtype=np.float64)
        units[name] = units[name] + counts if name in units else counts
    if not units or not (table := np.stack(list(units.values())))[:, 1].any():
        return None
    unseen, total = table.sum(axis=0)
    share = float(unseen / total)
    rest = table[:, 0] - share * table[:, 1]
    num = len(table)
    spread = float(np.sqrt((rest**2).sum() * num / max(1, num - 1)) / total)
    reach = NORMAL_QUANTILE * spread
    return Interval(share, max(0.0, share - reach), min(1.0, share + reach))


def _compare_words(*sides: tuple[Sequence[Sequence[str]], Sequence[Post]]) -> list[WordShift]:
    """Return the words that more, or fewer, posts hold than in train, the most risen first.

    By the likelihood ratio (Dunning, Computational Linguistics 1993), over posts and not over
    running words, those of a group taken as one; and those words alone that stand after
    Bonferroni.
    """
    shares = [Counter(word for own in words for word in set(own)) for words, _ in sides]
    counts, sizes = zip(*(_count_units(*side) for side in sides), strict=True)
    words = sorted(set().union(*counts))
    if not words or not all(sizes):
        return []
    table = np.array([[own[word] for word in words] for own in counts], dtype=np.float64)
    z = _root_likelihood_ratios(table, np.array(sizes, dtype=np.float64))
    limit = float(norm.isf(_MAX_P / 2 / len(words)))
    order = [at for at in np.argsort(-z, kind="stable").tolist() if abs(z[at]) > limit]
    return [
        WordShift(
            word=words[at],
            train_share=round(shares[0][words[at]] / len(sides[0][1]), 4),
            share=round(shares[1][words[at]] / len(sides[1][1]), 4),
            z=round(float(z[at]), 2),
        )
        for at in order
    ]


def _root_likelihood_ratios(
    hits: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each column the signed root of twice the log of its likelihood ratio.

    `hits` (side, word) are of so many units a side; it is above 0 where the second has more.
    """
    rates = hits / sizes[:, None]
    common = hits.sum(axis=0) / sizes.sum()
    with np.errstate(invalid="ignore"):  # a word that every post holds
        of_misses = xlogy(sizes[:, None] - hits, (1 - rates) / (1 - common))
    ratios = 2 * (xlogy(hits, rates / common) + np.nan_to_num(of_misses)).sum(axis=0)
    return np.sign(rates[1] - rates[0]) * np.sqrt(np.maximum(ratios, 0))


def _count_units(words: Sequence[Sequence[str]], posts: Sequence[Post]) -> tuple[Counter[str], int]:
    """Return in how many groups of posts each word stands, and how many groups there are."""
    held: dict[str, set[str]] = {}
    for own, name in zip(words, _name_units(posts), strict=True):
        held.setdefault(name, set()).update(own)
    return Counter(word for own in held.values() for word in own), len(held)


def _compare_pictures(train: _Pictures, here: _Pictures) -> Iterator[MeanShift]:
    """Yield the mean width, height and brightness, and the share of each format, of both sides."""
    sides = [[image for image in side if image is not None] for side in (train, here)]
    if min(map(len, sides)) < 2:
        return
    formats = sorted({image.format for side in sides for image in side})
    yield _compare_means("width", *([float(i.width) for i in side] for side in sides))
    yield _compare_means("height", *([float(i.height) for i in side] for side in sides))
    means = ([float(image.thumb.mean()) / 255 for image in side] for side in sides)
    yield _compare_means("brightness, 0 to 1", *means)
    for name in formats if len(formats) > 1 else ():
        shares = ([float(image.format == name) for image in side] for side in sides)
        yield _compare_means(f"share of {name}", *shares)


def _compare_means(name: str, train: Sequence[float], here: Sequence[float]) -> MeanShift:
    """Return both means, and their difference with its 95 % interval by Welch's variance."""
    gap = float(np.mean(here) - np.mean(train))
    variance = float(np.var(here, ddof=1) / len(here) + np.var(train, ddof=1) / len(train))
    reach = NORMAL_QUANTILE * variance**0.5
    return MeanShift(
        name=name,
        train=round(float(np.mean(train)), 4),
        here=round(float(np.mean(here)), 4),
        difference=round(gap, 4),
        low=round(gap - reach, 4),
        high=round(gap + reach, 4),
    )
