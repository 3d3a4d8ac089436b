"""What a critic sees of an intention: its words, the post, and its other intentions."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from miko_clf.data.post import RELATIONS
from miko_clf.data.tokenizer import pad_ids
from miko_clf.distil.relations import strip_relation_stem
from miko_clf.encode.tower import TextTower, mean_pool
from miko_clf.errors import DistilError

_POSTS_PER_CHUNK = (
    32  # encoded together; whole posts, because an intention is compared with its siblings
)
_BATCH = 64
SURFACE_FEATURES = (
    *(("intention", f"relation {name}") for name in RELATIONS),
    ("intention", "words"),
    ("post", "likeness to the post"),
    ("post", "mean likeness of all to the post"),
    ("post", "share of words that stand in the post"),
    ("post", "words of the post"),
    *(("post", f"{mark!r} in the post") for mark in ("#", "@", "http", "?", "!")),
    ("siblings", "mean likeness to the others"),
    ("siblings", "greatest likeness to another"),
    ("siblings", "mean likeness among all"),
    ("siblings", "mean overlap of words with the others"),
    ("siblings", "share of words that no other has"),
)
_MARKS = (r"#", r"@|<user>", r"https?:|\burl\b", r"\?", r"!")
_Floats = NDArray[np.float32]


class CriticExample(NamedTuple):
    """One intention of one post; `valid` is the share of people who called it so, None unasked.

    Examples of one `group` are of one post. `weight` counts in training alone.
    """

    group: str
    text: str | None
    description: str | None
    relation: str
    intention: str
    valid: float | None = None
    weight: float = 1.0


def strip_example_stem(example: CriticExample) -> str:
    """Return the intention without the stem, which the relation says already.

    So sentences of one meaning look alike, whichever stem their teacher was asked to use.
    """
    return strip_relation_stem(example.relation, example.intention)  # type: ignore[arg-type]


def extract_critic_features(
    examples: Sequence[CriticExample], tower: TextTower, max_length: int = 96
) -> Float[np.ndarray, "example column"]:
    """Return what is seen of every example; `sources` says where each column comes from.

    No label is looked at, and nothing beyond the example's own group.
    """
    seen = np.empty((len(examples), len(list_feature_sources(tower.width))), dtype=np.float32)
    for rows, columns in stream_critic_features(examples, tower, max_length):
        seen[rows] = columns
    return seen


def stream_critic_features(
    examples: Sequence[CriticExample], tower: TextTower, max_length: int = 96
) -> Iterator[tuple[list[int], _Floats]]:
    """Yield the evidence of some whole posts at a time, with the rows that it belongs to."""
    posts: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        if example.relation not in RELATIONS:
            known = ", ".join(RELATIONS)
            raise DistilError(f"no relation called {example.relation!r}; choose from {known}")
        posts.setdefault(example.group, []).append(row)
    groups = list(posts.values())
    chunks = [
        groups[start : start + _POSTS_PER_CHUNK]
        for start in range(0, len(groups), _POSTS_PER_CHUNK)
    ]
    console = Console(stderr=True)
    for chunk in track(
        chunks, "Reading intentions", console=console, disable=not console.is_terminal
    ):
        looked = _read_posts(
            [[examples[row] for row in group] for group in chunk], tower, max_length
        )
        yield [row for group in chunk for row in group], looked


def list_feature_sources(width: int) -> NDArray[np.str_]:
    """Return of each column whether it is read off the intention, the post or the siblings.

    `width` is the tower's; the `SURFACE` columns are the last.
    """
    dense = ("intention", "intention", "post", "siblings")
    return np.array([*np.repeat(dense, width), *(source for source, _ in SURFACE_FEATURES)])


def _read_posts(
    posts: Sequence[Sequence[CriticExample]], tower: TextTower, max_length: int
) -> _Floats:
    """Return the evidence of whole posts, row after row."""
    texts: list[str | None] = [strip_example_stem(example) for post in posts for example in post]
    num_intentions = len(texts)
    texts += [text for post in posts for text in (post[0].text, post[0].description)]
    means, spreads = _encode_texts(texts, tower, max_length)
    content = _normalise_rows(means[num_intentions:].reshape(len(posts), 2, -1).sum(1))
    blocks, start = [], 0
    for post, about in zip(posts, content, strict=True):
        rows = slice(start, start + len(post))
        own = _normalise_rows(means[rows])
        middle = np.broadcast_to(_normalise_rows(own.mean(0)), own.shape)
        surface = _measure_surface(post, own, about)
        blocks.append(np.hstack([own, spreads[rows], own * about, middle, surface]))
        start += len(post)
    return np.concatenate(blocks).astype(np.float32)


@torch.inference_mode()
def _encode_texts(
    texts: Sequence[str | None], tower: TextTower, max_length: int
) -> tuple[_Floats, _Floats]:
    """Return the mean state of each text and how far its words spread around it, zeros if blank."""
    ids = tower.words.encode(texts, min(max_length, tower.limit))
    means = np.zeros((len(texts), tower.width), dtype=np.float32)
    spreads = np.zeros_like(means)
    order = sorted((row for row in range(len(ids)) if ids[row]), key=lambda row: len(ids[row]))
    device = next(tower.parameters()).device
    tower.eval()
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        arrays = pad_ids([ids[row] for row in rows], tower.words.pad_id)
        words, mask = (torch.from_numpy(array).to(device) for array in arrays)
        states = tower(words, mask).float()
        mean = mean_pool(states, mask)
        spread = mean_pool((states - mean[:, None]) ** 2, mask).sqrt()
        means[rows], spreads[rows] = mean.cpu().numpy(), spread.cpu().numpy()
    return means, spreads


def _measure_surface(post: Sequence[CriticExample], own: _Floats, about: _Floats) -> _Floats:
    """Return the `SURFACE` columns of one post's intentions."""
    texts = (post[0].text, post[0].description)
    read = " ".join(text for text in texts if text).lower()
    in_post = _split_words(read)
    in_each = [_split_words(strip_example_stem(example)) for example in post]
    marks = [len(re.findall(mark, read)) for mark in _MARKS]
    to_post = own @ about
    alike = own @ own.T
    among = float(alike[~np.eye(len(post), dtype=bool)].mean()) if len(post) > 1 else 0.0
    rows = []
    for place, (example, mine) in enumerate(zip(post, in_each, strict=True)):
        others = [other for row, other in enumerate(in_each) if row != place]
        likeness = np.delete(alike[place], place)
        shared = [len(mine & other) / max(1, len(mine | other)) for other in others]
        rows.append(
            [
                *(example.relation == name for name in RELATIONS),
                np.log1p(len(mine)),
                to_post[place],
                to_post.mean(),
                len(mine & in_post) / max(1, len(mine)),
                np.log1p(len(in_post)),
                *np.log1p(marks),
                *((likeness.mean(), likeness.max(), among) if others else (0.0, 0.0, 0.0)),
                float(np.mean(shared)) if others else 0.0,
                len(mine.difference(*others)) / max(1, len(mine)),
            ]
        )
    return np.array(rows, dtype=np.float32)


def _split_words(text: str) -> set[str]:
    """Return the words of a text, in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def _normalise_rows(rows: _Floats) -> _Floats:
    """Return each row at length one, zeros as they are."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: _Floats = rows / np.maximum(length, np.float32(1e-6))
    return scaled
