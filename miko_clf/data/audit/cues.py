"""Numbers of a post that should tell nothing of its label, and how much they tell."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miko_clf.data.audit.area import Area, area
from miko_clf.data.audit.examine import Examined
from miko_clf.data.audit.findings import Cue, Verdict
from miko_clf.data.audit.glance import MARK, MARKS
from miko_clf.data.audit.naming import SOURCES, named_in
from miko_clf.data.audit.nearby import nearby
from miko_clf.data.audit.pictures import Looks
from miko_clf.data.labels import answers, flat
from miko_clf.data.post import Post

LENGTH = 0.65
"""AUROC from which a length is: people do write more about some things than about others."""
UNSEEN = 0.55
"""AUROC from which what no model sees must never be given to one."""

Measure = Callable[[Post, Looks | None], float | None]


class Kind(NamedTuple):
    """How a cue is measured, whether a model sees it, and the AUROC from which it is reported."""

    measure: Measure
    reaches: bool
    limit: float


def _marked(pattern: re.Pattern[str]) -> Measure:
    return lambda post, _: None if post.text is None else float(bool(pattern.search(post.text)))


def _last_number(text: str) -> float | None:
    digits = re.findall(r"\d+", text)
    return float(digits[-1][:300]) if digits else None  # more digits than a float holds


def _file_number(post: Post, _: Looks | None) -> float | None:
    """Return the last number in the name of the image, where the id does not end with the same."""
    number = _last_number(post.image.stem) if isinstance(post.image, Path) else None
    return None if number == _last_number(post.id) else number


KINDS: Mapping[str, Kind] = {
    **{name: Kind(_marked(pattern), True, MARK) for name, pattern in MARKS.items()},
    "no text": Kind(lambda post, _: float(post.text is None), True, MARK),
    "no image": Kind(lambda post, _: float(post.image is None), True, MARK),
    "no description": Kind(lambda post, _: float(post.description is None), True, MARK),
    "no intentions": Kind(lambda post, _: float(not post.intentions), True, MARK),
    "characters of the text": Kind(
        lambda post, _: None if post.text is None else len(post.text), True, LENGTH
    ),
    "words of the text": Kind(
        lambda post, _: None if post.text is None else len(post.text.split()), True, LENGTH
    ),
    "characters of the description": Kind(
        lambda post, _: None if post.description is None else len(post.description), True, LENGTH
    ),
    "number in the id": Kind(lambda post, _: _last_number(post.id), False, UNSEEN),
    "number in the file name": Kind(_file_number, False, UNSEEN),
    "image file size": Kind(lambda _, seen: seen and seen.num_bytes, False, UNSEEN),
    "image width": Kind(lambda _, seen: seen and seen.width, False, UNSEEN),
    "image height": Kind(lambda _, seen: seen and seen.height, False, UNSEEN),
    "image width / height": Kind(lambda _, seen: seen and seen.width / seen.height, False, UNSEEN),
}


_NAMED = Kind(lambda *_: None, True, MARK)


def cues(seen: Examined) -> tuple[Cue, ...]:
    """Return what each cue tells of the label on train (or the first split), and elsewhere.

    A cue that is the same for every post is left out.
    """
    classes = class_names(seen.posts)
    telling = _telling(seen.posts, classes)
    found = []
    for name, kind in KINDS.items():
        pairs = zip(seen.posts, seen.looks, strict=True)
        numbers = _array([kind.measure(post, looks) for post, looks in pairs])
        if len(np.unique(numbers[~np.isnan(numbers)])) > 1:
            found.append(_judged(seen, name, kind, dict.fromkeys(telling, numbers)))
    for source, read in SOURCES.items():
        texts = [read(post) for post in seen.posts]
        naming = {label: _array(named_in(texts, label)) for label in classes}
        if any((each > 0).any() for each in naming.values()):
            found.append(_judged(seen, f"class named in {source}", _NAMED, naming))
    return tuple(found)


def _judged(
    seen: Examined, name: str, kind: Kind, numbers: Mapping[str, NDArray[np.float64]]
) -> Cue:
    """Return the finding for the class that is told best, one against the rest."""
    told = [
        _told(seen, name, kind, label, values)
        for label, values in numbers.items()
    ]  # fmt: skip

    def rank(cue: Cue) -> tuple[float, bool, str]:
        return max(cue.low or 0, cue.nearby_low or 0), bool(cue.higher), cue.label or ""

    return max(told, key=rank)


def _told(seen: Examined, name: str, kind: Kind, label: str, numbers: NDArray[np.float64]) -> Cue:
    main = "train" if "train" in seen.order else seen.order[0]
    labelled = _answers(seen.posts, label)
    inside = _inside(seen.posts, label)
    rows = {split: labelled & (np.array(seen.splits) == split) for split in seen.order}
    plain = {split: area(numbers[rows[split]], inside[rows[split]]) for split in seen.order}
    ids = [post.id for post, given in zip(seen.posts, labelled, strict=True) if given]
    voted = nearby(numbers[labelled], inside[labelled], ids)
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
        inside=_mean(numbers[rows[main] & inside]),
        outside=_mean(numbers[rows[main] & ~inside]),
        nearby=voted and round(voted.value, 4),
        nearby_low=voted and round(voted.low, 4),
        limit=kind.limit,
        held={split: round(each.value, 4) for split, each in held.items() if higher is not None},
        verdict=_verdict(kind, way, voted),
    )


def _verdict(kind: Kind, *told: Area | None) -> Verdict:
    lows = [each.low for each in told if each]
    if not lows:
        return "too few rows"
    if max(lows) <= kind.limit:
        return "no finding"
    return "shortcut" if kind.reaches else "never feed this"


def _mean(numbers: NDArray[np.float64]) -> float | None:
    known = numbers[~np.isnan(numbers)]
    return round(float(known.mean()), 4) if len(known) else None


def class_names(posts: Sequence[Post]) -> list[str]:
    """Return every class that a post is labelled with, a task's name before it where it has one."""
    return sorted({name for post in posts for name in flat(post.label)})


def _telling(posts: Sequence[Post], classes: Sequence[str]) -> list[str]:
    """Return the classes; of two exclusive ones the rarer alone, which says all of the other."""
    given = [flat(post.label) for post in posts if post.label is not None]
    if len(classes) != 2 or any(len(names) != 1 for names in given):
        return list(classes)
    counts = Counter(name for names in given for name in names)
    return [min(classes, key=lambda name: (counts[name], name))]


def _answers(posts: Sequence[Post], label: str) -> NDArray[np.bool_]:
    """Return which posts say whether they are of a class; a post may leave a task out."""
    asked = [answers(post.label) for post in posts]
    return np.array([
        any(not task or label.startswith(f"{task}: ") for task in tasks) for tasks in asked
    ])  # fmt: skip


def _inside(posts: Sequence[Post], label: str) -> NDArray[np.bool_]:
    return np.array([label in flat(post.label) for post in posts])


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
