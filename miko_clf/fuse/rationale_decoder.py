"""A small decoder that writes the rationale in training and is dropped at export."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.tower import Attention, FeedForward


class RationaleDecoderLayer(nn.Module):
    """Words attend to the words before them, then to the fused tokens."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.own_norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, dropout)

    def forward(
        self,
        words: Float[Tensor, "post word width"],
        tokens: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post word width"]:
        """Return the words one layer on."""
        length = words.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=words.device).triu(1)
        normed = self.own_norm(words)
        read, _ = self.own(normed, normed, normed, attn_mask=later, need_weights=False)
        words = words + read
        words = words + self.cross(self.cross_norm(words), tokens, present)
        moved: Tensor = words + self.feed_forward(words)
        return moved


class RationaleDecoder(nn.Module):
    """Causal language model over the text tower's vocabulary, reading fused tokens.

    With `known` words every other counts as one and the same: of 30,000 pieces the training
    texts of a few thousand posts use a third, and the rest would be paid for in every step. In
    training the loss is that of a random `share` of the words, as most of the work is in weighing
    the whole vocabulary for each.
    """

    place: Tensor

    def __init__(
        self,
        vocabulary: int,
        max_length: int,
        width: int,
        heads: int,
        dropout: float,
        known: Sequence[int] | None = None,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        place = torch.arange(vocabulary)
        if known is not None:
            place = torch.zeros(vocabulary, dtype=torch.int64)
            place[list(known)] = torch.arange(1, len(known) + 1)
        self.share = share
        self.register_buffer("place", place, persistent=False)
        self.word = nn.Embedding(int(place.max()) + 1, width)
        nn.init.normal_(self.word.weight, std=0.02)
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.layers = nn.ModuleList(RationaleDecoderLayer(width, heads, dropout) for _ in range(2))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        ids: Int[Tensor, "post word"],
        tokens: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post word vocabulary"]:
        """Return the logits of the word after each word; output and input embeddings are tied."""
        return functional.linear(self._read(ids, tokens, present), self.word.weight)

    def loss(
        self,
        ids: Int[Tensor, "post word"],
        mask: Bool[Tensor, "post word"],
        tokens: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the words that are present, zero where none is."""
        wanted = mask[:, 1:]
        if self.training and self.share < 1:
            wanted = wanted & (torch.rand(wanted.shape, device=wanted.device) < self.share)
        states = self._read(ids[:, :-1], tokens, present)[wanted]  # (wanted, width)
        logits = functional.linear(states, self.word.weight)
        target = self.place[ids[:, 1:][wanted]]
        total = functional.cross_entropy(logits, target, reduction="sum")
        return total / wanted.sum().clamp(min=1)

    def _read(
        self,
        ids: Int[Tensor, "post word"],
        tokens: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post word width"]:
        words = self.word(self.place[ids]) + self.position[: ids.shape[1]]
        for layer in self.layers:
            words = layer(words, tokens, present)
        normed: Tensor = self.norm(words)
        return normed
