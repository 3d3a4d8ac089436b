"""Which part of a tower learns: none, all, its last blocks, or LoRA beside frozen weights."""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from miko_clf.encode.tower import ImageTower, TextTower
from miko_clf.errors import EncoderError

_Tower = TypeVar("_Tower", ImageTower, TextTower)
# What stands under the blocks of a trunk: patches, words, positions, and norms before the first.
_BELOW_BLOCKS = re.compile(
    r"embed|pre_layrnorm|ln_pre|norm_pre|stem|conv1|bn1|cls_token|reg_token|shared|position|word"
)


def freeze_tower(tower: _Tower) -> _Tower:
    """Return the tower with nothing that learns."""
    tower.requires_grad_(False)
    tower.awake = []
    tower.train()  # before anything runs: BatchNorm must not learn from the probe
    tower.divide(None)
    return tower


def unfreeze_blocks(tower: _Tower, num_blocks: int) -> _Tower:
    """Return the tower with its last blocks learning, and the norm after them.

    Everything below stays as it is: weights, norms and dropout. Raises `EncoderError` where
    the tower has fewer blocks, or none that are known.
    """
    freeze_tower(tower)
    top = _list_top(tower.trunk, num_blocks)
    for module in top:
        module.requires_grad_(True)
    tower.awake = top
    below = len(tower.trunk.ladder()) - num_blocks
    tower.divide(below if tower.trunk.splits and below else None)
    return tower.train()


def _list_top(trunk: Any, num_blocks: int) -> list[nn.Module]:
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


def count_blocks_above(tower: ImageTower | TextTower) -> dict[str, int]:
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
        under = id(parameter) not in crown and _BELOW_BLOCKS.search(name)
        return found.get(id(parameter), len(rungs) if under else 0)

    return {name: depth(name, parameter) for name, parameter in tower.named_parameters()}


_LoraTower = TypeVar("_LoraTower", ImageTower, TextTower)
# Names of the maps inside a block, as the families spell them.
_LORA_TARGETS: dict[str, re.Pattern[str]] = {
    "q": re.compile(r"(^|\.)(q_proj|query|query_proj|q)$"),
    "k": re.compile(r"(^|\.)(k_proj|key|key_proj|k)$"),
    "v": re.compile(r"(^|\.)(v_proj|value|value_proj|v)$"),
    "out": re.compile(r"(^|\.)(out_proj|o_proj|o)$|attention\.output\.dense$|attn\.proj$"),
    "mlp": re.compile(
        r"(^|\.)(fc1|fc2|wi|wi_0|wi_1|wo|c_fc|c_proj|gate_proj|up_proj|down_proj)$"
        r"|^(intermediate|output)\.dense$"
    ),
}
_PACKED = re.compile(r"(^|\.)qkv$")


def add_lora(
    tower: _LoraTower,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
) -> _LoraTower:
    """Return the tower with adapters that learn while its own weights stay as they are.

    They stand on the named maps of every block. Raises `EncoderError` where a block has none.
    """
    freeze_tower(tower)
    names = [
        name for rung in tower.trunk.ladder() for name in _find_targets(tower.trunk, rung, targets)
    ]
    if not names:
        raise EncoderError(
            f"no map of this tower is called by lora targets {', '.join(targets)}: adapters stand "
            "on attention and its feed-forward maps, and a convolutional net has neither; "
            "use unfreeze instead"
        )
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it by the rank
        lora_dropout=dropout,
        target_modules=names,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's remarks on layers that it renames
        inject_adapter_in_model(settings, tower.trunk)
    tower.awake = [layer.lora_dropout for _, layer in _list_lora_layers(tower.trunk)]
    return tower.train()


def merge_lora(tower: _LoraTower) -> _LoraTower:
    """Return the tower with its adapters added into its weights, which are its own again."""
    found = list(_list_lora_layers(tower.trunk))
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(tower.trunk.get_submodule(parent), leaf, layer.get_base_layer())
    return freeze_tower(tower) if found else tower


def _list_lora_layers(trunk: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in list(trunk.named_modules()):
        if isinstance(module, LoraLayer):
            yield name, module


def _find_targets(trunk: nn.Module, rung: Sequence[nn.Module], targets: Sequence[str]) -> list[str]:
    """Return the names in the trunk of the maps of one block that the targets call."""
    path = {id(module): name for name, module in trunk.named_modules()}
    found = []
    for block in rung:
        for name, module in block.named_modules():
            if isinstance(module, nn.MultiheadAttention) and set(targets) & {"q", "k", "v", "out"}:
                raise EncoderError(
                    "this library packs the maps of attention in one weight that adapters cannot "
                    "stand on; name lora targets: [mlp], or take the checkpoint by source "
                    "transformers"
                )
            if isinstance(module, nn.Linear) and _is_target(name, targets):
                found.append(path[id(module)])
    return found


def _is_target(name: str, targets: Sequence[str]) -> bool:
    if _PACKED.search(name):
        wanted = {"q", "k", "v"} & set(targets)
        if wanted and len(wanted) < 3:
            raise EncoderError(
                "this library packs q, k and v in one map; name all three as lora targets, "
                f"or none of them, not {', '.join(sorted(wanted))} alone"
            )
        return bool(wanted)
    return any(_LORA_TARGETS[target].search(name) for target in targets)
