"""How near what a generator writes comes to intentions that are taken for right (as in MIKO)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from torchmetrics.functional.text.rouge import rouge_score

from miko_clf.data.post import RELATIONS, Intention, Post, Relation
from miko_clf.distil.distinct import Distinct
from miko_clf.distil.relations import completion
from miko_clf.distil.sieve import faults
from miko_clf.distil.watch import watched
from miko_clf.errors import DistilError
from miko_clf.evaluate.interval import Interval

ALL = "all"
MEANS = ("bert_score", "rouge_l", "valid", "plausibility", "typicality")
METRICS = ("bert_score", "rouge_l", "distinct_1", "distinct_2", *MEANS[2:])


class Likeness(Protocol):
    """A measure of how alike texts are, such as `bert_score.BertScore`."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return one number for each pair of a written text and a reference."""


class Writer(NamedTuple):
    """Whoever wrote intentions, and the posts with what was written, by id."""

    name: str
    posts: Mapping[str, Post]


class Row(NamedTuple):
    """The figures of one writer: by metric, then by relation or `all`, the mean of relations."""

    name: str
    figures: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class Benchmark:
    """Writers against one reference on the posts that all of them have."""

    reference: str
    rows: Sequence[Row]
    posts: int
    shared: int
    by_writer: Mapping[str, int]
    tower: str | None
    num_resamples: int
    seed: int


def writers(name: str, posts: Iterable[Post], *, by_model: bool = False) -> list[Writer]:
    """Return who wrote the intentions of a knowledge base: one, or each model by itself.

    A post without an intention is no post of that writer's.
    """
    found: dict[str, dict[str, Post]] = defaultdict(dict)
    for post in posts:
        by: dict[str, list[Intention]] = defaultdict(list)
        for one in post.intentions:
            model = (one.provenance or {}).get("model", "unknown") if by_model else ""
            by[f"{name} {model}".rstrip()].append(one)
        for who, written in by.items():
            found[who][post.id] = post.model_copy(update={"intentions": tuple(written)})
    return [Writer(who, found[who]) for who in sorted(found)]


def compare(
    reference: Writer,
    candidates: Sequence[Writer],
    likeness: Likeness | None = None,
    *,
    tower: str | None = None,
    limit: int = 1000,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Benchmark:
    """Return the figures of every candidate on the posts that all of them and the reference have.

    Of more posts than `limit` a sample is drawn. Completions are compared, without the stem that
    all share; of several references the nearest counts, of several answers the mean. Where the
    reference has an intention and the candidate none, ROUGE-L, BERTScore and `valid` are 0.
    `valid` is the share of intentions that are there and pass the sieve. Judges' scores are means
    over what was judged. Distinct-n has no interval: drawing a post twice would lower it.
    Raises `DistilError` where no post is shared.
    """
    names = [writer.name for writer in candidates]
    if not names or len(set(names)) < len(names):
        raise DistilError(
            f"candidates need names of their own, given: {', '.join(names) or 'none'}"
        )
    shared = sorted(set(reference.posts).intersection(*(each.posts for each in candidates)))
    if not shared:
        counts = ", ".join(f"{each.name} {len(each.posts):,}" for each in (reference, *candidates))
        raise DistilError(f"no post has intentions of all that are compared; posts: {counts}")
    random = np.random.default_rng(seed)
    chosen = sorted(random.choice(shared, min(limit, len(shared)), replace=False).tolist())
    drawn = random.multinomial(len(chosen), [1 / len(chosen)] * len(chosen), num_resamples)
    rows = [
        Row(each.name, _figures(reference, each, chosen, likeness, drawn)) for each in candidates
    ]
    by_writer = {each.name: len(each.posts) for each in (reference, *candidates)}
    return Benchmark(
        reference.name, rows, len(chosen), len(shared), by_writer, tower, num_resamples, seed
    )


def _figures(
    reference: Writer,
    candidate: Writer,
    chosen: Sequence[str],
    likeness: Likeness | None,
    drawn: Float[np.ndarray, "resample post"],
) -> dict[str, dict[str, Interval]]:
    values = _values(reference, candidate, chosen, likeness)
    found = {name: _means(each, drawn) for name, each in values.items()}
    found |= _distinct(candidate, chosen)
    return {name: found[name] for name in METRICS if name in found}


def _values(
    reference: Writer, candidate: Writer, chosen: Sequence[str], likeness: Likeness | None
) -> dict[str, Float[np.ndarray, "post relation"]]:
    """Return each metric that is a mean, undefined where the reference asks for nothing."""
    shape = (len(chosen), len(RELATIONS))
    names = [name for name in MEANS if name != "bert_score" or likeness]
    values = {name: np.full(shape, np.nan) for name in names}
    pairs: list[tuple[str, str]] = []
    places: list[tuple[int, int, int]] = []  # post, relation, which of its answers
    for i, post_id in enumerate(watched(chosen, len(chosen), candidate.name)):
        right = _by_relation(reference.posts[post_id])
        post = candidate.posts[post_id]
        said = _by_relation(post)
        sound = _sound(post)
        for j, name in enumerate(RELATIONS):
            if not right[name]:
                continue
            wanted = [completion(name, one.text) for one in right[name]]
            texts = [completion(name, one.text) for one in said[name]]
            values["rouge_l"][i, j] = _mean([_rouge(text, wanted) for text in texts])
            values["valid"][i, j] = _mean([float(one in sound) for one in said[name]])
            for metric in ("plausibility", "typicality"):
                given = [getattr(one, metric) for one in said[name]]
                scores = [score for score in given if score is not None]
                values[metric][i, j] = _mean(scores) if scores else np.nan
            pairs += [(text, other) for text in texts for other in wanted]
            places += [(i, j, k) for k in range(len(texts)) for _ in wanted]
    if likeness:
        values["bert_score"] = np.where(np.isnan(values["rouge_l"]), np.nan, 0.0)
        for i, j, score in _best(places, likeness(pairs)):
            values["bert_score"][i, j] = score
    return values


def _best(
    places: Sequence[tuple[int, int, int]], scores: Sequence[float]
) -> Iterable[tuple[int, int, float]]:
    """Yield for each post and relation the mean over answers of their nearest reference's score."""
    nearest: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for (i, j, k), score in zip(places, scores, strict=True):
        nearest[i, j][k] = max(score, nearest[i, j].get(k, score))
    for (i, j), by_answer in nearest.items():
        yield i, j, _mean(list(by_answer.values()))


def _means(
    values: Float[np.ndarray, "post relation"], drawn: Float[np.ndarray, "resample post"]
) -> dict[str, Interval]:
    """Return the mean of each relation, and the mean of those, each with 95 % over posts."""
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    weights = np.concatenate([np.ones((1, len(values))), drawn])
    with np.errstate(invalid="ignore"):
        means = (weights @ filled) / (weights @ present)  # (1 + resample, relation)
    every = np.column_stack([means, _over_relations(means)])
    return {
        name: _interval(every[0, j], every[1:, j])
        for j, name in enumerate((*RELATIONS, ALL))
        if not np.isnan(every[0, j])
    }


def _over_relations(
    means: Float[np.ndarray, "draw relation"],
) -> Float[np.ndarray, " draw"]:
    known = ~np.isnan(means[0])
    if not known.any():
        return np.full(len(means), np.nan)
    averaged: Float[np.ndarray, " draw"] = means[:, known].mean(1)
    return averaged


def _interval(value: float, resampled: Float[np.ndarray, " resample"]) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _distinct(candidate: Writer, chosen: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Return the share of words, and of pairs of words, that are different, over all posts."""
    found: dict[str, dict[str, Interval]] = {"distinct_1": {}, "distinct_2": {}}
    posts = [_by_relation(candidate.posts[post_id]) for post_id in chosen]
    every = Distinct()
    for name in RELATIONS:
        counted = Distinct()
        for said in posts:
            for one in said[name]:
                counted.add(completion(name, one.text))
        every.join(counted)
        _put(found, name, counted)
    _put(found, ALL, every)
    return found


def _put(found: dict[str, dict[str, Interval]], name: str, counted: Distinct) -> None:
    for metric, bits in (("distinct_1", counted.ones), ("distinct_2", counted.twos)):
        if bits.share is not None:
            found[metric][name] = Interval(bits.share, np.nan, np.nan)


def _by_relation(post: Post) -> dict[Relation, list[Intention]]:
    return {name: [one for one in post.intentions if one.relation == name] for name in RELATIONS}


def _sound(post: Post) -> list[Intention]:
    found = faults(post.intentions, post)
    return [one for one, fault in zip(post.intentions, found, strict=True) if not fault]


def _rouge(text: str, wanted: Sequence[str]) -> float:
    scored = rouge_score(text, [list(wanted)], accumulate="best", rouge_keys="rougeL")
    return float(scored["rougeL_fmeasure"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
