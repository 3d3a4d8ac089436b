"""Cross-attention by which the words of an encoder look at an image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.errors import RecipeError
from miko_clf.fuse.attention import NullToken
from miko_clf.fuse.dropout import FeatureDropout

Memory = tuple[Tensor, Tensor]


class Glance(nn.Module):
    """One look of words at image tokens, added to the words (Lin et al., Mr.Harm, 2023).

    Gated, it is normed and stands behind a gate that starts at zero (Alayrac et al., Flamingo,
    2022), so that an untrained look changes nothing. Ungated, it is Mr.Harm's own: nothing but
    the attention, its values at first those of its keys.
    """

    def __init__(
        self, width: int, image_width: int, heads: int, share: float, dropout: float, gated: bool
    ) -> None:
        super().__init__()
        inner = round(width * share)
        if inner % heads:
            raise RecipeError(
                f"fusion.heads {heads} does not divide {inner}, which is fusion.share {share} "
                f"of the encoder's {width} channels"
            )
        self.heads = heads
        self.norm = nn.LayerNorm(width) if gated else nn.Identity()
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(image_width, inner)
        self.value = nn.Linear(image_width, inner)
        if not gated:
            self.value.load_state_dict(self.key.state_dict())
        self.out = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Parameter(torch.zeros(width)) if gated else None

    def forward(
        self,
        words: Float[Tensor, "post word width"],
        tokens: Float[Tensor, "post token channel"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post word width"]:
        """Return the words, moved by what they saw."""
        read = functional.scaled_dot_product_attention(
            self._split(self.query(self.norm(words))),
            self._split(self.key(tokens)),
            self._split(self.value(tokens)),
            attn_mask=present[:, None, None, :].expand(-1, 1, words.shape[1], -1),
        )
        seen = self.dropout(self.out(read.transpose(1, 2).flatten(2)))
        return words + (seen if self.gate is None else torch.tanh(self.gate) * seen)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Glances(nn.Module):
    """All looks of an encoder at one image; a learned null token is seen besides it.

    Without an image the null token is all there is to see, in the ungated form too: its
    authors knew no post without an image.
    """

    def __init__(
        self,
        num_looks: int,
        width: int,
        image_width: int,
        *,
        heads: int,
        share: float,
        gated: bool,
        dropout: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.input_dropout = FeatureDropout(input_dropout)
        self.null = NullToken(image_width)
        self.norm = nn.LayerNorm(image_width) if gated else nn.Identity()
        self.looks = nn.ModuleList(
            Glance(width, image_width, heads, share, dropout, gated) for _ in range(num_looks)
        )

    def memory(
        self, image: Float[Tensor, "post token channel"], present: Bool[Tensor, " post"]
    ) -> Memory:
        """Return what there is to see and its presence, the null token first."""
        here = present[:, None].expand(-1, image.shape[1])
        tokens, seen = self.null([self.input_dropout(image)], [here], image.shape[0])
        return self.norm(tokens), seen

    def forward(
        self, place: int, words: Float[Tensor, "post word width"], memory: Memory
    ) -> Float[Tensor, "post word width"]:
        """Return the words after the look at `place`."""
        moved: Tensor = self.looks[place](words, *memory)
        return moved
