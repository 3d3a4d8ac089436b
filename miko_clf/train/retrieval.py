"""Training posts that a post is compared with in training (Mei et al., RGCL, ACL 2024)."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.data.tokenizer import collapse_whitespace
from miko_clf.errors import RecipeError
from miko_clf.fuse.classifier import NeighbourVote
from miko_clf.fuse.outputs import Batch, ModelOutput
from miko_clf.recipe.sections import RetrievalSection
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import iterate_batches

NO_NEIGHBOUR = -1  # row of a post that has no such neighbour
_CHUNK = 512  # rows of the matrix of all similarities that are in memory at a time
MAX_EMBEDDING_WIDTH = 8192  # channels of an embedding that is worth keeping for every training post


class RetrievalContrast:
    """The positive and the negative of every training post, found anew in each epoch.

    `train` holds the training posts. The state, checkpointed, is all that a killed run needs to go
    on bit for bit.
    """

    def __init__(self, settings: RetrievalSection, train: EncodedDataset) -> None:
        self.settings = settings
        self.train = train
        _, kinds = np.unique(np.asarray(train.labels), axis=0, return_inverse=True)
        self.labels = torch.from_numpy(kinds.reshape(-1).astype(np.int64))
        posts = train.posts
        self.groups = _number_names(post.group for post in posts)
        self.texts = _number_names(
            collapse_whitespace(post.text).casefold() if post.text else None for post in posts
        )
        self.epoch = -1
        self.positive = torch.full((len(train),), NO_NEIGHBOUR)
        self.negative = torch.full((len(train),), NO_NEIGHBOUR)

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Find the neighbours by the model as it is; nothing where the epoch has them already."""
        if epoch == self.epoch:
            return
        embeddings = embed_posts(model, self.train)
        numbers = (self.labels, self.groups, self.texts)
        pairs = find_contrast_pairs(embeddings, *(part.to(embeddings.device) for part in numbers))
        self.positive, self.negative = (rows.cpu() for rows in pairs)
        self.epoch = epoch

    def loss(self, model: nn.Module, fused: ModelOutput, rows: Int[Tensor, " post"]) -> Tensor:
        """Return the weighted contrast of a batch, whose posts are `rows` of the training set.

        A post that has no positive or no negative counts as zero.
        """
        assert fused.embedding is not None
        rows = rows.cpu()
        positive, negative = self.positive[rows], self.negative[rows]
        here = (positive != NO_NEIGHBOUR) & (negative != NO_NEIGHBOUR)
        if not here.any():
            return fused.embedding.sum() * 0
        anchor = fused.embedding[here.to(fused.embedding.device)]
        near, far = (self._encode(model, rows[here]) for rows in (positive, negative))
        total = compute_contrast_loss(anchor, near, far, self.settings.margin)
        return self.settings.weight * total * int(here.sum()) / len(rows)

    def vote(self, model: nn.Module, num_labels: int) -> NeighbourVote:
        """Return the vote of the training posts, as the trained model sees them."""
        embeddings = embed_posts(model, self.train)
        labels = torch.tensor(self.train.labels, device=embeddings.device)
        return NeighbourVote(
            embeddings,
            labels,
            num_labels=num_labels,
            neighbours=self.settings.neighbours,
            share=self.settings.vote,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the neighbours found at its start."""
        return {"epoch": self.epoch, "positive": self.positive, "negative": self.negative}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the epoch and its neighbours from `state`."""
        self.epoch = state["epoch"]
        self.positive, self.negative = state["positive"].cpu(), state["negative"].cpu()

    def _encode(self, model: nn.Module, rows: Tensor) -> Tensor:
        device = next(model.parameters()).device
        batch = self.train.batch(rows.tolist())
        return _embed_batch(model, {k: v.to(device) for k, v in batch.items()})


@torch.no_grad()
def embed_posts(model: nn.Module, dataset: EncodedDataset) -> Float[Tensor, "post width"]:
    """Return the embedding of every post, in their order.

    Raises `RecipeError` where it is too wide to be kept for each.
    """
    rows, parts = [], []
    for indices, batch in iterate_batches(model, dataset):
        embedding = _embed_batch(model, batch)
        _check_width(embedding.shape[1])
        rows += indices
        parts.append(embedding.float())
    embeddings = torch.cat(parts)
    return embeddings[np.argsort(rows)]


def find_contrast_pairs(
    embeddings: Float[Tensor, "post width"],
    labels: Int[Tensor, " post"],
    groups: Int[Tensor, " post"],
    texts: Int[Tensor, " post"],
) -> tuple[Int[Tensor, " post"], Int[Tensor, " post"]]:
    """Return the row of the nearest post of the same label, and of the nearest of another.

    By cosine; -1 where there is none. Neither is of the post's own group. The positive has another
    text too, because a copy teaches nothing; a negative may have the same, because the same words
    under another image with another label are what there is to learn.
    """
    unit = functional.normalize(embeddings.float(), dim=1)
    positive, negative = [], []
    for start in range(0, len(unit), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = unit[part] @ unit.T  # (row, post)
        same = labels[part, None] == labels
        strange = groups[part, None] != groups
        other = texts[part, None] != texts
        positive.append(_find_nearest(near, same & strange & other))
        negative.append(_find_nearest(near, ~same & strange))
    return torch.cat(positive), torch.cat(negative)


def compute_contrast_loss(
    embedding: Float[Tensor, "post width"],
    positive: Float[Tensor, "post width"],
    negative: Float[Tensor, "post width"],
    margin: float,
) -> Float[Tensor, ""]:
    """Return by how much the positive is not `margin` nearer, in cosine, than the negative."""
    near = functional.cosine_similarity(embedding.float(), positive.float(), dim=1)
    far = functional.cosine_similarity(embedding.float(), negative.float(), dim=1)
    return functional.relu(margin - near + far).mean()


def _find_nearest(
    near: Float[Tensor, "row post"], allowed: Bool[Tensor, "row post"]
) -> Int[Tensor, " row"]:
    nearest = near.masked_fill(~allowed, -torch.inf).argmax(1)
    return torch.where(allowed.any(1), nearest, NO_NEIGHBOUR)


def _number_names(names: Iterable[Hashable | None]) -> Int[Tensor, " post"]:
    """Return a number for each name, the same for the same one; who has none stands alone."""
    numbers: dict[Hashable, int] = {}
    keys = ((place,) if name is None else name for place, name in enumerate(names))
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def _embed_batch(model: nn.Module, batch: Batch) -> Float[Tensor, "post width"]:
    """Return the embeddings of a batch, whose rationales are not written."""
    fused: ModelOutput = model({k: v for k, v in batch.items() if not k.startswith("written_")})
    assert fused.embedding is not None
    return fused.embedding


def _check_width(width: int) -> None:
    if width > MAX_EMBEDDING_WIDTH:
        raise RecipeError(
            f"task.retrieval would keep {width:,} channels for each training post, more than "
            f"{MAX_EMBEDDING_WIDTH:,}; set fusion.layers above 0"
        )
