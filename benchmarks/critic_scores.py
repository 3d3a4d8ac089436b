"""How well a critic ranks intentions, against simpler rankings."""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from miko_clf import metrics
from miko_clf.data.post import RELATIONS
from miko_clf.encode.tower import TextTower
from miko_clf.train.critic import CriticInputs, fit_head_to_examples, split_critic_folds
from miko_clf.train.critic_features import (
    CriticExample,
    extract_critic_features,
    list_feature_sources,
    strip_example_stem,
)

NUM_FOLDS = 5
KEPT = 0.8
CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CRITIC = "critic"
RIVALS = (
    "critic without TF-IDF",
    "critic without the post",
    "critic without the other intentions",
    "critic of the intention alone",
    "TF-IDF of the intention",
    "TF-IDF of post and intention",
    "share of the relation",
)
MEASURED = ("auroc", "average_precision", "brier", "kept_precision", "auroc_within_posts")
Row = NDArray[np.int64]
Scores = Mapping[str, Float[np.ndarray, " row"]]
Predict = Callable[[Row, Row], Float[np.ndarray, " row"]]


class Judged(NamedTuple):
    """Intentions that people judged, as arrays; `post` numbers the posts from 0."""

    truth: Int[np.ndarray, " row"]
    post: Int[np.ndarray, " row"]
    relation: NDArray[np.str_]


def assess(
    examples: Sequence[CriticExample],
    tower: TextTower,
    *,
    max_length: int = 96,
    against: Collection[str] = RIVALS,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return a report of the critic and of the rivals in `against`, on the same held-out posts.

    Every probability is of a post that neither its model nor the choice of its hyper-parameters
    saw: 5 folds by post, and folds within them. A validity of .5 or more counts as valid.
    """
    seen = extract_critic_features(examples, tower, max_length)
    asked = [row for row, example in enumerate(examples) if example.valid is not None]
    examples = [examples[row] for row in asked]
    rivals = _rivals(examples, seen[asked], tower.width, seed)
    rivals = {name: rivals[name] for name in (CRITIC, *against)}
    splits = split_critic_folds(examples, NUM_FOLDS, seed)
    held_out = {name: np.zeros(len(examples)) for name in rivals}
    work = [(name, *split) for name in rivals for split in splits]
    console = Console(stderr=True)
    for name, train, test in track(
        work, "Assessing", console=console, disable=not console.is_terminal
    ):
        held_out[name][test] = rivals[name](train, test)
    return report(judge(examples), held_out, num_resamples=num_resamples, seed=seed)


def judge(examples: Sequence[CriticExample]) -> Judged:
    """Return the examples as arrays; each must have its `valid`."""
    return Judged(
        np.array([(example.valid or 0) >= 0.5 for example in examples], dtype=np.int64),
        np.unique([example.group for example in examples], return_inverse=True)[1],
        np.array([example.relation for example in examples]),
    )


def report(
    judged: Judged, held_out: Scores, *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return what held-out probabilities are worth, by name; `critic` must be among them.

    Intervals are of 95 %, over posts drawn with replacement, the same draws for every name.
    `ahead` is the critic's measure minus the other's, within each draw; of `brier` less is better.
    """
    values, drawn = _measure(judged, held_out, num_resamples, seed)
    ours = list(held_out).index(CRITIC)
    rows = []
    for place, (name, scores) in enumerate(held_out.items()):
        row = {"system": name, "ece": _ece(judged.truth, scores)}
        row["metrics"] = _shown(values[place], drawn[place])
        if name != CRITIC:
            row["ahead"] = _shown(values[ours] - values[place], drawn[ours] - drawn[place])
        rows.append(row)
    critic = held_out[CRITIC]
    return {
        "posts": int(judged.post.max()) + 1,
        "intentions": len(judged.truth),
        "base_rate": float(judged.truth.mean()),
        "num_folds": NUM_FOLDS,
        "num_resamples": num_resamples,
        "kept_share": KEPT,
        "rows": rows,
        "relations": {name: _relation(judged, critic, name) for name in RELATIONS},
        "kept": {str(share): kept_precision(judged.truth, critic, share) for share in CURVE},
    }


def kept_precision(
    truth: Int[np.ndarray, " row"], scores: Float[np.ndarray, " row"], share: float = KEPT
) -> float:
    """Return how many of the best `share` of the rows are valid.

    Rows of one score are kept in equal part, so that a constant score keeps no better than chance.
    """
    num_kept = max(1, round(share * len(truth)))
    cut = np.partition(scores, len(scores) - num_kept)[len(scores) - num_kept]
    above, at = scores > cut, scores == cut
    return float((truth[above].sum() + (num_kept - above.sum()) * truth[at].mean()) / num_kept)


def pairs_within_posts(
    judged: Judged, scores: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "post 2"]:
    """Return of each post its pairs of a valid and another intention: ranked right, and all.

    The ratio of the sums is the AUROC within posts.
    """
    counts = np.zeros((int(judged.post.max()) + 1, 2))
    for number, rows in enumerate(_rows_by_post(judged.post)):
        valid = judged.truth[rows] == 1
        difference = scores[rows[valid]][:, None] - scores[rows[~valid]]
        right = (difference > 0).sum() + 0.5 * (difference == 0).sum()
        counts[number] = right, difference.size
    return counts


def _rivals(
    examples: Sequence[CriticExample], seen: Float[np.ndarray, "row column"], width: int, seed: int
) -> dict[str, Predict]:
    """Return by name what fits on some rows and gives the probabilities of others.

    TF-IDF alone reads whole sentences: without its stem a sentence would not tell its relation.
    """
    told = [strip_example_stem(example) for example in examples]
    whole = [example.intention for example in examples]
    beside = [f"{example.text or ''} {example.intention}" for example in examples]
    source = list_feature_sources(width)

    def fitted(*kinds: str, texts: Sequence[str] | None = told) -> Predict:
        def predict(train: Row, test: Row) -> Float[np.ndarray, " row"]:
            # a column of zeros tells nothing, and the others keep their places
            view = CriticInputs(seen * np.isin(source, kinds) if kinds else None, texts)
            head = fit_head_to_examples(
                view.take(train), [examples[row] for row in train], seed=seed
            )
            return head.probabilities(view.take(test))

        return predict

    return {
        CRITIC: fitted("intention", "post", "siblings"),
        "critic without TF-IDF": fitted("intention", "post", "siblings", texts=None),
        "critic without the post": fitted("intention", "siblings"),
        "critic without the other intentions": fitted("intention", "post"),
        "critic of the intention alone": fitted("intention"),
        "TF-IDF of the intention": fitted(texts=whole),
        "TF-IDF of post and intention": fitted(texts=beside),
        "share of the relation": _prior(judge(examples)),
    }


def _prior(judged: Judged) -> Predict:
    def predict(train: Row, test: Row) -> Float[np.ndarray, " row"]:
        truth, relation = judged.truth[train], judged.relation[train]
        shares = {name: truth[relation == name].mean() for name in np.unique(relation)}
        return np.array([shares.get(name, truth.mean()) for name in judged.relation[test]])

    return predict


def _rows_by_post(post: Int[np.ndarray, " row"]) -> list[Row]:
    order = np.argsort(post, kind="stable")
    return np.split(order, np.cumsum(np.bincount(post))[:-1])


def _measure(
    judged: Judged, held_out: Scores, num_resamples: int, seed: int
) -> tuple[Float[np.ndarray, "system metric"], Float[np.ndarray, "system metric resample"]]:
    """Return the measures of each system, and those on posts drawn with replacement."""
    rows_of = _rows_by_post(judged.post)
    pairs = [pairs_within_posts(judged, scores) for scores in held_out.values()]

    def statistic(posts: Row) -> Float[np.ndarray, "system metric"]:
        rows = np.concatenate([rows_of[post] for post in posts])
        truth = judged.truth[rows]
        values = []
        for scores, counts in zip(held_out.values(), pairs, strict=True):
            right, num_pairs = counts[posts].sum(0)
            within = right / num_pairs if num_pairs else math.nan
            values.append([*_measures(truth, scores[rows]), within])
        return np.array(values)

    posts = np.arange(len(rows_of))
    with warnings.catch_warnings():
        # scipy warns of an undefined resample; `_shown` leaves those out
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (posts,),
            statistic,
            n_resamples=num_resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return statistic(posts), drawn


def _measures(
    truth: Int[np.ndarray, " row"], scores: Float[np.ndarray, " row"]
) -> tuple[float, ...]:
    if len(np.unique(truth)) < 2:
        return (math.nan,) * (len(MEASURED) - 1)
    return (
        float(roc_auc_score(truth, scores)),
        float(average_precision_score(truth, scores)),
        float(brier_score_loss(truth, scores)),
        kept_precision(truth, scores),
    )


def _shown(
    values: Float[np.ndarray, " metric"], drawn: Float[np.ndarray, "metric resample"]
) -> dict[str, dict[str, float | None]]:
    """Return each measure with its interval; what is undefined is null."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a measure that no draw defines
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=1)
    shown = zip(MEASURED, values, low, high, strict=True)
    return {
        name: {
            key: None if math.isnan(number) else float(number)
            for key, number in zip(("value", "low", "high"), numbers, strict=True)
        }
        for name, *numbers in shown
    }


def _relation(judged: Judged, scores: Float[np.ndarray, " row"], name: str) -> dict[str, Any]:
    """Return what the critic is worth among the intentions of one relation."""
    rows = judged.relation == name
    truth = judged.truth[rows]
    both = len(np.unique(truth)) == 2
    return {
        "intentions": len(truth),
        "base_rate": float(truth.mean()) if len(truth) else None,
        "auroc": float(roc_auc_score(truth, scores[rows])) if both else None,
    }


def _ece(truth: Int[np.ndarray, " row"], scores: Float[np.ndarray, " row"]) -> float:
    both = np.stack([1 - scores, scores], axis=1)
    return metrics.measure_classification(both, truth, positive=1, names=["ece"])["ece"]
