"""Before anything is trained: what cannot be learned from its posts is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from miko_clf.data.audit.label_leakage import check_input_leakage
from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.labels import TaskLabels, encode_labels, find_questions, flatten_label
from miko_clf.data.post import Post
from miko_clf.data.tokenizer import get_input_rationale
from miko_clf.errors import PostError, RecipeError, shorten_value
from miko_clf.evaluate.calibration import check_decision
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import GeneratorSection, ZeroShotSection

_RANKING_METRICS = ("auroc", "average_precision")


def check_training_posts(
    recipe: Recipe,
    posts: Mapping[str, list[Post]],
    where: Path,
    positive: str | None,
    *,
    leaks: bool,
) -> tuple[Questions, list[dict[str, Any]]]:
    """Return the questions that posts of train and val answer, and what among them leaks.

    Lines on stderr say what is doubtful. Raises `PostError` or `RecipeError` where the recipe
    cannot learn from train, or val cannot judge it, and `PostError` where an input gives the
    label away unless `leaks` are allowed.
    """
    check_labels(posts, where)
    for line in list_quick_warnings(posts):
        Console(stderr=True).print(f"audit: {line}", highlight=False, soft_wrap=True)
    questions = find_questions(posts["train"], positive)
    _check_recipe(recipe, questions, where)
    _check_val(posts["val"], questions, where, recipe)
    for line in _list_rare_labels(posts):
        Console(stderr=True).print(f"labels: {line}", highlight=False, soft_wrap=True)
    return questions, _probe_inputs(posts["train"], recipe, allow=leaks)


def check_labels(posts: Mapping[str, Sequence[Post]], where: Path) -> None:
    """Raise `PostError` for a post of a split that has no label."""
    for split, part in posts.items():
        bare = [post for post in part if post.label is None]
        if bare:
            others = f", nor have {len(bare) - 1:,} more" if len(bare) > 1 else ""
            name = shorten_value(bare[0].id)
            raise PostError(
                f"{where}: post {name} of {split} has no label{others}; it needs one, so label "
                "such posts or keep them in another file"
            )


def _check_recipe(recipe: Recipe, questions: Questions, where: Path) -> None:
    """Raise `RecipeError` where the recipe cannot learn these questions."""
    sections = {
        "fusion.kind generator": isinstance(recipe.fusion, GeneratorSection),
        "fusion.kind zero_shot": isinstance(recipe.fusion, ZeroShotSection),
        "task.retrieval": recipe.task.retrieval is not None,
    }
    for key, used in sections.items():
        if used and not questions.plain:
            asked = "; ".join(question.line() for question in questions)
            raise RecipeError(
                f"{key} learns one question with one answer, and the posts of {where} are "
                f"labelled for {asked}; take a recipe without it, or posts of one task"
            )
    check_decision(recipe.decision, questions)


def _check_val(val: Sequence[Post], questions: Questions, where: Path, recipe: Recipe) -> None:
    """Raise `PostError` where val cannot judge what is learned."""
    truth = encode_labels(val, questions, f"{where}, val", "the labels of train are")
    for part in truth.split_by_question():
        if not len(part.rows):
            raise PostError(f"{where}: no post of val has a label for {part.question.name}")
        if part.question.kind == "one" and len(set(part.truth.tolist())) < 2:
            only = part.question.labels[int(part.truth[0])]
            raise PostError(
                f"{where}: every post of val is labelled {only!r}; epoch and threshold are "
                f"chosen there, so it needs posts of {' and '.join(part.question.labels)}"
            )

        if part.question.kind == "many" and not part.truth.any():
            raise PostError(
                f"{where}: no post of val has any of the labels {', '.join(part.question.labels)}; "
                "thresholds are chosen there, so it needs some"
            )
    metric = recipe.task.early.metric
    chosen = recipe.task.epochs > 0 and not recipe.fitted and metric in _RANKING_METRICS
    lacking = [_find_lacking_label(part) for part in truth.split_by_question()]
    if chosen and all(lacking):
        raise PostError(
            f"{where}: no post of val is labelled {lacking[0]!r:.80}, so the {metric} by which the "
            "epoch is chosen is undefined; put some there, merge labels by --label-map, or choose "
            "by --recipe.task.early.metric macro_f1"
        )


def _find_lacking_label(part: TaskLabels) -> str:
    """Return the label for want of which a ranking metric of a question is undefined, if any."""
    held = np.eye(len(part.question.labels))[part.truth] if part.truth.ndim == 1 else part.truth
    shares = held.mean(0)
    lacking = [n for n, share in zip(part.question.labels, shares, strict=True) if not share]
    if part.question.kind == "one":
        return lacking[0] if lacking else ""
    return "" if ((shares > 0) & (shares < 1)).any() else (lacking or list(part.question.labels))[0]


def _list_rare_labels(posts: Mapping[str, Sequence[Post]]) -> list[str]:
    """Return a line for each label that train has but once, or val not at all."""
    counts = {
        split: Counter(name for post in posts[split] for name in flatten_label(post.label))
        for split in ("train", "val")
    }
    lines = []
    for name in sorted(counts["train"]):
        train, val = counts["train"][name], counts["val"][name]
        if train == 1:
            lines.append(f"train has but one post labelled {name!r:.80}; little is learned of it")
        if not val:
            lines.append(
                f"val has no post labelled {name!r:.80}; what is measured of it there is undefined"
            )
    return lines


def _probe_inputs(posts: list[Post], recipe: Recipe, *, allow: bool) -> list[dict[str, Any]]:
    """Return what the LLM's texts among the inputs give away; raises `PostError` if too much."""
    if "rationale" in recipe.inputs:
        for post in posts:
            get_input_rationale(post)
    leaks = check_input_leakage(posts, recipe.inputs, allow=allow)
    for leak in leaks:
        if leak.verdict != "no finding":
            Console(stderr=True).print(f"leak probe: {leak.line()}", highlight=False)
    return [leak.model_dump(mode="json") for leak in leaks]
