"""What a system loses where an input is missing, mistyped, disguised, blurred or ill described."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from itertools import chain, combinations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from miko_clf.data.post import Post
from miko_clf.data.preprocess import decode_image
from miko_clf.data.unicode_folding import DISGUISES
from miko_clf.evaluate.analysis import estimates
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.intervals import Interval, ResampleWeights, draw_resamples
from miko_clf.progress import show_progress
from miko_clf.train.dataloader import EncodedDataset

_PLAIN_WORD = re.compile(r"(?<![^\W\d_])[A-Za-z]{3,}(?![^\W\d_])")


def add_typos(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with that share of the letters of their text lost, or swapped with the next.

    Either is as likely. Changes depend on the seed and the id of a post alone; label and id stay.
    """
    return [
        _rewrite_field(post, "text", lambda text, r: _mistype(text, share, r), seed)
        for post in posts
    ]


def disguise_words(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with that share of the words of their text in a disguise, each in one kind.

    Words of fewer than three letters, and those with other letters than a to z, stay.
    """

    def hide(text: str, random: Random) -> str:
        def change(found: re.Match[str]) -> str:
            make = random.choice(list(DISGUISES.values()))
            return make(found[0]) if random.random() < share else found[0]

        return _PLAIN_WORD.sub(change, text)

    return [_rewrite_field(post, "text", hide, seed) for post in posts]


def drop_words(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with about that share of the words of their description lost."""

    def thin(text: str, random: Random) -> str:
        return " ".join(word for word in text.split() if random.random() >= share)

    return [_rewrite_field(post, "description", thin, seed) for post in posts]


def shuffle_words(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with that share of the words of their description in each other's place."""

    def mix(text: str, random: Random) -> str:
        words = text.split()
        places = sorted(random.sample(range(len(words)), round(share * len(words))))
        moved = random.sample(places, len(places))
        for place, word in zip(places, [words[at] for at in moved], strict=True):
            words[place] = word
        return " ".join(words)

    return [_rewrite_field(post, "description", mix, seed) for post in posts]


def swap_descriptions(posts: Sequence[Post], *, seed: int = 0) -> list[Post]:
    """Return the posts with each description at another post that has one, none at its own."""
    rows = [row for row, post in enumerate(posts) if post.description is not None]
    Random(seed).shuffle(rows)
    swapped = list(posts)
    for here, there in zip(rows, [*rows[1:], *rows[:1]], strict=True):
        swapped[here] = posts[here].model_copy(update={"description": posts[there].description})
    return swapped


def compress_images(posts: Sequence[Post], quality: int) -> list[Post]:
    """Return the posts with their pictures as JPEG of that quality, 1 to 95."""
    return [
        _redraw_image(post, lambda image: _encode_image(image, "JPEG", quality=quality))
        for post in posts
    ]


def rescale_images(posts: Sequence[Post], factor: int) -> list[Post]:
    """Return the posts with their pictures shrunk by a factor on each side, and enlarged again."""

    def blur(image: Image.Image) -> bytes:
        small = image.resize([max(1, side // factor) for side in image.size], Image.Resampling.BOX)
        back = small.resize(image.size, Image.Resampling.BICUBIC)
        return _encode_image(back, "PNG", compress_level=1)

    return [_redraw_image(post, blur) for post in posts]


def _rewrite_field(post: Post, field: str, change: Callable[[str, Random], str], seed: int) -> Post:
    text = getattr(post, field)
    if text is None:
        return post
    changed = change(text, Random(f"{seed} {field} {post.id}"))
    return post.model_copy(update={field: changed}) if changed.strip() else post


def _redraw_image(post: Post, change: Callable[[Image.Image], bytes]) -> Post:
    if post.image is None:
        return post
    return post.model_copy(update={"image": change(decode_image(post.image))})


def _mistype(text: str, share: float, random: Random) -> str:
    letters, at = [], 0
    while at < len(text):
        hit = text[at].isalpha() and random.random() < share
        if not hit:
            letters.append(text[at])
        elif random.random() < 0.5:
            letters.append(text[at + 1 : at + 2] + text[at])
            at += 1
        at += 1
    return "".join(letters)


def _encode_image(image: Image.Image, form: str, **settings: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


_LabelProbabilities = Float[np.ndarray, "row label"]


@dataclass(frozen=True)
class ChangeEffect:
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


class PostChange(NamedTuple):
    """A change of the posts; `part` is the one of image and text that it touches."""

    name: str
    level: str
    part: str
    make: Callable[[Sequence[Post]], list[Post]]


class ChangedAnswers(NamedTuple):
    """What the system says, (row, label), under a change of so many posts."""

    name: str
    level: str
    touched: int
    stated: _LabelProbabilities


def measure_robustness(
    predictions: SystemPredictions, *, num_resamples: int = estimates.NUM_RESAMPLES, seed: int = 0
) -> list[ChangeEffect]:
    """Return the unchanged rows, every pattern of missing inputs, and every change that applies.

    A change that touches no post, or nothing that the system reads, is left out. The posts are
    encoded once for each change, and what the towers say of them is kept nowhere.
    """
    before = estimates.decide_posts(predictions)
    weights = draw_resamples(len(before.truth), num_resamples, seed, before.groups)
    table = [_compare_posts("none", "", 0, before, before, weights)]
    patterns = list(list_missing_inputs(predictions))
    altered = list(list_post_changes(predictions, seed))
    tried = chain(
        _predict_without_inputs(predictions, patterns), _predict_changes(predictions, altered)
    )
    for answers in show_progress(tried, "robustness", len(patterns) + len(altered)):
        if answers.touched:
            after = estimates.decide_posts(replace(predictions, probabilities=answers.stated))
            table.append(
                _compare_posts(answers.name, answers.level, answers.touched, before, after, weights)
            )
    return table


def _predict_without_inputs(
    predictions: SystemPredictions, patterns: Iterable[tuple[str, ...]]
) -> Iterator[ChangedAnswers]:
    for names in patterns:
        fields = ["intentions" if name == "intention" else name for name in names]
        count = sum(any(getattr(post, field) for field in fields) for post in predictions.posts)
        stated = predictions.predictor.probabilities(predictions.arm, without=names)
        yield ChangedAnswers("missing", " + ".join(names), count, stated[:, predictions.span])


def _predict_changes(
    predictions: SystemPredictions, changes: Iterable[PostChange]
) -> Iterator[ChangedAnswers]:
    """Yield the changes tried; texts share a passing cache, images are too large to be kept."""
    with _open_passing_cache(predictions.cache, "text") as texts:
        for change in changes:
            posts = change.make(predictions.posts)
            count = sum(new != old for new, old in zip(posts, predictions.posts, strict=True))
            with (
                _open_passing_cache(predictions.cache, "image")
                if change.part == "image"
                else nullcontext(texts) as cache
            ):
                stated = predictions.probabilities
                if count:
                    stated = _predict_changed_posts(predictions, posts, cache)
            yield ChangedAnswers(change.name, change.level, count, stated)


def list_missing_inputs(predictions: SystemPredictions) -> Iterator[tuple[str, ...]]:
    """Yield the inputs that are taken away: every choice of them that leaves one."""
    preparation = predictions.predictor.preparation
    inputs = [*(("image",) if preparation.image else ()), *preparation.texts]
    if preparation.reads_intentions and predictions.arm == "with":
        inputs.append("intention")
    for count in range(1, len(inputs)):
        yield from combinations(inputs, count)


def list_post_changes(predictions: SystemPredictions, seed: int) -> Iterator[PostChange]:
    """Yield the changes of what the system reads."""
    read = predictions.opened.recipe.inputs
    if "text" in read:
        yield from _vary_shares("typos", add_typos, (0.05, 0.1), seed)
        yield from _vary_shares("disguised", disguise_words, (0.2, 0.5), seed)
    if "image" in read:
        for quality in (30, 10):
            make = partial(compress_images, quality=quality)
            yield PostChange("JPEG quality", str(quality), "image", make)
        for factor in (2, 4):
            make = partial(rescale_images, factor=factor)
            yield PostChange("rescaled", f"1/{factor}", "image", make)
    if "description" in read:
        yield from _vary_shares("description, words dropped", drop_words, (0.2, 0.5), seed)
        yield from _vary_shares("description, words shuffled", shuffle_words, (0.2, 0.5), seed)
        make = partial(swap_descriptions, seed=seed)
        yield PostChange("description", "of another post", "text", make)


def _vary_shares(
    name: str, make: Callable[..., list[Post]], shares: Sequence[float], seed: int
) -> Iterator[PostChange]:
    for share in shares:
        yield PostChange(name, f"{share:.0%}", "text", partial(make, share=share, seed=seed))


def _predict_changed_posts(
    predictions: SystemPredictions, posts: list[Post], cache: Path | None
) -> _LabelProbabilities:
    """Return the probabilities of changed posts, from the model that is loaded."""
    predictor, questions = copy(predictions.predictor), predictions.opened.questions
    with redirect_stderr(StringIO()):  # a passing cache has nothing to announce
        predictor.feed = EncodedDataset(
            posts, questions, predictor.model, predictor.preparation, cache=cache
        )
    return predictor.probabilities(predictions.arm)[:, predictions.span]


@contextmanager
def _open_passing_cache(cache: Path | None, part: str) -> Iterator[Path | None]:
    """Yield a passing cache that has the features of the other part, none where there is none.

    So only what was changed is encoded, and features that nothing asks for again take no room.
    """
    if cache is None:
        yield None
        return
    patterns = ("text-*", "mean-*") if part == "image" else ("image-*",)
    with TemporaryDirectory(prefix="miko_clf-") as folder:
        for pattern in patterns:
            for store in cache.glob(pattern):
                (Path(folder) / store.name).symlink_to(store.resolve())
        yield Path(folder)


def _compare_posts(
    change: str,
    level: str,
    changed: int,
    before: estimates.DecidedPosts,
    after: estimates.DecidedPosts,
    weights: ResampleWeights,
) -> ChangeEffect:
    old, new = (
        estimates.measure_on_resamples(before, weights),
        estimates.measure_on_resamples(after, weights),
    )
    return ChangeEffect(
        change=change,
        level=level,
        posts=len(after.truth),
        changed=changed,
        metrics=estimates.bound_columns(estimates.BOOTSTRAPPED_METRICS, new),
        difference=estimates.bound_columns(estimates.BOOTSTRAPPED_METRICS, new - old),
    )
