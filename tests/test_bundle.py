"""A bundle says where it comes from, and whatever was changed in it is found."""

import json
from pathlib import Path

import pytest

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.questions import make_single_choice
from miko_clf.serve.engine import Engine


def test_a_bundle_of_one_choice_has_the_files_and_answers_it_always_had(
    bundle: Path, world: Path
) -> None:
    labels = json.loads((bundle / bundles.LABELS_FILE).read_text())
    fitted = json.loads((bundle / bundles.CALIBRATION_FILE).read_text())
    assert labels == ["sincere", "sarcastic"]
    assert list(fitted)[:4] == ["temperature", "positive", "arm", "thresholds"]
    assert list(fitted)[4:] == ["aim", "reached", "prior"]
    assert all(isinstance(each, float) for each in fitted["thresholds"].values())
    opened = bundles.load_bundle(bundle)
    assert opened.questions == make_single_choice(labels)
    assert opened.calibrations == (opened.calibration,)
    (one,) = Engine.open(bundle, threads=1).score([Post(id="a", text="x")])
    said = json.loads(one.model_dump_json())
    assert list(said) == ["id", "label", "probabilities", "threshold", "arm", "truncated"]
    assert (type(said["label"]), type(said["threshold"])) == (str, float)
    assert list(said["probabilities"]) == labels


def test_a_bundle_says_where_it_comes_from(bundle: Path, world: Path) -> None:
    opened = bundles.load_bundle(bundle)
    assert opened.labels == ("sincere", "sarcastic")
    assert opened.calibration.positive == "sarcastic"
    assert set(opened.calibration.thresholds) == {"with", "student", "without"}
    assert opened.manifest["data"]["train"] == open_folder(world / "sarcasm").fingerprint("train")
    assert opened.manifest["recipe"]["seed"] == 0
    assert "torch" in opened.manifest["versions"]
    names = {"recipe.yaml", "labels.json", "preprocess.json", "tokenizer.json", "towers.json"}
    names |= {"calibration.json", "model.safetensors", "metrics.jsonl", "report.html"}
    assert names <= set(opened.manifest["files"])
    assert (bundle / "README.md").is_file()


def test_a_changed_byte_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = _copy(bundle, tmp_path)
    content = bytearray((copy / "tokenizer.json").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"file tokenizer.json was changed"):
        bundles.load_bundle(copy)


def test_a_missing_file_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = _copy(bundle, tmp_path)
    (copy / "labels.json").unlink()
    with pytest.raises(BundleError, match=r"file labels.json is missing"):
        bundles.load_bundle(copy)


def _copy(bundle: Path, to: Path) -> Path:
    copy = to / "copy"
    for path in bundle.rglob("*"):
        if path.is_file():
            place = copy / path.relative_to(bundle)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return copy
