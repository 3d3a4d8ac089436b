"""Attention, feed-forward blocks and dropout of whole features, for towers and the fusion."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Scaled dot-product attention of queries over a memory (Vaswani et al., 2017).

    At least one token of each memory must be present: a row with none is finite here and
    wrong in an exported graph. whoever builds a memory sees to that.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "post query width"],
        memory: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post query width"]:
        """Return what each query reads of the tokens that are present."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        read = functional.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(key),
            self._split(value),
            attn_mask=present[:, None, None, :].expand(-1, 1, queries.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return merged

    def weights(
        self,
        queries: Float[Tensor, "post query width"],
        memory: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post head query token"]:
        """Return how much of its reading each query takes from each token, 1 in all."""
        query = self._split(self.query(queries))
        key = self._split(self.key_value(memory).chunk(2, dim=-1)[0])
        alike = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return alike.masked_fill(~present[:, None, None, :], -torch.inf).softmax(-1)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, four times as wide inside."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )


class FeatureDropout(nn.Module):
    """Dropout of whole features, the same ones for all tokens of a post (Gal, 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, states: Float[Tensor, "post *token channel"]) -> Tensor:
        """Return the states, in training with features at zero and the rest scaled up."""
        if not self.training or not self.rate:
            return states
        shape = (states.shape[0], *[1] * (states.ndim - 2), states.shape[-1])
        kept = torch.rand(shape, device=states.device) >= self.rate
        return states * (kept / (1 - self.rate))
