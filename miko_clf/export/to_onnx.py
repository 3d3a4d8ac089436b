"""Graphs written by torch's exporter, with every dimension that varies named."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor

from miko_clf.data.collate import Preparation
from miko_clf.errors import ExportError
from miko_clf.export.graphs import DIMS, Part, shapes

OPSET = 23  # the first with an Attention operator, and the last that torch 2.15 writes
LARGEST = 1_800_000_000  # bytes of weights in one file; protobuf ends at 2 GiB


def write(part: Part, example: dict[str, Tensor], preparation: Preparation, path: Path) -> int:
    """Write one graph and return how many Attention operators it has.

    The example has at least two of everything that varies: at one, the exporter fixes the
    size for good and says nothing. Raises `ExportError` where a dimension lost its name.
    """
    tensors = tuple(example[name] for name in part.inputs)
    assert all(
        size > 1
        for name, tensor in zip(part.inputs, tensors, strict=True)
        for size, dim in zip(tensor.shape, DIMS[name], strict=True)
        if dim
    )
    size = sum(p.numel() * p.element_size() for p in part.module.parameters())
    with _quiet(), torch.no_grad():  # with gradients, attention traces to another kernel
        torch.onnx.export(
            part.module.eval(),
            tensors,
            path,
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes={"tensors": shapes(part.inputs, preparation)},
            opset_version=OPSET,
            dynamo=True,
            external_data=size > LARGEST,
            verbose=False,
        )
    onnx.checker.check_model(path)
    graph = onnx.load(path, load_external_data=False).graph
    _check_names(part, graph)
    return sum(node.op_type == "Attention" for node in graph.node)


def _check_names(part: Part, graph: onnx.GraphProto) -> None:
    found = {
        value.name: tuple(dim.dim_param or None for dim in value.type.tensor_type.shape.dim)
        for value in graph.input
    }
    for name in part.inputs:
        if found.get(name) != DIMS[name]:
            raise ExportError(
                f"graph {part.name}: input {name} came out with dimensions {found.get(name)}, "
                f"not {DIMS[name]}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks off the screen, and attention off its unexportable fast path."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
