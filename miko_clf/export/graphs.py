"""Which graphs a classifier becomes, and what goes in and out of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.export import Dim

from miko_clf.bundle import Calibration
from miko_clf.data.collate import Preparation
from miko_clf.export.answer import decision, limits, probabilities
from miko_clf.fuse.model import Model
from miko_clf.questions import Questions

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


def parts(
    model: Model,
    preparation: Preparation,
    questions: Questions,
    fitted: Sequence[Calibration],
) -> list[Part]:
    """Return the single graph, and the split ones: each tower, and the head behind them.

    The probabilities are those of each question as it was calibrated, in the order of the logits,
    and the decision is made at the thresholds of the arm that a post is in.
    """

    def answer(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        logits = module(batch).logits
        stated = probabilities(logits, questions, fitted)
        found = decision(stated, limits(batch, preparation, questions, fitted), questions)
        return logits, stated, found

    whole = inputs(preparation)
    behind = [_behind_towers(name, model.split) for name in whole]
    outputs, states = ("logits", "probabilities", "decision"), ("states",)
    found = [
        Part("model", Graph(model, whole, answer), outputs),
        Part("head", Graph(model, behind, answer), outputs),
    ]
    if model.text_tower is not None and set(preparation.texts) <= set(model.split):
        text = Graph(model.text_tower, ("ids", "mask"), lambda m, b: m(b["ids"], b["mask"]))
        found.append(Part("text", text, states))
    if model.image_tower is not None and "image" in model.split:
        image = Graph(model.image_tower, ("pixels",), lambda m, b: m(b["pixels"]))
        found.append(Part("image", image, states))
    return found


def inputs(preparation: Preparation) -> list[str]:
    """Return the names of the single graph's inputs."""
    names = ["pixels", "image_present"] if preparation.image else []
    for name in preparation.texts:
        names += [f"{name}_ids", f"{name}_mask"]
    if preparation.reads_intentions:
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


def _behind_towers(name: str, split: Sequence[str]) -> str:
    """Return the input that stands in for one that a tower reads, where the model allows it."""
    if name == "pixels":
        return "image_states" if "image" in split else name
    text = name.removesuffix("_ids")
    return f"{text}_states" if text != name and text in split else name
