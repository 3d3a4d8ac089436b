"""The verdict over many trainings of the demo, and the best that is possible on its posts."""

import pytest
from demo import ARMS, list_faults, measure_best

from miko_clf.data.dataset import open_folder
from miko_clf.data.demo.world import DEMO_CLASSES, compute_best_auroc, write_world


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = write_world(tmp_path_factory.mktemp("demo") / "world")
    return measure_best(open_folder(folder / "both").read("test"))


def figures(best: dict[str, float], **changed: float) -> dict[str, dict[str, float]]:
    """Return what a training scores that reaches the best there is, but for what is changed."""
    return {name: {"auroc": changed.get(name, value)} for name, value in best.items()}


def test_the_best_on_the_test_posts_is_near_the_best_by_construction(
    best: dict[str, float],
) -> None:
    assert set(best) == {f"{task}/{arm}" for task in DEMO_CLASSES for arm in ARMS}
    for task in DEMO_CLASSES:
        for arm in ("with", "masked"):
            possible = compute_best_auroc(task, intentions=arm == "with")
            assert best[f"{task}/{arm}"] == pytest.approx(possible, abs=0.02)
    assert best["harm/student"] == best["harm/masked"] == best["harm/masked, image only"]
    assert best["harm/masked, text only"] == best["sarcasm/masked, image only"] == 0.5


def test_a_training_that_reaches_the_best_has_no_fault(best: dict[str, float]) -> None:
    assert list_faults(figures(best), best) == []


def test_a_training_at_chance_and_one_that_knows_too_much_have_faults(
    best: dict[str, float],
) -> None:
    changed = {"sarcasm/masked": 0.96, "harm/with": best["harm/masked"], "harm/masked": 0.9}
    assert list_faults(figures(best, **changed), best) == [
        "sarcasm/masked: 0.960",
        "harm/with: 0.778",
        "harm/masked: 0.900",
    ]
