"""What systems say of posts: probabilities by arm and question, and rationales."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from miko_clf import bundle, metrics
from miko_clf.bundle import Bundle, Threshold
from miko_clf.data.labels import TaskLabels, TrueLabels, encode_labels
from miko_clf.data.post import Post
from miko_clf.data.preprocess import Preparation
from miko_clf.data.tokenizer import read_tokenizer
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.calibration import calibrate_logits
from miko_clf.fuse.build import rebuild_model
from miko_clf.fuse.mr_harm import MrHarm
from miko_clf.intervals import RowGroups
from miko_clf.progress import show_progress
from miko_clf.questions import Question, Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.predict import list_arms, list_serving_arms, predict_logits

_Probabilities = NDArray[np.float64]


class Predictor:
    """A bundle's torch model over a fixed list of posts."""

    def __init__(self, opened: Bundle, posts: list[Post], cache: Path | None) -> None:
        self.bundle = opened
        self.preparation = Preparation.model_validate(opened.preprocess)
        words = read_tokenizer(opened.tokenizer, self.preparation)
        self.model = rebuild_model(opened.path, opened.recipe, opened.questions.names, words)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        recipe, model = opened.recipe, self.model
        for section, tower in ((recipe.image, model.image_tower), (recipe.text, model.text_tower)):
            # towers that were in training are frozen, so that their features are cached
            if section is not None and tower is not None and not section.learns:
                tower.requires_grad_(False)
        self.feed = EncodedDataset(
            posts, opened.questions, self.model, self.preparation, cache=cache
        )

    def logits(self, arm: str, without: tuple[str, ...] = ()) -> NDArray[np.float64]:
        """Return (post, label) before calibration; `without` takes inputs away."""
        return predict_logits(self.model, self.feed, arm, without)

    def probabilities(self, arm: str, without: tuple[str, ...] = ()) -> _Probabilities:
        """Return (post, label) as the bundle calibrates them; `without` takes inputs away."""
        return calibrate_logits(
            self.logits(arm, without), self.bundle.questions, self.bundle.calibrations
        )


class ArmPredictions(NamedTuple):
    """What one system says in one arm, (post, label), and thresholds of questions that have any."""

    system: str
    arm: str
    probabilities: NDArray[np.float64]
    thresholds: Mapping[str, Threshold]
    note: str


def name_report_arm(recipe: Recipe, arm: str) -> str:
    """Return what a report calls an arm of one model.

    Its `without` is `masked` where it has another arm, as it learned with what is hidden from it.
    """
    return "masked" if arm == "without" and len(list_arms(recipe)) > 1 else arm


class QuestionPredictions(NamedTuple):
    """The probabilities, (post, label), of one system in one arm for one question."""

    system: str
    arm: str
    probabilities: NDArray[np.float64]
    threshold: float | tuple[float, ...] | None
    note: str = ""

    @property
    def name(self) -> str:
        """System and arm in one word."""
        return f"{self.system}/{self.arm}"


class QuestionPosts(NamedTuple):
    """One question on the posts that answer it, and the training posts that do."""

    here: TaskLabels
    learned: TaskLabels
    posts: list[Post]
    train: list[Post]


def list_questions(
    posts: list[Post], train: list[Post], questions: Questions, where: Path, split: str
) -> list[QuestionPosts]:
    """Return the questions that some of the posts answer."""
    truth, learned = (
        _encode_truth(rows, questions, f"{where}, {name}")
        for rows, name in ((posts, split), (train, "train"))
    )
    parts = zip(truth.split_by_question(), learned.split_by_question(), strict=True)
    tasks = [
        QuestionPosts(
            here, own, [posts[row] for row in here.rows], [train[row] for row in own.rows]
        )
        for here, own in parts
    ]
    return [task for task in tasks if task.posts]


def select_question(predictions: ArmPredictions, part: TaskLabels) -> QuestionPredictions:
    """Return what is said of one question, to the posts that answer it."""
    system, arm, probabilities, thresholds, note = predictions
    fitted, own = thresholds.get(part.question.name), probabilities[part.rows, part.span]
    threshold: float | tuple[float, ...] | None
    if isinstance(fitted, Mapping):
        threshold = tuple(fitted[label] for label in part.question.labels)
    else:
        threshold = fitted
    return QuestionPredictions(system, arm, own, threshold, note)


def _encode_truth(posts: list[Post], questions: Questions, where: str) -> TrueLabels:
    for post in posts:
        if post.label is None:
            raise PostError(f"{where}: post {post.id!r} has no label, so no answer can be judged")
    return encode_labels(posts, questions, where, "the bundles know")


def refuse_equal_names(bundles: Sequence[Bundle]) -> None:
    """Raise `BundleError` where names do not tell bundles apart."""
    for name, count in Counter(opened.path.name for opened in bundles).items():
        if count > 1:
            raise BundleError(f"two bundles are called {name}; rename one")


def number_groups(posts: Sequence[Post]) -> RowGroups:
    """Return a number for each post, one for a group; None where no two posts share one."""
    names = [f"group {p.group}" if p.group else f"post {n}" for n, p in enumerate(posts)]
    units, numbers = np.unique(names, return_inverse=True)
    return numbers if len(units) < len(posts) else None


@dataclass(frozen=True)
class SystemPredictions:
    """A bundle in its usual arm, and what it says of the posts that answer its first question.

    `posts` are those that `predictor` holds and `truth` (row,) the index of each one's label;
    `probabilities` (row, label) are calibrated. `train` are the posts it learned from.
    """

    opened: Bundle
    predictor: Predictor
    posts: list[Post]
    question: Question
    span: slice
    truth: Int[np.ndarray, " row"]
    arm: str
    probabilities: Float[np.ndarray, "row label"]
    threshold: float | None
    train: list[Post]
    cache: Path | None

    @property
    def groups(self) -> RowGroups:
        """The groups that resamples draw whole, as `number_groups` finds them."""
        return number_groups(self.posts)

    @property
    def decided(self) -> Int[np.ndarray, " row"]:
        """Index of the label that each post is decided for."""
        return metrics.decide_labels(
            self.probabilities, positive=self.question.positive, threshold=self.threshold
        )


def predict_system(
    opened: Bundle,
    predictor: Predictor,
    part: TaskLabels,
    train: Sequence[Post],
    cache: Path | None,
) -> SystemPredictions | None:
    """Return what is said of one-answer questions that `part` has for every post, else None."""
    if part.question.kind == "many" or len(part.rows) != len(predictor.feed):
        return None
    arm = list_serving_arms(opened.recipe)[0]
    fitted = {q.name: c for q, c in zip(opened.questions, opened.calibrations, strict=True)}
    threshold = fitted[part.question.name].thresholds.get(arm)
    return SystemPredictions(
        opened=opened,
        predictor=predictor,
        posts=predictor.feed.posts,
        question=part.question,
        span=part.span,
        truth=part.truth,
        arm=arm,
        probabilities=predictor.probabilities(arm)[:, part.span],
        threshold=threshold if isinstance(threshold, float) else None,
        train=list(train),
        cache=cache,
    )


_RATIONALE_BATCH = 16


def generate_rationales(
    path: Path, posts: list[Post], *, max_length: int | None = None, beams: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield for each post, in order, its id and the rationale that the bundle's model writes.

    The model has not seen the post's label, so `saw_label` is false. At most `max_length` tokens
    are written, by default as many as it learned from. Raises `BundleError` where it cannot write.
    """
    opened = bundle.load_bundle(path)
    predictor = Predictor(opened, posts, None)
    model, words = predictor.model, predictor.feed.words
    if not isinstance(model, MrHarm) or words is None:
        kind = opened.recipe.fusion.kind
        raise BundleError(
            f"{path}: a model of fusion.kind {kind} writes no rationale; one of kind generator "
            "does, such as the recipe mr-harm-gated"
        )
    longest = max_length or opened.recipe.reasoning.max_length
    device = next(model.parameters()).device
    for start in show_progress(range(0, len(posts), _RATIONALE_BATCH), "writing rationales"):
        rows = range(start, min(start + _RATIONALE_BATCH, len(posts)))
        batch = {name: tensor.to(device) for name, tensor in predictor.feed.batch(rows).items()}
        with torch.inference_mode():
            written = model.write(batch, longest, beams)
        for row, ids in zip(rows, written.tolist(), strict=True):
            text = words.tokenizer.decode(ids, skip_special_tokens=True).strip()
            yield {"id": posts[row].id, "rationale": {"text": text, "saw_label": False}}
