"""InterCLIP: top vision layers attend to the text too; a classifier over both halves."""

from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode.tower import (
    FeatureDropout,
    ImageTower,
    TextTower,
    compute_text_states,
    pool_states,
)
from miko_clf.errors import EncoderError, RecipeError
from miko_clf.fuse.outputs import Batch, ModelOutput, set_frozen_to_eval

_CLIP_PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")  # of transformers


class TextConditioning(nn.Module):
    """What one vision layer needs to attend to words beside its own tokens.

    Words are projected to the layer's width and laid beside its keys and values; a second
    output projection stands behind a gate that starts at zero (Chen et al., InterCLIP, 2024).
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.words = nn.Linear(text_width, width)
        nn.init.normal_(self.words.weight, std=text_width**-0.5)
        nn.init.zeros_(self.words.bias)
        self.out = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        layer: Any,
        tokens: Float[Tensor, "post token width"],
        words: Float[Tensor, "post word text_width"],
        present: Bool[Tensor, "post word"],
    ) -> Float[Tensor, "post token width"]:
        """Return the tokens after `layer`, which may attend to the words that are present."""
        read = self._attend(layer.self_attn, layer.layer_norm1(tokens), words, present)
        tokens = tokens + read
        moved: Tensor = tokens + layer.mlp(layer.layer_norm2(tokens))
        return moved

    def _attend(self, attention: Any, own: Tensor, words: Tensor, present: Tensor) -> Tensor:
        memory = torch.cat([own, self.words(words)], dim=1)
        here = torch.cat([present.new_ones(own.shape[:2]), present], dim=1)
        heads = (attention.num_heads, -1)
        maps = (attention.q_proj(own), attention.k_proj(memory), attention.v_proj(memory))
        query, key, value = (part.unflatten(-1, heads).transpose(1, 2) for part in maps)
        read = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=here[:, None, None, :].expand(-1, 1, own.shape[1], -1),
            dropout_p=attention.dropout if attention.training else 0.0,
        )
        read = read.transpose(1, 2).flatten(2)
        merged: Tensor = attention.out_proj(read) + torch.tanh(self.gate) * self.out(read)
        return merged


class InterClip(nn.Module):
    """Vision conditioned on text, both pooled, and a classifier (Chen et al., InterCLIP, 2024).

    The published system votes with a memory of the test posts besides; this is the ordinary
    classifier. Words reach the vision layers without a gradient, as published.
    """

    decoder: nn.Module | None = None

    def __init__(
        self,
        image_tower: ImageTower | None,
        text_tower: TextTower | None,
        *,
        content_texts: tuple[str, ...],
        num_labels: int,
        layers: int,
        width: int,
        dropout: float,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_tower is None or text_tower is None or len(content_texts) != 1:
            raise RecipeError(
                "a conditioned image tower reads an image and one text; "
                "name both among the inputs, or set joined: separated"
            )
        self.text = content_texts[0]
        self.split = (self.text,)
        self.reads_ids: tuple[str, ...] = ()
        self.image_tower = image_tower
        self.text_tower = text_tower
        _check_vision(self.vision, layers)
        image_width: int = self.vision.config.hidden_size  # before CLIP's projection
        self.conditions = nn.ModuleList(
            TextConditioning(image_width, text_tower.width) for _ in range(layers)
        )
        self.no_image = nn.Parameter(torch.randn(image_width) * 0.02)
        self.no_text = nn.Parameter(torch.randn(text_tower.width) * 0.02)
        self.input_dropout = FeatureDropout(input_dropout)
        self.hidden = nn.Linear(image_width + text_tower.width, width)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_labels))

    @property
    def vision(self) -> Any:
        """The vision half of CLIP."""
        return getattr(self.image_tower.trunk, "model", self.image_tower.trunk)

    def train(self, mode: bool = True) -> "InterClip":
        """Set training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        set_frozen_to_eval(self.image_tower, self.text_tower)
        return self

    def forward(self, batch: Batch, *, guess_only: bool = False) -> ModelOutput:
        """Return the logits of each label; `guess_only` changes nothing."""
        words, present = self.encode(batch)[f"{self.text}_states"], batch[f"{self.text}_mask"]
        tokens = self.look(batch["pixels"], words.detach(), present)
        image = self.vision.post_layernorm(tokens[:, 0])
        image = torch.where(batch["image_present"][:, None], image, self.no_image)
        end = pool_states(words, present, "last")  # CLIP's end of text
        text = torch.where(present.any(1, keepdim=True), end, self.no_text)
        pooled = self.input_dropout(torch.cat([image, text], dim=-1))
        embedding = self.hidden(pooled).relu()
        return ModelOutput(logits=self.head(embedding), tokens=tokens, embedding=embedding)

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with the states of the text; those of the image depend on them."""
        states = compute_text_states(self.text_tower, batch, self.text)
        return {**batch, f"{self.text}_states": states}

    def look(
        self,
        pixels: UInt8[Tensor, "post 3 height pixel"],
        words: Float[Tensor, "post word text_width"],
        present: Bool[Tensor, "post word"],
    ) -> Float[Tensor, "post token width"]:
        """Return the image's tokens, in whose top layers the words could be read."""
        tower, vision = self.image_tower, self.vision
        tokens = vision.embeddings((pixels.float() / 255 - tower.mean) / tower.std)
        tokens = vision.pre_layrnorm(tokens)
        below = len(vision.encoder.layers) - len(self.conditions)
        for place, layer in enumerate(vision.encoder.layers):
            if place < below:
                tokens = layer(tokens, None)
            else:
                tokens = self.conditions[place - below](layer, tokens, words, present)
        return tokens


def _check_vision(vision: Any, layers: int) -> None:
    if not all(hasattr(vision, name) for name in _CLIP_PARTS):
        raise EncoderError(
            "fusion.kind conditioned needs a CLIP image tower of transformers; "
            f"this one is a {type(vision).__name__}"
        )
    own = len(vision.encoder.layers)
    if layers > own:
        raise RecipeError(f"fusion.layers {layers} is more than the {own} of the image tower")
