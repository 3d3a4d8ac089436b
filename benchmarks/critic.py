"""How well the critic ranks judged intentions: python benchmarks/critic.py --data F --text TOWER.

MIKO_benchmark.json holds 1,000 posts with ten intentions each, marked valid or not by people. Every
probability is of a post that neither its model nor the choice of its hyper-parameters saw: five
folds by post, and folds within them, drawn anew from each of several seeds.
"""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV

from miko_clf import manifest, metrics
from miko_clf.data.post import RELATIONS
from miko_clf.distil.kb.import_miko import read_release
from miko_clf.distil.relations import place_sentences
from miko_clf.encode import build
from miko_clf.encode.tower import TextTower
from miko_clf.intervals import ResampleWeights, compute_percentile_interval, draw_resamples
from miko_clf.progress import show_progress
from miko_clf.recipe import sections
from miko_clf.train.critic import (
    CriticExample,
    extract_critic_features,
    fit_critic_head,
    split_critic_folds,
)

OUT = Path(__file__).parent / "results" / "distil" / "critic.json"
NUM_FOLDS = 5
KEPT = 0.8
CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CRITIC = "critic"
RIVALS = (
    "critic of the intention alone",
    "TF-IDF of the intention",
    "TF-IDF of post and intention",
    "share of the relation",
)
MEASURED = ("auroc", "average_precision", "brier", "kept_precision", "auroc_within_posts")
Scores = Mapping[str, Float[np.ndarray, "seed row"]]
Rows = Int[np.ndarray, " row"]
Predict = Callable[[Rows, Rows, int], Float[np.ndarray, " row"]]


class Judged(NamedTuple):
    """Intentions that people judged, as arrays; `post` numbers the posts from 0."""

    truth: Int[np.ndarray, " row"]
    post: Int[np.ndarray, " row"]
    relation: NDArray[np.str_]


def main() -> None:
    """Write the report, and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MIKO_benchmark.json")
    parser.add_argument(
        "--text", required=True, help="a text tower of transformers, folder or name"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seeds", type=int, default=5, help="how many times folds are drawn")
    given = parser.parse_args()
    section = sections.TextTowerSection(source="transformers", name=given.text)
    start = time.monotonic()
    examples = read_examples(given.data)
    report = assess(examples, build.build_text_tower(section, []), num_seeds=given.seeds)
    facts = {
        "command": shlex.join(["python", *sys.argv]),
        "data": str(given.data),
        "digest": manifest.hash_file(given.data),
        "text": given.text,
        "versions": manifest.collect_versions(),
        "seconds": round(time.monotonic() - start, 1),
    }
    manifest.write_json(given.out, {**facts, **report})
    for row in report["rows"]:
        auroc, kept = row["metrics"]["auroc"], row["metrics"]["kept_precision"]
        print("{:36} AUROC {:.3f} [{:.3f}, {:.3f}]".format(row["system"], *auroc.values()), end="")
        print("  kept {:.3f} [{:.3f}, {:.3f}]".format(*kept.values()))


def read_examples(path: Path) -> list[CriticExample]:
    """Return the judged intentions of a released file; a sentence that is missing has none."""
    examples = []
    for item in read_release(path):
        sentences = place_sentences(item.answers["intentions"])
        examples += [
            CriticExample(
                item.id, item.text, name, sentences.texts[name], float(item.marks[number - 1])
            )
            for number, name in sentences.numbers.items()
        ]
    return examples


def assess(
    examples: Sequence[CriticExample],
    tower: TextTower,
    *,
    max_length: int = 96,
    against: Collection[str] = RIVALS,
    num_resamples: int = 1000,
    num_seeds: int = 1,
) -> dict[str, Any]:
    """Return a report of the critic and of the rivals in `against`, on the same held-out posts.

    A validity of .5 or more counts as valid.
    """
    features = extract_critic_features(examples, tower, max_length)
    judged = [row for row, example in enumerate(examples) if example.valid is not None]
    examples = [examples[row] for row in judged]
    systems = make_systems(examples, features[judged], tower.width)
    names = (CRITIC, *against)
    held_out = {name: np.zeros((num_seeds, len(examples))) for name in names}
    work = [
        (name, seed, *split)
        for seed in range(num_seeds)
        for name in names
        for split in split_critic_folds(examples, NUM_FOLDS, seed)
    ]
    for name, seed, train, test in show_progress(work, "Assessing"):
        held_out[name][seed, test] = systems[name](train, test, seed)
    return report_scores(to_arrays(examples), held_out, num_resamples=num_resamples)


def to_arrays(examples: Sequence[CriticExample]) -> Judged:
    """Return the examples as arrays; each must have its `valid`."""
    return Judged(
        np.array([(example.valid or 0) >= 0.5 for example in examples], dtype=np.int64),
        np.unique([example.group for example in examples], return_inverse=True)[1],
        np.array([example.relation for example in examples]),
    )


def make_systems(
    examples: Sequence[CriticExample], features: Float[np.ndarray, "row column"], width: int
) -> dict[str, Predict]:
    """Return by name what fits on some rows and gives the probabilities of others.

    Where the critic sees an intention alone, the columns of the others are zeros, which tell
    nothing. TF-IDF reads whole sentences: without its stem one would not tell its relation.
    """
    column = np.arange(features.shape[1])
    own = (column < 2 * width) | (column >= 3 * width) & (column <= 3 * width + len(RELATIONS))
    beside = [f"{example.text or ''} {example.intention}" for example in examples]

    def critic(columns: Float[np.ndarray, "row column"]) -> Predict:
        def predict(train: Rows, test: Rows, seed: int) -> Float[np.ndarray, " row"]:
            head = fit_critic_head(columns[train], [examples[row] for row in train], seed=seed)
            return head.probabilities(columns[test])

        return predict

    def tfidf(texts: Sequence[str]) -> Predict:
        def predict(train: Rows, test: Rows, seed: int) -> Float[np.ndarray, " row"]:
            words = TfidfVectorizer(
                ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode", min_df=2
            )
            learned = [examples[row] for row in train]
            search = GridSearchCV(
                LogisticRegression(max_iter=2000),
                {"C": (0.1, 0.3, 1.0)},
                scoring="roc_auc",
                cv=split_critic_folds(learned, 4, seed),
            )
            columns = words.fit_transform([texts[row] for row in train])
            search.fit(columns, to_arrays(learned).truth)
            return search.predict_proba(words.transform([texts[row] for row in test]))[:, 1]

        return predict

    return {
        CRITIC: critic(features),
        "critic of the intention alone": critic(features * own),
        "TF-IDF of the intention": tfidf([example.intention for example in examples]),
        "TF-IDF of post and intention": tfidf(beside),
        "share of the relation": _predict_share(to_arrays(examples)),
    }


def report_scores(
    judged: Judged, held_out: Scores, *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return what held-out probabilities are worth, by name; `critic` must be among them.

    Every figure is the mean over the seeds of the folds. Intervals are of 95 %, over posts drawn
    with replacement, the same draws for every name. `ahead` is the critic's measure minus the
    other's, within each draw; of `brier` less is better.
    """
    draws = draw_resamples(len(judged.truth), num_resamples, seed, judged.post)
    by_seed = {
        name: [measure_draws(judged, scores, draws) for scores in seeds]
        for name, seeds in held_out.items()
    }
    values = {name: np.mean(drawn, axis=0) for name, drawn in by_seed.items()}
    rows = []
    for name, seeds in held_out.items():
        row = {
            "system": name,
            "ece": float(np.mean([_measure_ece(judged.truth, scores) for scores in seeds])),
            "auroc_by_seed": [float(drawn[0, 0]) for drawn in by_seed[name]],
            "metrics": _summarise(values[name]),
        }
        if name != CRITIC:
            row["ahead"] = _summarise(values[CRITIC] - values[name])
        rows.append(row)
    critic, whole = held_out[CRITIC], draws[:1]
    kept = {
        share: np.mean([keep_best(judged.truth, scores, whole, share) for scores in critic])
        for share in CURVE
    }
    return {
        "posts": int(judged.post.max()) + 1,
        "intentions": len(judged.truth),
        "base_rate": float(judged.truth.mean()),
        "num_folds": NUM_FOLDS,
        "num_seeds": len(critic),
        "num_resamples": num_resamples,
        "kept_share": KEPT,
        "rows": rows,
        "relations": {name: _measure_relation(judged, critic, name) for name in RELATIONS},
        "kept": {str(share): float(precision) for share, precision in kept.items()},
    }


def measure_draws(
    judged: Judged, scores: Float[np.ndarray, " row"], draws: ResampleWeights
) -> Float[np.ndarray, "resample metric"]:
    """Return what `MEASURED` names on every resample of the posts, NaN where it is undefined."""
    both = np.stack([1 - scores, scores], axis=1)
    ranked = metrics.measure_resamples(
        both, judged.truth, draws, positive=1, names=("auroc", "average_precision")
    )
    brier = draws @ (scores - judged.truth) ** 2 / draws.sum(1)
    kept = keep_best(judged.truth, scores, draws, KEPT)
    first = np.unique(judged.post, return_index=True)[1]  # a row of each post, for its count
    right, pairs = (draws[:, first] @ count_pairs_within_posts(judged, scores)).T
    within = np.divide(right, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)
    return np.column_stack([ranked, brier, kept, within])


def keep_best(
    truth: Int[np.ndarray, " row"],
    scores: Float[np.ndarray, " row"],
    draws: ResampleWeights,
    share: float,
) -> Float[np.ndarray, " resample"]:
    """Return how many of the best `share` of the rows of every resample are valid.

    Rows of one score are kept in equal part, so that a constant score keeps no better than chance.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    count = np.add.reduceat(draws[:, order], starts, axis=1)  # (resample, distinct score)
    valid = np.add.reduceat(draws[:, order] * truth[order], starts, axis=1)
    wanted = share * draws.sum(1, keepdims=True)
    kept = np.clip(wanted - (np.cumsum(count, axis=1) - count), 0, count)
    return (kept * valid / np.maximum(count, 1)).sum(1) / wanted[:, 0]


def count_pairs_within_posts(
    judged: Judged, scores: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "post 2"]:
    """Return of each post its pairs of a valid and another intention: ranked right, and all.

    The ratio of the sums is the AUROC within posts.
    """
    counts = np.zeros((int(judged.post.max()) + 1, 2))
    order = np.argsort(judged.post, kind="stable")
    posts = np.split(order, np.cumsum(np.bincount(judged.post))[:-1])
    for number, rows in enumerate(posts):
        valid = judged.truth[rows] == 1
        difference = scores[rows[valid]][:, None] - scores[rows[~valid]]
        right = (difference > 0).sum() + 0.5 * (difference == 0).sum()
        counts[number] = right, difference.size
    return counts


def _predict_share(judged: Judged) -> Predict:
    def predict(train: Rows, test: Rows, seed: int) -> Float[np.ndarray, " row"]:
        truth, relation = judged.truth[train], judged.relation[train]
        shares = {name: truth[relation == name].mean() for name in np.unique(relation)}
        return np.array([shares.get(name, truth.mean()) for name in judged.relation[test]])

    return predict


def _summarise(values: Float[np.ndarray, "resample metric"]) -> dict[str, dict[str, float | None]]:
    """Return each measure with its interval; the first resample is the data, undefined is null."""
    summary = {}
    for name, (value, *sample) in zip(MEASURED, values.T, strict=True):
        interval = compute_percentile_interval(value, np.array(sample))
        summary[name] = {
            key: None if math.isnan(number) else number
            for key, number in interval._asdict().items()
        }
    return summary


def _measure_relation(
    judged: Judged, seeds: Float[np.ndarray, "seed row"], name: str
) -> dict[str, Any]:
    """Return what the critic is worth among the intentions of one relation."""
    rows = judged.relation == name
    truth = judged.truth[rows]
    auroc = None
    if len(np.unique(truth)) == 2:
        auroc = float(np.mean([roc_auc_score(truth, scores[rows]) for scores in seeds]))
    base_rate = float(truth.mean()) if len(truth) else None
    return {"intentions": len(truth), "base_rate": base_rate, "auroc": auroc}


def _measure_ece(truth: Int[np.ndarray, " row"], scores: Float[np.ndarray, " row"]) -> float:
    both = np.stack([1 - scores, scores], axis=1)
    return metrics.measure_classification(both, truth, positive=1, names=["ece"])["ece"]


if __name__ == "__main__":
    main()
