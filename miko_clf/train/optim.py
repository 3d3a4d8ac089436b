"""AdamW with a rate for each group, its schedule, and a moving average of the weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from miko_clf.recipe.sections import OptimiserSection

_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}
_MATRICES = ("weight", "proj", "projection")  # how towers' names of what maps vectors end


@dataclass(frozen=True)
class LayerwiseRate:
    """How fast the parameters under one prefix learn.

    `rate` is the peak, at the top block; a block learns at `layer_decay` times the rate of the
    one above it. `depths` says by the name behind the prefix how many blocks stand above.
    """

    rate: float
    layer_decay: float = 1.0
    depths: Mapping[str, int] = field(default_factory=dict)

    def at(self, name: str) -> float:
        """Return the peak rate of a parameter."""
        return self.rate * self.layer_decay ** self.depths.get(name, 0)


def build_optimiser(
    model: nn.Module, settings: OptimiserSection, rates: Mapping[str, LayerwiseRate]
) -> AdamW:
    """Return AdamW over what learns (Loshchilov and Hutter, 2019).

    Parameters whose names start with one of the prefixes in `rates` learn as fast as it says.
    Matrices decay; norms, biases, gates and embeddings, learned tokens and positions among them,
    do not.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = _choose_rate(name, settings, rates)
            matrix = parameter.ndim > 1 and name.endswith(_MATRICES)
            decays = matrix and id(parameter) not in embeddings
            decay = settings.weight_decay if decays else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=True,
    )


def build_schedule(optimiser: AdamW, settings: OptimiserSection, num_steps: int) -> LambdaLR:
    """Return the schedule that rises for the warm-up's share of the steps, then decays."""
    rise = max(1, round(settings.warmup * num_steps))
    fall = max(1, num_steps - rise)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return _DECAYS[settings.decay](min(1.0, (step - rise) / fall))

    return LambdaLR(optimiser, factor)


def _choose_rate(
    name: str, settings: OptimiserSection, rates: Mapping[str, LayerwiseRate]
) -> float:
    own = (rates[p].at(name.removeprefix(p)) for p in rates if name.startswith(p))
    rate = next(own, settings.rate)
    return rate * settings.gate_factor if name.endswith("gate") else rate


class WeightAverage:
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
        weights = {name: self.live[name].detach().clone() for name in self.mean}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(weights)

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
