"""A report says what was found, and no more, on the screen, as a page and as JSON."""

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from miko_clf import metrics
from miko_clf.evaluate import model_card
from miko_clf.evaluate.bootstrap import MetricDifference
from miko_clf.evaluate.formatting import describe_difference
from miko_clf.evaluate.report import (
    Report,
    ReportRow,
    print_report,
    write_report,
)
from miko_clf.intervals import Interval

NAN = math.nan


def sample() -> Report:
    figures = {name: Interval(0.7124, 0.65, 0.7777) for name in metrics.METRIC_NAMES}
    undefined = {"accuracy": Interval(0.5, 0.4, 0.6), "auroc": Interval(NAN, NAN, NAN)}
    return Report(
        rows=[
            ReportRow("a-system-of-some-length", "with", 354, figures, 0.412),
            ReportRow(
                "a-system-of-some-length", "without", 354, figures, 0.5, "one | bar\nand [a line]"
            ),
            ReportRow("majority", "baseline", 354, undefined),
        ],
        data="memes",
        fingerprint="f00d",
        split="test",
        counts={"harmful": 124, "harmless": 230},
        positive="harmful",
        versions={"torch": "2.15.0"},
        command="python evaluate.py",
        seconds=1.25,
        differences=[
            MetricDifference("with", "without", "macro_f1", Interval(0.02, -0.01, 0.05)),
            MetricDifference("student", "without", "positive_f1", Interval(0.04, 0.0001, 0.07)),
        ],
    )


def printed(report: Report, width: int) -> str:
    screen = io.StringIO()
    print_report(report, Console(file=screen, width=width))
    return screen.getvalue()


def test_json_is_strict_and_an_undefined_figure_is_null(tmp_path: Path) -> None:
    write_report(sample(), tmp_path / "new")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "new" / "report.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["rows"][2]["metrics"]["auroc"] == {"value": None, "low": None, "high": None}
    assert found["rows"][0]["metrics"]["ece"] == {"value": 0.7124, "low": 0.65, "high": 0.7777}
    assert found["differences"][0]["a"] == "with"
    assert found["differences"][0]["interval"]["low"] == -0.01
    assert found["counts"] == {"harmful": 124, "harmless": 230}


def test_the_page_is_a_table_that_names_the_positive_class(tmp_path: Path) -> None:
    write_report(sample(), tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert "| F1 (harmful) |" in table[0]
    assert "| 0.712 [0.650, 0.778] |" in table[2]
    assert "undefined" in table[4]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {12}
    assert "95 % percentile interval of 1000 bootstrap resamples" in page
    assert "fingerprint `f00d`" in page


def test_no_column_stands_for_a_metric_that_no_row_has(tmp_path: Path) -> None:
    figures = {"accuracy": Interval(0.5, 0.4, 0.6)}
    report = dataclasses.replace(
        sample(), rows=[ReportRow("s", "with", 9, figures)], differences=(), positive=None
    )
    write_report(report, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| system | arm | rows | accuracy | threshold | note |" in page
    assert "F1" not in page


@pytest.mark.parametrize("width", [80, 100, 190])
def test_the_printed_table_keeps_every_figure_whole_within_its_width(width: int) -> None:
    screen = printed(sample(), width)
    assert screen.count("[.650, .778]") == 2 * len(metrics.METRIC_NAMES)
    assert max(map(len, screen.splitlines())) <= width
    assert "one | bar" in screen
    assert "[a line]" in screen


def test_a_pipe_gets_80_columns_and_whole_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_report(sample())
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count("[.650, .778]") for line in lines) == 2 * len(metrics.METRIC_NAMES)
    assert any(line.startswith(" a-system-of-some-length ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_words_below_say_what_was_drawn_together(tmp_path: Path) -> None:
    told = "Posts of one group are drawn as one, 75 units in all."
    for groups, said in ((75, True), (0, False)):
        report = dataclasses.replace(sample(), groups=groups)
        assert (told in " ".join(printed(report, 100).split())) == said
        write_report(report, tmp_path)
        for name in ("report.md", "report.html"):
            assert (told in (tmp_path / name).read_text(encoding="utf-8")) == said


def test_below_the_table_stands_what_the_differences_show() -> None:
    screen = " ".join(printed(sample(), 100).split())
    assert "No evidence that `with` and `without` differ in macro F1" in screen
    assert "`student` is higher than `without` in F1 (harmful)" in screen


@given(
    st.tuples(*[st.floats(-1, 1)] * 3).map(sorted).filter(lambda found: found[0] or found[2]),
)
def test_no_bound_is_rounded_onto_zero_and_the_words_follow_the_bounds(
    found: list[float],
) -> None:
    low, value, high = found
    words = describe_difference(
        *MetricDifference("a", "b", "auroc", Interval(value, low, high)), None
    )
    bounds = re.search(r"= (\S+) \[(\S+), (\S+)\]", words)
    assert bounds
    for shown, exact in zip(bounds.groups(), (value, low, high), strict=True):
        assert np.sign(float(shown)) == np.sign(exact)
    assert words.startswith("No evidence") == (low <= 0 <= high)
    assert ("`a` is higher" in words) == (low > 0)
    assert ("`a` is lower" in words) == (high < 0)


def test_an_undefined_difference_is_called_so() -> None:
    words = describe_difference(*MetricDifference("a", "b", "auroc", Interval(NAN, NAN, NAN)), None)
    assert "cannot be compared in AUROC" in words
    assert "nan" not in words


LINES = [
    {"stage": "reasoning", "step": 0, "epoch": 0, "loss": 2.0},
    {"stage": "reasoning", "step": 9, "epoch": 1, "loss": 1.0},
    {"stage": "task", "step": 0, "epoch": 0, "loss": 0.9, "validation": None},
    {"stage": "task", "step": 9, "epoch": 1, "validation": {"loss": 0.7, "auroc": 0.8}},
]


def drawn(folder: Path, suffix: str) -> list[Path]:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1], size=60)
    truth = random.integers(0, 2, size=60)
    paths = [folder / f"{name}{suffix}" for name in ("binary", "many", "curves")]
    model_card.draw_reliability(probabilities, truth, 1, paths[0])
    model_card.draw_reliability(probabilities, truth, None, paths[1])
    model_card.draw_training_curves(LINES, paths[2])
    return paths


def test_pictures_are_drawn_as_png(tmp_path: Path) -> None:
    for path in drawn(tmp_path / "new", ".png"):
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_same_data_give_the_same_svg_byte_for_byte(tmp_path: Path) -> None:
    for one, two in zip(drawn(tmp_path / "1", ".svg"), drawn(tmp_path / "2", ".svg"), strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert one.read_bytes().rstrip().endswith(b"</svg>")


def test_probabilities_at_the_ends_of_the_scale_are_drawn(tmp_path: Path) -> None:
    model_card.draw_reliability(np.eye(2)[[0, 1, 1]], np.array([0, 1, 0]), 1, tmp_path / "ends.svg")
    assert (tmp_path / "ends.svg").stat().st_size > 1000
