"""A bundle's graphs: exported, compared with torch, and only then put into the bundle."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from miko_clf import bundle, manifest
from miko_clf.data.collate import Preparation, read_words
from miko_clf.export import to_onnx
from miko_clf.export.graphs import parts
from miko_clf.export.parity import Graphs, Parity, compare, example
from miko_clf.fuse.build import rebuild
from miko_clf.fuse.fused import Batch
from miko_clf.fuse.model import Model

_PATIENCE = 20.0  # seconds that the manifest is waited for


def export(path: Path) -> Parity:
    """Write the graphs of a bundle into its `onnx` folder and return the parity found.

    Raises `ExportError` naming the row where a graph and torch differ; then nothing is written.
    """
    opened = bundle.read(path)
    preparation = Preparation.model_validate(opened.preprocess)
    words = read_words(opened.tokenizer, preparation)
    model = rebuild(path, opened.recipe, opened.questions.names, words)
    found = parts(model, preparation, opened.questions, opened.calibrations)
    console = Console(file=sys.stderr)
    with manifest.aside(path / "onnx") as folder:
        folder.mkdir()
        attention = 0
        examples = _examples(model, preparation)
        for part in found:
            with console.status(f"exporting {part.name}.onnx"):
                count = to_onnx.write(part, examples, preparation, folder / f"{part.name}.onnx")
            attention += count if part.name == "model" else 0
        with console.status("comparing with torch"):
            parity = compare(model, Graphs(folder, found), preparation, attention)
        manifest.write_json(folder / "parity.json", asdict(parity))
    with manifest.alone(path, patience=_PATIENCE):  # an opening may have come meanwhile
        known = json.loads((path / manifest.NAME).read_text(encoding="utf-8"))
        manifest.write(path, {k: v for k, v in known.items() if k != "files"})
    return parity


def _examples(model: Model, preparation: Preparation) -> Batch:
    """Return an example of every input of every graph, at least two of everything that varies."""
    random = torch.Generator().manual_seed(0)
    batch = example(model, preparation, 3, 5, random)
    with torch.inference_mode():
        states = model.encode(batch)
    states = {name: tensor.clone() for name, tensor in states.items()}
    ids = torch.full((3, 4), preparation.pad_id)
    return {**states, "ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}
