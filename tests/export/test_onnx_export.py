"""The exported graphs agree with torch in every pattern of inputs, or are not written."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from miko_clf import bundle as bundles
from miko_clf.data.post import Post
from miko_clf.data.preprocess import Preparation
from miko_clf.data.splits import PostsInMemory
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.errors import ExportError
from miko_clf.evaluate.lockbox import open_lockbox
from miko_clf.export import onnx_export
from miko_clf.export.graphs import INPUT_DIMS, GraphSpec, build_graphs, list_graph_inputs
from miko_clf.export.onnx_export import export_bundle
from miko_clf.export.parity import (
    MISSING_PATTERNS,
    PARITY_BATCH_SIZES,
    GraphSessions,
    ParityReport,
    generate_cases,
    measure_parity,
)
from miko_clf.fuse.build import rebuild_model
from miko_clf.fuse.classifier import MikoClassifier


@pytest.fixture(scope="module")
def preparation(bundle: Path) -> Preparation:
    return Preparation.model_validate(bundles.load_bundle(bundle).preprocess)


@pytest.fixture(scope="module")
def model(bundle: Path, preparation: Preparation) -> MikoClassifier:
    opened = bundles.load_bundle(bundle)
    words = TextTokenizer.read(opened.tokenizer, preparation.pad_id)
    return rebuild_model(bundle, opened.recipe, opened.labels, words)


@pytest.fixture(scope="module")
def graphs(bundle: Path, model: MikoClassifier, preparation: Preparation) -> GraphSessions:
    opened = bundles.load_bundle(bundle)
    return GraphSessions(
        bundle / "onnx", build_graphs(model, preparation, opened.questions, opened.calibrations)
    )


def test_a_post_without_an_image_scores_the_same_in_torch_and_onnx(
    model: MikoClassifier, graphs: GraphSessions, preparation: Preparation
) -> None:
    rows = dict(generate_cases(model, preparation))
    batch = rows[f"no image, batch 3, length {preparation.max_length}"]
    assert not batch["image_present"].any()
    with torch.inference_mode():
        wanted = model(batch).logits.numpy()
    assert np.abs(graphs.run("model", batch)[0] - wanted).max() <= 1e-4
    assert np.abs(graphs.run_split(batch) - wanted).max() <= 1e-4


def test_parity_walks_over_every_pattern_batch_and_length(
    model: MikoClassifier, preparation: Preparation, bundle: Path
) -> None:
    rows = [name for name, _ in generate_cases(model, preparation)]
    assert len(set(rows)) == len(MISSING_PATTERNS) * len(PARITY_BATCH_SIZES) * 3 == 54
    written = json.loads((bundle / "onnx" / "parity.json").read_text())
    assert written["rows"] == 54
    assert written["single"] <= 1e-4
    assert written["split"] <= 1e-4


def test_the_graph_has_an_attention_operator_for_each_attention(bundle: Path) -> None:
    written = json.loads((bundle / "onnx" / "parity.json").read_text())
    graph = onnx.load(bundle / "onnx" / "model.onnx")
    count = sum(node.op_type == "Attention" for node in graph.graph.node)
    # text tower twice (texts, intentions), then own and cross of slots, layer and pool
    assert count == written["attention"] == 8
    assert graph.opset_import[0].version == 23


def test_inputs_are_named_with_named_dimensions_and_pixels_are_bytes(
    bundle: Path, preparation: Preparation
) -> None:
    graph = onnx.load(bundle / "onnx" / "model.onnx").graph
    found = {value.name: value.type.tensor_type for value in graph.input}
    assert list(found) == list_graph_inputs(preparation)
    assert found["pixels"].elem_type == onnx.TensorProto.UINT8
    for name, kind in found.items():
        dims = tuple(dim.dim_param or None for dim in kind.shape.dim)
        assert dims == INPUT_DIMS[name], name
    assert [value.name for value in graph.output] == ["logits", "probabilities", "decision"]


def test_probabilities_are_the_softmax_at_the_fitted_temperature(
    bundle: Path, model: MikoClassifier, graphs: GraphSessions, preparation: Preparation
) -> None:
    _, batch = next(generate_cases(model, preparation))
    session = graphs.sessions["model"]
    feed = {each.name: batch[each.name].numpy() for each in session.get_inputs()}
    logits, probabilities, _ = session.run(None, feed)
    temperature = bundles.load_bundle(bundle).calibration.temperature
    wanted = torch.softmax(torch.from_numpy(logits) / temperature, -1).numpy()
    assert np.allclose(probabilities, wanted, atol=1e-6)


def test_a_graph_that_differs_is_named_by_row(
    model: MikoClassifier, graphs: GraphSessions, preparation: Preparation
) -> None:
    changed = model.fusion.head[2]
    with torch.no_grad():
        changed.bias += 0.01
    try:
        with pytest.raises(ExportError, match=r"differs from torch by 0.01 at all inputs, batch 1"):
            measure_parity(model, graphs, preparation, 0)
    finally:
        with torch.no_grad():
            changed.bias -= 0.01


def test_where_the_graphs_differ_nothing_is_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (bundle / "onnx").iterdir()}
    monkeypatch.setattr(onnx_export, "write_graph", lambda *_: 0)
    monkeypatch.setattr("miko_clf.export.onnx_export.GraphSessions", lambda *_: None)

    def refuse(*_: object) -> None:
        raise ExportError("differs")

    monkeypatch.setattr("miko_clf.export.onnx_export.measure_parity", refuse)
    with pytest.raises(ExportError):
        export_bundle(bundle)
    assert {p.name: p.stat().st_mtime_ns for p in (bundle / "onnx").iterdir()} == before
    assert not [p for p in bundle.iterdir() if p.name.startswith(".")]
    bundles.load_bundle(bundle).graph("model")


def test_an_opening_of_the_test_split_during_an_export_stays_counted(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    data = PostsInMemory(own, {"test": [Post(id="1", text="a", label="b")]})

    def written(part: GraphSpec, examples: object, preparation: object, path: Path) -> int:
        shutil.copy(bundle / "onnx" / path.name, path)
        return 1

    def opens(*_: object) -> ParityReport:
        open_lockbox([bundles.load_bundle(own)], data, "test", "meanwhile")
        return ParityReport(**json.loads((bundle / "onnx" / "parity.json").read_text()))

    monkeypatch.setattr(onnx_export, "write_graph", written)
    monkeypatch.setattr("miko_clf.export.onnx_export.measure_parity", opens)
    export_bundle(own)
    assert [each["command"] for each in bundles.load_bundle(own).manifest["openings"]][
        -1
    ] == "meanwhile"


def test_a_bundle_without_graphs_says_how_to_make_them(bundle: Path) -> None:
    opened = bundles.load_bundle(bundle)
    with pytest.raises(Exception, match="miko-clf export"):
        opened.graph("unknown")
