"""Content attends to itself and reads intentions: student slots, fusion layers, head.

Every memory that is attended to begins with a learned null token, so that none is ever empty.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from miko_clf.data.post import RELATIONS
from miko_clf.encode.tower import Attention, FeatureDropout, FeedForward, Pool, pool_states
from miko_clf.fuse.linear_probe import LinearProbe
from miko_clf.fuse.outputs import Batch, ModelOutput

# One slot a relation, and the last for the rationale.
NUM_SLOTS = len(RELATIONS) + 1


class StudentSlots(nn.Module):
    """Learned queries that read the content and guess the encodings of the teacher's text."""

    def __init__(
        self, width: int, text_width: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(NUM_SLOTS, width) * 0.02)
        self.layers = nn.ModuleList(QueryLayer(width, heads, dropout) for _ in range(layers))
        self.guess = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, text_width))

    def forward(
        self, content: Float[Tensor, "post token width"], present: Bool[Tensor, "post token"]
    ) -> Float[Tensor, "post slot text_width"]:
        """Return the guess of each slot."""
        slots = self.queries.expand(content.shape[0], -1, -1)
        for layer in self.layers:
            slots = layer(slots, content, present)
        guess: Tensor = self.guess(slots)
        return guess


class CrossAttentionFusion(nn.Module):
    """Everything behind the towers: token states in, logits out.

    On a `base` its logits are mixed with those of a linear probe, `share` of them its own: all
    while it learns, and then what validation chooses. With an `intention_pool` an intention is one
    vector, without it its words.
    `slot_mask` (post, slot) among the states, which no graph takes, keeps slots from being read.
    """

    share: Tensor

    def __init__(
        self,
        *,
        image_width: int | None,
        num_image_tokens: int,
        text_width: int | None,
        content_texts: tuple[str, ...],
        reads_intentions: bool,
        num_labels: int,
        width: int,
        layers: int,
        latents: int,
        heads: int,
        dropout: float,
        input_dropout: float,
        reader: bool,
        slot_layers: int,
        intention_pool: Pool | None = None,
        base: LinearProbe | None = None,
    ) -> None:
        super().__init__()
        self.content_texts = content_texts
        self.reads_intentions = reads_intentions
        self.intention_pool = intention_pool
        self.reads_ids: tuple[str, ...] = base.reads_ids if base else ()
        self.reads_images = image_width is not None
        self._add_content(image_width, num_image_tokens, text_width, width, input_dropout)
        self.slots: StudentSlots | None = None
        if slot_layers and text_width is not None:
            self.slots = StudentSlots(width, text_width, heads, slot_layers, dropout)
        self.has_reader = reader and text_width is not None
        if reader and text_width is not None:
            self.intention = _build_projection(text_width, width, input_dropout)
            self.relation = nn.Parameter(torch.randn(NUM_SLOTS, width) * 0.02)
            self.intention_null = NullToken(width)
        self.layers = nn.ModuleList(
            FusionLayer(width, heads, dropout, reader) for _ in range(layers)
        )
        self.looks = nn.ModuleList()
        if latents:
            self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
            self.looks.extend(LatentCrossAttention(width, heads, dropout) for _ in self.layers)
        self.pool = QueryLayer(width, heads, dropout)
        self.pool_query = nn.Parameter(torch.randn(1, width) * 0.02)
        head = nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_labels)
        self.head = nn.Sequential(*head)
        self.base = base
        if base is not None:
            base.requires_grad_(False)
            self.register_buffer("share", torch.ones(()))

    def _add_content(
        self,
        image_width: int | None,
        num_image_tokens: int,
        text_width: int | None,
        width: int,
        input_dropout: float,
    ) -> None:
        """Add what brings the tokens of image and texts into one space."""
        if image_width is not None:
            self.image = _build_projection(image_width, width, input_dropout)
            self.position = nn.Parameter(torch.randn(num_image_tokens, width) * 0.02)
        if text_width is not None:
            self.text = _build_projection(text_width, width, input_dropout)
        self.kind = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width) * 0.02) for name in self.content_texts}
        )
        self.null = NullToken(width)

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the logits of each label, and what they were pooled from."""
        content, present = self._join_content(states)
        guess = self.slots(content, present) if self.slots is not None else None
        memory = self._join_memory(states, guess, content.shape[0]) if self.has_reader else None
        if guess_only:
            return ModelOutput(content[:, 0], content, present, guess)
        tokens, here = self._fuse(content, present, memory)
        query = self.pool_query.expand(tokens.shape[0], -1, -1)
        pooled = self.pool(query, tokens, here)[:, 0]  # (post, width)
        logits = self.head(pooled)
        if self.base is None:
            return ModelOutput(logits, tokens, here, guess, pooled)
        mixed = torch.lerp(self.base(states).logits, logits, self.share)
        return ModelOutput(mixed, tokens, here, guess, pooled)

    def _fuse(
        self, content: Tensor, present: Tensor, memory: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        tokens, here = content, present
        if self.looks:
            tokens = self.latents.expand(content.shape[0], -1, -1)
            here = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for place, layer in enumerate(self.layers):
            if self.looks:
                tokens = self.looks[place](tokens, content, present)
            tokens = layer(tokens, here, memory)
        return tokens, here

    def _join_content(self, states: Batch) -> tuple[Tensor, Tensor]:
        tokens, present = [], []
        if self.reads_images:
            image = self.image(states["image_states"]) + self.position
            tokens.append(image)
            present.append(states["image_present"][:, None].expand(-1, image.shape[1]))
        for name in self.content_texts:
            tokens.append(self.text(states[f"{name}_states"]) + self.kind[name])
            present.append(states[f"{name}_mask"])
        return self.null(tokens, present, tokens[0].shape[0])

    def _join_memory(
        self, states: Batch, guess: Tensor | None, num_posts: int
    ) -> tuple[Tensor, Tensor]:
        tokens, present, has_intention = [], [], None
        if self.reads_intentions:
            words, here = self._read_intentions(states)  # (post, intention, word, width)
            words = self.intention(words) + self.relation[states["relation"]][:, :, None]
            tokens.append(words.flatten(1, 2))
            present.append(here.flatten(1, 2))
            has_intention = present[0].any(1)
        if guess is not None:
            tokens.append(self.intention(guess) + self.relation)
            stands_in = states["student"]
            if has_intention is not None:
                stands_in = stands_in & ~has_intention
            read = stands_in[:, None].expand(-1, NUM_SLOTS)
            present.append(read & states["slot_mask"] if "slot_mask" in states else read)
        return self.intention_null(tokens, present, num_posts)

    def _read_intentions(self, states: Batch) -> tuple[Tensor, Tensor]:
        """Return the states of words of each intention, or its vector as a single word."""
        words, mask = states["intention_states"], states["intention_mask"]
        if self.intention_pool is None:
            return words, mask
        vectors = pool_states(words.flatten(0, 1), mask.flatten(0, 1), self.intention_pool)
        return vectors.unflatten(0, mask.shape[:2])[:, :, None], mask.any(2, keepdim=True)

    def owners(self, states: Batch) -> Int[Tensor, "post word"]:
        """Return the relation, or slot, that each token of what is read belongs to.

        `NUM_SLOTS` for the null token at its head.
        """
        first = next(iter(states.values()))
        parts = [first.new_full((first.shape[0], 1), NUM_SLOTS, dtype=torch.int64)]
        if self.reads_intentions:
            mask = states["intention_mask"]
            mask = mask if self.intention_pool is None else mask.any(2, keepdim=True)
            parts.append(states["relation"][:, :, None].expand(mask.shape).flatten(1, 2))
        if self.slots is not None:
            slots = torch.arange(NUM_SLOTS, device=first.device)
            parts.append(slots.expand(first.shape[0], -1))
        return torch.cat(parts, dim=1)


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
        weights: Tensor = self.attention.weights(self.norm(content), intention, present)
        return weights


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


def _build_projection(width_in: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width_in),
        FeatureDropout(dropout),
        nn.Linear(width_in, width),
        nn.LayerNorm(width),
    )
