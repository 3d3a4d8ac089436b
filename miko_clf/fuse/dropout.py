"""Dropout of whole features of a tower."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
