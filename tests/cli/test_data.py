"""`miko-clf data`: what published layouts are known, and what is in a folder."""

from pathlib import Path

from miko_clf.data.sets import base
from tests.support.command_line import run_command


def test_every_known_layout_is_listed_with_its_counts() -> None:
    ended = run_command("data")
    assert ended.code == 0
    for each in base():
        assert f"{each.name}: {each.what}" in ended.out
    assert "354 (harmful 124, harmless 230)" in ended.out
    assert "counts unknown" in ended.out


def test_a_folder_is_told_by_split_class_and_what_posts_hold(world: Path) -> None:
    ended = run_command("data", str(world / "sarcasm"))
    assert ended.code == 0, ended.err
    assert f"{world / 'sarcasm'}: jsonl" in ended.out
    assert "192 posts: sarcastic 96, sincere 96" in ended.out
    assert "192 with an image, 192 with intentions" in ended.out


def test_a_task_that_a_folder_does_not_have_is_one_line(world: Path) -> None:
    ended = run_command("data", str(world / "sarcasm"), "--task", "hate")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "hate" in ended.err
