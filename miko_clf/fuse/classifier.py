"""The classifier: towers, student slots, fusion layers, head."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from miko_clf.data.post import RELATIONS
from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.fuse.attention import FusionLayer, Look, NullToken, QueryLayer
from miko_clf.fuse.decoder import Decoder

# Arrays of `data.collate` as tensors, and `*_states` where a tower has already run.
Batch = dict[str, Tensor]
# One slot a relation, and the last for the rationale.
NUM_SLOTS = len(RELATIONS) + 1


class Fused(NamedTuple):
    """What the fusion returns.

    `tokens` (post, token, width) and `present` (post, token) leave the last layer; `guess`
    (post, slot, text width) is what each slot thinks the teacher's text encodes to; `logits`
    (post, label); `writing` is the decoder's loss where a rationale was given to write.
    """

    tokens: Tensor
    present: Tensor
    guess: Tensor | None
    logits: Tensor
    writing: Tensor | None = None


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


class Slots(nn.Module):
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


class Fusion(nn.Module):
    """Everything behind the towers: token states in, logits out."""

    def __init__(
        self,
        *,
        image_width: int | None,
        num_image_tokens: int,
        text_width: int,
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
    ) -> None:
        super().__init__()
        self.content_texts = content_texts
        self.reads_intentions = reads_intentions
        if image_width is not None:
            self.image = _projection(image_width, width, input_dropout)
            self.position = nn.Parameter(torch.randn(num_image_tokens, width) * 0.02)
        self.reads_images = image_width is not None
        self.text = _projection(text_width, width, input_dropout)
        self.kind = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width) * 0.02) for name in content_texts}
        )
        self.null = NullToken(width)
        self.slots = Slots(width, text_width, heads, slot_layers, dropout) if slot_layers else None
        if reader:
            self.intention = _projection(text_width, width, input_dropout)
            self.relation = nn.Parameter(torch.randn(NUM_SLOTS, width) * 0.02)
            self.intention_null = NullToken(width)
        self.has_reader = reader
        self.layers = nn.ModuleList(
            FusionLayer(width, heads, dropout, reader) for _ in range(layers)
        )
        if latents:
            self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.looks = nn.ModuleList(
            Look(width, heads, dropout) for _ in range(layers if latents else 0)
        )
        self.pool = QueryLayer(width, heads, dropout)
        self.pool_query = nn.Parameter(torch.randn(1, width) * 0.02)
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_labels)
        )

    def forward(self, states: Batch, guess_only: bool = False) -> Fused:
        """Return the logits of each label, and what they were pooled from."""
        content, present = self._content(states)
        guess = self.slots(content, present) if self.slots is not None else None
        memory = self._memory(states, guess, content.shape[0]) if self.has_reader else None
        if guess_only:
            return Fused(content, present, guess, content[:, 0])
        tokens, here = self._fuse(content, present, memory)
        query = self.pool_query.expand(tokens.shape[0], -1, -1)
        pooled = self.pool(query, tokens, here)[:, 0]  # (post, width)
        return Fused(tokens, here, guess, self.head(pooled))

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

    def _content(self, states: Batch) -> tuple[Tensor, Tensor]:
        tokens, present = [], []
        if self.reads_images:
            image = self.image(states["image_states"]) + self.position
            tokens.append(image)
            present.append(states["image_present"][:, None].expand(-1, image.shape[1]))
        for name in self.content_texts:
            tokens.append(self.text(states[f"{name}_states"]) + self.kind[name])
            present.append(states[f"{name}_mask"])
        return self.null(tokens, present, tokens[0].shape[0])

    def _memory(self, states: Batch, guess: Tensor | None, num_posts: int) -> tuple[Tensor, Tensor]:
        tokens, present, given = [], [], None
        if self.reads_intentions:
            words = self.intention(states["intention_states"])  # (post, intention, word, width)
            words = words + self.relation[states["relation"]][:, :, None]
            tokens.append(words.flatten(1, 2))
            present.append(states["intention_mask"].flatten(1, 2))
            given = present[0].any(1)
        if guess is not None:
            tokens.append(self.intention(guess) + self.relation)
            stands_in = states["student"] if given is None else states["student"] & ~given
            present.append(stands_in[:, None].expand(-1, NUM_SLOTS))
        return self.intention_null(tokens, present, num_posts)


class MikoClassifier(nn.Module):
    """Two towers and the fusion behind them."""

    def __init__(
        self,
        image_tower: ImageTower | None,
        text_tower: TextTower,
        fusion: Fusion,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.fusion = fusion
        self.decoder = decoder

    def train(self, mode: bool = True) -> "MikoClassifier":
        """Set training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        for tower in (self.image_tower, self.text_tower):
            if tower is not None and not any(p.requires_grad for p in tower.parameters()):
                tower.eval()
        return self

    def forward(self, batch: Batch, *, guess_only: bool = False) -> Fused:
        """Return what the fusion does; a tower runs where the batch holds no states of it.

        With `guess_only` the fusion layers are left out: only the guess is worth reading.
        """
        fused: Fused = self.fusion(self.encode(batch), guess_only)
        if guess_only:
            return fused
        if self.decoder is None or "written_ids" not in batch:
            return fused
        ids, mask = batch["written_ids"], batch["written_mask"]
        writing = self.decoder.loss(ids, mask, fused.tokens, fused.present)
        return fused._replace(writing=writing)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with the states of every input."""
        states = dict(batch)
        if self.image_tower is not None and "image_states" not in states:
            states["image_states"] = self.image_tower(states["pixels"])
        for name in self.fusion.content_texts:
            if f"{name}_states" not in states:
                ids, mask = states[f"{name}_ids"], states[f"{name}_mask"]
                states[f"{name}_states"] = self.text_tower(ids, mask)
        if self.fusion.reads_intentions and "intention_states" not in states:
            states["intention_states"] = self._intentions(states)
        return states

    def _intentions(self, batch: Batch) -> Float[Tensor, "post intention word width"]:
        ids, mask = batch["intention_ids"].flatten(0, 1), batch["intention_mask"].flatten(0, 1)
        shape = (*batch["intention_ids"].shape, -1)
        if torch.compiler.is_exporting():
            return self.text_tower(ids, mask).reshape(shape)
        here = mask.any(1)  # an absent intention costs nothing
        states = self.text_tower.blank(ids.shape[0], ids.shape[1])
        if here.any():
            states = states.index_put((here,), self.text_tower(ids[here], mask[here]))
        return states.reshape(shape)


def _projection(width_in: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width_in),
        FeatureDropout(dropout),
        nn.Linear(width_in, width),
        nn.LayerNorm(width),
    )
