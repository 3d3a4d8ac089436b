"""Image and text meet in a product: element by element, or each with each."""

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.towers import Pool, pooled
from miko_clf.errors import RecipeError
from miko_clf.fuse.dropout import FeatureDropout
from miko_clf.fuse.fused import Batch, Fused

LARGEST = 100_000_000  # weights of the layer behind an outer product; as float32 400 MB


class Product(nn.Module):
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
        self.text_pool = text_pool
        self.reads_images = True
        self.reads_intentions = False
        self.slots = None
        self.mix = mix
        rates = (input_dropout, projection_dropout)
        self.image = Side(image_width, width, *rates)
        self.text = Side(text_width * len(content_texts), width, *rates)
        self.product_dropout = nn.Dropout(product_dropout)
        first = width if mix == "align" else width**2
        _check_size(first, width, layers)
        widths = [first, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(into, out) for into, out in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_labels)

    def forward(self, states: Batch, guess_only: bool = False) -> Fused:
        """Return the logits of each label.

        The embedding is the last hidden layer before its activation, as RGCL compares it (Mei et
        al., ACL 2024), or the product itself where there is no hidden layer.
        """
        image = self.image(states["image_states"].mean(1), states["image_present"])
        masks = [states[f"{name}_mask"] for name in self.content_texts]
        texts = [
            pooled(states[f"{name}_states"], mask, self.text_pool)
            for name, mask in zip(self.content_texts, masks, strict=True)
        ]
        here = torch.stack([mask.any(1) for mask in masks]).any(0)
        text = self.text(torch.cat(texts, dim=1), here)
        embedding = image * text if self.mix == "align" else outer(image, text)
        activated = self.product_dropout(embedding)
        for layer in self.layers:
            embedding = layer(activated)
            activated = self.dropout(functional.relu(embedding))
        return Fused(self.head(activated), embedding=embedding)


class Side(nn.Module):
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


def outer(
    image: Float[Tensor, "post width"], text: Float[Tensor, "post width"]
) -> Float[Tensor, "post pair"]:
    """Return every channel of the image times every channel of the text, image first."""
    return (image[:, :, None] * text[:, None, :]).flatten(1)


def _check_size(first: int, width: int, layers: int) -> None:
    if layers and first * width > LARGEST:
        most = next(side for side in range(width, 0, -1) if side**3 <= LARGEST)
        raise RecipeError(
            f"fusion.mix cross with fusion.width {width} puts a layer of {first * width:,} weights "
            f"behind the product, more than {LARGEST:,}; set fusion.layers: 0, or a width of at "
            f"most {most}"
        )
