"""Numbers of a post that should tell nothing of its label, and how much they tell."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.audit import findings
from miko_clf.data.audit.label_leakage import MENTION_SOURCES, flag_class_mentions
from miko_clf.data.audit.near_duplicates import ImageFingerprint
from miko_clf.data.audit.overlaps import ComparedPosts
from miko_clf.data.labels import flatten_label, list_answers, list_class_names
from miko_clf.data.post import Post
from miko_clf.data.text import TEXT_MARKS
from miko_clf.intervals import Interval

MIN_LENGTH_AUROC = 0.65
"""AUROC from which a length is: people do write more about some things than about others."""
MIN_UNSEEN_AUROC = 0.55
"""AUROC from which what no model sees must never be given to one."""

_CueMeasure = Callable[[Post, ImageFingerprint | None], float | None]


class _CueKind(NamedTuple):
    """Whether a model sees cues of this kind, and the AUROC from which they are reported."""

    reaches: bool
    limit: float


_MARK = _CueKind(True, findings.MIN_MARK_AUROC)
_LENGTH = _CueKind(True, MIN_LENGTH_AUROC)
_UNSEEN = _CueKind(False, MIN_UNSEEN_AUROC)


def _make_mark_measure(pattern: re.Pattern[str]) -> _CueMeasure:
    return lambda post, _: None if post.text is None else float(bool(pattern.search(post.text)))


def _read_last_number(text: str) -> float | None:
    digits = re.findall(r"\d+", text)
    return float(digits[-1][:300]) if digits else None  # more digits than a float holds


def _read_file_number(post: Post, _: ImageFingerprint | None) -> float | None:
    """Return the last number in the name of the image, where the id does not end with the same."""
    number = _read_last_number(post.image.stem) if isinstance(post.image, Path) else None
    return None if number == _read_last_number(post.id) else number


def _count_parts(text: Sized | None) -> int | None:
    return None if text is None else len(text)


_CUES: tuple[tuple[_CueKind, str, _CueMeasure], ...] = (
    *((_MARK, name, _make_mark_measure(pattern)) for name, pattern in TEXT_MARKS.items()),
    (_MARK, "no text", lambda post, _: float(post.text is None)),
    (_MARK, "no image", lambda post, _: float(post.image is None)),
    (_MARK, "no description", lambda post, _: float(post.description is None)),
    (_MARK, "no intentions", lambda post, _: float(not post.intentions)),
    (_LENGTH, "characters of the text", lambda post, _: _count_parts(post.text)),
    (_LENGTH, "words of the text", lambda post, _: _count_parts(post.text and post.text.split())),
    (_LENGTH, "characters of the description", lambda post, _: _count_parts(post.description)),
    (_UNSEEN, "number in the id", lambda post, _: _read_last_number(post.id)),
    (_UNSEEN, "number in the file name", _read_file_number),
    (_UNSEEN, "image file size", lambda _, image: image and image.num_bytes),
    (_UNSEEN, "image width", lambda _, image: image and image.width),
    (_UNSEEN, "image height", lambda _, image: image and image.height),
    (_UNSEEN, "image width / height", lambda _, image: image and image.width / image.height),
)


def measure_cues(data: ComparedPosts) -> tuple[findings.Cue, ...]:
    """Return what each cue tells of the label on train (or the first split), and elsewhere.

    A cue that is the same for every post is left out.
    """
    classes = list_class_names(data.posts)
    telling = _choose_classes(data.posts, classes)
    cues = []
    pairs = list(zip(data.posts, data.fingerprints, strict=True))
    for kind, name, measure in _CUES:
        numbers = _make_array([measure(post, image) for post, image in pairs])
        if len(np.unique(numbers[~np.isnan(numbers)])) > 1:
            cues.append(_pick_best_told_class(data, name, kind, dict.fromkeys(telling, numbers)))
    for source, read in MENTION_SOURCES.items():
        texts = [read(post) for post in data.posts]
        flags = {label: _make_array(flag_class_mentions(texts, label)) for label in classes}
        if any((values > 0).any() for values in flags.values()):
            name = f"class named in {source}"
            cues.append(_pick_best_told_class(data, name, _MARK, flags))
    return tuple(cues)


def _pick_best_told_class(
    data: ComparedPosts, name: str, kind: _CueKind, numbers: Mapping[str, NDArray[np.float64]]
) -> findings.Cue:
    """Return the finding for the class that is told best, one against the rest."""

    def rank(cue: findings.Cue) -> tuple[float, bool, str]:
        return max(cue.low or 0, cue.nearby_low or 0), bool(cue.higher), cue.label or ""

    cues = (_measure_cue(data, name, kind, label, values) for label, values in numbers.items())
    return max(cues, key=rank)


def _measure_cue(
    data: ComparedPosts, name: str, kind: _CueKind, label: str, numbers: NDArray[np.float64]
) -> findings.Cue:
    main = "train" if "train" in data.order else data.order[0]
    labelled = _mark_answered(data.posts, label)
    inside = np.array([label in flatten_label(post.label) for post in data.posts])
    rows = {split: labelled & (np.array(data.splits) == split) for split in data.order}
    by_split = {split: findings.measure_auroc(numbers[r], inside[r]) for split, r in rows.items()}
    ids = [post.id for post, known in zip(data.posts, labelled, strict=True) if known]
    nearby = findings.measure_neighbour_auroc(numbers[labelled], inside[labelled], ids)
    plain = by_split.pop(main)
    higher = None if plain is None else plain.value >= 0.5
    auroc = plain and findings.fold_auroc(plain)
    held = {
        split: round((other if higher else findings.flip_auroc(other)).value, 4)
        for split, other in by_split.items()
        if other and higher is not None
    }
    return findings.Cue(
        name=name,
        reaches=kind.reaches,
        split=main,
        label=label,
        higher=higher,
        auroc=auroc and round(auroc.value, 4),
        low=auroc and round(auroc.low, 4),
        high=auroc and round(auroc.high, 4),
        inside=_average_known(numbers[rows[main] & inside]),
        outside=_average_known(numbers[rows[main] & ~inside]),
        nearby=nearby and round(nearby.value, 4),
        nearby_low=nearby and round(nearby.low, 4),
        limit=kind.limit,
        held=held,
        verdict=_judge_cue(kind, auroc, nearby),
    )


def _judge_cue(kind: _CueKind, *aurocs: Interval | None) -> findings.CueVerdict:
    lows = [auroc.low for auroc in aurocs if auroc]
    if not lows:
        return "too few rows"
    if max(lows) <= kind.limit:
        return "no finding"
    return "shortcut" if kind.reaches else "never feed this"


def _average_known(numbers: NDArray[np.float64]) -> float | None:
    known = numbers[~np.isnan(numbers)]
    return round(float(known.mean()), 4) if len(known) else None


def _choose_classes(posts: Sequence[Post], classes: Sequence[str]) -> list[str]:
    """Return the classes; of two exclusive ones the rarer alone, which says all of the other."""
    labels = [flatten_label(post.label) for post in posts if post.label is not None]
    if len(classes) != 2 or any(len(names) != 1 for names in labels):
        return list(classes)
    counts = Counter(name for names in labels for name in names)
    return [min(classes, key=lambda name: (counts[name], name))]


def _mark_answered(posts: Sequence[Post], label: str) -> NDArray[np.bool_]:
    """Return which posts say whether they are of a class; a post may leave a task out."""
    return np.array([
        any(not task or label.startswith(f"{task}: ") for task in list_answers(post.label))
        for post in posts
    ])  # fmt: skip


def _make_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
