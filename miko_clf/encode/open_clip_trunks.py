"""Trunks made of the two halves of an open_clip model."""

from typing import Any

from jaxtyping import Bool, Float, Int
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.encode import from_timm
from miko_clf.errors import EncoderError


class VisionTrunk(nn.Module):
    """The vision half: its tokens, or its pooled and projected embedding."""

    def __init__(self, model: Any, output: str = "tokens") -> None:
        super().__init__()
        self.visual = model.visual
        self.pools = output == "embedding"
        self.is_timm = isinstance(self.visual, TimmModel)
        is_vit = isinstance(self.visual, VisionTransformer)
        if not (self.is_timm or is_vit or self.pools):
            raise EncoderError(
                f"open_clip's {type(self.visual).__name__} gives no tokens; set output: embedding"
            )
        self.splits = bool(self.ladder()) if self.is_timm else is_vit and _is_plain(self.visual)

    def ladder(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top; none for an architecture that is not known here."""
        if self.is_timm:
            return from_timm.rungs(self.visual.trunk)
        blocks = getattr(getattr(self.visual, "transformer", None), "resblocks", ())
        return [[block] for block in blocks]

    def crown(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        if self.is_timm:
            return from_timm.crown(self.visual.trunk)
        norm = getattr(self.visual, "ln_post", None)
        return [] if norm is None else [norm]

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the tokens, or the embedding as one token."""
        if self.is_timm:
            return self._of_timm(self.visual.trunk.forward_features(pixels))
        if self.splits:
            return self.finish(self.climb(self.start(pixels), 0, None))
        self.visual.output_tokens = not self.pools
        found = self.visual(pixels)
        tokens: Tensor = found[:, None] if self.pools else found[1]
        return tokens

    def start(self, pixels: Tensor) -> Tensor:
        """Return what the first block reads."""
        if self.is_timm:
            return from_timm.start(self.visual.trunk, pixels)
        states: Tensor = self.visual._embeds(pixels)
        return states

    def climb(self, states: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        for rung in self.ladder()[first:last]:
            for module in rung:
                states = module(states)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the tokens, or the embedding as one token."""
        if self.is_timm:
            return self._of_timm(from_timm.crowned(self.visual.trunk, states))
        pooled, tokens = self.visual._pool(states)
        if not self.pools:
            return tokens
        projected = pooled if self.visual.proj is None else pooled @ self.visual.proj
        return projected[:, None]

    def _of_timm(self, states: Tensor) -> Tensor:
        if not self.pools:
            last = getattr(self.visual.trunk, "output_fmt", "NCHW") == "NHWC"
            return from_timm.as_tokens(states, last)
        embedding: Tensor = self.visual.head(self.visual.trunk.forward_head(states))
        return embedding[:, None]


class TextTrunk(nn.Module):
    """The text half.

    CLIP's attention is causal, so padding behind a text changes nothing and is left out.
    SigLIP's is not: it was trained on texts padded to the full context, and reads the padding.
    With output `embedding` each state of the former is projected; the one embedding of the
    latter stands at every word.
    """

    def __init__(self, model: Any, output: str = "tokens", pad_id: int = 0) -> None:
        super().__init__()
        self.text = model.text
        if not isinstance(self.text, TextTransformer) or self.text.cls_emb is not None:
            raise EncoderError("this open_clip text half is not a plain transformer; CoCa's is not")
        self.pools = output == "embedding"
        self.pad_id = pad_id
        self.is_causal = self.text.attn_mask is not None
        self.splits = self.is_causal and bool(self.text.transformer.batch_first)
        self.text.output_tokens = True

    def ladder(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return [[block] for block in self.text.transformer.resblocks]

    def crown(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        return [self.text.ln_final]

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the state of each word."""
        if self.splits:
            return self.finish(self.climb(self.start(ids), present, 0, None))
        length = ids.shape[1]
        shown = ids.where(present, self.pad_id)
        rest = self.text.context_length - length
        pooled, tokens = self.text(functional.pad(shown, (0, rest), value=self.pad_id))
        if not self.pools:
            return tokens[:, :length]
        if self.is_causal:
            return self._projected(tokens[:, :length])
        embedding: Tensor = pooled[:, None].expand(-1, length, -1)
        return embedding

    def start(self, ids: Tensor) -> Tensor:
        """Return what the first block reads."""
        places: Tensor = self.text.positional_embedding[: ids.shape[1]]
        return self.text.token_embedding(ids) + places

    def climb(self, states: Tensor, present: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        length = states.shape[1]
        mask = self.text.attn_mask[:length, :length]
        for (block,) in self.ladder()[first:last]:
            states = block(states, attn_mask=mask)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the states, normed, and projected for output `embedding`."""
        tokens: Tensor = self.text.ln_final(states)
        return self._projected(tokens) if self.pools else tokens

    def _projected(self, tokens: Tensor) -> Tensor:
        projection = self.text.text_projection
        if projection is None:
            return tokens
        return projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection


def _is_plain(visual: Any) -> bool:
    return bool(visual.transformer.batch_first)
