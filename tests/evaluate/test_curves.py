"""Curves of a system: what they are on known rows, their bands, the lines of its training."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from miko_clf.evaluate.comparison import SeedArm
from miko_clf.evaluate.curves import (
    CURVE_GRID,
    SystemCurves,
    measure_curve_heights,
    measure_curves,
    measure_seed_curves,
    read_training_log,
)
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.evaluate.seeds import SeedPredictions
from miko_clf.intervals import draw_resamples
from miko_clf.metrics import measure_resamples
from tests.support.predictions import make_subject, make_subject_of_labels


def drawn(seen: SystemPredictions, path: Path = Path("nowhere"), **given: Any) -> SystemCurves:
    object.__setattr__(seen, "opened", cast(Any, SimpleNamespace(path=path)))
    return measure_curves(seen, **{"num_resamples": 200, **given})


def scored(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = np.tile([0, 0, 1], -(-count // 3))[:count]
    return truth, 1 / (1 + np.exp(-(random.normal(size=count) + truth)))


def test_a_ranking_without_a_fault_is_a_corner() -> None:
    found = drawn(make_subject([], [0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]))
    assert {point.y for point in found.roc} == {1.0}
    assert {point.y for point in found.precision_recall} == {1.0}
    assert found.confusion == [[3, 0], [0, 3]]


def test_the_curve_rises_and_encloses_the_area_that_is_stated() -> None:
    truth, said = scored(300)
    found = drawn(make_subject([], truth, said))
    heights = [point.y for point in found.roc]
    assert heights == sorted(heights)
    area = np.trapezoid(heights, [point.x for point in found.roc])
    assert area == pytest.approx(roc_auc_score(truth, said), abs=0.01)
    assert found.area["roc"].value == pytest.approx(roc_auc_score(truth, said), abs=1e-6)


def test_precision_at_a_recall_is_that_of_the_first_cut_that_reaches_it() -> None:
    found = drawn(make_subject([], [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]))
    at = {round(point.x, 2): point.y for point in found.precision_recall}
    assert (at[0.0], at[0.5]) == (1.0, 1.0)
    assert at[0.51] == at[1.0] == pytest.approx(2 / 3)


def test_the_order_of_rows_that_are_tied_does_not_matter() -> None:
    truth, said = np.array([0, 1, 0, 1]), np.full(4, 0.5)
    one, two = (drawn(make_subject([], each, said)) for each in (truth, truth[::-1]))
    assert [p.y for p in one.roc] == [p.y for p in two.roc]
    assert one.roc[50].y == pytest.approx(0.5)


def test_the_band_holds_the_curve_of_the_whole_in_most_places() -> None:
    truth, said = scored(4000, seed=1)
    whole = {
        point.x: point.y for point in drawn(make_subject([], truth, said), num_resamples=2).roc
    }
    truth, said = scored(300, seed=2)
    found = drawn(make_subject([], truth, said), num_resamples=400).roc
    inside = [point.low <= whole[point.x] <= point.high for point in found]
    assert np.mean(inside) > 0.8
    assert all(point.low <= point.high for point in found)


def test_rows_of_one_label_have_no_curve_but_are_counted() -> None:
    found = drawn(make_subject([], [0, 0, 0], [0.1, 0.6, 0.2]))
    assert (found.roc, found.precision_recall) == ([], [])
    assert found.confusion == [[2, 1], [0, 0]]


def test_of_three_labels_the_curve_is_the_mean_of_each_against_the_rest() -> None:
    truth = np.tile([0, 1, 2], 20)
    said = np.full((60, 3), 0.1)
    said[np.arange(60), truth] = 0.8
    found = drawn(make_subject_of_labels([], truth, said, ("a", "b", "c")))
    assert {point.y for point in found.roc} == {1.0}
    assert found.confusion == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]
    assert found.labels == ["a", "b", "c"]


def test_training_lines_are_thinned_and_every_validation_is_kept(tmp_path: Path) -> None:
    lines = [{"stage": "task", "step": n, "loss": 1.0} for n in range(1000)]
    lines += [{"stage": "task", "step": n, "validation": {"auroc": 0.5}} for n in range(30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    kept = read_training_log(tmp_path / "metrics.jsonl")
    assert sum("loss" in line for line in kept) == 200
    assert sum("validation" in line for line in kept) == 30
    assert drawn(make_subject([], [0, 1], [0.1, 0.9]), tmp_path).learning == kept
    assert read_training_log(tmp_path / "absent.jsonl") == []


def two(said: np.ndarray) -> np.ndarray:
    return np.stack([1 - said, said], axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_over_strata_the_curve_encloses_the_area_that_ranks_within_them(
    seed: int, num_strata: int
) -> None:
    truth, said = scored(240, seed)
    strata = np.random.default_rng(seed).integers(num_strata, size=240)
    said = (said + strata) / num_strata  # a fold's scores lie where they like
    weights = draw_resamples(240, 3, seed)
    areas = measure_resamples(
        two(said), truth, weights, positive=1, strata=strata, names=["auroc"]
    )[:, 0]
    found = measure_curve_heights(two(said), truth, weights, positive=1, strata=strata)["roc"]
    np.testing.assert_allclose(np.trapezoid(found, CURVE_GRID, axis=1), areas, atol=0.02)


def test_a_stratum_of_one_label_has_no_share_in_the_curve() -> None:
    truth, said = scored(90)
    more = np.concatenate([truth, np.zeros(30, dtype=np.int64)])
    strata = np.repeat([0, 1], [90, 30])
    alone = measure_curve_heights(two(said), truth, draw_resamples(90, 2, 0)[:1], positive=1)
    both = measure_curve_heights(
        two(np.concatenate([said, np.full(30, 0.99)])), more,
        np.ones((1, 120), dtype=np.int64), positive=1, strata=strata,
    )  # fmt: skip
    for name, each in alone.items():
        np.testing.assert_allclose(both[name], each)


def test_over_seeds_the_curve_is_the_mean_and_its_band_widens_with_what_seeds_differ_by() -> None:
    truth, said = scored(300)
    random = np.random.default_rng(1)
    same = [SeedPredictions(two(said), 0.5)] * 4
    apart = [
        SeedPredictions(two(np.clip(said + random.normal(0, 0.4, 300), 0, 1)), 0.5)
        for _ in range(4)
    ]
    one, two_ = measure_seed_curves(
        [SeedArm("s", "with", same), SeedArm("s", "none", apart)], truth, positive=1
    )
    assert (one["system"], one["arm"], two_["arm"]) == ("s", "with", "none")
    single = measure_curve_heights(two(said), truth, np.ones((1, 300), dtype=np.int64), positive=1)[
        "roc"
    ][0]
    np.testing.assert_allclose([at["y"] for at in one["roc"]], single, atol=1e-4)
    whole = np.ones((1, 300), dtype=np.int64)
    of_seeds = [
        measure_curve_heights(each.probabilities, truth, whole, positive=1)["roc"][0]
        for each in apart
    ]
    means = np.mean(of_seeds, axis=0)
    np.testing.assert_allclose([at["y"] for at in two_["roc"]], means, atol=1e-4)
    assert all(0 <= at["low"] <= at["y"] <= at["high"] <= 1 for at in one["roc"] + two_["roc"])
    few = measure_seed_curves(
        [SeedArm("s", "with", [SeedPredictions(two(said[:2]), 0.5)])], truth[:2] * 0, positive=1
    )
    assert few[0]["roc"] == few[0]["precision_recall"] == []
