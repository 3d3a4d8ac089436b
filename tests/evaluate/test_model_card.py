"""The model card says which figures came from the lockbox, in the form that hubs read."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from miko_clf import bundle as bundles
from tests.support.command_line import run_command as miko


@pytest.fixture(scope="module")
def opened(bundle: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle, evaluated on test twice."""
    own = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("own") / "mine"))
    words = ["--data", world / "sarcasm", "--no-cache", "--resamples", 20, "--quick"]
    for _ in range(2):
        ended = miko("evaluate", own, *words, "--out", own.parent / "report")
        assert ended.code == 0, ended.err
    return own


def test_the_card_holds_the_test_figures_once(opened: Path) -> None:
    text = (opened / "README.md").read_text()
    assert text.count("## On test") == 1
    assert text.index("## On test") < text.index("## Use") < text.index("## Limits")
    on_test = text.partition("## On test")[2]
    assert "| with |" in on_test
    assert "| masked |" in on_test
    assert "miko-clf evaluate" in text


def test_the_metadata_of_the_card_is_what_hubs_read(opened: Path) -> None:
    card = ModelCard((opened / "README.md").read_text())
    found = {(each.metric_type, each.dataset_config) for each in card.data.eval_results}
    assert ("f1", "with") in found
    assert card.data.library_name == "miko_clf"


def test_a_bundle_whose_card_grew_is_still_whole(opened: Path) -> None:
    assert "README.md" not in bundles.load_bundle(opened).manifest["files"]


def test_a_new_card_says_what_the_system_is_not_for(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    assert "without a person looking" in text
    assert "threshold for | macro f1" in text


def test_a_new_card_calls_the_model_without_its_intentions_masked(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    assert "| masked |" in text
    assert "`masked` is this one model with its intentions hidden" in text
    assert "| without |" not in text
