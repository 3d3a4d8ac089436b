"""A moving average of the weights, which validation and the bundle see."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of what learns (Polyak and Juditsky, 1992).

    In the first steps the decay is (1 + step) / (10 + step), so that early weights fade.
    With a decay of 0 the average is the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean: dict[str, Tensor] = {}
        self.num_steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if not self.decay:
            return
        if not self.mean:
            self.mean = {name: p.detach().clone() for name, p in self.live.items()}
        self.num_steps += 1
        decay = min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        for name, parameter in self.live.items():
            self.mean[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the weights, and the weights back at the end."""
        kept = {name: self.live[name].detach().clone() for name in self.mean}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps in it."""
        return {"mean": self.mean, "num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the average from `state`."""
        self.num_steps = state["num_steps"]
        self.mean = {n: t.to(self.live[n].device) for n, t in state["mean"].items()}

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            self.live[name].copy_(weight)
