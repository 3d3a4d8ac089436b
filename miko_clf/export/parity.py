"""The graphs against the model they came from, over every pattern of missing inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from miko_clf.data.post import RELATIONS
from miko_clf.data.preprocess import Preparation
from miko_clf.errors import ExportError
from miko_clf.export.graphs import INPUT_DIMS, GraphSpec, list_graph_inputs
from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch
from miko_clf.recipe.schema import CONTENT_TEXTS
from miko_clf.train.predict import mask_inputs

LOGIT_TOLERANCE = 1e-4  # of a logit, in float32
MISSING_PATTERNS = {
    "all inputs": (),
    "no image": ("image",),
    "no text": CONTENT_TEXTS,
    "no intention": ("intention",),
    "image only": (*CONTENT_TEXTS, "intention"),
    "text only": ("image", "intention"),
}
PARITY_BATCH_SIZES = (1, 3, 8)


@dataclass(frozen=True)
class ParityReport:
    """How far the graphs are from torch: rows compared, and the largest difference of a logit.

    `alike` posts were decided as torch decides them, and `apart` ones otherwise, as a threshold
    lies between what the two say of them.
    """

    rows: int
    single: float
    split: float
    attention: int
    alike: int
    apart: int

    def line(self) -> str:
        """Return the finding in one line."""
        return (
            f"parity: {self.rows} rows (missing inputs x batch x length), largest difference of "
            f"a logit {self.single:.1e} (one graph) and {self.split:.1e} (split graphs), "
            f"allowed {LOGIT_TOLERANCE:.0e}; {self.alike} posts decided alike, "
            f"{self.apart} otherwise; {self.attention} Attention operators"
        )


class GraphSessions:
    """The written graphs of one folder in ONNX Runtime, on the CPU."""

    def __init__(self, folder: Path, graphs: list[GraphSpec]) -> None:
        self.torch = next(graph for graph in graphs if graph.name == "model")
        self.sessions = {
            graph.name: onnxruntime.InferenceSession(
                folder / f"{graph.name}.onnx", providers=["CPUExecutionProvider"]
            )
            for graph in graphs
        }

    def run(self, name: str, batch: Batch) -> list[np.ndarray]:
        """Return all outputs of a graph; of `model` logits, probabilities and decision."""
        session = self.sessions[name]
        feed = {tensor.name: batch[tensor.name].numpy() for tensor in session.get_inputs()}
        return session.run(None, feed)

    def run_torch(self, batch: Batch) -> list[np.ndarray]:
        """Return the outputs of the model that the single graph was made of."""
        with torch.inference_mode():
            return [out.numpy() for out in self.torch(*(batch[n] for n in self.torch.inputs))]

    def run_split(self, batch: Batch) -> np.ndarray:
        """Return the logits of the head over the states of the towers' graphs."""
        batch = dict(batch)
        for key in [tensor.name for tensor in self.sessions["head"].get_inputs()]:
            name = key.removesuffix("_states")
            if key == "image_states":
                batch[key] = torch.from_numpy(self.run("image", batch)[0])
            elif name != key:
                ids, mask = batch[f"{name}_ids"], batch[f"{name}_mask"]
                flat = {"ids": ids.flatten(0, -2), "mask": mask.flatten(0, -2)}
                states = torch.from_numpy(self.run("text", flat)[0])
                batch[key] = states.unflatten(0, ids.shape[:-1])
        return self.run("head", batch)[0]


def measure_parity(
    model: Model, graphs: GraphSessions, preparation: Preparation, attention: int
) -> ParityReport:
    """Return how far the graphs are from the model.

    Raises `ExportError` naming the first row past the tolerance, or not a number, or decided
    otherwise than its probability says.
    """
    rows, alike, apart, worst = 0, 0, 0, {"one graph": 0.0, "split graphs": 0.0}
    for row, batch in generate_cases(model, preparation):
        wanted, answers = graphs.run_torch(batch), graphs.run("model", batch)
        for kind, logits in (("one graph", answers[0]), ("split graphs", graphs.run_split(batch))):
            difference = float(np.abs(logits - wanted[0]).max())
            if not difference <= LOGIT_TOLERANCE:  # also where it is not a number
                raise ExportError(
                    f"the exported model ({kind}) differs from torch by {difference:.2g} at "
                    f"{row}; at most {LOGIT_TOLERANCE:.0e} is allowed, so nothing was written"
                )
            worst[kind] = max(worst[kind], difference)
        rows += 1
        otherwise = _count_flips(answers, wanted, row)
        alike, apart = alike + len(wanted[0]) - otherwise, apart + otherwise
    return ParityReport(rows, worst["one graph"], worst["split graphs"], attention, alike, apart)


def _count_flips(answers: list[np.ndarray], wanted: list[np.ndarray], row: str) -> int:
    """Return how many posts are decided otherwise than torch decides them.

    A label may be gained only where its probability came out higher, and lost where it came out
    lower; anything else raises `ExportError`.
    """
    (_, probability, decided), (_, torch_probability, torch_decided) = answers, wanted
    higher, lower = probability > torch_probability, probability < torch_probability
    moved = np.where(decided, higher, lower)
    differs = decided != torch_decided
    if (differs.any(1) & ~(differs & moved).any(1)).any():
        raise ExportError(
            f"the exported model decides otherwise than torch at {row}, and not by its "
            "probabilities, so nothing was written"
        )
    return int(differs.any(1).sum())


def generate_cases(model: Model, preparation: Preparation) -> Iterator[tuple[str, Batch]]:
    """Yield each pattern of missing inputs x batch x length, and random posts of that form."""
    random = torch.Generator().manual_seed(0)
    forms = product(MISSING_PATTERNS.items(), PARITY_BATCH_SIZES, (1, 2, preparation.max_length))
    for (pattern, gone), size, length in forms:
        batch = draw_example_batch(model, preparation, size, length, random)
        yield f"{pattern}, batch {size}, length {length}", mask_inputs(batch, gone)


def draw_example_batch(
    model: Model,
    preparation: Preparation,
    size: int,
    length: int,
    random: torch.Generator,
) -> Batch:
    """Return random posts: texts of up to `length` tokens, some intentions and slots absent."""
    sizes = {"batch": size, "intention": max(2, min(length, len(RELATIONS)))}
    sizes["intention_word"] = min(length, preparation.intention_length)
    text = model.text_tower
    vocabulary = text.words.tokenizer.get_vocab_size() if text else 1
    batch: Batch = {}
    for name in list_graph_inputs(preparation):
        shape = [sizes.get(dim, length) for dim in INPUT_DIMS[name] if dim]
        if name == "pixels" and preparation.image:
            image = (3, preparation.image.height, preparation.image.width)
            pixels = torch.randint(0, 256, (size, *image), generator=random)
            batch[name] = pixels.to(torch.uint8)
        elif name.endswith("_ids"):
            batch[name] = torch.randint(0, vocabulary, shape, generator=random)
        elif name.endswith("_mask"):
            ends = torch.randint(1, shape[-1] + 1, shape[:-1], generator=random)
            batch[name] = torch.arange(shape[-1]) < ends[..., None]
        elif name == "relation":
            batch[name] = torch.randint(0, len(RELATIONS), shape, generator=random)
        else:
            batch[name] = torch.rand(shape, generator=random) < 0.8
    return batch
