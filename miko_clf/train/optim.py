"""AdamW with a rate for each group, warm-up and decay."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from miko_clf.recipe import Optimiser

Decay = Callable[[float], float]
DECAY: dict[str, Decay] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}
EMBEDDINGS = ("latents", "position", "relation", "queries", "query", "token", "word.weight")


@dataclass(frozen=True)
class Pace:
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


def optimiser(
    model: nn.Module, settings: Optimiser, pretrained: Iterable[str] | Mapping[str, Pace] = ()
) -> AdamW:
    """Return AdamW over what learns (Loshchilov and Hutter, 2019).

    Parameters whose names start with one of `pretrained` learn at the pace it maps to, or at
    `tower_rate`. Norms, biases, gates and embeddings do not decay.
    """
    paces = (
        dict(pretrained)
        if isinstance(pretrained, Mapping)
        else dict.fromkeys(pretrained, Pace(settings.tower_rate))
    )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = _rate(name, settings, paces)
            flat = parameter.ndim < 2 or name.endswith(EMBEDDINGS)
            decay = 0.0 if flat else settings.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=True,
    )


def schedule(optimiser: AdamW, settings: Optimiser, num_steps: int) -> LambdaLR:
    """Return the schedule that rises for the warm-up's share of the steps, then decays."""
    rise = max(1, round(settings.warmup * num_steps))
    fall = max(1, num_steps - rise)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return DECAY[settings.decay](min(1.0, (step - rise) / fall))

    return LambdaLR(optimiser, factor)


def _rate(name: str, settings: Optimiser, paces: Mapping[str, Pace]) -> float:
    rate = next(
        (pace.at(name.removeprefix(prefix)) for prefix, pace in paces.items()
         if name.startswith(prefix)),
        settings.rate,
    )  # fmt: skip
    return rate * settings.gate_factor if name.endswith("gate") else rate
