"""Posts as they might have come: with typos, in a worse picture, under a worse description."""

import io
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image

from miko_clf.data.pixels import decode
from miko_clf.data.post import Post


def typos(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with that share of the letters of their text lost, or swapped with the next.

    Either is as likely. Changes depend on the seed and the id of a post alone; label and id stay.
    """
    return [
        _rewritten(post, "text", lambda text, r: _mistyped(text, share, r), seed) for post in posts
    ]


def dropped_words(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with about that share of the words of their description lost."""

    def thin(text: str, random: Random) -> str:
        return " ".join(word for word in text.split() if random.random() >= share)

    return [_rewritten(post, "description", thin, seed) for post in posts]


def shuffled_words(posts: Sequence[Post], share: float, *, seed: int = 0) -> list[Post]:
    """Return the posts with that share of the words of their description in each other's place."""

    def mix(text: str, random: Random) -> str:
        words = text.split()
        places = sorted(random.sample(range(len(words)), round(share * len(words))))
        moved = random.sample(places, len(places))
        for place, word in zip(places, [words[at] for at in moved], strict=True):
            words[place] = word
        return " ".join(words)

    return [_rewritten(post, "description", mix, seed) for post in posts]


def others_descriptions(posts: Sequence[Post], *, seed: int = 0) -> list[Post]:
    """Return the posts with each description at another post that has one, none at its own."""
    rows = [row for row, post in enumerate(posts) if post.description is not None]
    Random(seed).shuffle(rows)
    found = list(posts)
    for here, there in zip(rows, [*rows[1:], *rows[:1]], strict=True):
        found[here] = posts[here].model_copy(update={"description": posts[there].description})
    return found


def compressed(posts: Sequence[Post], quality: int) -> list[Post]:
    """Return the posts with their pictures as JPEG of that quality, 1 to 95."""
    return [
        _redrawn(post, lambda image: _encoded(image, "JPEG", quality=quality)) for post in posts
    ]


def rescaled(posts: Sequence[Post], factor: int) -> list[Post]:
    """Return the posts with their pictures shrunk by a factor on each side, and enlarged again."""

    def blur(image: Image.Image) -> bytes:
        small = image.resize([max(1, side // factor) for side in image.size], Image.Resampling.BOX)
        back = small.resize(image.size, Image.Resampling.BICUBIC)
        return _encoded(back, "PNG", compress_level=1)

    return [_redrawn(post, blur) for post in posts]


def _rewritten(post: Post, field: str, change: Callable[[str, Random], str], seed: int) -> Post:
    text = getattr(post, field)
    if text is None:
        return post
    changed = change(text, Random(f"{seed} {field} {post.id}"))
    return post.model_copy(update={field: changed}) if changed.strip() else post


def _redrawn(post: Post, change: Callable[[Image.Image], bytes]) -> Post:
    if post.image is None:
        return post
    return post.model_copy(update={"image": change(decode(post.image))})


def _mistyped(text: str, share: float, random: Random) -> str:
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


def _encoded(image: Image.Image, form: str, **settings: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()
