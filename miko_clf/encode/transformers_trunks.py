"""Trunks made of transformers' vision models, text encoders and halves of dual encoders."""

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from miko_clf.errors import EncoderError

# Where models keep their blocks, and the norm that stands on them.
BLOCKS = ("encoder.layers", "encoder.layer", "layers", "block", "transformer.layer")
NORMS = ("final_layer_norm", "layernorm", "post_layernorm", "norm", "final_norm")
# Architectures whose blocks are called here one by one, so that the lower ones can be cached.
SPLIT_IMAGE = (
    "clip_vision_model", "siglip_vision_model", "vit", "dinov2", "dinov2_with_registers",
)  # fmt: skip
SPLIT_TEXT = ("bert", "roberta", "xlm-roberta", "camembert", "clip_text_model")
# Fused attention of these comes out of no exporter with lengths that vary (torch 2.15).
UNEXPORTABLE = ("t5", "mt5", "umt5")
PADDED = ("siglip_text_model", "siglip2_text_model")  # trained on texts padded to the full length


class VisionTrunk(nn.Module):
    """A vision model: the tokens of its last block, or its pooled and projected embedding.

    `has_pooler` says that the checkpoint brought a pooling map; without one the first token
    is the embedding of models that have such a token.
    """

    def __init__(self, model: Any, output: str = "tokens", has_pooler: bool = True) -> None:
        super().__init__()
        self.model = getattr(model, "vision_model", model)
        self.kind: str = self.model.config.model_type
        if self.kind == "siglip2_vision_model":
            raise EncoderError(
                "SigLIP 2 of variable resolution takes patches and not pictures; name one of "
                "fixed resolution, such as siglip2-base-patch16-224"
            )
        self.output = output
        self.splits = self.kind in SPLIT_IMAGE
        self.projection = getattr(model, "visual_projection", None) if self._pools else None
        for name in ("pooler", "head"):
            unused = not self._pools or (name == "pooler" and not has_pooler)
            if unused and getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)

    @property
    def _pools(self) -> bool:
        return self.output == "embedding"

    def ladder(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return _ladder(self.model)

    def crown(self) -> list[nn.Module]:
        """Return the norm on the blocks; CLIP's is on the embedding alone."""
        bare = self.kind == "clip_vision_model" and not self._pools
        return [] if bare else _norms(self.model)

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the tokens, a feature map as one a cell, or the embedding as one token."""
        if self.splits:
            return self.finish(self.climb(self.start(pixels), 0, None))
        output = self.model(pixel_values=pixels)
        if self._pools:
            return self._projected(_pooled(output, self.kind))
        states: Tensor = output.last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states

    def start(self, pixels: Tensor) -> Tensor:
        """Return what the first block reads."""
        states: Tensor = self.model.embeddings(pixels)
        return self.model.pre_layrnorm(states) if self.kind == "clip_vision_model" else states

    def climb(self, states: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        for (block,) in self.ladder()[first:last]:
            states = block(states, None)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the tokens, or the embedding as one token."""
        if self.kind == "clip_vision_model":
            if not self._pools:
                return states
            return self._projected(self.model.post_layernorm(states[:, 0]))
        (norm,) = _norms(self.model)
        tokens: Tensor = norm(states)
        if not self._pools:
            return tokens
        pool = getattr(self.model, "head", None) or getattr(self.model, "pooler", None)
        return self._projected(pool(tokens) if pool is not None else tokens[:, 0])

    def _projected(self, embedding: Tensor) -> Tensor:
        whole = embedding.flatten(1)
        return (self.projection(whole) if self.projection is not None else whole)[:, None]


class TextTrunk(nn.Module):
    """A text encoder, or the text half of a dual encoder.

    With output `embedding` each state goes through the text projection, where there is one;
    SigLIP's one embedding stands at every word.
    """

    def __init__(self, model: Any, output: str = "tokens", pad_id: int = 0) -> None:
        super().__init__()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self.model = getattr(model, "text_model", model)
        if self.model.config.model_type in UNEXPORTABLE:
            self.model.set_attn_implementation("eager")
        self.kind: str = self.model.config.model_type
        self.pad_id = pad_id
        self.pools = output == "embedding"
        self.splits = self.kind in SPLIT_TEXT
        self.is_padded = self.kind in PADDED
        self.projection = getattr(model, "text_projection", None) if self.pools else None
        for name in ("pooler", "head"):
            used = name == "head" and self.is_padded
            if not used and getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)  # tokens are read, the pooled state is not

    def ladder(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return _ladder(self.model)

    def crown(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        return _norms(self.model)

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the state of each word."""
        if self.is_padded:
            return self._padded(ids, present)
        if self.splits:
            return self.finish(self.climb(self.start(ids), present, 0, None))
        output = self.model(input_ids=ids, attention_mask=present.long())
        return self._projected(output.last_hidden_state)

    def start(self, ids: Tensor) -> Tensor:
        """Return what the first block reads."""
        states: Tensor = self.model.embeddings(input_ids=ids)
        return states

    def climb(self, states: Tensor, present: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        is_causal = self.kind == "clip_text_model"
        make = create_causal_mask if is_causal else create_bidirectional_mask
        given: dict[str, Any] = {"config": self.model.config, "attention_mask": present.long()}
        given |= {"past_key_values": None} if is_causal else {}
        mask = make(inputs_embeds=states, **given)
        extra = {"is_causal": True} if is_causal else {}
        for (block,) in self.ladder()[first:last]:
            states = block(states, mask, **extra)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the states, normed and projected where the encoder does."""
        for norm in _norms(self.model):
            states = norm(states)
        return self._projected(states)

    def _projected(self, states: Tensor) -> Tensor:
        return states if self.projection is None else self.projection(states)

    def _padded(self, ids: Tensor, present: Tensor) -> Tensor:
        length = ids.shape[1]
        size: int = self.model.config.max_position_embeddings
        shown = ids.where(present, self.pad_id)
        whole = functional.pad(shown, (0, size - length), value=self.pad_id)
        output = self.model(input_ids=whole)
        if self.pools:
            embedding: Tensor = output.pooler_output
            return embedding[:, None].expand(-1, length, -1)
        states: Tensor = output.last_hidden_state
        return states[:, :length]


def _ladder(model: nn.Module) -> list[list[nn.Module]]:
    for path in BLOCKS:
        found: Any = model
        for part in path.split("."):
            found = getattr(found, part, None)
        if isinstance(found, nn.ModuleList):
            return [[block] for block in found]
    return []


def _norms(model: nn.Module) -> list[nn.Module]:
    found = [getattr(model, name, None) for name in NORMS]
    return [norm for norm in found if norm is not None][:1]


def _pooled(output: Any, kind: str) -> Tensor:
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is None:
        raise EncoderError(f"{kind} has no pooled embedding; set output: tokens")
    return pooled
