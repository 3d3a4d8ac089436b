"""Evaluating: the same rows for every arm, baselines beside them, thresholds of validation."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.evaluator import (
    AnalysisOptions,
    evaluate_bundles,
    predict_majority,
    predict_tfidf_logistic,
)
from miko_clf.evaluate.predictions import Predictor
from miko_clf.evaluate.report import Report
from miko_clf.intervals import Interval
from miko_clf.serve.engine import Engine


def test_the_majority_baseline_decides_for_the_commonest_class() -> None:
    probabilities = predict_majority(np.array([2, 2, 0]), 4, 5)
    assert probabilities.shape == (5, 4)
    assert probabilities[0].tolist() == [1 / 3, 0, 2 / 3, 0]


def test_tfidf_learns_which_words_go_with_a_class() -> None:
    texts = ["a bright sunny day", "sunny and warm", "dark cold rain", "rain and wind"] * 3
    truth = np.array([0, 0, 2, 2] * 3)
    probabilities = predict_tfidf_logistic(texts, truth, ["SUNNY warm", "cold rain", "unseen"], 3)
    assert probabilities.argmax(1)[:2].tolist() == [0, 2]
    assert probabilities[:, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.parametrize(
    ("texts", "truth"),
    [
        (["one"], [0]),
        (["one word", "two terms"], [0, 1]),
        (["", "?"], [0, 1]),
        (["a b"] * 3, [1] * 3),
    ],
)
def test_tfidf_survives_data_too_small_to_learn_from(texts: list[str], truth: list[int]) -> None:
    probabilities = predict_tfidf_logistic(texts, np.array(truth), ["one", ""], 2)
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.fixture(scope="module")
def report(bundle: Path, world: Path) -> Report:
    data = open_folder(world / "sarcasm")
    return evaluate_bundles(
        [bundle],
        data,
        "test",
        cache=None,
        num_resamples=50,
        command="test",
        analyses=AnalysisOptions(robustness=True),
    )


def list_intervals(report: Report) -> dict[str, Interval]:
    """Every interval of the findings by where it stands; slices by what they hold."""
    intervals = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, Interval):
            intervals[place] = value
        elif isinstance(value, Mapping):
            name = "/".join(
                str(value[key]) for key in ("by", "value", "change", "level") if key in value
            )
            for key, item in value.items():
                walk(item, f"{place}/{name}/{key}")
        elif isinstance(value, list):
            for item in value:
                walk(item, place)

    named = {relation["relation"]: relation for relation in report.findings["relations"]}
    walk({**report.findings, "relations": named}, "")
    return intervals


def test_every_arm_and_baseline_stands_on_the_same_rows(report: Report) -> None:
    found = [(row.system, row.arm) for row in report.rows]
    assert found == [
        ("majority", "-"),
        ("TF-IDF + logistic", "text"),
        ("small", "with"),
        ("small", "student"),
        ("small", "masked"),
        ("small", "masked, image only"),
        ("small", "masked, text only"),
    ]
    assert {row.rows for row in report.rows} == {24}
    assert sum(report.counts.values()) == 24


def test_every_score_has_an_interval_around_it(report: Report) -> None:
    for row in report.rows:
        for name, (value, low, high) in row.metrics.items():
            assert np.isnan(value) or low <= high, (row.arm, name)
            if name != "ece":
                assert np.isnan(value) or low <= value <= high, (row.arm, name)


def test_posts_of_a_thread_are_drawn_together(
    report: Report, bundle: Path, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world, tmp_path / "world")
    file = tmp_path / "world" / "sarcasm" / "test.jsonl"
    posts = [json.loads(line) for line in file.read_text().splitlines()]
    thrice = [
        json.dumps({**post, "id": f"{post['id']}-{time}"}) for time in range(3) for post in posts
    ]
    file.write_text("\n".join(thrice) + "\n")
    data = open_folder(file.parent)
    found = evaluate_bundles(
        [bundle],
        data,
        "test",
        cache=None,
        num_resamples=50,
        command="test",
        analyses=AnalysisOptions(robustness=True),
    )
    assert found.groups == report.groups == len({post["group"] for post in posts}) < len(posts)
    for repeated, once in zip(found.rows, report.rows, strict=True):
        for name in ("macro_f1", "auroc"):
            wanted = pytest.approx(tuple(once.metrics[name]), abs=0.02, nan_ok=True)  # ties part
            assert tuple(repeated.metrics[name]) == wanted
    findings, once = list_intervals(found), list_intervals(report)
    assert {place.split("/")[2] for place in findings} >= {
        "calibration", "curves", "relations", "robustness", "shapley", "slices",
    }  # fmt: skip
    by_id = ("/typos", "/disguised")  # changes that a post's id decides
    same = {p for p in findings.keys() & once.keys() if not any(name in p for name in by_id)}
    assert len(same) > 100
    for place in same:
        wide, wanted = (one.high - one.low for one in (findings[place], once[place]))
        assert math.isnan(wanted) or wide >= 0.7 * wanted, place  # of posts alone it were 0.58
    assert all("low" in row for row in found.findings["calibration"]["reliability"]["after"])


def test_thresholds_are_those_that_validation_gave(report: Report, bundle: Path) -> None:
    fitted = bundles.load_bundle(bundle).calibration.thresholds
    rows = {row.arm: row.threshold for row in report.rows if row.system == "small"}
    assert rows["masked"] == fitted["without"]
    assert all(rows[arm] == fitted[arm] for arm in ("with", "student"))


def test_arms_are_compared_with_the_one_whose_intentions_are_hidden(report: Report) -> None:
    pairs = {(difference.a, difference.b) for difference in report.differences}
    assert pairs == {("small/with", "small/masked"), ("small/student", "small/masked")}


def test_torch_and_the_exported_graph_give_the_same_probabilities(
    bundle: Path, world: Path
) -> None:
    posts = open_folder(world / "sarcasm").read("test")
    opened, engine = bundles.load_bundle(bundle), Engine.open(bundle, provider="cpu")
    for arm in ("with", "student", "without"):
        torch_says = Predictor(opened, posts, None).probabilities(arm)
        scores = engine.score(posts, arm)
        served = np.array([[s.probabilities[name] for name in opened.labels] for s in scores])
        assert np.abs(torch_says - served).max() < 1e-4, arm


def test_a_label_that_the_bundle_does_not_know_is_one_line(bundle: Path, world: Path) -> None:
    data = open_folder(world / "harm")
    with pytest.raises(PostError, match=r"is labelled 'harm.*the bundles know sincere, sarcastic"):
        evaluate_bundles([bundle], data, "test", cache=None, num_resamples=50, command="test")


def test_two_bundles_of_one_name_are_refused(bundle: Path, world: Path) -> None:
    data = open_folder(world / "sarcasm")
    with pytest.raises(BundleError, match="two bundles are called small"):
        evaluate_bundles(
            [bundle, bundle], data, "test", cache=None, num_resamples=50, command="test"
        )
