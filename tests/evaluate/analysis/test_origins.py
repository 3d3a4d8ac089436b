"""Scores by month and by source: which posts they are of, and that a planted fall is found."""

import json
from pathlib import Path

import numpy as np
import pytest

import miko_clf
from miko_clf import metrics
from miko_clf.bundle import load_bundle
from miko_clf.data.audit.audit import audit_posts
from miko_clf.data.audit.overlaps import read_compared_posts
from miko_clf.data.dataset import open_folder
from miko_clf.data.demo.dated import NEW_WORDS, build_dated_posts
from miko_clf.data.post import Post
from miko_clf.data.sets.base import DatedSplit
from miko_clf.evaluate.analysis.origins import (
    analyse_origins,
    measure_periods,
    measure_sources,
    merge_months,
    name_month,
)
from miko_clf.evaluate.analysis.robustness import measure_robustness
from miko_clf.evaluate.evaluator import AnalysisOptions, evaluate_bundles
from miko_clf.evaluate.predictions import Predictor, list_questions, predict_system
from miko_clf.evaluate.report import print_report, write_report
from tests.support.predictions import make_noisy_scores, make_subject
from tests.support.worded_posts import make_words_recipe


def make_dated_answers(
    per_month: int = 120, reaches: tuple[float, ...] = (3.0, 1.5, 0.0), **fields: str
) -> tuple[list[Post], np.ndarray, np.ndarray]:
    """Return posts of some months, and scores that know less of the label month by month."""
    truth = np.tile([0, 1], per_month * len(reaches) // 2)
    said = np.concatenate([
        make_noisy_scores(truth[:per_month], reach, seed) if reach else np.random.default_rng(seed)
        .random(per_month)
        for seed, reach in enumerate(reaches)
    ])  # fmt: skip
    posts = [
        Post(id=f"p{n}", text="x", date=f"2021-{6 + n // per_month:02}-{1 + n % 28:02}", **fields)
        for n in range(len(truth))
    ]
    return posts, truth, said


def test_a_system_that_gets_worse_month_by_month_is_seen_to() -> None:
    posts, truth, said = make_dated_answers()
    found = analyse_origins(make_subject(posts, truth, said), 300)["over_time"]
    first, second, third = found["rows"]
    assert [row["value"] for row in found["rows"]] == ["2021-06", "2021-07", "2021-08"]
    assert [(row["posts"], row["positives"]) for row in found["rows"]] == [(120, 60)] * 3
    assert first["metrics"]["auroc"].low > second["metrics"]["auroc"].high
    assert second["metrics"]["auroc"].low > third["metrics"]["auroc"].high
    assert first["change"] == {}
    assert third["change"]["auroc"].high < 0
    assert found["words"].startswith("AUROC falls from 2021-06 to 2021-08: -0.")


def test_a_system_that_stays_as_it_is_is_not_said_to_change() -> None:
    posts, truth, said = make_dated_answers(reaches=(1.5, 1.5, 1.5))
    found = analyse_origins(make_subject(posts, truth, said), 300)["over_time"]
    assert found["words"].startswith("No evidence that AUROC changes")


def test_a_month_scores_what_the_metrics_say_of_its_posts_alone() -> None:
    posts, truth, said = make_dated_answers()
    seen = make_subject(posts, truth, said)
    july = slice(120, 240)
    told = metrics.measure_classification(seen.probabilities[july], truth[july], positive=1)
    found = measure_periods(seen, num_resamples=20)[1]
    for name in ("macro_f1", "auroc"):
        assert found.metrics[name].value == pytest.approx(told[name], abs=1e-6)


def test_posts_of_a_thread_are_drawn_together_month_by_month_too() -> None:
    posts, truth, said = make_dated_answers(reaches=(1.5, 1.5))
    apart = measure_periods(make_subject(posts, truth, said), num_resamples=400)
    thrice = [
        p.model_copy(update={"id": f"{p.id}{n}", "group": p.id}) for n in "abc" for p in posts
    ]
    subject = make_subject(thrice, np.tile(truth, 3), np.tile(said, 3))
    for once, drawn in zip(apart, measure_periods(subject, num_resamples=400), strict=True):
        assert tuple(drawn.metrics["auroc"]) == pytest.approx(
            tuple(once.metrics["auroc"]), abs=0.02
        )


def test_months_of_few_posts_are_taken_together_with_their_neighbours() -> None:
    counts = {"2021-06": 5, "2021-07": 40, "2021-08": 31, "2021-10": 10, "2021-12": 9}
    assert merge_months(counts, 30) == [["2021-06", "2021-07"], ["2021-08", "2021-10", "2021-12"]]
    assert merge_months({"2021-06": 5}, 30) == [["2021-06"]]


def test_a_month_is_that_of_utc_and_one_period_alone_says_nothing() -> None:
    assert name_month(Post(id="a", text="x", date="2021-07-01T00:30:00+02:00")) == "2021-06"
    posts, truth, said = make_dated_answers(reaches=(1.5,))
    assert measure_periods(make_subject(posts, truth, said), num_resamples=20) == []
    assert analyse_origins(make_subject(posts, truth, said), 20) == {}


def test_sources_are_scored_apart_and_those_of_few_posts_are_counted() -> None:
    posts, truth, said = make_dated_answers(reaches=(3.0, 0.0))
    rows = [
        p.model_copy(update={"source": "forum" if n < 120 else "gazette" if n < 235 else "zine"})
        for n, p in enumerate(posts)
    ]
    found, few = measure_sources(make_subject(rows, truth, said), num_resamples=200)
    assert few == {"zine": 5}
    assert [(one.value, one.posts) for one in found] == [("forum", 120), ("gazette", 115)]
    assert found[0].metrics["auroc"].low > found[1].metrics["auroc"].high
    assert found[0].change == found[1].change == {}


DATED = DatedSplit("2024-07-01")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A year of posts without their pictures, whose words change from July on."""
    file = tmp_path_factory.mktemp("year") / "posts.jsonl"
    posts = [post.model_copy(update={"image": None}) for post in build_dated_posts(num_posts=1600)]
    lines = [post.model_dump_json(exclude_none=True) + "\n" for post in posts]
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def bundles(year: Path) -> dict[bool, Path]:
    """A system that learned the words of the first half of the year, with folding and without."""
    made = {}
    for fold in (False, True):
        recipe = make_words_recipe(
            text={"source": "tiny", "frozen": False, "width": 32, "layers": 1, "vocabulary": 400,
                  "fold": fold},
            task={"epochs": 5, "optimiser": {"rate": 0.01}, "early": {"metric": "loss"}},
            batch_size=32,
        )  # fmt: skip
        made[fold] = miko_clf.fit(recipe, open_folder(year, dated=DATED), year.parent / f"b{fold}")
    return made


def test_a_year_in_which_words_change_shows_the_fall_and_its_cause_by_name(
    year: Path, bundles: dict[bool, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate_bundles(
        [bundles[False]],
        open_folder(year, dated=DATED),
        "test",
        cache=None,
        num_resamples=200,
        command="test",
        analyses=AnalysisOptions(),
    )
    rows = {row["value"]: row["metrics"]["auroc"] for row in report.findings["over_time"]["rows"]}
    months = [f"2024-{month:02}" for month in range(8, 13)]
    assert list(rows) == ["2024-06/2024-07", *months]  # of June only what threads brought along
    assert rows["2024-06/2024-07"].low > rows["2024-12"].high
    assert (
        "AUROC falls from 2024-06/2024-07 to 2024-12: -0." in report.findings["over_time"]["words"]
    )
    assert {row["value"] for row in report.findings["by_source"]["rows"]} == {"forum", "gallery"}
    write_report(report, year.parent / "report")
    print_report(report)
    shown = capsys.readouterr().out
    for text in (shown, *((year.parent / "report" / f"report.{kind}").read_text()
                          for kind in ("html", "md"))):  # fmt: skip
        assert "AUROC falls from 2024-06/2024-07 to 2024-12: -0." in text
        assert "2024-12" in text
    assert any(
        "its words tell test from train" in line for line in report.findings["audit"]["lines"]
    )

    audit = audit_posts(read_compared_posts(year, dated=DATED))
    drift = {drift.split: drift for drift in audit.drifts}
    assert drift["val"].risen == ()
    risen = {shift.word for shift in drift["test"].risen}
    assert len(risen) > 3
    assert risen <= set(NEW_WORDS.values())
    moved = {(s.split, s.label): s for s in audit.shifts}["test", "complaint"]
    assert moved.share > moved.train_share + 0.05
    assert any("complaint is" in line for line in audit.warnings)


def test_a_system_that_folds_loses_nothing_by_disguised_words_and_one_that_does_not_does(
    year: Path, bundles: dict[bool, Path]
) -> None:
    data = open_folder(year, dated=DATED)
    val, train = data.read("val"), data.read("train")
    moved = {}
    for fold, path in bundles.items():
        opened = load_bundle(path)
        assert json.loads((path / "preprocess.json").read_text())["fold"] is fold
        (task,) = list_questions(val, train, opened.questions, year, "val")
        seen = predict_system(opened, Predictor(opened, val, None), task.here, task.train, None)
        assert seen is not None
        effects = {(e.change, e.level): e for e in measure_robustness(seen, num_resamples=100)}
        moved[fold] = effects["disguised", "50%"].difference["auroc"]
    assert moved[False].high < 0
    assert tuple(moved[True]) == (0, 0, 0)
