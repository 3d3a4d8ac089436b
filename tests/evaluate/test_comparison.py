"""What a comparison says is right as often as it claims: coverage, false alarms, its words."""

from pathlib import Path

import numpy as np
import pytest

from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.evaluate import comparison
from miko_clf.evaluate.comparison import (
    ArmSummary,
    SeedArm,
    SeedComparison,
    compare_arms,
    describe_comparison,
    estimate_recovery,
)
from miko_clf.evaluate.seeds import (
    SeedDifference,
    SeedMetric,
    SeedPredictions,
    estimate_difference,
    measure_seeds,
)
from miko_clf.intervals import Interval, draw_resamples
from tests.support.simulated_comparisons import SimulatedWorld

METRICS = ("macro_f1", "auroc")
COUNT = 120


@pytest.fixture(scope="module")
def posts(world: Path) -> list[Post]:
    return open_folder(world / "sarcasm").read("train")


def gaps(known: SimulatedWorld, seed: int) -> dict[str, list]:
    """Difference, with its interval and p-value, of each of many comparisons."""
    found: dict[str, list] = {metric: [] for metric in METRICS}
    for truth, *arms in known.many(COUNT, seed):
        weights = draw_resamples(len(truth), 250, 0)
        given, none = (
            measure_seeds(each, truth, weights, positive=1, names=METRICS) for each in arms
        )
        for metric in METRICS:
            found[metric].append(estimate_difference(given[metric] - none[metric]))
    return found


def true_difference(known: SimulatedWorld) -> dict[str, float]:
    """The difference on very many rows and seeds."""
    random, found = np.random.default_rng(99), []
    for _ in range(3):
        truth, *arms = known.drawn(random, num_rows=30_000, num_seeds=20)
        whole = np.ones((1, len(truth)), dtype=int)
        given, none = (
            measure_seeds(each, truth, whole, positive=1, names=METRICS) for each in arms
        )
        found.append([(given[metric] - none[metric]).here.mean() for metric in METRICS])
    return dict(zip(METRICS, np.mean(found, axis=0), strict=True))


def test_the_interval_covers_the_true_difference_as_often_as_it_says(posts: list[Post]) -> None:
    known = SimulatedWorld(posts, worth=0.8)
    true = true_difference(known)
    for metric, found in gaps(known, seed=1).items():
        covered = np.mean([each.low <= true[metric] <= each.high for each in found])
        assert 0.91 <= covered <= 0.98, metric


def test_intentions_that_are_noise_are_called_a_help_one_time_in_twenty(posts: list[Post]) -> None:
    for metric, found in gaps(SimulatedWorld(posts, worth=0.0), seed=1).items():
        assert 0.02 <= np.mean([each.p < 0.05 for each in found]) <= 0.09, metric


def story(known: SimulatedWorld, control: SimulatedWorld | None = None) -> SeedComparison:
    """A comparison of with, without and shuffled intentions."""
    truth, given, none = known.drawn(np.random.default_rng(3), num_rows=400)
    shuffled = none if control is None else given
    arms = {"with": given, "without": none, "shuffled": shuffled}
    return compare_arms(
        [SeedArm("ours", name, seeds) for name, seeds in arms.items()],
        truth,
        positive=1,
        num_resamples=150,
    )


def test_the_words_follow_from_the_numbers(posts: list[Post]) -> None:
    strong = SimulatedWorld(posts, worth=1.5)
    assert "by what they say of the post they belong to" in describe_comparison(story(strong))
    said = describe_comparison(story(strong, control=strong))
    assert "no evidence that all of it comes from" in said
    assert "shuffled may do as well" in said
    assert "So there is no evidence that the intentions help" in describe_comparison(
        story(SimulatedWorld(posts, worth=0.0))
    )


def test_a_system_that_only_ever_guesses_right_keeps_all_of_the_gain() -> None:
    random = np.random.default_rng(0)
    none = SeedMetric(np.full(5, 0.6), random.normal(0.6, 0.01, (500, 5)))
    gain = random.normal(0.2, 0.01, (500, 5))
    given = SeedMetric(np.full(5, 0.8), none.resampled + gain)
    half = SeedMetric(np.full(5, 0.7), none.resampled + gain / 2)
    assert estimate_recovery(given, given, none)[:3] == pytest.approx((1, 1, 1))
    assert estimate_recovery(given, half, none)[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert estimate_recovery(given, none, none)[:3] == pytest.approx((0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_the_interval_of_the_share_covers_it_where_seeds_differ_much(num_seeds: int) -> None:
    random, covered = np.random.default_rng(num_seeds), 0
    for _ in range(60):
        seeds = random.normal(0, 0.02, (2, num_seeds))
        rows = random.normal(0, 0.004, (2, 101, 1))
        gain, kept = (
            SeedMetric(mean + of_seeds + of_rows[0], mean + of_seeds + of_rows[0] + of_rows[1:])
            for mean, of_seeds, of_rows in zip((0.2, 0.12), seeds, rows, strict=True)
        )
        none = SeedMetric(np.zeros(num_seeds), np.zeros((100, num_seeds)))
        share = estimate_recovery(gain, kept, none)
        covered += share.low <= 0.6 <= share.high
    assert covered >= 0.88 * 60


def test_of_no_gain_no_share_is_kept() -> None:
    random = np.random.default_rng(0)
    none = SeedMetric(np.full(5, 0.6), random.normal(0.6, 0.01, (500, 5)))
    given = SeedMetric(none.here + 0.001, random.normal(0.6, 0.01, (500, 5)))
    assert np.isnan(estimate_recovery(given, given, none)).all()


def test_what_one_seed_says_is_told_apart(posts: list[Post]) -> None:
    truth, given, none = SimulatedWorld(posts, worth=1.5).drawn(
        np.random.default_rng(0), num_seeds=1
    )
    found = compare_arms(
        [SeedArm("ours", "with", given), SeedArm("ours", "without", none)],
        truth,
        positive=1,
        num_resamples=200,
    )
    assert "1 seed, which says nothing of how far another would be" in describe_comparison(found)


def test_more_than_two_classes_are_compared_too() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 120)

    def seeds(strength: float) -> list[SeedPredictions]:
        raw = [np.eye(3)[truth] * strength + random.dirichlet(np.ones(3), 120) for _ in range(3)]
        return [SeedPredictions(each / each.sum(1, keepdims=True), None) for each in raw]

    arms = [SeedArm("ours", "with", seeds(1.0)), SeedArm("ours", "without", seeds(0.1))]
    found = compare_arms(arms, truth, positive=None, num_resamples=200)
    assert "positive_f1" not in found.lines[0].metrics
    assert all(each.gap.value > 0 and each.p_holm < 0.05 for each in found.differences)


def differ(
    a: str, b: str, value: float, p: float, smallest: float = 0.02
) -> comparison.TestedDifference:
    gap = SeedDifference(value, value - 0.01, value + 0.01, p, smallest)
    return comparison.TestedDifference(a, b, "macro_f1", gap, p, p, [p])


def write_paragraph(
    *differences: comparison.TestedDifference, share: float | None = None, seeds: int = 5
) -> str:
    names = dict.fromkeys(name for each in differences for name in (each.a, each.b))
    lines = [ArmSummary(*name.split("/"), seeds, None, {}) for name in names]
    system = lines[0].system
    kept = {} if share is None else {system: {"macro_f1": Interval(share, 0.3, 1.3)}}
    return describe_comparison(SeedComparison(seeds, 100, lines, differences, kept))


def test_what_intentions_say_is_only_known_from_controls_that_change_whose_they_are() -> None:
    gain, empty = differ("m/with", "m/without", 0.1, 0.001), differ("m/with", "m/empty", 0.1, 0.001)
    text = write_paragraph(gain, empty)
    assert "by what they say of the post" not in text
    assert "only `shuffled` and `other-post` could tell" in text
    shuffled = differ("m/with", "m/shuffled", 0.1, 0.001)
    assert "by what they say of the post they belong to" in write_paragraph(gain, empty, shuffled)


def test_a_share_of_the_gain_is_told_only_where_there_is_a_gain() -> None:
    for p, told in ((0.001, True), (0.2, False)):
        text = write_paragraph(differ("m/with", "m/without", 0.1, p), share=0.8)
        assert ("keeps 80%" in text) == told


def test_systems_are_named_where_nothing_went_before() -> None:
    text = write_paragraph(
        differ("one/with", "one/shuffled", 0.1, 0.001),
        differ("two/with", "two/shuffled", -0.1, 0.001),
    )
    assert "`one` is higher than `shuffled`" in text
    assert "`two` is lower than `shuffled`" in text
    assert [line.split("`")[1] for line in text.splitlines()[1:]] == ["one", "two"]


def test_what_could_have_been_seen_is_of_the_pair_that_the_verdict_is_about() -> None:
    text = write_paragraph(
        differ("m/with", "m/student", 0.0, 1.0, smallest=0.011),
        differ("m/with", "m/without", 0.1, 0.001, smallest=0.033),
    )
    assert "0.033 between `m/with` and `m/without`" in text


def test_no_power_is_claimed_where_nothing_varies_or_nothing_could_be_seen() -> None:
    alike = write_paragraph(differ("m/with", "m/without", 0.0, 1.0, smallest=np.nan))
    assert "does not vary enough to tell more" in alike
    assert "four times in five" not in alike
    few = write_paragraph(differ("m/with", "m/without", 0.0, 1.0, smallest=1.3))
    assert "cannot show any difference" in few


def test_systems_against_one_have_a_line_each_with_what_could_have_been_seen_of_it() -> None:
    near = differ("two/with", "one/with", 0.01, 0.4, smallest=0.022)
    far = differ("three/with", "one/with", 0.02, 0.6, smallest=0.049)
    text = write_paragraph(near, far)
    assert "found four times in five" not in text.splitlines()[0]
    assert text.splitlines()[0].endswith("5 seeds, beside `one/with`:")
    for line, system, smallest in zip(
        text.splitlines()[1:], ("two", "three"), (0.022, 0.049), strict=False
    ):
        assert line.startswith(f"`{system}/with` shows no evidence")
        assert f"{smallest} would have been found" in line
    assert text.endswith(
        "no evidence that any of the 2 others differs from `one/with` in macro-F1."
    )


def test_a_system_that_differs_is_named_in_the_conclusion_on_several() -> None:
    text = write_paragraph(
        differ("two/with", "one/with", 0.1, 0.001), differ("three/with", "one/with", 0.0, 1.0)
    )
    assert text.splitlines()[-1] == (
        "So in macro-F1 `two/with` is higher than `one/with`; "
        "there is no evidence of any other difference."
    )
