"""Before anything is trained: posts read, and what cannot be learned from them refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from miko_clf.data.audit.label_leakage import check_input_leakage
from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.collate import get_input_rationale
from miko_clf.data.labels import encode_labels, find_questions
from miko_clf.data.post import Post
from miko_clf.data.splits import PostSplits
from miko_clf.errors import PostError, RecipeError
from miko_clf.evaluate.calibration import check_decision
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import GeneratorSection


class TrainingPosts(NamedTuple):
    """Labelled posts that a recipe can learn from, what they answer, and what gives it away."""

    train: list[Post]
    val: list[Post]
    questions: Questions
    leaks: list[dict[str, Any]]


def read_training_posts(
    recipe: Recipe, data: PostSplits, *, positive: str | None, leaks: bool
) -> TrainingPosts:
    """Return the posts of train and val, checked; lines on stderr say what is doubtful.

    Raises `PostError` or `RecipeError` where the recipe cannot learn from them, or val cannot
    judge it, and `PostError` where an input gives the label away unless `leaks` are allowed.
    """
    train, val = read_labelled_split(data, "train"), read_labelled_split(data, "val")
    for line in list_quick_warnings({"train": train, "val": val}):
        Console(stderr=True).print(f"audit: {line}", highlight=False, soft_wrap=True)
    questions = find_questions(train, positive)
    _check_recipe(recipe, questions, data.path)
    _check_val(val, questions, data.path)
    return TrainingPosts(train, val, questions, _probe_inputs(train, recipe, allow=leaks))


def read_labelled_split(data: PostSplits, split: str) -> list[Post]:
    """Return the posts of a split; raises `PostError` for one without a label."""
    posts = data.read(split)
    for post in posts:
        if post.label is None:
            raise PostError(f"{data.path}: post {post.id!r} of {split} has no label; it needs one")
    return posts


def _check_recipe(recipe: Recipe, questions: Questions, where: Path) -> None:
    """Raise `RecipeError` where the recipe cannot learn these questions."""
    sections = {
        "fusion.kind generator": isinstance(recipe.fusion, GeneratorSection),
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


def _check_val(val: Sequence[Post], questions: Questions, where: Path) -> None:
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
