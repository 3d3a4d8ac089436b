"""Training posts that a system takes for most like the posts that it is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from miko_clf.data.labels import list_answers
from miko_clf.data.post import Post
from miko_clf.evaluate.explain.shapley import collect_passes
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.outputs import Batch
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import mask_for_arm
from miko_clf.train.retrieval import MAX_EMBEDDING_WIDTH


@dataclass(frozen=True)
class Neighbour:
    """A training post; `similarity` is the cosine of its embedding and the other post's."""

    id: str
    label: str
    similarity: float
    text: str | None


@dataclass(frozen=True)
class PostNeighbours:
    """A post, what it is and what it was decided for, and its neighbours, nearest first."""

    id: str
    label: str
    decided: str
    neighbours: list[Neighbour]


def find_neighbours(
    predictions: SystemPredictions, rows: Sequence[int], count: int = 5
) -> list[PostNeighbours]:
    """Return the `count` nearest training posts of each of the rows, in the arm of the predictions.

    By cosine of what the head reads, once the mean over the training posts is taken from it: what
    all posts share says nothing. A post is no neighbour of itself. Empty for a model without an
    embedding, or with one too wide to be kept for every training post.
    """
    predictor = predictions.predictor
    if not len(rows) or not predictions.train:
        return []
    own = _embed_posts(predictions, predictor.feed, rows)
    if own is None or own.shape[1] > MAX_EMBEDDING_WIDTH:
        return []
    feed = EncodedDataset(
        predictions.train,
        predictions.opened.questions,
        predictor.model,
        predictor.preparation,
        cache=predictions.cache,
    )
    others = _embed_posts(predictions, feed)
    assert others is not None
    centre = others.mean(0)
    similar = _normalise(own - centre) @ _normalise(others - centre).T  # (row, train)
    return [
        _describe_neighbours(predictions, int(row), cosines, count)
        for row, cosines in zip(rows, similar, strict=True)
    ]


def _embed_posts(
    predictions: SystemPredictions, feed: EncodedDataset, rows: Sequence[int] | None = None
) -> Float[np.ndarray, "post width"] | None:
    model = predictions.predictor.model

    def read(states: Batch) -> list[Tensor]:
        embedding = model(mask_for_arm(states, predictions.arm)).embedding
        return [] if embedding is None else [embedding]

    embeddings = collect_passes(model, feed, read, "embeddings", rows)
    return embeddings[0] if embeddings else None


def _normalise(vectors: Float[np.ndarray, "post width"]) -> Float[np.ndarray, "post width"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(vectors.dtype).tiny)


def _describe_neighbours(
    predictions: SystemPredictions, row: int, similar: Float[np.ndarray, " train"], count: int
) -> PostNeighbours:
    post, question, train = predictions.posts[row], predictions.question, predictions.train
    order = (int(place) for place in np.argsort(-similar, kind="stable"))
    others = [place for place in order if train[place].id != post.id][:count]
    return PostNeighbours(
        id=post.id,
        label=question.labels[predictions.truth[row]],
        decided=question.labels[predictions.decided[row]],
        neighbours=[
            Neighbour(own.id, _name_label(own, question.name), float(similar[place]), own.text)
            for place, own in ((place, train[place]) for place in others)
        ],
    )


def _name_label(post: Post, question: str) -> str:
    answer = list_answers(post.label).get(question, "")
    return answer if isinstance(answer, str) else ", ".join(answer)
