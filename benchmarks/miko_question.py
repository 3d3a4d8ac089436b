"""MIKO's question on MIKO's own text: does sarcasm show better with the intentions than without?

    python benchmarks/miko_question.py ../shared/data/mmsd2 ../shared/data/miko --out runs/miko

The posts whose intentions come from MIKO_benchmark.json and those of the two make-up files are
never pooled. What was run already is not run again, so a run that was stopped goes on.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, surroundings

from miko_clf.data.controls import apply_control
from miko_clf.data.dataset import DataFolder, open_folder
from miko_clf.data.post import Post
from miko_clf.data.splits import normalise_post_text
from miko_clf.evaluate import evaluator
from miko_clf.evaluate.comparison import SeedArm, compare_arms
from miko_clf.evaluate.formatting import convert_to_json
from miko_clf.evaluate.predictions import number_groups
from miko_clf.evaluate.report import write_report
from miko_clf.evaluate.seeds import SeedPredictions, summarise_seeds
from miko_clf.experiment.compare import collect_arms, compare, serialise_comparison
from miko_clf.experiment.design import Experiment, Trial, read_experiment
from miko_clf.experiment.folds import (
    OUT_OF_FOLD,
    read_labelled_posts,
    split_trial_posts,
)
from miko_clf.manifest import write_json, write_text

FOLDS = 5
LABELS = ("not_sarcastic", "sarcastic")
RECIPES = ("linear-minilm-with", "minilm-with-few-posts")
ARMS = ("with", "without", "shuffled")
SOURCES = {
    "benchmark": ("MIKO_benchmark.json",),
    "make-up": (
        "missing_data_train_intention_make_up.jsonl",
        "missing_data_lost_intention_make_up.jsonl",
    ),
}


def main() -> None:
    """Run what is missing and write every figure."""
    given = _arguments()
    started = time.monotonic()
    every = [post for post in _data(given).read("train") if post.intentions]
    found: dict[str, Any] = {}
    for name, files in SOURCES.items():
        chosen = [post for post in every if _file(post) in files]
        found[name] = _source(name, chosen, given)
    result = {
        **surroundings(f"python benchmarks/miko_question.py MMSD2 MIKO --seeds {given.seeds}"),
        "folds": FOLDS,
        "seeds": given.seeds,
        "resamples": given.resamples,
        "seconds_of_this_run": round(time.monotonic() - started),
        "sources": found,
    }
    write_json(ROOT / "benchmarks" / "results" / "systems" / "miko-question.json", result)
    for name, each in found.items():
        print(f"{name}: {each['report']['words']}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("mmsd2", type=Path, help="folder of MMSD2.0")
    parser.add_argument("miko", type=Path, help="folder of MIKO's files")
    parser.add_argument("--seeds", type=int, default=5, help="each draws its own folds")
    parser.add_argument("--out", type=Path, required=True, help="folder of what was run")
    parser.add_argument("--jobs", type=int, help="trials at a time (default: one a core)")
    parser.add_argument("--resamples", type=int, default=1000, help="default: 1000")
    return parser.parse_args()


def _data(given: argparse.Namespace) -> DataFolder:
    """Return MMSD2.0 with MIKO's files laid beside it."""
    folder = given.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (("text_json_final", given.mmsd2 / "text_json_final"), ("miko", given.miko)):
        if not (folder / name).exists():
            (folder / name).symlink_to(path.resolve())
    return open_folder(folder)


def _source(name: str, chosen: Sequence[Post], given: argparse.Namespace) -> dict[str, Any]:
    """Compare on the posts of one source; the words of a description are left out."""
    file = given.out / "posts" / f"{name}.jsonl"
    if not file.exists():
        write_text(file, "".join(map(_line, chosen)))
    report = compare(
        RECIPES,
        file,
        given.out / name,
        seeds=given.seeds,
        arms=ARMS,
        folds=FOLDS,
        jobs=given.jobs,
        cache=given.out / "features",
        positive=LABELS[1],
        leaks=True,
        num_resamples=given.resamples,
        command=f"python benchmarks/miko_question.py MMSD2 MIKO --seeds {given.seeds}",
    )
    experiment = read_experiment(given.out / name)
    every = read_labelled_posts(experiment.source, OUT_OF_FOLD)
    truth = np.array([int(post.label == LABELS[1]) for post in every])
    files = np.array([_file(post) for post in every])
    words, groups = _words(experiment, every), number_groups(every)
    given_too = {"positive": 1, "groups": groups, "num_resamples": given.resamples}
    found = {
        "posts": len(every),
        "sarcastic": int(truth.sum()),
        "by_file": {
            str(file): {"posts": count, "sarcastic": int(truth[files == file].sum())}
            for file, count in Counter(files).items()
        },
        "report": convert_to_json(report.findings["comparison"]),
        "tf_idf": convert_to_json(serialise_comparison(compare_arms(words, truth, **given_too))),
    }
    if len(set(files)) > 1:
        arms = [*collect_arms(given.out / name, experiment, OUT_OF_FOLD, every)[1], *words]
        inside = compare_arms([_inside(arm, files) for arm in arms], truth, **given_too)
        found["within_files"] = convert_to_json(serialise_comparison(inside))
        found["file_from"] = _telling_files(experiment, every, files)
        lines = _warnings(found)
        report = replace(report, findings={**report.findings, "audit": {"lines": lines}})
    write_report(report, given.out / name / "report")
    return found


def _warnings(found: dict[str, Any]) -> list[str]:
    """Return what a page on several files must say beside its verdict."""
    shares = " and ".join(
        f"{each['sarcastic']} of {each['posts']} posts of {file}"
        for file, each in found["by_file"].items()
    )
    (inside,) = [
        each
        for each in found["within_files"]["differences"]
        if (each["a"], each["b"], each["metric"])
        == (*(f"{RECIPES[0]}/{x}" for x in ARMS[:2]), "auroc")
    ]
    return [
        f"The intentions come from several files, and {shares} are sarcastic; TF-IDF tells from "
        f"the intentions which file a post is of (AUROC {found['file_from']['intentions']:.3f}).",
        f"Ranked within files, AUROC with them minus without is {inside['value']:+.3f} "
        f"[{inside['low']:+.3f}, {inside['high']:+.3f}]: so a gain may be of where the intentions "
        "come from, and not of what they say.",
    ]


def _words(experiment: Experiment, every: Sequence[Post]) -> list[SeedArm]:
    """Return TF-IDF with logistic regression on the same folds, in each arm and of intentions."""
    system = experiment.systems()[0]
    said: dict[str, list[SeedPredictions]] = {arm: [] for arm in (*ARMS, "intentions alone")}
    for seed in range(experiment.seeds):
        scores = {arm: np.full((len(every), 2), np.nan) for arm in said}
        strata = np.zeros(len(every), dtype=np.int64)
        for fold in range(FOLDS):
            side = split_trial_posts(experiment, Trial(system, seed, fold), OUT_OF_FOLD)
            learn, strata[side.rows] = [*side.train, *side.val], fold
            for arm, filled in scores.items():
                filled[side.rows] = _tfidf(learn, side.ask, arm, seed)
        for arm, filled in scores.items():
            said[arm].append(SeedPredictions(filled, 0.5, strata, strata))
    return [SeedArm("TF-IDF + logistic", arm, seeds) for arm, seeds in said.items()]


def _tfidf(learn: Sequence[Post], ask: Sequence[Post], arm: str, seed: int) -> np.ndarray:
    truth = np.array([int(post.label == LABELS[1]) for post in learn])
    if arm == "shuffled":
        learn, ask = (apply_control(each, "shuffled", learn, seed) for each in (learn, ask))

    def texts(side: Sequence[Post]) -> list[str]:
        parts = [
            ("" if arm == "intentions alone" else post.text or "", *_said(post, arm))
            for post in side
        ]
        return [" ".join(each) for each in parts]

    return evaluator.predict_tfidf_logistic(texts(learn), truth, texts(ask), 2)


def _said(post: Post, arm: str) -> list[str]:
    return [] if arm == "without" else [one.text for one in post.intentions]


def _inside(arm: SeedArm, files: np.ndarray) -> SeedArm:
    """Return the arm with each post ranked among those of its fold and its file."""
    place = np.unique(files, return_inverse=True)[1]
    seeds = [
        one._replace(strata=place if one.strata is None else one.strata * len(files) + place)
        for one in arm.seeds
    ]
    return SeedArm(arm.system, arm.arm, seeds, arm.seconds)


def _telling_files(
    experiment: Experiment, every: Sequence[Post], files: np.ndarray
) -> dict[str, float]:
    """Return how well TF-IDF tells which file a post came from, by its text and its intentions."""
    first = (files == sorted(set(files))[0]).astype(int)
    system, found = experiment.systems()[0], {}
    for what in ("text", "intentions"):
        texts = [
            post.text or "" if what == "text" else " ".join(one.text for one in post.intentions)
            for post in every
        ]
        scores = np.full((len(every), 2), np.nan)
        for fold in range(FOLDS):
            ask = split_trial_posts(experiment, Trial(system, 0, fold), OUT_OF_FOLD).rows
            learn = np.setdiff1d(np.arange(len(every)), ask)
            scores[ask] = evaluator.predict_tfidf_logistic(
                [texts[row] for row in learn], first[learn], [texts[row] for row in ask], 2
            )
        found[what] = summarise_seeds([SeedPredictions(scores, 0.5)], first, positive=1)[
            "auroc"
        ].mean
    return found


def _line(post: Post) -> str:
    fields = post.model_dump(mode="json", exclude_defaults=True, exclude={"description"})
    return json.dumps({**fields, "group": normalise_post_text(post)}, ensure_ascii=False) + "\n"


def _file(post: Post) -> str:
    return str((post.intentions[0].provenance or {})["source"])


if __name__ == "__main__":
    main()
