"""Folders of pictures: what in them is a post, and what systems left there."""

import io
from pathlib import Path

import pytest
from PIL import Image

from miko_clf.data.dataset import open_folder
from miko_clf.data.imagefolder import is_litter
from tests.support.odd_inputs import encode_picture


@pytest.mark.parametrize(
    "name", [".DS_Store", "._1.jpg", "__MACOSX", "Thumbs.db", "desktop.ini", "Desktop.ini"]
)
def test_what_an_operating_system_leaves_is_litter(name: str) -> None:
    assert is_litter(Path("folder", name))
    assert not is_litter(Path("folder", f"a{name}"))


def test_a_folder_of_heic_alone_is_known_by_its_pictures(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "AVIF")
    for name in ("train/a/1.AVIF", "train/b/2.avif"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(file.getvalue())
    assert [post.label for post in open_folder(tmp_path).read("train")] == ["a", "b"]


def test_litter_makes_no_class_and_no_split(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "__MACOSX/._1.jpg", "a/Thumbs.db", "__MACOSX/a/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode_picture() if name.endswith("/1.jpg") else b"x")
    assert [post.id for post in open_folder(tmp_path).read("all")] == ["a/1.jpg", "b/1.jpg"]
