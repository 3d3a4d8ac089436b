"""One vector an input, laid side by side, and a classifier over them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from miko_clf.encode.towers import Pool, mean_pool, pooled
from miko_clf.fuse.dropout import FeatureDropout
from miko_clf.fuse.fused import Batch, Fused


class Pooled(nn.Module):
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
        self.text_pool = text_pool
        self.reads_images = image_width is not None
        self.reads_intentions = reads_intentions
        self.slots = None
        widths = {} if image_width is None else {"image": image_width}
        if text_width is not None:
            read = (*content_texts, "intention") if reads_intentions else content_texts
            widths |= dict.fromkeys(read, text_width)
        self.vectors = nn.ModuleDict(
            {name: Vector(width, input_dropout) for name, width in widths.items()}
        )
        width = sum(widths.values())
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden or width, num_labels)

    def forward(self, states: Batch, guess_only: bool = False) -> Fused:
        """Return the logits of each label; the embedding is what the last layer but one gives."""
        parts = []
        if self.reads_images:
            vector = states["image_states"].mean(1)
            parts.append(self.vectors["image"](vector, states["image_present"]))
        for name in self.content_texts:
            mask = states[f"{name}_mask"]
            vector = pooled(states[f"{name}_states"], mask, self.text_pool)
            parts.append(self.vectors[name](vector, mask.any(1)))
        if self.reads_intentions:
            vector, present = self._intended(states["intention_states"], states["intention_mask"])
            parts.append(self.vectors["intention"](vector, present))
        embedding = torch.cat(parts, dim=1)
        if self.hidden is None:
            return Fused(self.head(self.dropout(embedding)), embedding=embedding)
        embedding = self.hidden(self.dropout(embedding))
        activated = nn.functional.gelu(embedding)
        return Fused(self.head(self.dropout(activated)), embedding=embedding)

    def _intended(
        self,
        states: Float[Tensor, "post intention word channel"],
        mask: Bool[Tensor, "post intention word"],
    ) -> tuple[Float[Tensor, "post channel"], Bool[Tensor, " post"]]:
        """Return the mean over the intentions that are there, and which posts have any."""
        each = pooled(states.flatten(0, 1), mask.flatten(0, 1), self.text_pool)
        here = mask.any(2)
        return mean_pool(each.unflatten(0, here.shape), here), here.any(1)


class Vector(nn.Module):
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
