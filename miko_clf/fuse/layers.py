"""Attention over memories that are never empty."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from miko_clf.encode.layers import Attention, FeedForward


class NullToken(nn.Module):
    """One learned token at the head of a memory, always present."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(width) * 0.02)

    def forward(
        self, tokens: list[Tensor], present: list[Tensor], num_posts: int
    ) -> tuple[Float[Tensor, "post all width"], Bool[Tensor, "post all"]]:
        """Return the parts of a memory joined, the null token first."""
        null = self.token.expand(num_posts, 1, -1)
        here = torch.ones(num_posts, 1, dtype=torch.bool, device=null.device)
        return torch.cat([null, *tokens], dim=1), torch.cat([here, *present], dim=1)


class GatedReader(nn.Module):
    """Cross-attention behind a gate that starts at zero (Alayrac et al., Flamingo, 2022).

    An untrained reader returns its input unchanged.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(
        self,
        content: Float[Tensor, "post token width"],
        intention: Float[Tensor, "post word width"],
        present: Bool[Tensor, "post word"],
    ) -> Float[Tensor, "post token width"]:
        """Return the content, moved by what it read of the intentions."""
        read = self.attention(self.norm(content), intention, present)
        return content + torch.tanh(self.gate) * read

    def weights(
        self,
        content: Float[Tensor, "post token width"],
        intention: Float[Tensor, "post word width"],
        present: Bool[Tensor, "post word"],
    ) -> Float[Tensor, "post head token word"]:
        """Return how much each token of the content attends to each word, whatever the gate."""
        found: Tensor = self.attention.weights(self.norm(content), intention, present)
        return found


class LatentCrossAttention(nn.Module):
    """Latent tokens look at the content (Jaegle et al., Perceiver IO, 2022)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        latents: Float[Tensor, "post latent width"],
        content: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post latent width"]:
        """Return the latents, moved by what they saw."""
        seen = self.attention(self.norm(latents), content, present)
        moved: Tensor = latents + self.dropout(seen)
        return moved


class FusionLayer(nn.Module):
    """Content attends to itself, then reads intentions, then is transformed token by token."""

    def __init__(self, width: int, heads: int, dropout: float, reader: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.reader = GatedReader(width, heads, dropout) if reader else None
        self.feed_forward = FeedForward(width, dropout)

    def forward(
        self,
        content: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
        memory: tuple[Tensor, Tensor] | None,
    ) -> Float[Tensor, "post token width"]:
        """Return the content one layer on; `memory` is intention tokens and their presence."""
        normed = self.norm(content)
        content = content + self.dropout(self.attention(normed, normed, present))
        if self.reader is not None and memory is not None:
            content = self.reader(content, *memory)
        moved: Tensor = content + self.feed_forward(content)
        return moved


class QueryLayer(nn.Module):
    """Learned queries attend to each other and to the content (Li et al., BLIP-2, 2023)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(width)
        self.own = Attention(width, heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, dropout)

    def forward(
        self,
        queries: Float[Tensor, "post query width"],
        content: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post query width"]:
        """Return the queries after one reading of the content."""
        normed = self.own_norm(queries)
        everyone = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
        queries = queries + self.own(normed, normed, everyone)
        queries = queries + self.cross(self.cross_norm(queries), content, present)
        moved: Tensor = queries + self.feed_forward(queries)
        return moved
