"""AdamW with a rate for each group, warm-up and decay."""

import math
from collections.abc import Callable

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


def optimiser(model: nn.Module, settings: Optimiser, pretrained: tuple[str, ...]) -> AdamW:
    """Return AdamW over what learns (Loshchilov and Hutter, 2019).

    Parameters whose names start with one of `pretrained` learn at `tower_rate`. Norms,
    biases, gates and embeddings do not decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = settings.tower_rate if name.startswith(pretrained) else settings.rate
            if name.endswith("gate"):
                rate *= settings.gate_factor
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
