"""The progress bar: on a terminal's stderr alone, late, and gone in the end."""

import sys

import pytest

from miko_clf import progress
from miko_clf.progress import ProgressBar, show_progress


def look_at_stderr(patch: pytest.MonkeyPatch, delay: float = 0.0) -> None:
    """Let stderr be a terminal, on which bars appear after so many seconds."""
    patch.setattr(sys.stderr, "isatty", lambda: True)
    patch.setattr(progress, "DELAY", delay)


def test_items_pass_through_and_nothing_is_shown_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    assert list(show_progress(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    with ProgressBar("trials", 2) as bar:
        bar.update(1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_terminal_is_shown_what_is_done_and_of_how_much(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_stderr(monkeypatch)
    assert list(show_progress([1, 2, 3], "reading")) == [1, 2, 3]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "reading" in captured.err
    assert "3/3" in captured.err


def test_quick_work_shows_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_stderr(monkeypatch, 60.0)
    assert list(show_progress([1, 2, 3], "reading")) == [1, 2, 3]
    with ProgressBar("training", quiet=True) as bar:
        bar.print("a line of another process")
    assert capsys.readouterr().err == ""


def test_a_bar_takes_up_other_work_and_leaves_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_stderr(monkeypatch)
    with ProgressBar("task 1/2", 5, done=3) as bar:
        bar.update(4, note="loss [0.5]")
        assert (bar.done, bar.total) == (4, 5)
        bar.restart("task 2/2", 7)
        bar.print("epoch 1: loss 0.5")
        bar.update(7)
    shown = capsys.readouterr().err
    assert "epoch 1: loss 0.5" in shown
    assert "task 2/2" in shown
    assert "7/7" in shown
