"""How far texts that were read are from those given."""

import json

import pytest
from ocr import make_tables, measure_agreement

from miko_clf.data.ocr import RecognisedLine
from miko_clf.data.post import Post
from tests.support.repository import ROOT


def _line(text: str, score: float = 1.0) -> RecognisedLine:
    return RecognisedLine(text, score, 0, 0, 100, 20)


def test_errors_are_counted_in_characters_and_words_in_any_order() -> None:
    posts = [Post(id="a", text="ONE two\nthree"), Post(id="b", text="four")]
    lines = {"a": [_line("one two tree two")], "b": [_line("four"), _line("x", 0.6)]}
    found = measure_agreement(posts, lines, 0.8)
    assert found["cer"] == pytest.approx(5 / 17, abs=1e-4)
    assert found["cer_with_case"] == pytest.approx(8 / 17, abs=1e-4)
    assert found["words_found"] == 0.75
    assert found["words_right"] == 0.6
    assert found["posts_with_cer_under_0.1"] == 1


def test_a_picture_on_which_nothing_was_found_misses_every_word() -> None:
    posts = [Post(id="a", text="four"), Post(id="b", text="five"), Post(id="c", text="null")]
    found = measure_agreement(posts, {"a": [_line("four")], "b": []}, 0.8)
    assert (found["posts"], found["left_out"], found["nothing_found"]) == (2, 1, 1)
    assert (found["cer"], found["words_found"], found["words_right"]) == (0.5, 0.5, 1.0)


def test_the_tables_of_the_page_are_the_measured_ones() -> None:
    path = ROOT / "benchmarks" / "results" / "ocr" / "harm-c.json"
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    for table in make_tables(result):
        assert table in page
    assert result["command"] in page
