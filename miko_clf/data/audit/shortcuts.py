"""Numbers of a post that should tell nothing of its label, and how much they tell."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.audit.auroc import MIN_MARK_AUROC, Auroc, measure_auroc, measure_neighbour_auroc
from miko_clf.data.audit.findings import Cue, CueVerdict
from miko_clf.data.audit.label_leakage import NAMING_SOURCES, flag_class_names
from miko_clf.data.audit.near_duplicates import ImageFingerprint
from miko_clf.data.audit.overlaps import ComparedPosts
from miko_clf.data.labels import flatten_label, list_answers, list_class_names
from miko_clf.data.post import Post
from miko_clf.data.text import TEXT_MARKS

MIN_LENGTH_AUROC = 0.65
"""AUROC from which a length is: people do write more about some things than about others."""
MIN_UNSEEN_AUROC = 0.55
"""AUROC from which what no model sees must never be given to one."""

_CueMeasure = Callable[[Post, ImageFingerprint | None], float | None]


class _CueKind(NamedTuple):
    """How a cue is measured, whether a model sees it, and the AUROC from which it is reported."""

    measure: _CueMeasure
    reaches: bool
    limit: float


def _make_mark_measure(pattern: re.Pattern[str]) -> _CueMeasure:
    return lambda post, _: None if post.text is None else float(bool(pattern.search(post.text)))


def _read_last_number(text: str) -> float | None:
    digits = re.findall(r"\d+", text)
    return float(digits[-1][:300]) if digits else None  # more digits than a float holds


def _read_file_number(post: Post, _: ImageFingerprint | None) -> float | None:
    """Return the last number in the name of the image, where the id does not end with the same."""
    number = _read_last_number(post.image.stem) if isinstance(post.image, Path) else None
    return None if number == _read_last_number(post.id) else number


_CUE_KINDS: Mapping[str, _CueKind] = {
    **{
        name: _CueKind(_make_mark_measure(pattern), True, MIN_MARK_AUROC)
        for name, pattern in TEXT_MARKS.items()
    },
    "no text": _CueKind(lambda post, _: float(post.text is None), True, MIN_MARK_AUROC),
    "no image": _CueKind(lambda post, _: float(post.image is None), True, MIN_MARK_AUROC),
    "no description": _CueKind(
        lambda post, _: float(post.description is None), True, MIN_MARK_AUROC
    ),
    "no intentions": _CueKind(lambda post, _: float(not post.intentions), True, MIN_MARK_AUROC),
    "characters of the text": _CueKind(
        lambda post, _: None if post.text is None else len(post.text), True, MIN_LENGTH_AUROC
    ),
    "words of the text": _CueKind(
        lambda post, _: None if post.text is None else len(post.text.split()),
        True,
        MIN_LENGTH_AUROC,
    ),
    "characters of the description": _CueKind(
        lambda post, _: None if post.description is None else len(post.description),
        True,
        MIN_LENGTH_AUROC,
    ),
    "number in the id": _CueKind(
        lambda post, _: _read_last_number(post.id), False, MIN_UNSEEN_AUROC
    ),
    "number in the file name": _CueKind(_read_file_number, False, MIN_UNSEEN_AUROC),
    "image file size": _CueKind(lambda _, seen: seen and seen.num_bytes, False, MIN_UNSEEN_AUROC),
    "image width": _CueKind(lambda _, seen: seen and seen.width, False, MIN_UNSEEN_AUROC),
    "image height": _CueKind(lambda _, seen: seen and seen.height, False, MIN_UNSEEN_AUROC),
    "image width / height": _CueKind(
        lambda _, seen: seen and seen.width / seen.height, False, MIN_UNSEEN_AUROC
    ),
}


_MENTION_KIND = _CueKind(lambda *_: None, True, MIN_MARK_AUROC)


def measure_cues(seen: ComparedPosts) -> tuple[Cue, ...]:
    """Return what each cue tells of the label on train (or the first split), and elsewhere.

    A cue that is the same for every post is left out.
    """
    classes = list_class_names(seen.posts)
    telling = _choose_classes(seen.posts, classes)
    found = []
    for name, kind in _CUE_KINDS.items():
        pairs = zip(seen.posts, seen.looks, strict=True)
        numbers = _make_array([kind.measure(post, looks) for post, looks in pairs])
        if len(np.unique(numbers[~np.isnan(numbers)])) > 1:
            found.append(_pick_best_told_class(seen, name, kind, dict.fromkeys(telling, numbers)))
    for source, read in NAMING_SOURCES.items():
        texts = [read(post) for post in seen.posts]
        naming = {label: _make_array(flag_class_names(texts, label)) for label in classes}
        if any((each > 0).any() for each in naming.values()):
            found.append(
                _pick_best_told_class(seen, f"class named in {source}", _MENTION_KIND, naming)
            )
    return tuple(found)


def _pick_best_told_class(
    seen: ComparedPosts, name: str, kind: _CueKind, numbers: Mapping[str, NDArray[np.float64]]
) -> Cue:
    """Return the finding for the class that is told best, one against the rest."""
    told = [
        _measure_cue(seen, name, kind, label, values)
        for label, values in numbers.items()
    ]  # fmt: skip

    def rank(cue: Cue) -> tuple[float, bool, str]:
        return max(cue.low or 0, cue.nearby_low or 0), bool(cue.higher), cue.label or ""

    return max(told, key=rank)


def _measure_cue(
    seen: ComparedPosts, name: str, kind: _CueKind, label: str, numbers: NDArray[np.float64]
) -> Cue:
    main = "train" if "train" in seen.order else seen.order[0]
    labelled = _mark_answered(seen.posts, label)
    inside = _mark_inside(seen.posts, label)
    rows = {split: labelled & (np.array(seen.splits) == split) for split in seen.order}
    plain = {
        split: measure_auroc(numbers[rows[split]], inside[rows[split]]) for split in seen.order
    }
    ids = [post.id for post, given in zip(seen.posts, labelled, strict=True) if given]
    voted = measure_neighbour_auroc(numbers[labelled], inside[labelled], ids)
    here = plain.pop(main)
    higher = None if here is None else here.value >= 0.5
    way = here and here.either_way()
    held = {split: each if higher else each.turned() for split, each in plain.items() if each}
    return Cue(
        name=name,
        reaches=kind.reaches,
        split=main,
        label=label,
        higher=higher,
        auroc=way and round(way.value, 4),
        low=way and round(way.low, 4),
        high=way and round(way.high, 4),
        inside=_average_known(numbers[rows[main] & inside]),
        outside=_average_known(numbers[rows[main] & ~inside]),
        nearby=voted and round(voted.value, 4),
        nearby_low=voted and round(voted.low, 4),
        limit=kind.limit,
        held={split: round(each.value, 4) for split, each in held.items() if higher is not None},
        verdict=_judge_cue(kind, way, voted),
    )


def _judge_cue(kind: _CueKind, *told: Auroc | None) -> CueVerdict:
    lows = [each.low for each in told if each]
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
    given = [flatten_label(post.label) for post in posts if post.label is not None]
    if len(classes) != 2 or any(len(names) != 1 for names in given):
        return list(classes)
    counts = Counter(name for names in given for name in names)
    return [min(classes, key=lambda name: (counts[name], name))]


def _mark_answered(posts: Sequence[Post], label: str) -> NDArray[np.bool_]:
    """Return which posts say whether they are of a class; a post may leave a task out."""
    asked = [list_answers(post.label) for post in posts]
    return np.array([
        any(not task or label.startswith(f"{task}: ") for task in tasks) for tasks in asked
    ])  # fmt: skip


def _mark_inside(posts: Sequence[Post], label: str) -> NDArray[np.bool_]:
    return np.array([label in flatten_label(post.label) for post in posts])


def _make_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
