"""The audit of a data set: every finding on its posts, and which of them make results void."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import chi2_contingency

from miko_clf.data.audit import near_duplicates
from miko_clf.data.audit import shortcuts as limits
from miko_clf.data.audit.auroc import MIN_MARK_AUROC
from miko_clf.data.audit.findings import (
    MIN_LOOKUP_GAIN,
    Audit,
    ClassShift,
    Cue,
    Lookup,
    Overlap,
    SplitSummary,
    UnreadPost,
)
from miko_clf.data.audit.label_leakage import count_class_names
from miko_clf.data.audit.overlaps import (
    MIN_POST_LETTERS,
    ComparedPosts,
    find_contrast_sets,
    find_overlaps,
    measure_lookup_gains,
)
from miko_clf.data.audit.shortcuts import measure_cues
from miko_clf.data.labels import flatten_label, list_class_names
from miko_clf.data.post import Post
from miko_clf.data.text import normalise_text

_MIN_SHIFT = 0.05
"""Share of posts by which a class must move between splits, with p under 0.01, to be told."""
_MAX_P = 0.01


def summarise_splits(seen: ComparedPosts) -> tuple[SplitSummary, ...]:
    """Return what each split holds and lacks."""
    found = []
    classes = list_class_names(seen.posts)
    for name in seen.order:
        posts = _select_split(seen, name)
        counts = _count_classes(posts)
        found.append(
            SplitSummary(
                name=name,
                posts=len(posts),
                labels={label: counts[label] for label in classes},
                unlabelled=sum(post.label is None for post in posts),
                without_text=sum(not normalise_text(post.text) for post in posts),
                without_image=sum(post.image is None for post in posts),
                refused=sum(split == name for split, _, _ in seen.refused),
            )
        )
    return tuple(found)


def measure_class_shifts(seen: ComparedPosts) -> tuple[ClassShift, ...]:
    """Return how far the share of every class is from its share in train, split by split."""
    train = [post for post in _select_split(seen, "train") if post.label is not None]
    found = []
    for split in (name for name in seen.order if name != "train"):
        posts = [post for post in _select_split(seen, split) if post.label is not None]
        if not train or not posts:
            continue
        before, after = _count_classes(train), _count_classes(posts)
        for label in list_class_names([*train, *posts]):
            table = [
                [counts[label], total - counts[label]]
                for counts, total in ((before, len(train)), (after, len(posts)))
            ]
            shares = before[label] / len(train), after[label] / len(posts)
            p = _test_shares(np.array(table))
            found.append(
                ClassShift(
                    split=split,
                    label=label,
                    train_share=round(shares[0], 4),
                    share=round(shares[1], 4),
                    p=round(p, 6),
                    warn=p < _MAX_P and abs(shares[0] - shares[1]) > _MIN_SHIFT,
                )
            )
    return tuple(found)


def _test_shares(table: np.ndarray) -> float:
    """Return how often two samples of one population differ as much as these, by chi-square."""
    if not table.sum(axis=0).all():
        return 1.0
    return float(chi2_contingency(table).pvalue)


def _select_split(seen: ComparedPosts, name: str) -> list[Post]:
    return [post for post, split in zip(seen.posts, seen.splits, strict=True) if split == name]


def _count_classes(posts: Sequence[Post]) -> Counter[str]:
    return Counter(name for post in posts for name in flatten_label(post.label))


def audit_posts(seen: ComparedPosts) -> Audit:
    """Return every finding on the posts, leaks and warnings in a line each.

    A leak is a whole post on two sides of a split, a part whose label in train beats the
    majority elsewhere, or a shortcut in what a model reads. Parts that are shared without such a
    gain, as the confounders of Hateful Memes are, are listed and no leak.
    """
    same, looked, told = find_overlaps(seen), measure_lookup_gains(seen), measure_cues(seen)
    held, moved = summarise_splits(seen), measure_class_shifts(seen)
    return Audit(
        data=seen.path.resolve().name,
        kind=seen.kind,
        splits=held,
        shifts=moved,
        overlaps=same,
        lookups=looked,
        confounders=find_contrast_sets(seen),
        cues=told,
        namings=count_class_names(seen.posts, list_class_names(seen.posts)),
        refused=tuple(
            UnreadPost(split=split, where=at, why=why) for split, at, why in seen.refused
        ),
        leaks=tuple(_list_leaks(same, looked, told)),
        warnings=tuple(_list_warnings(same, told, held, moved)),
        limits={
            "jaccard": near_duplicates.MIN_JACCARD,
            "hash_bits": near_duplicates.MAX_HASH_BITS,
            "grey_levels": near_duplicates.MAX_GREY_DISTANCE,
            "letters_of_a_post": MIN_POST_LETTERS,
            "lookup_gain": MIN_LOOKUP_GAIN,
            "auroc_of_a_mark": MIN_MARK_AUROC,
            "auroc_of_a_length": limits.MIN_LENGTH_AUROC,
            "auroc_of_what_no_model_sees": limits.MIN_UNSEEN_AUROC,
            "shift": _MIN_SHIFT,
        },
    )


def _list_leaks(
    same: Sequence[Overlap], looked: Sequence[Lookup], told: Sequence[Cue]
) -> Iterator[str]:
    groups = {overlap.key: overlap for overlap in same}
    if groups["near post"].num_across:
        whole = groups["near post"].num_across
        exact = groups["post"].num_across
        yield (
            f"{_format_count(whole, 'post')} on both sides of a split, alike in text and image "
            f"({exact} identical in both)"
        )
    for each in looked:
        if each.leak:
            yield each.line()
    for cue in told:
        if cue.verdict == "shortcut":
            yield (f"{cue.name} alone tells {cue.label} with AUROC {cue.best:.2f}")


def _list_warnings(
    same: Sequence[Overlap],
    told: Sequence[Cue],
    held: Sequence[SplitSummary],
    moved: Sequence[ClassShift],
) -> Iterator[str]:
    groups = {overlap.key: overlap for overlap in same}
    if groups["id"].num_across:
        yield f"{_format_count(groups['id'].num_across, 'id')} in more than one split; reading refuses them"
    if groups["group"].num_across:
        yield f"{_format_count(groups['group'].num_across, 'declared group')} in more than one split"
    if groups["near post"].num_conflicts:
        yield (
            f"{_format_count(groups['near post'].num_conflicts, 'group')} of posts with like text and "
            "image are labelled differently"
        )
    inside = groups["near post"].num_groups - groups["near post"].num_across
    if inside:
        yield f"{_format_count(inside, 'group')} of posts with like text and image within one split"
    for cue in told:
        if cue.verdict == "never feed this":
            yield (
                f"{cue.name} tells {cue.label} with AUROC {cue.best:.2f}: no model of miko_clf "
                "sees it; never feed it to one"
            )
    for shift in moved:
        if shift.warn:
            yield (
                f"{shift.label} is {shift.train_share:.1%} of train and {shift.share:.1%} of "
                f"{shift.split}"
            )
    refused = sum(split.refused for split in held)
    if refused:
        yield f"{_format_count(refused, 'post')} that cannot be read (missing or corrupt image, bad row)"


def _format_count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
