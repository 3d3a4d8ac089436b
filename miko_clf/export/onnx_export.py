"""A bundle's graphs: exported to ONNX, compared with torch, then put into the bundle."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from rich.console import Console
from torch import Tensor

from miko_clf import manifest
from miko_clf.bundle import load_bundle
from miko_clf.data.preprocess import Preparation
from miko_clf.data.tokenizer import read_tokenizer
from miko_clf.errors import ExportError
from miko_clf.export.graphs import INPUT_DIMS, GraphSpec, build_dynamic_shapes, build_graphs
from miko_clf.export.parity import GraphSessions, ParityReport, draw_example_batch, measure_parity
from miko_clf.fuse.build import Model, rebuild_model
from miko_clf.fuse.outputs import Batch

ONNX_OPSET = 23  # the first with an Attention operator, and the last that torch 2.15 writes
_MAX_PROTOBUF = 1_800_000_000  # bytes of weights in one file; protobuf ends at 2 GiB
_LOCK_PATIENCE = 20.0  # seconds that the manifest is waited for


def export_bundle(bundle: str | Path) -> ParityReport:
    """Write the graphs of a bundle into its `onnx` folder and return the parity found.

    Raises `ExportError` naming the row where a graph and torch differ; then nothing is written.
    """
    path = Path(bundle)
    opened = load_bundle(path)
    preparation = Preparation.model_validate(opened.preprocess)
    words = read_tokenizer(opened.tokenizer, preparation)
    model = rebuild_model(path, opened.recipe, opened.questions.names, words)
    graphs = build_graphs(model, preparation, opened.questions, opened.calibrations)
    console = Console(file=sys.stderr)
    with manifest.write_atomically(path / "onnx") as folder:
        folder.mkdir()
        examples, attention = _draw_examples(model, preparation), {}
        for graph in graphs:
            target = folder / f"{graph.name}.onnx"
            with console.status(f"exporting {graph.name}.onnx"):
                attention[graph.name] = write_graph(graph, examples, preparation, target)
        with console.status("comparing with torch"):
            sessions = GraphSessions(folder, graphs)
            parity = measure_parity(model, sessions, preparation, attention["model"])
        manifest.write_json(folder / "parity.json", asdict(parity))
    with manifest.lock_folder(path, patience=_LOCK_PATIENCE):  # an opening may have come meanwhile
        facts = json.loads((path / manifest.MANIFEST_FILE).read_text(encoding="utf-8"))
        manifest.write_manifest(path, {k: v for k, v in facts.items() if k != "files"})
    return parity


def _draw_examples(model: Model, preparation: Preparation) -> Batch:
    """Return an example of every input of every graph, at least two of everything that varies."""
    random = torch.Generator().manual_seed(0)
    batch = draw_example_batch(model, preparation, 3, 5, random)
    with torch.inference_mode():
        states = model.encode(batch)
    states = {name: tensor.clone() for name, tensor in states.items()}
    ids = torch.full((3, 4), preparation.pad_id)
    return {**states, "ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}


def write_graph(
    graph: GraphSpec, example: dict[str, Tensor], preparation: Preparation, path: Path
) -> int:
    """Write one graph and return how many Attention operators it has.

    The example has at least two of everything that varies: at one, the exporter fixes the
    size for good and says nothing. Raises `ExportError` where a dimension lost its name.
    """
    tensors = tuple(example[name] for name in graph.inputs)
    assert all(
        size > 1
        for name, tensor in zip(graph.inputs, tensors, strict=True)
        for size, dim in zip(tensor.shape, INPUT_DIMS[name], strict=True)
        if dim
    )
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    with _quiet_exporter(), torch.no_grad():  # with gradients, attention traces to another kernel
        torch.onnx.export(
            graph.eval(),
            tensors,
            path,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes={"tensors": build_dynamic_shapes(graph.inputs, preparation)},
            opset_version=ONNX_OPSET,
            dynamo=True,
            external_data=size > _MAX_PROTOBUF,
            verbose=False,
        )
    onnx.checker.check_model(path)
    written = onnx.load(path, load_external_data=False).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in written.input}
    for name in graph.inputs:
        dims = tuple(dim.dim_param or None for dim in shapes.get(name, ()))
        if dims != INPUT_DIMS[name]:
            raise ExportError(
                f"graph {graph.name}: input {name} came out with dimensions {dims}, "
                f"not {INPUT_DIMS[name]}"
            )
    return sum(node.op_type == "Attention" for node in written.node)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's remarks off the screen, and attention off its unexportable fast path."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
