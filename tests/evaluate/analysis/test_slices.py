"""Slices: which posts they hold, and that their figures are those of the metrics."""

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from miko_clf import metrics
from miko_clf.data.post import Intention, Post
from miko_clf.evaluate import bootstrap
from miko_clf.evaluate.analysis.estimates import (
    decide_posts,
    estimate_share,
    estimate_share_gap,
    measure_posts,
)
from miko_clf.evaluate.analysis.slices import MIN_SLICE_POSTS, cut_slices, measure_slices
from miko_clf.intervals import draw_resamples
from tests.support.predictions import make_noisy_scores, make_subject, make_subject_of_labels, posts


def test_figures_and_intervals_of_all_posts_are_those_of_the_report() -> None:
    truth = np.random.default_rng(1).integers(0, 2, 120)
    seen = make_subject(posts(120), truth, make_noisy_scores(truth), threshold=0.4)
    found = measure_posts(decide_posts(seen), num_resamples=300)
    told = bootstrap.bootstrap_scores(
        seen.probabilities, truth, positive=1, threshold=0.4, num_resamples=300
    )
    for name in ("macro_f1", "auroc"):
        assert found[name] == pytest.approx(told[name], abs=1e-6), name
    assert found["accuracy"].value == pytest.approx(told["accuracy"].value)


@pytest.mark.parametrize("num_labels", [2, 3])
def test_every_slice_scores_what_the_metrics_say_of_its_rows(num_labels: int) -> None:
    random = np.random.default_rng(2)
    truth = random.integers(0, num_labels, 90)
    said = random.dirichlet(np.ones(num_labels), 90)
    rows = [Post(id=f"{i}", text="#so it is" if i % 3 else "it is so long") for i in range(90)]
    seen = make_subject_of_labels(rows, truth, said, tuple("abc"[:num_labels]))
    found, _ = measure_slices(seen, num_resamples=20)
    marked = {(one.by, one.value): one for one in found}["hashtag", "in the text"]
    some = np.arange(90) % 3 > 0
    told = metrics.measure_classification(said[some], truth[some], positive=seen.question.positive)
    assert marked.posts == 60
    for name in ("accuracy", "macro_f1", "auroc"):
        assert marked.metrics[name].value == pytest.approx(told[name], abs=1e-6), name
    if num_labels == 2:
        decided = seen.decided[some]
        wrong = decided[truth[some] == 0].mean()
        assert marked.metrics["false_positive_rate"].value == pytest.approx(wrong)
        assert marked.share_positive == pytest.approx(truth[some].mean())
    else:
        assert "false_positive_rate" not in marked.metrics
        assert marked.share_positive is None


def hits_of(*counts: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows that are hits so many times of so many, and which rows each pair counts."""
    hits = np.concatenate([np.arange(total) < count for count, total in counts])
    place = np.repeat(np.arange(len(counts)), [total for _, total in counts])
    return hits, [place == at for at in range(len(counts))]


@pytest.mark.parametrize(("count", "total"), [(0, 12), (5, 12), (12, 12), (80, 200)])
def test_the_interval_of_a_rate_is_that_of_statsmodels(count: int, total: int) -> None:
    told = proportion_confint(count, total, method="wilson")
    hits, (every,) = hits_of((count, total))
    found = estimate_share(hits, every, draw_resamples(total, 20, 0), None)
    assert found[1:] == pytest.approx(told, abs=1e-9)


@pytest.mark.parametrize("counts", [(5, 5, 13, 111), (0, 20, 3, 30), (9, 30, 12, 33)])
def test_the_interval_of_a_gap_is_that_of_statsmodels(counts: tuple[int, ...]) -> None:
    one, of_one, other, of_other = counts
    told = confint_proportions_2indep(one, of_one, other, of_other, method="newcomb")
    hits, sides = hits_of((one, of_one), (other, of_other))
    found = estimate_share_gap(hits, *sides, draw_resamples(len(hits), 20, 0), None)
    assert found.value == pytest.approx(one / of_one - other / of_other)
    assert found[1:] == pytest.approx(told, abs=1e-9)


def test_a_rate_of_nothing_is_undefined() -> None:
    none = np.zeros(3, dtype=bool)
    assert np.isnan(estimate_share(none, none, draw_resamples(3, 20, 0), None)).all()


def test_shares_of_posts_that_stand_thrice_in_threads_are_as_sure_as_of_the_posts_once() -> None:
    random = np.random.default_rng(4)
    right, inside = random.random(80) < 0.7, random.random(80) < 0.4
    threads = np.tile(np.arange(80), 3)
    weights = draw_resamples(240, 4000, 0, threads)
    once = estimate_share(right, inside, weights[:, :80], None)
    thrice = estimate_share(np.tile(right, 3), np.tile(inside, 3), weights, threads)
    assert tuple(thrice) == pytest.approx(tuple(once), abs=0.05)  # percentiles and Wilson

    gap = estimate_share_gap(right, inside, ~inside, weights[:, :80], None)
    thrice = estimate_share_gap(
        np.tile(right, 3), np.tile(inside, 3), ~np.tile(inside, 3), weights, threads
    )
    assert tuple(thrice) == pytest.approx(tuple(gap), abs=0.05)


def test_a_share_of_one_in_threads_is_as_sure_as_so_many_threads() -> None:
    threads, every = np.repeat(np.arange(30), 4), np.ones(120, dtype=bool)
    found = estimate_share(every, every, draw_resamples(120, 20, 0, threads), threads)
    assert tuple(found) == pytest.approx((1, *proportion_confint(30, 30, method="wilson")))


def test_a_few_posts_that_are_all_ranked_rightly_have_no_interval_of_one_point() -> None:
    truth = np.array([0, 1] * 6)
    found = measure_posts(
        decide_posts(make_subject(posts(12), truth, truth * 0.8 + 0.1)), num_resamples=50
    )
    assert found["auroc"].value == 1
    assert np.isnan(found["auroc"].low)
    assert found["accuracy"].low < 0.8


def test_lengths_are_cut_at_the_terciles_of_the_training_texts() -> None:
    train = [Post(id=f"t{i}", text="x" * (i + 1)) for i in range(30)]
    rows = [Post(id=f"{n}", text="x" * n) for n in (1, 10, 11, 20, 21, 400)]
    cuts = {
        cut.value: cut.rows.tolist() for cut in cut_slices(rows, train) if "characters" in cut.by
    }
    assert list(cuts) == ["up to 10", "11 to 20", "over 20"]
    assert [sum(rows) for rows in cuts.values()] == [2, 2, 2]


def test_parts_marks_and_relations_that_are_absent_are_slices() -> None:
    want = Intention(relation="xWant", text="to be seen")
    rows = [
        Post(id="a", text="hi @user see https://x.y", intentions=(want,)),
        Post(id="b", image=b"x", description="a cat"),
        Post(id="c", text="so happy \U0001f600 #fun", image=b"x"),
    ]
    cuts = {
        (cut.by, cut.value): "".join(np.array(["a", "b", "c"])[cut.rows])
        for cut in cut_slices(rows, [])
    }
    assert cuts["image", "absent"] == "a"
    assert cuts["text", "absent"] == "b"
    assert cuts["description", "absent"] == "ac"
    assert cuts["intentions", "absent"] == "bc"
    assert cuts["xWant", "given"] == "a"
    assert cuts["xReact", "absent"] == "a", "a post without intentions lacks no relation of them"
    assert cuts["hashtag", "in the text"] == "c"
    assert cuts["emoji", "in the text"] == "c"
    assert cuts["@user", "not in the text"] == "c", "a post without text is not without a mark"
    assert cuts["URL", "in the text"] == "a"


def test_slices_of_fewer_than_ten_posts_are_left_out_and_counted() -> None:
    truth = np.array([0, 1] * 30)
    rows = [Post(id=f"{i}", text="#a" if i < MIN_SLICE_POSTS - 1 else "b") for i in range(60)]
    found, left_out = measure_slices(
        make_subject(rows, truth, make_noisy_scores(truth)), num_resamples=20
    )
    assert ("hashtag", "in the text") not in {(one.by, one.value) for one in found}
    assert left_out == 2  # the hashtags, and the texts over a character long
    assert (found[0].by, found[0].posts) == ("all", 60)


def test_a_slice_is_found_in_which_the_system_fails() -> None:
    random = np.random.default_rng(5)
    truth = random.integers(0, 2, 400)
    bare = random.random(400) < 0.25
    said = np.where(bare, 1 - make_noisy_scores(truth, 3), make_noisy_scores(truth, 3))
    rows = [Post(id=f"{i}", text="x", image=None if b else b"y") for i, b in enumerate(bare)]
    found, _ = measure_slices(make_subject(rows, truth, said), num_resamples=100)
    by = {(one.by, one.value): one.metrics["auroc"] for one in found}
    assert by["image", "absent"].high < 0.5 < by["image", "given"].low
