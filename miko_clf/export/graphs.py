"""Which graphs a classifier becomes, and what goes in and out of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from miko_clf.data.collate import Preparation
from miko_clf.fuse.classifier import MikoClassifier

# Names of the dimensions of each input; none where the size is fixed.
DIMS: Mapping[str, tuple[str | None, ...]] = {
    "pixels": ("batch", None, None, None),
    "image_present": ("batch",),
    "student": ("batch",),
    "relation": ("batch", "intention"),
    "intention_ids": ("batch", "intention", "intention_word"),
    "intention_mask": ("batch", "intention", "intention_word"),
    "image_states": ("batch", None, None),
    "intention_states": ("batch", "intention", "intention_word", None),
    "ids": ("text", "word"),
    "mask": ("text", "word"),
    **{
        f"{name}_{kind}": ("batch", f"{name}_word", *rest)
        for name in ("text", "description", "rationale")
        for kind, rest in (("ids", ()), ("mask", ()), ("states", (None,)))
    },
}


class Graph(nn.Module):
    """A module called with named tensors, as one called with tensors in a fixed order."""

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        call: Callable[[nn.Module, dict[str, Tensor]], Any],
    ) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.call = call

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the module makes of the tensors under their names."""
        return self.call(self.module, dict(zip(self.names, tensors, strict=True)))


@dataclass(frozen=True)
class Part:
    """One graph to be written: `module` takes `inputs` in order and gives `outputs`."""

    name: str
    module: Graph
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return self.module.names


def parts(model: MikoClassifier, preparation: Preparation, temperature: float) -> list[Part]:
    """Return the single graph, and the split ones: each tower, and the head behind them."""

    def answer(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = module(batch).logits
        return logits, torch.softmax(logits / temperature, dim=-1)

    whole = inputs(preparation)
    behind = [_behind_towers(name) for name in whole]
    text = Graph(model.text_tower, ("ids", "mask"), lambda m, b: m(b["ids"], b["mask"]))
    outputs, states = ("logits", "probabilities"), ("states",)
    found = [
        Part("model", Graph(model, whole, answer), outputs),
        Part("head", Graph(model.fusion, behind, answer), outputs),
        Part("text", text, states),
    ]
    if model.image_tower is not None:
        image = Graph(model.image_tower, ("pixels",), lambda m, b: m(b["pixels"]))
        found.append(Part("image", image, states))
    return found


def inputs(preparation: Preparation) -> list[str]:
    """Return the names of the single graph's inputs."""
    names = ["pixels", "image_present"] if preparation.image else []
    for name in ("text", "description", "rationale"):
        if name in preparation.inputs:
            names += [f"{name}_ids", f"{name}_mask"]
    if "intention" in preparation.inputs:
        names += ["intention_ids", "intention_mask", "relation"]
    return [*names, "student"] if preparation.slots else names


def shapes(names: Sequence[str], preparation: Preparation) -> tuple[dict[int, Any], ...]:
    """Return the dynamic dimensions of each input, one object for one name."""
    longest = {"intention_word": preparation.intention_length, "batch": 4096, "text": 65536}
    longest |= {"intention": 64, "word": max(preparation.max_length, preparation.intention_length)}
    known: dict[str, Any] = {}
    found = []
    for name in names:
        dims = DIMS[name]
        for dim in filter(None, dims):
            most = longest.get(dim, preparation.max_length)
            known.setdefault(dim, Dim(dim, min=1, max=most))
        found.append({place: known[dim] for place, dim in enumerate(dims) if dim})
    return tuple(found)


def _behind_towers(name: str) -> str:
    if name == "pixels":
        return "image_states"
    return name.removesuffix("_ids") + "_states" if name.endswith("_ids") else name
