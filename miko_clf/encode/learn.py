"""Which part of a tower learns: all, none, its last blocks, or adapters beside frozen weights."""

import re
from typing import Any, TypeVar

from torch import nn

from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.errors import EncoderError

Tower = TypeVar("Tower", ImageTower, TextTower)
# What stands under the blocks of a trunk: patches, words, positions, and norms before the first.
FOOT = re.compile(
    r"embed|pre_layrnorm|ln_pre|norm_pre|stem|conv1|bn1|cls_token|reg_token|shared|position|word"
)


def freeze(tower: Tower) -> Tower:
    """Return the tower with nothing that learns."""
    tower.requires_grad_(False)
    tower.awake = []
    tower.train()  # before anything runs: BatchNorm must not learn from the probe
    tower.divide(None)
    return tower


def unfreeze(tower: Tower, num_blocks: int) -> Tower:
    """Return the tower with its last blocks learning, and the norm after them.

    Everything below stays as it is: weights, norms and dropout. Raises `EncoderError` where
    the tower has fewer blocks, or none that are known.
    """
    freeze(tower)
    top = _last(tower.trunk, num_blocks)
    for module in top:
        module.requires_grad_(True)
    tower.awake = top
    below = len(tower.trunk.ladder()) - num_blocks
    tower.divide(below if tower.trunk.splits and below else None)
    return tower.train()


def _last(trunk: Any, num_blocks: int) -> list[nn.Module]:
    """Return the modules of the last blocks and what stands on them, bottom to top."""
    rungs = trunk.ladder()
    if not rungs:
        raise EncoderError(
            "this architecture's blocks are not known here, so none can be unfrozen alone; "
            "set unfreeze: 0, or frozen: false to let the whole tower learn"
        )
    if num_blocks > len(rungs):
        raise EncoderError(f"unfreeze: {num_blocks}, but the tower has {len(rungs)} blocks")
    return [module for rung in rungs[len(rungs) - num_blocks :] for module in rung] + trunk.crown()


def depths(tower: ImageTower | TextTower) -> dict[str, int]:
    """Return by parameter name how many blocks stand above it: 0 for the top block and its norm."""
    rungs = tower.trunk.ladder()
    found = {
        id(parameter): len(rungs) - 1 - place
        for place, rung in enumerate(rungs)
        for module in rung
        for parameter in module.parameters()
    }
    crown = {id(parameter) for module in tower.trunk.crown() for parameter in module.parameters()}

    def depth(name: str, parameter: nn.Parameter) -> int:
        under = id(parameter) not in crown and FOOT.search(name)
        return found.get(id(parameter), len(rungs) if under else 0)

    return {name: depth(name, parameter) for name, parameter in tower.named_parameters()}
