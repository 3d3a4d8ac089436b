"""Calibration in use: other priors, abstention, earlier bundles, what a report says of it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from miko_clf import bundle as bundles
from miko_clf import manifest, metrics
from miko_clf.data.post import Post
from miko_clf.data.readers import read_posts
from miko_clf.errors import BundleError, MikoError
from miko_clf.evaluate.calibration import fit_conformal_quantile, select_conformal_labels
from miko_clf.evaluate.predictions import Predictor, predict_system
from miko_clf.evaluate.reliability import measure_calibration
from miko_clf.questions import Question, Questions, make_single_choice
from miko_clf.serve.engine import Engine
from miko_clf.serve.postprocess import PriorCorrection, estimate_prior, move_prior
from tests.support.command_line import assert_one_line_error, run_command

ARMS = ("with", "student", "without")


@pytest.fixture(scope="module")
def posts(world: Path) -> dict[str, list[Post]]:
    return {
        split: list(read_posts(world / "sarcasm" / f"{split}.jsonl"))
        for split in ("train", "val", "test")
    }


def changed(bundle: Path, to: Path, **keys: Any) -> Path:
    """Return a copy of a bundle with other entries in calibration.json, null to take one away."""
    copy = Path(shutil.copytree(bundle, to))
    path = copy / bundles.CALIBRATION_FILE
    found = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    facts = json.loads((copy / manifest.MANIFEST_FILE).read_text())
    manifest.write_manifest(copy, {key: value for key, value in facts.items() if key != "files"})
    return copy


def test_a_calibration_of_an_earlier_version_still_reads_and_serves(
    bundle: Path, tmp_path: Path, posts: dict[str, list[Post]]
) -> None:
    gone = dict.fromkeys(["aim", "reached", "prior"])
    older = changed(bundle, tmp_path / "older", **gone)
    assert json.loads((older / bundles.CALIBRATION_FILE).read_text()).keys() == {
        "temperature", "positive", "arm", "thresholds",
    }  # fmt: skip
    opened = bundles.load_bundle(older)
    assert (opened.calibration.method, opened.calibration.prior) == ("temperature", None)
    few = posts["test"][:5]
    assert Engine.open(older, threads=1).score(few) == Engine.open(bundle, threads=1).score(few)
    with pytest.raises(BundleError, match=r"no prior.*fit it again"):
        Engine.open(older, prior=0.2)


def positives(bundle: Path, posts: dict[str, list[Post]]) -> np.ndarray:
    """Return what a bundle says of the test posts, in the arm that each is read in."""
    found = Engine.open(bundle, threads=1).score(posts["test"])
    return np.array([one.probabilities["sarcastic"] for one in found])


def world_of(share: float, seed: int, count: int = 30000) -> tuple[np.ndarray, np.ndarray]:
    """Return what tells two classes apart, and the classes, a share of them positive."""
    random = np.random.default_rng(seed)
    truth = random.random(count) < share
    return random.normal(size=count) + 1.5 * truth, truth


def for_share(seen: np.ndarray, share: float) -> np.ndarray:
    """Return the true probability of the positive class where it has that share."""
    return expit(1.5 * seen - 1.125 + logit(share))


@pytest.fixture(scope="module")
def moved(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(bundle, tmp_path_factory.mktemp("prior") / "moved", prior=0.35)


@pytest.mark.parametrize("share", [0.05, 0.35, 0.9])
def test_a_prior_recovers_the_probabilities_of_posts_of_another_share(
    moved: Path, share: float
) -> None:
    seen, _ = world_of(share, 0)
    prior = PriorCorrection(bundles.load_bundle(moved), share)
    found = move_prior(for_share(seen, 0.35)[:500], prior.own, prior.share)
    np.testing.assert_allclose(found, for_share(seen, share)[:500], rtol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.35, 0.9])
def test_the_prior_of_unlabelled_posts_is_estimated_from_their_scores(share: float) -> None:
    seen, _ = world_of(share, 1)
    assert estimate_prior(for_share(seen, 0.35), 0.35).share == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("share", "count"), [(0.05, 400), (0.35, 100), (0.9, 400)])
def test_the_interval_of_an_estimated_prior_holds_the_true_one(share: float, count: int) -> None:
    held = 0
    for seed in range(100):
        seen, _ = world_of(share, seed, count)
        found = estimate_prior(for_share(seen, 0.35), 0.35)
        assert found.low <= found.share <= found.high
        held += found.low <= share <= found.high
    assert 0.90 <= held / 100 <= 0.99


def test_posts_that_tell_nothing_leave_the_prior_open() -> None:
    found = estimate_prior(np.full(20, 0.35), 0.35)
    assert found.low < 0.001
    assert found.high > 0.999


def test_a_prior_moves_probabilities_and_threshold_and_leaves_the_decisions(
    moved: Path, posts: dict[str, list[Post]]
) -> None:
    plain, rare = (Engine.open(moved, threads=1, prior=prior) for prior in (None, 0.05))
    before, after = plain.score(posts["test"]), rare.score(posts["test"])
    assert [one.label for one in before] == [one.label for one in after]
    for one, other in zip(before, after, strict=True):
        stated = other.probabilities["sarcastic"]
        assert stated < one.probabilities["sarcastic"]
        assert other.threshold < one.threshold
        assert (other.label == "sarcastic") == (stated >= other.threshold)
        assert sum(other.probabilities.values()) == pytest.approx(1)


def test_where_costs_set_the_threshold_a_prior_moves_the_decisions(
    bundle: Path, tmp_path: Path, posts: dict[str, list[Post]]
) -> None:
    limit = float(np.median(positives(bundle, posts)))
    cost, limits = {"name": "cost", "value": limit}, dict.fromkeys(ARMS, limit)
    path = changed(bundle, tmp_path / "cost", prior=0.5, aim=cost, thresholds=limits)
    counts = []
    for prior in (0.05, 0.5, 0.95):
        found = Engine.open(path, threads=1, prior=prior).score(posts["test"])
        assert {one.threshold for one in found} == {limit}
        counts.append(sum(one.label == "sarcastic" for one in found))
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_prior_that_is_no_share_is_refused(bundle: Path, share: float) -> None:
    with pytest.raises(MikoError, match="name a share between 0 and 1"):
        Engine.open(bundle, prior=share)


def test_a_prior_is_refused_where_more_than_two_labels_or_several_questions_are_answered(
    bundle: Path,
) -> None:
    opened = bundles.load_bundle(bundle)
    task = Questions((Question(name="tone", labels=("no", "yes")),))
    for questions in (
        make_single_choice("abc"),
        task,
        Questions((*task, *make_single_choice("ab"))),
    ):
        with pytest.raises(MikoError, match="one question of two labels; this bundle answers"):
            PriorCorrection(replace(opened, questions=questions), 0.3)


def test_score_takes_a_prior_or_estimates_it(
    bundle: Path, world: Path, tmp_path: Path, posts: dict[str, list[Post]]
) -> None:
    stated = positives(bundle, posts)
    own = float(stated.mean())  # from here the estimate is the mean itself, and inside 0 to 1
    path = changed(bundle, tmp_path / "moved", prior=own)
    source, out = world / "sarcasm" / "test.jsonl", tmp_path / "out" / "scores.jsonl"
    ended = run_command("score", path, source, "-o", out, "--prior", "auto")
    assert ended.code == 0, ended.err
    assert f"corrected for an estimated prior of {own:.3f}" in ended.out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    found = [row["probabilities"]["sarcastic"] for row in rows]
    assert found == pytest.approx(stated, abs=1e-3)
    assert [path.name for path in out.parent.iterdir()] == ["scores.jsonl"]
    assert run_command("score", path, source, "-o", out, "--prior", "0.1").code == 0
    rare = Engine.open(path, threads=1, prior=0.1).score(posts["test"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["probabilities"] for row in rows] == [one.probabilities for one in rare]
    ended = run_command("score", path, source, "-o", out, "--prior", "often")
    assert (ended.code, "neither a share nor auto" in ended.err) == (2, True)
    assert_one_line_error(
        run_command("score", path, source, "-o", out, "--prior", "1.5"), "a share between"
    )


def test_the_quantile_is_mapies_and_sets_hold_the_label_as_often_as_promised() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(6000, 3)) * 1.5
    truth = (random.random((6000, 1)) > softmax(logits, axis=1).cumsum(1)[:, :-1]).sum(1)
    stated = softmax(logits, axis=1)
    for level in (0.8, 0.95):
        quantile = fit_conformal_quantile(stated[:3000], truth[:3000], level)
        assert quantile is not None
        sets = select_conformal_labels(stated[3000:], quantile)
        assert sets[range(3000), truth[3000:]].mean() == pytest.approx(level, abs=0.025)
    scores = np.sort(1 - stated[range(3000), truth[:3000]])
    assert quantile == pytest.approx(scores[int(np.ceil(0.95 * 3001)) - 1])
    assert fit_conformal_quantile(stated[:9], truth[:9], 0.9) is None
    assert fit_conformal_quantile(stated[:50], np.zeros(50, int), 0.9) is None


def test_a_score_says_whether_its_label_is_alone_in_the_conformal_set(
    bundle: Path, tmp_path: Path, posts: dict[str, list[Post]]
) -> None:
    stated = positives(bundle, posts)
    quantile = 1 - float(np.median(np.minimum(stated, 1 - stated)))
    conformal = {"level": 0.9, "quantiles": dict.fromkeys(ARMS, quantile)}
    path = changed(bundle, tmp_path / "unsure", conformal=conformal, prior=0.5)
    found = Engine.open(path, threads=1).score(posts["test"])
    for one in found:
        held = [name for name, stated in one.probabilities.items() if stated >= 1 - quantile - 1e-8]
        assert one.certain == (held == [one.label])
        assert json.loads(one.model_dump_json())["certain"] is one.certain
    assert {one.certain for one in found} == {True, False}
    (moved,) = Engine.open(path, threads=1, prior=0.2).score(posts["test"][:1])
    assert moved.certain is None
    (plain,) = Engine.open(bundle, threads=1).score(posts["test"][:1])
    assert "certain" not in json.loads(plain.model_dump_json())


def test_a_report_compares_calibrated_with_bare_probabilities(
    bundle: Path, tmp_path: Path, posts: dict[str, list[Post]]
) -> None:
    conformal = {"level": 0.8, "quantiles": dict.fromkeys(ARMS, 0.5)}
    path = changed(bundle, tmp_path / "cold", temperature=0.1, conformal=conformal)
    predictor = Predictor(bundles.load_bundle(path), posts["test"], None)
    (part,) = predictor.feed.truth.split_by_question()
    given = predict_system(predictor.bundle, predictor, part, posts["train"], None)
    assert given is not None
    found = measure_calibration(given, num_resamples=50)
    sides = {"before": softmax(predictor.logits("with"), axis=1), "after": given.probabilities}
    for side, stated in sides.items():
        wanted = metrics.measure_classification(stated, given.truth, positive=1, names=["ece"])[
            "ece"
        ]
        value, low, high = found.ece[side]
        assert value == pytest.approx(wanted, abs=1e-6)
        assert low < high
        bins = found.reliability[side]
        assert sum(each["rows"] for each in bins) == len(posts["test"])
        mean = sum(each["rows"] * each["stated"] for each in bins) / len(posts["test"])
        assert mean == pytest.approx(stated[:, 1].mean())
        share = sum(each["rows"] * each["true"] for each in bins) / len(posts["test"])
        assert share == pytest.approx(given.truth.mean())
    assert found.ece["after"] != found.ece["before"]
    assert (found.method, found.aim, found.threshold) == (
        "temperature",
        "macro f1",
        given.threshold,
    )
    assert found.reached is not None
    wanted = metrics.measure_classification(
        given.probabilities, given.truth, positive=1, threshold=given.threshold
    )
    assert found.reached["score"] == pytest.approx(wanted["macro_f1"], abs=1e-6)
    assert found.on_validation == given.opened.calibration.reached["with"].model_dump()
    assert found.conformal is not None
    held = select_conformal_labels(given.probabilities, 0.5)
    assert found.conformal.coverage.value == held[range(len(held)), given.truth].mean()
    unsure = held[range(len(held)), given.decided] == 0
    assert found.conformal.abstained.value == unsure.mean()
    assert json.dumps(asdict(found), allow_nan=False)
