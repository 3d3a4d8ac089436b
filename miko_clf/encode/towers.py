"""The shape contract that every tower keeps, whichever library it comes from."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from miko_clf.data.pixels import Preprocess
from miko_clf.data.words import Words

Plan = Mapping[str, Any]


class ImageTower(nn.Module):
    """Images to tokens. `trunk` maps normalised pixels to (image, token, width).

    `plan` is what rebuilds the trunk without weights and without a hub.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, preprocess: Preprocess, plan: Plan) -> None:
        super().__init__()
        self.trunk = trunk
        self.preprocess = preprocess
        self.plan = plan
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None], persistent=False)
        with torch.no_grad():
            probe = torch.zeros(2, 3, preprocess.height, preprocess.width, dtype=torch.uint8)
            _, self.num_tokens, self.width = self.eval()(probe).shape
        self.train()

    def forward(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return one token a patch or grid cell; pixels are normalised here."""
        tokens: Tensor = self.trunk((pixels.float() / 255 - self.mean) / self.std)
        return tokens


class TextTower(nn.Module):
    """Texts to tokens. `trunk` maps ids and their presence to (text, word, width).

    `limit` is the longest text, in tokens, that the trunk can read.
    """

    def __init__(self, trunk: nn.Module, words: Words, limit: int, plan: Plan) -> None:
        super().__init__()
        self.trunk = trunk
        self.words = words
        self.limit = limit
        self.plan = plan
        with torch.no_grad():
            ids = torch.full((2, 3), words.pad_id)
            self.width = self.eval()(ids, torch.ones(2, 3, dtype=torch.bool)).shape[-1]
        self.train()

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the state of each word.

        A text with no word at all is read as one padding token, because attention over
        nothing is not a number; whoever reads the states masks them.
        """
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        states: Tensor = self.trunk(ids, present | first)
        return states

    def blank(self, num_texts: int, length: int) -> Float[Tensor, "text word width"]:
        """Return zeros in the shape of states."""
        parameter = next(self.parameters())
        return torch.zeros(num_texts, length, self.width, device=parameter.device)


def mean_pool(
    states: Float[Tensor, "text word width"], present: Bool[Tensor, "text word"]
) -> Float[Tensor, "text width"]:
    """Return the mean state of the words that are present, zeros where none is."""
    weight = present[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)
