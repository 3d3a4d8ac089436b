"""Baselines on one vector an input: laid side by side, or image and text multiplied."""

from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.tower import FeatureDropout, Pool, mean_pool, pool_states
from miko_clf.errors import RecipeError
from miko_clf.fuse.outputs import Batch, ModelOutput

MAX_PRODUCT_WEIGHTS = 100_000_000  # weights of the layer behind an outer product; as float32 400 MB


PooledVectors = dict[str, tuple[Float[Tensor, "post channel"], Bool[Tensor, " post"]]]


@runtime_checkable
class PoolingFusion(Protocol):
    """A fusion that reads one vector an input."""

    content_texts: tuple[str, ...]
    text_pool: Pool
    reads_images: bool
    reads_intentions: bool


class ConcatFusion(nn.Module):
    """The baselines: a linear classifier, or one with a hidden layer, over pooled towers.

    An image counts as the mean of its tokens, a text as `text_pool` says, intentions as the mean
    of theirs. Each is normalised to mean 0 and deviation 1 over its channels, so that towers of
    different scale weigh alike.
    """

    def __init__(
        self,
        *,
        image_width: int | None,
        num_image_tokens: int,
        text_width: int | None,
        text_pool: Pool,
        content_texts: tuple[str, ...],
        num_labels: int,
        hidden: int,
        dropout: float,
        input_dropout: float,
        reads_intentions: bool = False,
    ) -> None:
        super().__init__()
        assert image_width is None or num_image_tokens > 0
        self.content_texts = content_texts
        self.reads_ids: tuple[str, ...] = ()
        self.text_pool = text_pool
        self.reads_images = image_width is not None
        self.reads_intentions = reads_intentions
        widths = {} if image_width is None else {"image": image_width}
        if text_width is not None:
            read = (*content_texts, "intention") if reads_intentions else content_texts
            widths |= dict.fromkeys(read, text_width)
        self.vectors = nn.ModuleDict(
            {name: NormalisedInput(width, input_dropout) for name, width in widths.items()}
        )
        width = sum(widths.values())
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden or width, num_labels)

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the logits of each label; the embedding is what the last layer but one gives."""
        pooled = pool_inputs(self, states)
        parts = [self.vectors[name](vector, present) for name, (vector, present) in pooled.items()]
        embedding = torch.cat(parts, dim=1)
        if self.hidden is None:
            return ModelOutput(self.head(self.dropout(embedding)), embedding=embedding)
        embedding = self.hidden(self.dropout(embedding))
        activated = functional.gelu(embedding)
        return ModelOutput(self.head(self.dropout(activated)), embedding=embedding)

    @torch.no_grad()
    def weigh_inputs_alike(self) -> None:
        """Bring each input to unit length, so that none counts for its many channels.

        For a vote of neighbours by cosine, which no training weighs.
        """
        for vector in self.vectors.values():
            assert isinstance(vector, NormalisedInput)
            vector.norm.weight.fill_(len(vector.null) ** -0.5)


class NormalisedInput(nn.Module):
    """The vector of one input, normalised, or a learned one where a post lacks the input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = FeatureDropout(dropout)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(
        self, vector: Float[Tensor, "post channel"], present: Bool[Tensor, " post"]
    ) -> Float[Tensor, "post channel"]:
        """Return the vector of each post."""
        return torch.where(present[:, None], self.dropout(self.norm(vector)), self.null)


class ProductFusion(nn.Module):
    """Hate-CLIPper (Kumar and Nandakumar, 2022): projections of unit length, multiplied.

    Several texts are projected together into one vector. Raises `RecipeError` where an input is
    missing, or where the layer behind an outer product would have more than 100 million weights.
    """

    def __init__(
        self,
        *,
        image_width: int | None,
        num_image_tokens: int,
        text_width: int | None,
        text_pool: Pool,
        content_texts: tuple[str, ...],
        num_labels: int,
        width: int,
        mix: Literal["align", "cross"],
        layers: int,
        dropout: float,
        input_dropout: float,
        projection_dropout: float,
        product_dropout: float,
    ) -> None:
        super().__init__()
        if image_width is None or text_width is None:
            raise RecipeError("fusion.kind product needs an image and a text; name both in inputs")
        assert num_image_tokens > 0
        self.content_texts = content_texts
        self.reads_ids: tuple[str, ...] = ()
        self.text_pool = text_pool
        self.reads_images = True
        self.reads_intentions = False
        self.mix = mix
        rates = (input_dropout, projection_dropout)
        self.image = UnitProjection(image_width, width, *rates)
        self.text = UnitProjection(text_width * len(content_texts), width, *rates)
        self.product_dropout = nn.Dropout(product_dropout)
        first = width if mix == "align" else width**2
        _check_size(first, width, layers)
        widths = [first, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(into, out) for into, out in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_labels)

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the logits of each label.

        The embedding is the last hidden layer before its activation, as RGCL compares it (Mei et
        al., ACL 2024), or the product itself where there is no hidden layer.
        """
        pooled = pool_inputs(self, states)
        image = self.image(*pooled.pop("image"))
        texts, present = zip(*pooled.values(), strict=True)
        text = self.text(torch.cat(texts, dim=1), torch.stack(present).any(0))
        embedding = image * text if self.mix == "align" else multiply_channels(image, text)
        activated = self.product_dropout(embedding)
        for layer in self.layers:
            embedding = layer(activated)
            activated = self.dropout(functional.relu(embedding))
        return ModelOutput(self.head(activated), embedding=embedding)


class UnitProjection(nn.Module):
    """One side of the product: a projection to unit length, or a learned vector where absent."""

    def __init__(
        self, width_in: int, width: int, input_dropout: float, projection_dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(
            FeatureDropout(input_dropout),
            nn.Linear(width_in, width),
            nn.Dropout(projection_dropout),
        )
        # All alike, so that at the start an absent side leaves the direction of the other as it is.
        self.null = nn.Parameter(torch.ones(width))

    def forward(self, vector: Tensor, present: Tensor) -> Float[Tensor, "post width"]:
        """Return a vector of unit length for each post."""
        side = torch.where(present[:, None], self.project(vector), self.null)
        return functional.normalize(side, dim=1)


def multiply_channels(
    image: Float[Tensor, "post width"], text: Float[Tensor, "post width"]
) -> Float[Tensor, "post pair"]:
    """Return every channel of the image times every channel of the text, image first."""
    return (image[:, :, None] * text[:, None, :]).flatten(1)


def pool_inputs(fusion: PoolingFusion, states: Batch) -> PooledVectors:
    """Return one vector of each input that a fusion reads, and which posts have that input.

    An image is the mean of its tokens, a text as the fusion's `text_pool` says, and intentions
    the mean of theirs.
    """
    pooled = {}
    if fusion.reads_images:
        pooled["image"] = (states["image_states"].mean(1), states["image_present"])
    for name in fusion.content_texts:
        mask = states[f"{name}_mask"]
        vector = pool_states(states[f"{name}_states"], mask, fusion.text_pool)
        pooled[name] = (vector, mask.any(1))
    if fusion.reads_intentions:
        words, mask = states["intention_states"], states["intention_mask"]
        vectors = pool_states(words.flatten(0, 1), mask.flatten(0, 1), fusion.text_pool)
        here = mask.any(2)  # (post, intention)
        pooled["intention"] = (mean_pool(vectors.unflatten(0, here.shape), here), here.any(1))
    return pooled


def _check_size(first: int, width: int, layers: int) -> None:
    if layers and first * width > MAX_PRODUCT_WEIGHTS:
        most = next(side for side in range(width, 0, -1) if side**3 <= MAX_PRODUCT_WEIGHTS)
        raise RecipeError(
            f"fusion.mix cross with fusion.width {width} puts a layer of {first * width:,} weights "
            f"behind the product, more than {MAX_PRODUCT_WEIGHTS:,}; set fusion.layers: 0, "
            f"or a width of at most {most}"
        )
