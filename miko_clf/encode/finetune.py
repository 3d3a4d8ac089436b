"""Which part of a tower learns: none, all, its last blocks, or LoRA beside frozen weights."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from miko_clf.encode.tower import AnyTower, ImageTower, TextTower
from miko_clf.errors import EncoderError
from miko_clf.recipe.sections import TowerSection

# What stands under the blocks of a trunk: patches, words, positions, and norms before the first.
_BELOW_BLOCKS = re.compile(
    r"embed|pre_layrnorm|ln_pre|norm_pre|stem|conv1|bn1|cls_token|reg_token|shared|position|word"
    r"|\.wte\.|\.wpe\."
)
# Names of the maps inside a block, as the families spell them.
_LORA_TARGETS = {
    "q": re.compile(r"(^|\.)(q_proj|query|query_proj|q)$"),
    "k": re.compile(r"(^|\.)(k_proj|key|key_proj|k)$"),
    "v": re.compile(r"(^|\.)(v_proj|value|value_proj|v)$"),
    "out": re.compile(r"(^|\.)(out_proj|o_proj|o)$|attention\.(output\.)?dense$|attn\.(c_)?proj$"),
    "mlp": re.compile(
        r"(^|\.)(fc1|fc2|wi|wi_0|wi_1|wo|c_fc|gate_proj|up_proj|gate_up_proj|down_proj)$"
        r"|^(intermediate|output)\.dense$|mlp\.(c_proj|dense_h_to_4h|dense_4h_to_h)$"
    ),
}
_PACKED = re.compile(r"(^|\.)(qkv|qkv_proj|query_key_value|c_attn)$")


def let_learn(tower: AnyTower, section: TowerSection) -> AnyTower:
    """Return the tower with what the recipe lets learn."""
    if not section.frozen:
        return tower
    if (lora := section.lora) is not None:
        alpha = float(lora.alpha)
        return add_lora(
            tower, rank=lora.rank, alpha=alpha, dropout=lora.dropout, targets=lora.targets
        )
    return unfreeze_blocks(tower, section.unfreeze) if section.unfreeze else freeze_tower(tower)


def freeze_tower(tower: AnyTower) -> AnyTower:
    """Return the tower with nothing that learns."""
    tower.requires_grad_(False)
    tower.awake = []
    tower.train()  # before anything runs: BatchNorm must not learn from the probe
    tower.divide(None)
    return tower


def unfreeze_blocks(tower: AnyTower, num_blocks: int) -> AnyTower:
    """Return the tower with its last blocks learning, and the norm after them.

    Everything below stays as it is: weights, norms and dropout. Raises `EncoderError` where
    the tower has fewer blocks, or none that are known.
    """
    freeze_tower(tower)
    top = _list_top(tower.trunk, num_blocks)
    for module in top:
        module.requires_grad_(True)
    tower.awake = top
    below = len(tower.trunk.list_blocks()) - num_blocks
    tower.divide(below if tower.trunk.splits and below else None)
    return tower.train()


def _list_top(trunk: Any, num_blocks: int) -> list[nn.Module]:
    """Return the modules of the last blocks and what stands on them, bottom to top."""
    blocks = trunk.list_blocks()
    if not blocks:
        raise EncoderError(
            "this architecture's blocks are not known here, so none can be unfrozen alone; "
            "set unfreeze: 0, or frozen: false to let the whole tower learn"
        )
    if num_blocks > len(blocks):
        raise EncoderError(f"unfreeze: {num_blocks}, but the tower has {len(blocks)} blocks")
    top = blocks[len(blocks) - num_blocks :]
    return [module for block in top for module in block] + trunk.list_top()


def count_blocks_above(tower: ImageTower | TextTower) -> dict[str, int]:
    """Return by parameter name how many blocks stand above it: 0 for the top block and its norm."""
    blocks = tower.trunk.list_blocks()
    above = {
        id(parameter): len(blocks) - 1 - place
        for place, block in enumerate(blocks)
        for module in block
        for parameter in module.parameters()
    }
    top = {id(parameter) for module in tower.trunk.list_top() for parameter in module.parameters()}

    def count(name: str, parameter: nn.Parameter) -> int:
        below = id(parameter) not in top and _BELOW_BLOCKS.search(name)
        return above.get(id(parameter), len(blocks) if below else 0)

    return {name: count(name, parameter) for name, parameter in tower.named_parameters()}


def add_lora(
    tower: AnyTower, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]
) -> AnyTower:
    """Return the tower with adapters that learn while its own weights stay as they are.

    They stand on the named maps of every block. Raises `EncoderError` where a block has none.
    """
    freeze_tower(tower)
    names = _find_targets(tower.trunk, targets)
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


def merge_lora(tower: AnyTower) -> AnyTower:
    """Return the tower with its adapters added into its weights, which are its own again."""
    layers = _list_lora_layers(tower.trunk)
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(tower.trunk.get_submodule(parent), leaf, layer.get_base_layer())
    return freeze_tower(tower) if layers else tower


def _list_lora_layers(trunk: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in trunk.named_modules() if isinstance(layer, LoraLayer)]


def _find_targets(trunk: Any, targets: Sequence[str]) -> list[str]:
    """Return the names in the trunk of the maps of its blocks that the targets call."""
    paths = {id(module): name for name, module in trunk.named_modules()}
    parts = [part for block in trunk.list_blocks() for part in block]
    names = []
    for name, module in (named for part in parts for named in part.named_modules()):
        if isinstance(module, nn.MultiheadAttention) and set(targets) & {"q", "k", "v", "out"}:
            raise EncoderError(
                "this library packs the maps of attention in one weight that adapters cannot "
                "stand on; name lora targets: [mlp], or take the checkpoint by source "
                "transformers"
            )
        if isinstance(module, (nn.Linear, Conv1D)) and _is_target(name, targets):
            names.append(paths[id(module)])
    return names


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
