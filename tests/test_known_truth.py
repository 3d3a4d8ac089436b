"""What a comparison says is right as often as it claims: coverage, false alarms, and its words."""

from pathlib import Path

import numpy as np
import pytest
from known_truth import World

from miko_clf.data.folder import open_folder
from miko_clf.data.post import Post
from miko_clf.evaluate.comparison import Arm, Comparison, compared, recovered
from miko_clf.evaluate.seeds import Drawn, Scores, drawn, gap, resamples
from miko_clf.evaluate.verdict import paragraph

METRICS = ("macro_f1", "auroc")
COUNT = 200


@pytest.fixture(scope="module")
def posts(world: Path) -> list[Post]:
    return open_folder(world / "sarcasm").read("train")


def gaps(known: World, seed: int) -> dict[str, list]:
    """Difference, with its interval and p-value, of each of many comparisons."""
    found: dict[str, list] = {metric: [] for metric in METRICS}
    for truth, *arms in known.many(COUNT, seed):
        weights = resamples(len(truth), 400, 0)
        given, none = (drawn(each, truth, weights, positive=1, names=METRICS) for each in arms)
        for metric in METRICS:
            found[metric].append(gap(given[metric] - none[metric]))
    return found


def true_difference(known: World) -> dict[str, float]:
    """The difference on very many rows and seeds."""
    random, found = np.random.default_rng(99), []
    for _ in range(8):
        truth, *arms = known.drawn(random, num_rows=30_000, num_seeds=20)
        whole = np.ones((1, len(truth)), dtype=int)
        given, none = (drawn(each, truth, whole, positive=1, names=METRICS) for each in arms)
        found.append([(given[metric] - none[metric]).here.mean() for metric in METRICS])
    return dict(zip(METRICS, np.mean(found, axis=0), strict=True))


def test_the_interval_covers_the_true_difference_as_often_as_it_says(posts: list[Post]) -> None:
    known = World(posts, worth=0.8)
    true = true_difference(known)
    for metric, found in gaps(known, seed=1).items():
        covered = np.mean([each.low <= true[metric] <= each.high for each in found])
        assert 0.93 <= covered <= 0.97, metric


def test_intentions_that_are_noise_are_called_a_help_one_time_in_twenty(posts: list[Post]) -> None:
    for metric, found in gaps(World(posts, worth=0.0), seed=1).items():
        assert 0.03 <= np.mean([each.p < 0.05 for each in found]) <= 0.07, metric


def story(known: World, control: World | None = None) -> Comparison:
    """A comparison of with, without and shuffled intentions."""
    truth, given, none = known.drawn(np.random.default_rng(3), num_rows=400)
    shuffled = none if control is None else given
    arms = {"with": given, "without": none, "shuffled": shuffled}
    return compared(
        [Arm("ours", name, seeds) for name, seeds in arms.items()],
        truth,
        positive=1,
        num_resamples=300,
    )


def test_the_words_follow_from_the_numbers(posts: list[Post]) -> None:
    strong = World(posts, worth=1.5)
    assert "by what they say of the post they belong to" in paragraph(story(strong))
    said = paragraph(story(strong, control=strong))
    assert "no evidence that all of it comes from" in said
    assert "shuffled may do as well" in said
    assert "So there is no evidence that the intentions help" in paragraph(
        story(World(posts, worth=0.0))
    )


def test_a_system_that_only_ever_guesses_right_keeps_all_of_the_gain() -> None:
    random = np.random.default_rng(0)
    none = Drawn(np.full(5, 0.6), random.normal(0.6, 0.01, (500, 5)))
    gain = random.normal(0.2, 0.01, (500, 5))
    given = Drawn(np.full(5, 0.8), none.resampled + gain)
    half = Drawn(np.full(5, 0.7), none.resampled + gain / 2)
    assert recovered(given, given, none)[:3] == pytest.approx((1, 1, 1))
    assert recovered(given, half, none)[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert recovered(given, none, none)[:3] == pytest.approx((0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_the_interval_of_the_share_covers_it_where_seeds_differ_much(num_seeds: int) -> None:
    random, covered = np.random.default_rng(num_seeds), 0
    for _ in range(60):
        seeds = random.normal(0, 0.02, (2, num_seeds))
        rows = random.normal(0, 0.004, (2, 101, 1))
        gain, kept = (
            Drawn(mean + of_seeds + of_rows[0], mean + of_seeds + of_rows[0] + of_rows[1:])
            for mean, of_seeds, of_rows in zip((0.2, 0.12), seeds, rows, strict=True)
        )
        none = Drawn(np.zeros(num_seeds), np.zeros((100, num_seeds)))
        share = recovered(gain, kept, none)
        covered += share.low <= 0.6 <= share.high
    assert covered >= 0.88 * 60


def test_of_no_gain_no_share_is_kept() -> None:
    random = np.random.default_rng(0)
    none = Drawn(np.full(5, 0.6), random.normal(0.6, 0.01, (500, 5)))
    given = Drawn(none.here + 0.001, random.normal(0.6, 0.01, (500, 5)))
    assert np.isnan(recovered(given, given, none)).all()


def test_what_one_seed_says_is_told_apart(posts: list[Post]) -> None:
    truth, given, none = World(posts, worth=1.5).drawn(np.random.default_rng(0), num_seeds=1)
    found = compared(
        [Arm("ours", "with", given), Arm("ours", "without", none)],
        truth,
        positive=1,
        num_resamples=200,
    )
    assert "1 seed, which says nothing of how far another would be" in paragraph(found)


def test_more_than_two_classes_are_compared_too() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 120)

    def seeds(strength: float) -> list[Scores]:
        raw = [np.eye(3)[truth] * strength + random.dirichlet(np.ones(3), 120) for _ in range(3)]
        return [Scores(each / each.sum(1, keepdims=True), None) for each in raw]

    arms = [Arm("ours", "with", seeds(1.0)), Arm("ours", "without", seeds(0.1))]
    found = compared(arms, truth, positive=None, num_resamples=200)
    assert "positive_f1" not in found.lines[0].metrics
    assert all(each.gap.value > 0 and each.p_holm < 0.05 for each in found.differences)
