"""The audit of a data set: every finding on its posts, and which of them make results void."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import chi2_contingency

from miko_clf.data.audit import findings
from miko_clf.data.audit.drift import MIN_DRIFT_AUROC, describe_drift, measure_drift
from miko_clf.data.audit.label_leakage import count_class_mentions
from miko_clf.data.audit.near_duplicates import MAX_GREY_DISTANCE, MAX_HASH_BITS, MIN_JACCARD
from miko_clf.data.audit.overlaps import (
    MIN_POST_LETTERS,
    ComparedPosts,
    find_contrast_sets,
    find_overlaps,
    measure_lookup_gains,
)
from miko_clf.data.audit.shortcuts import MIN_LENGTH_AUROC, MIN_UNSEEN_AUROC, measure_cues
from miko_clf.data.labels import flatten_label, list_class_names
from miko_clf.data.post import Post
from miko_clf.data.text import normalise_text

_MIN_SHIFT = 0.05
"""Share of posts by which a class must move between splits, with p under 0.01, to be told."""
_MAX_P = 0.01
_LIMITS = {
    "jaccard": MIN_JACCARD,
    "hash_bits": MAX_HASH_BITS,
    "grey_levels": MAX_GREY_DISTANCE,
    "letters_of_a_post": MIN_POST_LETTERS,
    "lookup_gain": findings.MIN_LOOKUP_GAIN,
    "auroc_of_a_mark": findings.MIN_MARK_AUROC,
    "auroc_of_a_length": MIN_LENGTH_AUROC,
    "auroc_of_what_no_model_sees": MIN_UNSEEN_AUROC,
    "shift": _MIN_SHIFT,
    "auroc_of_other_words": MIN_DRIFT_AUROC,
}


def audit_posts(data: ComparedPosts) -> findings.Audit:
    """Return every finding on the posts, leaks and warnings in a line each.

    A leak is a whole post on two sides of a split, a part whose label in train beats the
    majority elsewhere, or a shortcut in what a model reads. Parts that are shared without such a
    gain, as in the contrast sets of Hateful Memes, are listed and no leak.
    """
    overlaps, lookups, cues = find_overlaps(data), measure_lookup_gains(data), measure_cues(data)
    splits, shifts = _summarise_splits(data), _measure_class_shifts(data)
    drifts = _measure_drifts(data)
    return findings.Audit(
        data=data.path.resolve().name,
        kind=data.kind,
        splits=splits,
        shifts=shifts,
        drifts=drifts,
        overlaps=overlaps,
        lookups=lookups,
        contrast_sets=find_contrast_sets(data),
        cues=cues,
        class_mentions=count_class_mentions(data.posts, list_class_names(data.posts)),
        refused=tuple(
            findings.UnreadPost(split=split, where=where, why=why)
            for split, where, why in data.refused
        ),
        leaks=tuple(_list_leaks(overlaps, lookups, cues)),
        warnings=(
            *_list_warnings(overlaps, cues, splits, shifts),
            *filter(None, map(describe_drift, drifts)),
        ),
        limits=_LIMITS,
    )


def _summarise_splits(data: ComparedPosts) -> tuple[findings.SplitSummary, ...]:
    """Return what each split holds and lacks."""
    classes = list_class_names(data.posts)
    summaries = []
    for name in data.order:
        posts = _select_split(data, name)
        counts = _count_classes(posts)
        summaries.append(
            findings.SplitSummary(
                name=name,
                posts=len(posts),
                labels={label: counts[label] for label in classes},
                unlabelled=sum(post.label is None for post in posts),
                without_text=sum(not normalise_text(post.text) for post in posts),
                without_image=sum(post.image is None for post in posts),
                refused=sum(split == name for split, _, _ in data.refused),
            )
        )
    return tuple(summaries)


def _measure_class_shifts(data: ComparedPosts) -> tuple[findings.ClassShift, ...]:
    """Return how far the share of every class is from its share in train, split by split."""
    train = [post for post in _select_split(data, "train") if post.label is not None]
    shifts = []
    for split in (name for name in data.order if name != "train"):
        posts = [post for post in _select_split(data, split) if post.label is not None]
        if not train or not posts:
            continue
        sizes = np.array([len(train), len(posts)])
        before, after = _count_classes(train), _count_classes(posts)
        for label in list_class_names([*train, *posts]):
            counts = np.array([before[label], after[label]])
            train_share, share = (counts / sizes).tolist()
            table = np.stack([counts, sizes - counts], axis=1)
            p = float(chi2_contingency(table).pvalue) if table.sum(axis=0).all() else 1.0
            shifts.append(
                findings.ClassShift(
                    split=split,
                    label=label,
                    train_share=round(train_share, 4),
                    share=round(share, 4),
                    p=round(p, 6),
                    warn=p < _MAX_P and abs(train_share - share) > _MIN_SHIFT,
                )
            )
    return tuple(shifts)


def _measure_drifts(data: ComparedPosts) -> tuple[findings.Drift, ...]:
    """Return how far the posts of each split are from those of train."""
    parts: dict[str, list[int]] = {name: [] for name in data.order}
    for row, split in enumerate(data.splits):
        parts[split].append(row)
    if not parts.get("train"):
        return ()
    posts = {name: [data.posts[row] for row in rows] for name, rows in parts.items()}
    pictures = {name: [data.fingerprints[row] for row in rows] for name, rows in parts.items()}
    return tuple(
        measure_drift(name, posts["train"], posts[name], (pictures["train"], pictures[name]))
        for name in data.order
        if name != "train" and posts[name]
    )


def _select_split(data: ComparedPosts, name: str) -> list[Post]:
    return [post for post, split in zip(data.posts, data.splits, strict=True) if split == name]


def _count_classes(posts: Sequence[Post]) -> Counter[str]:
    return Counter(name for post in posts for name in flatten_label(post.label))


def _list_leaks(
    overlaps: Sequence[findings.Overlap],
    lookups: Sequence[findings.Lookup],
    cues: Sequence[findings.Cue],
) -> Iterator[str]:
    across = {overlap.key: overlap.num_across for overlap in overlaps}
    if across["near post"]:
        yield (
            f"{_format_count(across['near post'], 'post')} on both sides of a split, alike in text "
            f"and image ({across['post']} identical in both)"
        )
    yield from (lookup.line() for lookup in lookups if lookup.leak)
    for cue in cues:
        if cue.verdict == "shortcut":
            yield f"{cue.name} alone tells {cue.label} with AUROC {cue.best:.2f}"


def _list_warnings(
    overlaps: Sequence[findings.Overlap],
    cues: Sequence[findings.Cue],
    splits: Sequence[findings.SplitSummary],
    shifts: Sequence[findings.ClassShift],
) -> Iterator[str]:
    by_key = {overlap.key: overlap for overlap in overlaps}
    if ids := by_key["id"].num_across:
        yield f"{_format_count(ids, 'id')} in more than one split; reading refuses them"
    if groups := by_key["group"].num_across:
        yield f"{_format_count(groups, 'declared group')} in more than one split"
    alike = by_key["near post"]
    what = "of posts with like text and image"
    if conflicts := alike.num_conflicts:
        yield f"{_format_count(conflicts, 'group')} {what} are labelled differently"
    if inside := alike.num_groups - alike.num_across:
        yield f"{_format_count(inside, 'group')} {what} within one split"
    for cue in cues:
        if cue.verdict == "never feed this":
            yield (
                f"{cue.name} tells {cue.label} with AUROC {cue.best:.2f}: no model of miko_clf "
                "sees it; never feed it to one"
            )
    for shift in shifts:
        if shift.warn:
            shares = f"{shift.train_share:.1%} of train and {shift.share:.1%} of {shift.split}"
            yield f"{shift.label} is {shares}"
    if unread := sum(split.refused for split in splits):
        count = _format_count(unread, "post")
        yield f"{count} that cannot be read (missing or corrupt image, bad row)"


def _format_count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
