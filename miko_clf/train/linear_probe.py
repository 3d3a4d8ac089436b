"""The closed fit of a linear probe: what it reads of posts, what is chosen, what is set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array, diags_array, vstack
from scipy.special import log_softmax
from torch import Tensor

from miko_clf.data.splits import group_alike_posts
from miko_clf.fuse.build import Model
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.cross_attention import CrossAttentionFusion
from miko_clf.fuse.linear_probe import LinearProbe, WordTfIdf
from miko_clf.progress import print_notice, show_progress
from miko_clf.recipe.schema import Recipe
from miko_clf.train import logistic_regression as logistic
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.logistic_regression import LinearWeights, Rows, StrengthChoice
from miko_clf.train.loop import TrainingRun, log_validation
from miko_clf.train.predict import iterate_batches, list_serving_arms, predict_logits
from miko_clf.train.stages import TaskStage

STRENGTHS = tuple(10.0**power for power in np.arange(-5, 1.5, 0.5))  # C over z-scored vectors
WORD_STRENGTHS = tuple(10.0**power for power in np.arange(-1, 3.5, 0.5))  # C over TF-IDF
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # that a reader may have in a mixture with its base
_FEWEST_POSTS = 2  # in which a term must stand to count
_LEAST_DEVIATION = 1e-5  # a channel that varies less says nothing


@dataclass(frozen=True)
class ProbeFit:
    """What cross-validation chose for one problem: of each member its C, and what it counts.

    `losses` are the held-out log losses of each C that was tried; none where posts were too few.
    """

    problem: str
    strengths: Mapping[str, float]
    shares: Mapping[str, float]
    losses: Mapping[str, Mapping[float, float]]

    def line(self) -> str:
        """Say in a line what was chosen."""
        parts = [
            f"{name} C {c:.2g} x {self.shares[name]:.2f}" for name, c in self.strengths.items()
        ]
        how = "by held-out log loss" if self.losses else "as usual, for want of posts"
        return f"{self.problem or 'probe'}: {', '.join(parts)}, chosen {how}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a run's log keeps it."""
        losses = {name: {f"{c:g}": v for c, v in row.items()} for name, row in self.losses.items()}
        return {**asdict(self), "losses": losses}


class Problem(NamedTuple):
    """One choice among classes: what `rows` answer, and which logits it decides.

    Of a question where any label may hold, each label is a problem of its own, with one logit.
    """

    name: str
    rows: Rows
    truth: Rows
    columns: slice


class ProbeData(NamedTuple):
    """Posts as a probe reads them: a vector an input, the counts of their terms, their groups."""

    vectors: Mapping[str, Float[np.ndarray, "post channel"]]
    present: Mapping[str, Bool[np.ndarray, " post"]]
    counts: csr_array | None
    groups: Int[np.ndarray, " post"]


class LinearScale(NamedTuple):
    """Mean and deviation of each channel."""

    mean: Float[np.ndarray, " channel"]
    deviation: Float[np.ndarray, " channel"]

    @property
    def factor(self) -> Float[np.ndarray, " channel"]:
        """What brings a channel to deviation 1, and one that hardly varies to nothing."""
        varies = self.deviation > _LEAST_DEVIATION
        return np.where(varies, 1 / np.where(varies, self.deviation, 1), 0.0)


def fit_linear_probe(
    run: TrainingRun, recipe: Recipe, model: Model, train: EncodedDataset, val: EncodedDataset
) -> list[ProbeFit]:
    """Fit a model that is a probe, log what was chosen and what validation measures.

    A fit takes seconds to a minute, so a run that was stopped begins it again.
    """
    fits = fit_probe_weights(recipe, model, train)
    measured = TaskStage(recipe, train).validate(model, val)
    log_validation(run, "probe", 1, measured, fits=[fit.to_json() for fit in fits])
    for fit in fits:
        print_notice(fit.line())
    return fits


def fit_probe_weights(recipe: Recipe, model: Model, train: EncodedDataset) -> list[ProbeFit]:
    """Set the probe's weights to what fits the posts best, and return what was chosen.

    Vectors are z-scored and their squared weights penalised. How strongly, and what words count
    beside vectors, is chosen by grouped cross-validation among the posts themselves.
    """
    probe = get_probe(model)
    data = _read_posts(model, probe, [train])
    problems, balanced = list_problems(train), recipe.task.class_weights == "balanced"
    fits = [
        _choose(data, problem, balanced=balanced, seed=recipe.seed)
        for problem in show_progress(problems, "choosing the strength")
    ]
    _set_weights(probe, data, problems, fits, balanced=balanced)
    return fits


def refit_linear_probe(
    recipe: Recipe, model: Model, datasets: Sequence[EncodedDataset], fits: Sequence[ProbeFit]
) -> None:
    """Set the probe's weights by the posts of several data sets, with what was chosen before."""
    probe = get_probe(model)
    data = _read_posts(model, probe, datasets)
    starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])[:-1]
    joined = []
    for parts in zip(*map(list_problems, datasets), strict=True):
        rows = [part.rows + start for part, start in zip(parts, starts, strict=True)]
        truth = np.concatenate([part.truth for part in parts])
        joined.append(parts[0]._replace(rows=np.concatenate(rows), truth=truth))
    _set_weights(probe, data, joined, fits, balanced=recipe.task.class_weights == "balanced")


def get_probe(model: Model) -> LinearProbe:
    """Return the probe that a model is, or stands on."""
    assert isinstance(model, MikoClassifier)
    probe = model.fusion.base if isinstance(model.fusion, CrossAttentionFusion) else model.fusion
    assert isinstance(probe, LinearProbe)
    return probe


@torch.no_grad()
def mix_with_probe(
    run: TrainingRun, recipe: Recipe, model: Model, train: EncodedDataset, val: EncodedDataset
) -> None:
    """Fit the base of a trained reader, and set the reader's share in the mixture of both.

    Each share is judged by the log loss of validation, at its best scale. The base answers alone
    unless a share loses less by more than one standard error (the rule of Breiman et al., 1984).
    """
    fits, fusion = fit_probe_weights(recipe, model, train), model.fusion
    assert isinstance(fusion, CrossAttentionFusion)
    logits = {}
    for share in (0.0, 1.0):
        fusion.share.fill_(share)
        logits[share] = predict_logits(model, val, list_serving_arms(recipe)[0])
    moved = logits[1.0] - logits[0.0]
    losses = {share: _measure_losses(logits[0.0] + share * moved, val) for share in SHARES}
    chosen = select_share(losses)
    fusion.share.fill_(chosen)
    means = {f"{share:g}": float(loss.mean()) for share, loss in losses.items()}
    facts = {"fits": [fit.to_json() for fit in fits], "share": chosen, "losses_of_shares": means}
    log_validation(run, "probe", 1, TaskStage(recipe, train).validate(model, val), **facts)
    print_notice(
        f"the reader has {chosen:g} of the mixture with its base"
        if chosen
        else "the reader helps too little to count beside its base, which answers alone"
    )


def select_share(losses: Mapping[float, Float[np.ndarray, " post"]]) -> float:
    """Return the share whose posts lose the least, 0 unless by more than one standard error."""
    best = min(losses, key=lambda share: losses[share].mean())
    gain = losses[0.0] - losses[best]
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    return best if gain.mean() > error else 0.0


def _measure_losses(
    logits: Float[np.ndarray, "post label"], dataset: EncodedDataset
) -> Float[np.ndarray, " post"]:
    """Return the log loss of each post over the problems that it answers, at the best scale."""
    losses = np.zeros(len(logits))
    for problem in list_problems(dataset):
        own = logits[problem.rows, problem.columns]
        scores = own if own.shape[1] > 1 else np.concatenate([-own, own], axis=1) / 2
        [scale] = logistic.stack_members([scores], problem.truth, balanced=False)
        logs = log_softmax(scores * scale, axis=1)
        losses[problem.rows] -= logs[np.arange(len(problem.rows)), problem.truth]
    return losses


def list_problems(dataset: EncodedDataset) -> list[Problem]:
    """Return what there is to be told apart, in the order of the logits."""
    problems = []
    for part in dataset.truth.split_by_question():
        question, first = part.question, part.span.start
        if question.kind == "one":
            problems.append(Problem(question.name, part.rows, part.truth, part.span))
            continue
        for place, label in enumerate(question.labels):
            columns = slice(first + place, first + place + 1)
            problems.append(Problem(label, part.rows, part.truth[:, place], columns))
    return problems


def _read_posts(model: Model, probe: LinearProbe, datasets: Sequence[EncodedDataset]) -> ProbeData:
    """Return every post of the data sets, one behind the other."""
    parts = [_read_batches(model, probe, dataset) for dataset in datasets]
    counts = [part.counts for part in parts if part.counts is not None]
    alike = group_alike_posts([post for dataset in datasets for post in dataset.posts])
    return ProbeData(
        {name: np.concatenate([part.vectors[name] for part in parts]) for name in probe.widths},
        {name: np.concatenate([part.present[name] for part in parts]) for name in probe.widths},
        csr_array(vstack(counts)) if counts else None,
        np.unique(alike, return_inverse=True)[1],
    )


@torch.inference_mode()
def _read_batches(model: Model, probe: LinearProbe, dataset: EncodedDataset) -> ProbeData:
    rows: list[int] = []
    vectors: dict[str, list[Tensor]] = {name: [] for name in probe.widths}
    present: dict[str, list[Tensor]] = {name: [] for name in probe.widths}
    counts: list[csr_array] = []
    total = -(-len(dataset) // 64)
    for indices, batch in show_progress(iterate_batches(model, dataset), "pooling", total):
        rows += indices
        for name, (vector, here) in probe.pool(model.encode(batch)).items():
            vectors[name].append(vector.float().cpu())
            present[name].append(here.cpu())
        if probe.words is not None:
            counts.append(_count_terms(*probe.words.list_terms(batch), len(probe.words.idf)))
    order = np.argsort(rows)
    return ProbeData(
        {name: torch.cat(part).numpy().astype(np.float64)[order] for name, part in vectors.items()},
        {name: torch.cat(part).numpy()[order] for name, part in present.items()},
        csr_array(vstack(counts))[order] if counts else None,
        np.zeros(0, dtype=np.int64),
    )


def _count_terms(terms: Tensor, present: Tensor, num_terms: int) -> csr_array:
    """Return how often each post has each term."""
    here = present.cpu().numpy()
    posts, _ = np.nonzero(here)
    places = posts, terms.cpu().numpy()[here]
    return csr_array(coo_array((np.ones(len(posts)), places), shape=(len(here), num_terms)))


class _VectorMember:
    """The vectors of all inputs, each channel z-scored by the posts that have the input."""

    strengths = STRENGTHS
    usual = 1e-3  # C where the posts are too few for folds

    def __init__(self, data: ProbeData) -> None:
        self.data = data

    def scale(self, rows: Rows) -> LinearScale:
        """Return the means and deviations of the channels over some posts."""
        means, deviations = [], []
        for name, vectors in self.data.vectors.items():
            here = vectors[rows][self.data.present[name][rows]]
            known = len(here) > 0
            means.append(here.mean(0) if known else np.zeros(vectors.shape[1]))
            deviations.append(here.std(0) if known else np.zeros(vectors.shape[1]))
        return LinearScale(np.concatenate(means), np.concatenate(deviations))

    def features(self, rows: Rows, scale: LinearScale) -> Float[np.ndarray, "row channel"]:
        """Return the z-scored channels of posts, zeros where one lacks the input."""
        parts = [
            np.where(self.data.present[name][rows, None], vectors[rows], np.nan)
            for name, vectors in self.data.vectors.items()
        ]
        scored = (np.concatenate(parts, axis=1) - scale.mean) * scale.factor
        return np.nan_to_num(scored, copy=False, nan=0.0)


class _WordMember:
    """TF-IDF as `WordTfIdf` computes it, the worth of terms by the posts to fit."""

    strengths = WORD_STRENGTHS
    usual = 1.0

    def __init__(self, data: ProbeData) -> None:
        assert data.counts is not None
        self.counts: csr_array = data.counts

    def scale(self, rows: Rows) -> Float[np.ndarray, " term"]:
        """Return the inverse document frequency of each term, 0 where it stands in one post."""
        num_posts = np.bincount(self.counts[rows].indices, minlength=self.counts.shape[1])
        idf = np.log((1 + len(rows)) / (1 + num_posts)) + 1
        return np.where(num_posts < _FEWEST_POSTS, 0.0, idf)

    def features(self, rows: Rows, scale: Float[np.ndarray, " term"]) -> csr_array:
        """Return the terms of posts, of those alone that count."""
        counts = self.counts[rows]
        norm = np.sqrt(np.maximum(counts @ scale**2, 1e-12))
        weighed = diags_array(1 / norm) @ counts @ diags_array(scale)
        return csr_array(weighed)[:, np.flatnonzero(scale)]


_Member = _VectorMember | _WordMember


def _list_members(data: ProbeData) -> dict[str, _Member]:
    words = {} if data.counts is None else {"words": _WordMember(data)}
    return {"vectors": _VectorMember(data), **words}


def _choose(data: ProbeData, problem: Problem, *, balanced: bool, seed: int) -> ProbeFit:
    """Return what cross-validation among a problem's posts chooses."""
    members, rows = _list_members(data), problem.rows
    folds = logistic.draw_folds(problem.truth, data.groups[rows], seed)
    if not folds:
        usual = {name: member.usual for name, member in members.items()}
        shares = {name: float(name == "vectors") for name in members}
        return ProbeFit(problem.name, usual, shares, {})
    choices: dict[str, StrengthChoice] = {}
    for name, member in members.items():

        def design(fit: Rows, member: Any = member) -> Any:
            return member.features(rows, member.scale(rows[fit]))

        choices[name] = logistic.choose_strength(
            design, problem.truth, folds, member.strengths, balanced=balanced
        )
    held_out = [choice.held_out for choice in choices.values()]
    shares = {"vectors": 1.0}
    if len(held_out) > 1:
        stacked = logistic.stack_members(held_out, problem.truth, balanced=balanced)
        shares = dict(zip(choices, stacked.tolist(), strict=True))
    strengths = {name: choice.strength for name, choice in choices.items()}
    losses = {name: choice.losses for name, choice in choices.items()}
    return ProbeFit(problem.name, strengths, shares, losses)


def _select_logits(scores: logistic.Scores, problem: Problem) -> Float[np.ndarray, "row label"]:
    """Return the logits of the problem's columns: of one alone, by how much it holds."""
    single = problem.columns.stop - problem.columns.start == 1
    return scores[:, 1:] - scores[:, :1] if single else scores


@torch.no_grad()
def _set_weights(
    probe: LinearProbe,
    data: ProbeData,
    problems: Sequence[Problem],
    fits: Sequence[ProbeFit],
    *,
    balanced: bool,
) -> None:
    """Fit every problem on all its posts and fold scale and share into the probe's weights."""
    everyone = np.arange(len(data.groups))
    vectors = _VectorMember(data)
    scale = vectors.scale(everyone)
    place = 0
    for name, channels in data.vectors.items():
        width = channels.shape[1]
        getattr(probe, f"{name}_mean").copy_(_to_tensor(scale.mean[place : place + width]))
        place += width
    for problem, fit in zip(problems, fits, strict=True):
        features = vectors.features(problem.rows, scale)
        strength = fit.strengths["vectors"]
        own = logistic.fit_weights(features, problem.truth, strength, balanced=balanced)
        own = _multiply(own, fit.shares["vectors"], problem)
        raw = own.coefficients * scale.factor
        probe.head.weight[problem.columns] = _to_tensor(raw).to(probe.head.weight.device)
        bias = own.intercepts - raw @ scale.mean
        probe.head.bias[problem.columns] = _to_tensor(bias).to(probe.head.bias.device)
    if probe.words is not None:
        _set_word_weights(probe.words, data, problems, fits, balanced=balanced)


def _set_word_weights(
    words: WordTfIdf,
    data: ProbeData,
    problems: Sequence[Problem],
    fits: Sequence[ProbeFit],
    *,
    balanced: bool,
) -> None:
    member = _WordMember(data)
    idf = member.scale(np.arange(len(data.groups)))
    terms = np.flatnonzero(idf)
    words.idf.copy_(_to_tensor(idf))
    words.weight.zero_(), words.bias.zero_()
    for problem, fit in zip(problems, fits, strict=True):
        if not fit.shares["words"]:
            continue
        features, strength = member.features(problem.rows, idf), fit.strengths["words"]
        own = logistic.fit_weights(features, problem.truth, strength, balanced=balanced)
        own = _multiply(own, fit.shares["words"], problem)
        table = np.zeros((len(idf), len(own.intercepts)))
        table[terms] = own.coefficients.T
        words.weight[:, problem.columns] = _to_tensor(table).to(words.weight.device)
        words.bias[problem.columns] = _to_tensor(own.intercepts).to(words.bias.device)


def _multiply(weights: LinearWeights, share: float, problem: Problem) -> LinearWeights:
    """Return the weights of the problem's columns, times a share."""
    coefficients = _select_logits(weights.coefficients.T, problem).T * share
    intercepts = _select_logits(weights.intercepts[None], problem)[0] * share
    return LinearWeights(coefficients, intercepts)


def _to_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
