"""The graphs of a generator: label scores, and one step of a rationale."""

import warnings
from itertools import product
from pathlib import Path

import checkpoints
import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from generating import build, posts
from torch import Tensor, nn
from torch.export import Dim

from miko_clf.fuse.generator import Generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("t5") / "flan-t5-tiny"
    checkpoints.t5(path)
    return path


class Whole(nn.Module):
    """Label scores as a graph of arrays."""

    names = ("pixels", "image_present", "text_ids", "text_mask")

    def __init__(self, model: Generator) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(dict(zip(self.names, tensors, strict=True))).logits


class Step(Whole):
    """The next token of a rationale as a graph of arrays."""

    names = ("ids", "states", "present")

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model.next_word(*tensors)


def export(graph: Whole, example: tuple[Tensor, ...], dims: tuple, path: Path) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.eval(), example, path, input_names=graph.names, output_names=["logits"],
                dynamic_shapes={"tensors": dims}, opset_version=23, dynamo=True,
                external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_graph_scores_labels_as_torch_does(folder: Path, tmp_path: Path) -> None:
    model, path = build(folder, gated=False), tmp_path / "model.onnx"
    batch, word = Dim("batch", min=1, max=4096), Dim("text_word", min=1, max=512)
    dims = ({0: batch}, {0: batch}, {0: batch, 1: word}, {0: batch, 1: word})
    export(Whole(model), tuple(posts(3, 5)[name] for name in Whole.names), dims, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size, length in product((1, 3, 8), (1, 2, 40)):
        for gone in ((), ("image_present",), ("text_mask",), ("image_present", "text_mask")):
            seen = {k: torch.zeros_like(v) if k in gone else v
                    for k, v in posts(size, length, length).items()}  # fmt: skip
            with torch.no_grad():
                wanted = model(seen).logits.numpy()
            found = session.run(None, {name: seen[name].numpy() for name in Whole.names})[0]
            assert np.abs(found - wanted).max() <= 1e-4, (size, length, gone)
    graph = onnx.load(path).graph
    # two encoder blocks, three looks, and own and cross attention of the decoder block
    assert sum(node.op_type == "Attention" for node in graph.node) == 7


def test_the_graph_of_a_step_writes_what_torch_writes(folder: Path, tmp_path: Path) -> None:
    model, path, batch = build(folder, gated=False), tmp_path / "step.onnx", posts()
    post, written, word = Dim("post", max=4096), Dim("written", max=600), Dim("word", max=512)
    dims = ({0: post, 1: written}, {0: post, 1: word}, {0: post, 1: word})
    with torch.no_grad():
        states, present = model.read(batch)
    begun = torch.cat([torch.zeros(4, 1, dtype=torch.int64), model.prefix.expand(4, -1)], dim=1)
    export(Step(model), (begun, states, present), dims, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, kept = begun, {"states": states.numpy(), "present": present.numpy()}
    for _ in range(10):
        logits = session.run(None, {"ids": ids.numpy(), **kept})[0]
        ids = torch.cat([ids, torch.from_numpy(logits).argmax(-1, keepdim=True)], dim=1)
    ids = ids[:, begun.shape[1] :]
    ends = (ids == model.trunk.end_id).cumsum(1) - (ids == model.trunk.end_id).long() > 0
    found = model.write(batch, 10)
    assert torch.equal(ids.masked_fill(ends, 0)[:, : found.shape[1]], found)
