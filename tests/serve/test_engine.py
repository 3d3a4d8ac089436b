"""Posts to scores by the graph of a bundle, without torch, and what is refused."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from miko_clf import manifest
from miko_clf.data.ocr import open_picture_reader
from miko_clf.data.post import Intention, Post
from miko_clf.data.readers import read_posts
from miko_clf.errors import BundleError, DeviceError, MikoError
from miko_clf.serve.engine import Engine, list_heavy_cpu_operators, open_session
from miko_clf.serve.postprocess import Score
from tests.support.drawn_words import draw_meme, encode_png, normalise_words


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine.open(bundle, threads=1)


@pytest.fixture(scope="module")
def posts(world: Path) -> list[Post]:
    return list(read_posts(world / "sarcasm" / "test.jsonl"))


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


class Broken:
    """A session that returns one number for the first row and another for the rest."""

    def __init__(self, first: float, rest: float) -> None:
        self.first, self.rest = first, rest

    def run(self, names: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows = np.full((len(feed["text_ids"]), 2), self.rest, dtype=np.float32)
        rows[0] = self.first
        return [rows]


def _apart(found: list[Score], wanted: list[Score]) -> float:
    assert [one.id for one in found] == [one.id for one in wanted]
    tables = [[list(one.probabilities.values()) for one in scores] for scores in (found, wanted)]
    return float(np.abs(np.subtract(*tables)).max())


def _sign_again(folder: Path) -> None:
    facts = json.loads((folder / manifest.MANIFEST_FILE).read_text())
    manifest.write_manifest(folder, {key: value for key, value in facts.items() if key != "files"})


def test_a_post_scores_the_same_alone_and_in_a_batch_and_order_is_kept(
    engine: Engine, posts: list[Post]
) -> None:
    many = [p.model_copy(update={"id": f"{n}-{p.id}"}) for n in range(5) for p in posts][:70]
    many[3] = many[3].model_copy(update={"text": "word " * 30})
    alone = [engine.score([post])[0] for post in many]
    assert _apart(engine.score(many), alone) < 1e-4
    assert len({one.probabilities["sarcastic"] for one in alone}) > len(posts) // 2


def test_an_empty_list_has_no_scores(engine: Engine) -> None:
    assert engine.score([]) == []


def test_the_usual_arm_reads_intentions_where_given_and_guesses_them_elsewhere(
    engine: Engine,
) -> None:
    bare = Post(id="a", text="what a party")
    full = bare.model_copy(
        update={"intentions": (Intention(relation="xIntent", text="to mock the host"),)}
    )
    assert [one.arm for one in engine.score([bare, full])] == ["student", "with"]
    assert engine.score([full], "student") == engine.score([bare])
    assert engine.score([full], "without") == engine.score([bare], "without")
    assert engine.score([full], "with") == engine.score([full])


def test_an_arm_that_there_is_not_is_refused_in_one_line(engine: Engine) -> None:
    with pytest.raises(MikoError, match="no arm 'shuffled'; it has with, student, without"):
        engine.score([Post(id="a", text="x")], "shuffled")


def test_two_classes_are_decided_at_the_threshold_of_the_arm(
    engine: Engine, posts: list[Post]
) -> None:
    for arm in engine.arms:
        for one in engine.score(posts, arm):
            assert one.threshold == engine.bundle.calibration.thresholds[arm]
            assert (one.label == "sarcastic") == (one.probabilities["sarcastic"] >= one.threshold)


def test_a_text_longer_than_the_model_reads_is_flagged(engine: Engine) -> None:
    texts = ["short", "word " * 500, "also short"]
    found = engine.score([Post(id=str(n), text=text) for n, text in enumerate(texts)])
    assert [one.truncated for one in found] == [False, True, False]


def test_a_graph_that_returns_nan_is_our_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "session", Broken(np.nan, np.nan))
    with pytest.raises(FloatingPointError):
        engine.score([Post(id="a", text="x")])


def test_a_graph_that_scores_a_batch_otherwise_than_a_post_alone_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.warm_up()
    monkeypatch.setattr(engine, "session", Broken(0.5, 0.6))
    with pytest.raises(BundleError, match="export it again"):
        engine.warm_up()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is here"
)
def test_cuda_where_there_is_none_is_refused_unless_the_cpu_is_allowed(bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"available: .*CPUExecutionProvider.*--allow-cpu"):
        Engine.open(bundle, provider="cuda")
    assert Engine.open(bundle, provider="cuda", allow_cpu=True).provider == "cpu"


def test_heavy_work_on_the_cpu_is_seen(bundle: Path) -> None:
    found = list_heavy_cpu_operators(open_session(bundle / "onnx" / "model.onnx", "cpu", threads=1))
    assert "MatMul" in found or "Gemm" in found


def test_a_changed_byte_in_the_graph_is_refused(copy: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"onnx/model\.onnx was changed"):
        Engine.open(copy)


def test_a_picture_that_comes_out_otherwise_than_in_training_is_refused(copy: Path) -> None:
    path = copy / "preprocess.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "golden": "0" * 64}))
    _sign_again(copy)
    with pytest.raises(BundleError, match="golden"):
        Engine.open(copy)


def test_weights_outside_the_folder_of_the_graphs_are_refused(copy: Path) -> None:
    path = copy / "onnx" / "model.onnx"
    model = onnx.load(path)
    large = [t.name for t in model.graph.initializer if len(t.raw_data) > 1024]
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data")
    _sign_again(copy)
    assert Engine.open(copy, threads=1).score([Post(id="a", text="x")])
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if tensor.name in large and entry.key == "location":
                entry.value = "../model.onnx.data"
    path.write_bytes(model.SerializeToString())
    (copy / "onnx" / "model.onnx.data").rename(copy / "model.onnx.data")
    _sign_again(copy)
    with pytest.raises(BundleError, match="cannot load this graph"):
        Engine.open(copy)


def test_a_file_that_the_manifest_does_not_list_is_refused(copy: Path) -> None:
    (copy / "onnx" / "extra.data").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"onnx/extra\.data is not one"):
        Engine.open(copy)


def test_scoring_needs_neither_torch_nor_a_network(bundle: Path) -> None:
    code = f"""
import socket, sys
def closed(*_, **__): raise OSError("closed")
socket.socket.connect = socket.getaddrinfo = closed
import miko_clf, miko_clf.serve.app
assert miko_clf.load({str(bundle)!r}).score([{{"text": "x"}}])
heavy = {{"torch", "transformers", "sklearn", "scipy", "jaxtyping", "safetensors", "onnx"}}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_a_picture_is_read_where_a_post_has_no_text_and_scores_as_that_text(
    engine: Engine, bundle: Path
) -> None:
    reading = Engine.open(bundle, threads=1, reader=open_picture_reader(1))
    post = Post(id="a", image=encode_png(draw_meme("WHAT A LOVELY", "QUEUE AGAIN")))
    (found,) = reading.score([post])
    assert normalise_words(found.text) == "WHATALOVELYQUEUEAGAIN"
    assert found.text_source == "ocr"
    assert found.text_confidence is not None
    spelt = post.model_copy(update={"text": found.text})
    for either in (engine, reading):
        (same,) = either.score([spelt])
        assert _apart([same], [found]) < 1e-6
        assert not {"text", "text_source", "text_confidence"} & same.model_dump().keys()
    with pytest.raises(TimeoutError):
        reading.prepare(post, until=time.monotonic())


def test_a_text_that_was_read_before_is_told_of_in_the_score(engine: Engine) -> None:
    post = Post(id="a", text="a queue", text_source="ocr", text_confidence=0.9)
    (found,) = engine.score([post])
    assert (found.text, found.text_source, found.text_confidence) == ("a queue", "ocr", 0.9)


def test_a_bundle_that_reads_no_text_refuses_to_have_pictures_read(copy: Path) -> None:
    path = copy / "preprocess.json"
    preparation = json.loads(path.read_text())
    path.write_text(json.dumps({**preparation, "inputs": ["image"]}))
    _sign_again(copy)
    with pytest.raises(MikoError, match="reads no text, so there is no use in reading pictures"):
        Engine.open(copy, threads=1, reader=open_picture_reader(1))


def test_a_bundle_that_learned_from_read_texts_says_where_a_picture_was_not_read(
    copy: Path,
) -> None:
    path = copy / manifest.MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "ocr": {"engine": "x"}}))
    plain = Engine.open(copy, threads=1)
    picture = encode_png(draw_meme("A", "B"))
    assert plain.misses_texts
    assert ["add --ocr" in word for word in plain.prepare(Post(id="a", image=picture)).remarks]
    assert plain.prepare(Post(id="b", image=picture, text="x")).remarks == ()
    reading = Engine.open(copy, threads=1, reader=open_picture_reader(1))
    assert not reading.misses_texts
