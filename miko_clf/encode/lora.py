"""Low-rank adapters on a frozen tower (Hu et al., 2022), by peft, and their merging."""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from miko_clf.encode.learn import freeze
from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.errors import EncoderError

Tower = TypeVar("Tower", ImageTower, TextTower)
# Names of the maps inside a block, as the families spell them.
ROLES: dict[str, re.Pattern[str]] = {
    "q": re.compile(r"(^|\.)(q_proj|query|query_proj|q)$"),
    "k": re.compile(r"(^|\.)(k_proj|key|key_proj|k)$"),
    "v": re.compile(r"(^|\.)(v_proj|value|value_proj|v)$"),
    "out": re.compile(r"(^|\.)(out_proj|o_proj|o)$|attention\.output\.dense$|attn\.proj$"),
    "mlp": re.compile(
        r"(^|\.)(fc1|fc2|wi|wi_0|wi_1|wo|c_fc|c_proj|gate_proj|up_proj|down_proj)$"
        r"|^(intermediate|output)\.dense$"
    ),
}
PACKED = re.compile(r"(^|\.)qkv$")


def adapt(
    tower: Tower,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
) -> Tower:
    """Return the tower with adapters that learn while its own weights stay as they are.

    They stand on the named maps of every block. Raises `EncoderError` where a block has none.
    """
    freeze(tower)
    names = [name for rung in tower.trunk.ladder() for name in _maps(tower.trunk, rung, targets)]
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
    tower.awake = [layer.lora_dropout for _, layer in _adapted(tower.trunk)]
    return tower.train()


def merge(tower: Tower) -> Tower:
    """Return the tower with its adapters added into its weights, which are its own again."""
    found = list(_adapted(tower.trunk))
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(tower.trunk.get_submodule(parent), leaf, layer.get_base_layer())
    return freeze(tower) if found else tower


def _adapted(trunk: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in list(trunk.named_modules()):
        if isinstance(module, LoraLayer):
            yield name, module


def _maps(trunk: nn.Module, rung: Sequence[nn.Module], targets: Sequence[str]) -> list[str]:
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
            if isinstance(module, nn.Linear) and _called(name, targets):
                found.append(path[id(module)])
    return found


def _called(name: str, targets: Sequence[str]) -> bool:
    if PACKED.search(name):
        wanted = {"q", "k", "v"} & set(targets)
        if wanted and len(wanted) < 3:
            raise EncoderError(
                "this library packs q, k and v in one map; name all three as lora targets, "
                f"or none of them, not {', '.join(sorted(wanted))} alone"
            )
        return bool(wanted)
    return any(ROLES[target].search(name) for target in targets)
