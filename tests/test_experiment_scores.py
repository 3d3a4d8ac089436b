"""Scores that trials keep: read as they were written, refused where they are of something else."""

import json
from pathlib import Path

import numpy as np
import pytest

from miko_clf.data.held import fingerprint
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.experiment import measure, plan
from miko_clf.experiment.plan import Experiment, Source

POSTS = [Post(id=f"p{row}", text=f"text {row}", label="ab"[row % 2]) for row in range(6)]


def kept(out: Path, threshold: float | None, **changed: object) -> Experiment:
    """An experiment of one trial whose scores are these."""
    experiment = Experiment(("text-only-minilm",), Source("posts"), seeds=1)
    (each,) = experiment.trials()
    path = plan.scores_of(out, each, "val")
    path.parent.mkdir(parents=True)
    said = {"probabilities": [[0.9, 0.1]] * len(POSTS), "threshold": threshold}
    scores = {
        "rows": list(range(len(POSTS))),
        "labels": ["a", "b"],
        "fingerprint": fingerprint(POSTS),
        "seconds": 1.0,
        "arms": {"without": said},
    }
    path.write_text(json.dumps({k: v for k, v in {**scores, **changed}.items() if v is not None}))
    return experiment


@pytest.mark.parametrize(("threshold", "decided"), [(0.0, 1), (0.05, 1), (0.5, 0), (None, 0)])
def test_a_threshold_is_taken_as_it_is_and_half_where_there_is_none(
    tmp_path: Path, threshold: float | None, decided: int
) -> None:
    experiment = kept(tmp_path, threshold)
    (arm,) = measure.arms(tmp_path, experiment, "val", POSTS)
    np.testing.assert_array_equal(arm.seeds[0].decided(1), np.full(len(POSTS), decided))


def test_scores_of_other_posts_are_refused(tmp_path: Path) -> None:
    experiment = kept(tmp_path, 0.5, fingerprint="of others")
    with pytest.raises(BundleError, match="scores other posts"):
        measure.arms(tmp_path, experiment, "val", POSTS)


@pytest.mark.parametrize("name", ["rows", "labels", "fingerprint", "seconds", "arms"])
def test_scores_that_lack_a_part_are_one_line(tmp_path: Path, name: str) -> None:
    experiment = kept(tmp_path, 0.5, **{name: None})
    with pytest.raises(BundleError, match="not readable"):
        measure.arms(tmp_path, experiment, "val", POSTS)
