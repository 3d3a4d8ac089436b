"""How near a generator's intentions come to reference ones (as in MIKO), as a table."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.text.rouge import rouge_score
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from miko_clf import manifest
from miko_clf.data.post import RELATIONS, Intention, Post, Relation
from miko_clf.distil.filters import find_faults
from miko_clf.distil.kb.stats import DistinctCounter
from miko_clf.distil.relations import strip_relation_stem
from miko_clf.errors import DistilError, EncoderError
from miko_clf.evaluate.formatting import convert_to_json, format_markdown_table
from miko_clf.intervals import UNDEFINED, Interval, compute_percentile_interval
from miko_clf.progress import show_progress

logging.disable_progress_bar()
_ALL_RELATIONS = "all"
_MEAN_METRICS = ("bert_score", "rouge_l", "valid", "plausibility", "typicality")
_GENERATOR_METRICS = ("bert_score", "rouge_l", "distinct_1", "distinct_2", *_MEAN_METRICS[2:])


class TextSimilarity(Protocol):
    """A measure of how alike texts are, such as `BertScore`."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return one number for each pair of a written text and a reference."""


class IntentionWriter(NamedTuple):
    """Whoever wrote intentions, and the posts with what was written, by id."""

    name: str
    posts: Mapping[str, Post]


class WriterFigures(NamedTuple):
    """The figures of one writer: by metric, then by relation or `all`, the mean of relations."""

    name: str
    figures: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class GeneratorBenchmark:
    """Writers against one reference on the posts that all of them have."""

    reference: str
    rows: Sequence[WriterFigures]
    posts: int
    shared: int
    by_writer: Mapping[str, int]
    tower: str | None
    num_resamples: int
    seed: int


def list_writers(
    name: str, posts: Iterable[Post], *, by_model: bool = False
) -> list[IntentionWriter]:
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
    return [IntentionWriter(who, found[who]) for who in sorted(found)]


def benchmark_generators(
    reference: IntentionWriter,
    candidates: Sequence[IntentionWriter],
    likeness: TextSimilarity | None = None,
    *,
    tower: str | None = None,
    limit: int = 1000,
    num_resamples: int = 1000,
    seed: int = 0,
) -> GeneratorBenchmark:
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
        WriterFigures(each.name, _figures(reference, each, chosen, likeness, drawn))
        for each in candidates
    ]
    by_writer = {each.name: len(each.posts) for each in (reference, *candidates)}
    return GeneratorBenchmark(
        reference.name, rows, len(chosen), len(shared), by_writer, tower, num_resamples, seed
    )


def _figures(
    reference: IntentionWriter,
    candidate: IntentionWriter,
    chosen: Sequence[str],
    likeness: TextSimilarity | None,
    drawn: Float[np.ndarray, "resample post"],
) -> dict[str, dict[str, Interval]]:
    values = _values(reference, candidate, chosen, likeness)
    found = {name: _means(each, drawn) for name, each in values.items()}
    found |= _distinct(candidate, chosen)
    return {name: found[name] for name in _GENERATOR_METRICS if name in found}


def _values(
    reference: IntentionWriter,
    candidate: IntentionWriter,
    chosen: Sequence[str],
    likeness: TextSimilarity | None,
) -> dict[str, Float[np.ndarray, "post relation"]]:
    """Return each metric that is a mean, undefined where the reference asks for nothing."""
    shape = (len(chosen), len(RELATIONS))
    names = [name for name in _MEAN_METRICS if name != "bert_score" or likeness]
    values = {name: np.full(shape, np.nan) for name in names}
    pairs: list[tuple[str, str]] = []
    places: list[tuple[int, int, int]] = []  # post, relation, which of its answers
    for i, post_id in enumerate(show_progress(chosen, candidate.name)):
        right = _by_relation(reference.posts[post_id])
        post = candidate.posts[post_id]
        said = _by_relation(post)
        sound = _sound(post)
        for j, name in enumerate(RELATIONS):
            if not right[name]:
                continue
            wanted = [strip_relation_stem(name, one.text) for one in right[name]]
            texts = [strip_relation_stem(name, one.text) for one in said[name]]
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
        for i, j, score in _nearest(places, likeness(pairs)):
            values["bert_score"][i, j] = score
    return values


def _nearest(
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
        name: compute_percentile_interval(every[0, j], every[1:, j])
        for j, name in enumerate((*RELATIONS, _ALL_RELATIONS))
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


def _distinct(candidate: IntentionWriter, chosen: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Return the share of words, and of pairs of words, that are different, over all posts."""
    found: dict[str, dict[str, Interval]] = {"distinct_1": {}, "distinct_2": {}}
    posts = [_by_relation(candidate.posts[post_id]) for post_id in chosen]
    every = DistinctCounter()
    for name in RELATIONS:
        counted = DistinctCounter()
        for said in posts:
            for one in said[name]:
                counted.add(strip_relation_stem(name, one.text))
        every.join(counted)
        _put(found, name, counted)
    _put(found, _ALL_RELATIONS, every)
    return found


def _put(found: dict[str, dict[str, Interval]], name: str, counted: DistinctCounter) -> None:
    for metric, bits in (("distinct_1", counted.ones), ("distinct_2", counted.twos)):
        if bits.share is not None:
            found[metric][name] = UNDEFINED._replace(value=bits.share)


def _by_relation(post: Post) -> dict[Relation, list[Intention]]:
    return {name: [one for one in post.intentions if one.relation == name] for name in RELATIONS}


def _sound(post: Post) -> list[Intention]:
    found = find_faults(post.intentions, post)
    return [one for one, fault in zip(post.intentions, found, strict=True) if not fault]


def _rouge(text: str, wanted: Sequence[str]) -> float:
    scored = rouge_score(text, [list(wanted)], accumulate="best", rouge_keys="rougeL")
    return float(scored["rougeL_fmeasure"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


_TITLES = {
    "bert_score": "BERTScore",
    "rouge_l": "ROUGE-L",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "valid": "valid",
    "plausibility": "plausible",
    "typicality": "typical",
}
_WIDE = 150  # columns that the table takes


def print_benchmark(found: GeneratorBenchmark, console: Console | None = None) -> None:
    """Print the table of all relations together, that of the first metric by relation, and how
    many posts were compared."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)
    metrics = _list_known_metrics(found)
    titles = [_TITLES[name] for name in metrics]
    console.print(_build_table("", titles, [_across(row, metrics) for row in found.rows]))
    by = [_down(row, metrics[0]) for row in found.rows]
    console.print(_build_table(_TITLES[metrics[0]], RELATIONS, by))
    console.print(_counted(found), markup=False, highlight=False)


def write_benchmark(found: GeneratorBenchmark, path: Path, **facts: Any) -> None:
    """Write `path` as JSON, an undefined bound being null, and Markdown beside it (`.md`).

    `facts` are kept with the figures. Raises `BundleError` where the place cannot be written.
    """
    manifest.write_json(path, {**facts, **_to_json(found)})
    manifest.write_text(path.with_suffix(".md"), "\n".join(_write_page(found)) + "\n")


def _to_json(found: GeneratorBenchmark) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "figures": {
                metric: {name: convert_to_json(list(figure)) for name, figure in by.items()}
                for metric, by in row.figures.items()
            },
        }
        for row in found.rows
    ]
    return {
        "reference": found.reference,
        "posts": found.posts,
        "shared_posts": found.shared,
        "posts_by_writer": dict(found.by_writer),
        "tower": found.tower,
        "num_resamples": found.num_resamples,
        "seed": found.seed,
        "rows": rows,
    }


def _write_page(found: GeneratorBenchmark) -> Iterator[str]:
    metrics = _list_known_metrics(found)
    yield "# Generators of intentions\n"
    yield _counted(found) + "\n"
    titles = [_TITLES[name] for name in metrics]
    across = [_across(row, metrics) for row in found.rows]
    yield format_markdown_table(["writer", *titles], across, "---:")
    for metric in metrics:
        yield f"\n## {_TITLES[metric]} by relation\n"
        down = [_down(row, metric) for row in found.rows]
        yield format_markdown_table(["writer", *RELATIONS], down, "---:")


def _counted(found: GeneratorBenchmark) -> str:
    drawn = f" (drawn of {found.shared:,})" if found.shared > found.posts else ""
    have = ", ".join(f"{name} {count:,}" for name, count in found.by_writer.items())
    by = f" BERTScore by {found.tower}." if found.tower else ""
    return (
        f"Against {found.reference}, on {found.posts:,} posts{drawn} that all have; posts with "
        f"intentions: {have}. Means of ten relations [95 % over {found.num_resamples:,} "
        f"resamples of posts]; a missing intention counts 0.{by}"
    )


def _list_known_metrics(found: GeneratorBenchmark) -> list[str]:
    return [name for name in _GENERATOR_METRICS if any(row.figures.get(name) for row in found.rows)]


def _across(row: WriterFigures, metrics: Sequence[str]) -> list[str]:
    return [
        row.name,
        *(_format_figure(row.figures.get(name, {}).get(_ALL_RELATIONS)) for name in metrics),
    ]


def _down(row: WriterFigures, metric: str) -> list[str]:
    by = row.figures.get(metric, {})
    return [row.name, *(_format_figure(by.get(name), short=True) for name in RELATIONS)]


def _format_figure(found: Interval | None, *, short: bool = False) -> str:
    if found is None or math.isnan(found.value):
        return "-"
    if short or math.isnan(found.low):
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _build_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title or None, box=box.SIMPLE)
    table.add_column("writer")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


_TOGETHER = 1024  # pairs at a time
_KEPT = 20_000  # texts whose vectors are kept for other pairs: the reference comes again and again
_BATCH = 64
_LONGEST = 128  # tokens


class BertScore:
    """F1 of greedily matched tokens of the last layer, without idf weights or rescaling.

    The figures are those of torchmetrics for one pair. For several pairs of different lengths
    torchmetrics 1.9 puts its sorted texts back in a wrong order, so the matching stands here.
    Raises `EncoderError` where the folder or name holds no encoder.
    """

    def __init__(self, name: str | Path, device: str | None = None) -> None:
        self.name = Path(name).name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self.words = AutoTokenizer.from_pretrained(name)
            model = AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise EncoderError(f"{name}: no encoder to compare texts with: {error}") from None
        self.model = model.to(self.device).eval()
        self._kept: dict[str, Tensor] = {}

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return F1 for each pair of a written text and a reference, 0 where one has no token."""
        scores: list[float] = []
        for start in range(0, len(pairs), _TOGETHER):
            part = pairs[start : start + _TOGETHER]
            if len(self._kept) > _KEPT:
                self._kept.clear()
            new = {text for pair in part for text in pair} - self._kept.keys()
            self._kept.update(self._vectors(sorted(new, key=len)))
            scores += [_f1(self._kept[one], self._kept[other]) for one, other in part]
        return scores

    @torch.inference_mode()
    def _vectors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return (token, width) of unit length for each text, special tokens left out."""
        found: dict[str, Tensor] = {}
        for start in range(0, len(texts), _BATCH):
            part = texts[start : start + _BATCH]
            read = self.words(
                part,
                truncation=True,
                max_length=_LONGEST,
                padding=True,
                return_tensors="pt",
                return_special_tokens_mask=True,
            ).to(self.device)
            own = torch.eq(read.pop("special_tokens_mask"), 0)
            hidden = self.model(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).last_hidden_state
            hidden = functional.normalize(hidden, dim=-1).cpu()
            found.update(
                zip(part, (h[o] for h, o in zip(hidden, own.cpu(), strict=True)), strict=True)
            )
        return found


def _f1(one: Tensor, other: Tensor) -> float:
    if not len(one) or not len(other):
        return 0.0
    alike = (one @ other.T).clamp_min(0)  # padding, at 0, bounds every maximum of the original
    precision, recall = float(alike.max(1).values.mean()), float(alike.max(0).values.mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
