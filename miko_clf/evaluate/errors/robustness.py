"""What a system loses where an input is missing, mistyped, blurred or badly described."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from miko_clf.data import noise
from miko_clf.data.audit.watch import watched
from miko_clf.data.post import Post
from miko_clf.evaluate import weighted
from miko_clf.evaluate.errors.rates import DRAWN, RESAMPLES, Judged, around, judged, on_draws
from miko_clf.evaluate.interval import Interval
from miko_clf.evaluate.subject import Subject
from miko_clf.train.feed import Feed

Stated = Float[np.ndarray, "row label"]


@dataclass(frozen=True)
class Changed:
    """How a system does under one change; a difference is the changed rows minus the unchanged.

    `changed` of the `posts` are other than before. Both figures of a difference are of the same
    rows in every resample.
    """

    change: str
    level: str
    posts: int
    changed: int
    metrics: Mapping[str, Interval]
    difference: Mapping[str, Interval]


class Change(NamedTuple):
    """A change of the posts; `part` is the one of image and text that it touches."""

    name: str
    level: str
    part: str
    make: Callable[[Sequence[Post]], list[Post]]


class Tried(NamedTuple):
    """What the system says, (row, label), under a change of so many posts."""

    name: str
    level: str
    touched: int
    stated: Stated


def robustness(subject: Subject, *, num_resamples: int = RESAMPLES, seed: int = 0) -> list[Changed]:
    """Return the unchanged rows, every pattern of missing inputs, and every change that applies.

    A change that touches no post, or nothing that the system reads, is left out. The posts are
    encoded once for each change, and what the towers say of them is kept nowhere.
    """
    drawn = weighted.draw(len(subject.posts), num_resamples, np.random.default_rng(seed))
    before = judged(subject)
    table = [_compared("none", "", 0, before, before, drawn)]
    patterns, altered = list(missing(subject)), list(changes(subject, seed))
    tried = chain(_without(subject, patterns), _altered(subject, altered))
    for each in watched(tried, len(patterns) + len(altered), "robustness"):
        if each.touched:
            after = judged(replace(subject, probabilities=each.stated))
            table.append(_compared(each.name, each.level, each.touched, before, after, drawn))
    return table


def _without(subject: Subject, patterns: Iterable[tuple[str, ...]]) -> Iterator[Tried]:
    for names in patterns:
        count = sum(any(_has(post, name) for name in names) for post in subject.posts)
        stated = subject.predictor.probabilities(subject.arm, without=names)[:, subject.span]
        yield Tried("missing", " + ".join(names), count, stated)


def _altered(subject: Subject, found: Iterable[Change]) -> Iterator[Tried]:
    """Yield the changes tried; texts share a passing cache, images are too large to be kept."""
    with _beside(subject.cache, "text") as texts:
        for change in found:
            posts = change.make(subject.posts)
            count = sum(new != old for new, old in zip(posts, subject.posts, strict=True))
            with (
                _beside(subject.cache, "image")
                if change.part == "image"
                else nullcontext(texts) as cache
            ):
                stated = restated(subject, posts, cache) if count else subject.probabilities
            yield Tried(change.name, change.level, count, stated)


def missing(subject: Subject) -> Iterator[tuple[str, ...]]:
    """Yield the inputs that are taken away: every choice of them that leaves one."""
    preparation = subject.predictor.preparation
    inputs = [*(("image",) if preparation.image else ()), *preparation.texts]
    if preparation.reads_intentions and subject.arm == "with":
        inputs.append("intention")
    for count in range(1, len(inputs)):
        yield from combinations(inputs, count)


def changes(subject: Subject, seed: int) -> Iterator[Change]:
    """Yield the changes of what the system reads."""
    read = subject.opened.recipe.inputs
    if "text" in read:
        yield from _shares("typos", noise.typos, (0.05, 0.1), seed)
    if "image" in read:
        for quality in (30, 10):
            make = partial(noise.compressed, quality=quality)
            yield Change("JPEG quality", str(quality), "image", make)
        for factor in (2, 4):
            yield Change("rescaled", f"1/{factor}", "image", partial(noise.rescaled, factor=factor))
    if "description" in read:
        yield from _shares("description, words dropped", noise.dropped_words, (0.2, 0.5), seed)
        yield from _shares("description, words shuffled", noise.shuffled_words, (0.2, 0.5), seed)
        make = partial(noise.others_descriptions, seed=seed)
        yield Change("description", "of another post", "text", make)


def _shares(
    name: str, make: Callable[..., list[Post]], shares: Sequence[float], seed: int
) -> Iterator[Change]:
    for share in shares:
        yield Change(name, f"{share:.0%}", "text", partial(make, share=share, seed=seed))


def restated(subject: Subject, posts: list[Post], cache: Path | None) -> Stated:
    """Return the probabilities of changed posts, from the model that the subject has loaded."""
    predictor, questions = copy(subject.predictor), subject.opened.questions
    with redirect_stderr(StringIO()):  # a passing cache has nothing to announce
        predictor.feed = Feed(posts, questions, predictor.model, predictor.preparation, cache=cache)
    return predictor.probabilities(subject.arm)[:, subject.span]


def _has(post: Post, name: str) -> bool:
    return bool(post.intentions if name == "intention" else getattr(post, name))


@contextmanager
def _beside(cache: Path | None, part: str) -> Iterator[Path | None]:
    """Yield a passing cache that has the features of the other part, none where there is none.

    So only what was changed is encoded, and features that nothing asks for again take no room.
    """
    if cache is None:
        yield None
        return
    kept = ("text-*", "mean-*") if part == "image" else ("image-*",)
    with TemporaryDirectory(prefix="miko_clf-") as folder:
        for pattern in kept:
            for store in cache.glob(pattern):
                (Path(folder) / store.name).symlink_to(store.resolve())
        yield Path(folder)


def _compared(
    change: str, level: str, changed: int, before: Judged, after: Judged, drawn: weighted.Weights
) -> Changed:
    whole = np.vstack([np.ones_like(drawn[:1]), drawn])  # the rows as they are, then resamples
    old, new = on_draws(before, whole), on_draws(after, whole)
    return Changed(
        change=change,
        level=level,
        posts=len(after.truth),
        changed=changed,
        metrics=_intervals(new),
        difference=_intervals(new - old),
    )


def _intervals(values: Float[np.ndarray, "resample metric"]) -> dict[str, Interval]:
    return {
        name: around(float(column[0]), column[1:])
        for name, column in zip(DRAWN, values.T, strict=True)
    }
