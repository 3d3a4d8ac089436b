"""The method on one page: read posts, build, train, calibrate, write a bundle."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from miko_clf.bundle import Calibration
from miko_clf.bundle_writer import describe_run, hold_output, write_bundle
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.preprocess import Preparation
from miko_clf.data.splits import PostSplits
from miko_clf.encode.finetune import merge_lora
from miko_clf.evaluate.calibration import fit_calibrations
from miko_clf.evaluate.model_card import predict_validation
from miko_clf.fuse.build import Model, build_model, build_preparation
from miko_clf.manifest import claim_folder
from miko_clf.preflight import check_training_posts
from miko_clf.questions import Questions
from miko_clf.recipe.schema import Recipe, load_recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.ensemble import BuildMember, train_members
from miko_clf.train.linear_probe import (
    ProbeFit,
    fit_linear_probe,
    mix_with_probe,
    refit_linear_probe,
)
from miko_clf.train.loop import TrainingRun, check_single_process, log_validation, train_stage
from miko_clf.train.stages import ReasoningStage, TaskStage


class TrainingSetup(NamedTuple):
    """A model that is to learn, how posts become its arrays, and the posts of both splits."""

    model: Model
    preparation: Preparation
    train: EncodedDataset
    val: EncodedDataset


def fit(
    recipe: Recipe | str | Path,
    data: PostSplits | str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    cache: str | Path | None = None,
    positive: str | None = None,
    overwrite: bool = False,
    minutes: float = 10.0,
    trackers: Sequence[str] = (),
    leaks: bool = False,
    twin: Recipe | None = None,
    lengths: Sequence[int] | None = None,
    hold_val: bool = False,
) -> Path:
    """Train a recipe on the train and val splits and return the bundle, written at `out`.

    The test split is not opened. A run that was stopped or killed goes on where it was.
    `recipe` may be a YAML file or the name of a shipped recipe, `data` a folder or file of posts.
    `seed` stands in for the recipe's. `cache` is the folder of token features of frozen towers,
    none to run them in every epoch. `positive` names the positive class, by default the rarer.
    `minutes` pass between checkpoints within an epoch; `trackers` are accelerate's names. `leaks`
    lets texts be inputs that give the label away. So that two systems differ in nothing but what
    is compared, `twin` is a recipe whose initial weights are taken wherever this one's have the
    same name and shape, and `lengths` say of each training post what it counts as when posts of
    like length are batched. `hold_val` keeps refits from val. Raises a `MikoError`.
    """
    check_single_process()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    data = open_folder(Path(data)) if isinstance(data, str | Path) else data
    out, started = Path(out), time.monotonic()
    with hold_output(out, overwrite=overwrite) as work:
        posts = {"train": data.read("train"), "val": data.read("val")}
        questions, findings = check_training_posts(recipe, posts, data.path, positive, leaks=leaks)
        facts = describe_run(recipe, data, posts, questions, findings)
        if claim_folder(work / "run.json", facts, overwrite=overwrite):
            Console(stderr=True).print(f"going on with the run in {work}", highlight=False)
        seed, size = recipe.seed, recipe.batch_size
        run = TrainingRun(recipe.name, work, seed, size, minutes, trackers, lengths)
        setup = _build(recipe, posts, questions, Path(cache) if cache else None, twin)
        build = partial(_build_model, names=questions.names, posts=posts["train"], twin=twin)
        probe_fits = _train(run, recipe, setup, build)
        facts["seconds"] = round(time.monotonic() - started, 1)
        settled = _settle(recipe, setup, probe_fits, facts, refits=not hold_val)
        write_bundle(out, recipe, *setup, *settled, facts, metrics=run.metrics)
        shutil.rmtree(work)
    return out


def _build(
    recipe: Recipe,
    posts: Mapping[str, list[Post]],
    questions: Questions,
    cache: Path | None,
    twin: Recipe | None,
) -> TrainingSetup:
    """Return the untrained model, and the posts as it reads them."""
    model = _build_model(recipe, questions.names, posts["train"], twin)
    preparation = build_preparation(recipe, model)

    def encode(split: str) -> EncodedDataset:
        dataset = EncodedDataset(
            posts[split],
            questions,
            model,
            preparation,
            cache=cache,
            targets=recipe.slots or recipe.reasoning.epochs > 0,
            rationale_length=recipe.reasoning.max_length,
            split=split,
        )
        _print_cut_texts(dataset, recipe)
        return dataset

    return TrainingSetup(model, preparation, encode("train"), encode("val"))


def _build_model(
    recipe: Recipe, names: Sequence[str], posts: Sequence[Post], twin: Recipe | None
) -> Model:
    """Return the untrained model, with what it shares with its twin as the twin has it."""
    texts = list(_iterate_texts(posts))
    model = build_model(recipe, names, texts)
    if twin is not None:
        alike = {"seed": recipe.seed, "ensemble": recipe.ensemble, "distil": recipe.distil}
        twin = twin.model_copy(update=alike)
        own, shared = model.state_dict(), build_model(twin, names, texts).state_dict()
        model.load_state_dict(
            {k: v for k, v in shared.items() if k in own and own[k].shape == v.shape}, strict=False
        )
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _settle(
    recipe: Recipe,
    setup: TrainingSetup,
    probe_fits: Sequence[ProbeFit],
    facts: dict[str, Any],
    *,
    refits: bool,
) -> tuple[tuple[Calibration, ...], Mapping[str, np.ndarray]]:
    """Return what validation calibrates, and what was said of it; then fit it too if asked to."""
    calibrations = fit_calibrations(recipe, setup.model, setup.val)
    validated = predict_validation(recipe, setup.model, setup.val, calibrations)
    if recipe.task.refit and refits:
        refit_linear_probe(recipe, setup.model, [setup.train, setup.val], probe_fits)
        facts["learned_from"] = ["train", "val"]
    return calibrations, validated


def _iterate_texts(posts: Sequence[Post]) -> Iterator[str]:
    """Yield every training text, those of the teacher included."""
    for post in posts:
        texts = [post.text, post.description, *(item.text for item in post.intentions)]
        texts.append(post.rationale.text if post.rationale else None)
        yield from filter(None, texts)


def _print_cut_texts(dataset: EncodedDataset, recipe: Recipe) -> None:
    words, preparation = dataset.words, dataset.preparation
    if words is not None and words.num_cut:
        Console(stderr=True).print(
            f"{words.num_cut:,} of {words.num_texts:,} texts were cut at their limit "
            f"(text {preparation.max_length}, intention {preparation.intention_length}, "
            f"rationale {recipe.reasoning.max_length} tokens)",
            highlight=False,
        )


def _train(
    run: TrainingRun, recipe: Recipe, setup: TrainingSetup, build: BuildMember
) -> list[ProbeFit]:
    """Fit what is fitted to its optimum and return how; let the rest learn, as many as answer."""
    model, train, val = setup.model, setup.train, setup.val
    if recipe.fitted:
        return fit_linear_probe(run, recipe, model, train, val)
    teacher = None
    if recipe.ensemble > 1:

        def learn(run: TrainingRun, own: Recipe, member: Model) -> None:
            _train_model(run, own, member, train, val)

        teacher = train_members(run, recipe, model, train, val, build=build, learn=learn)
        if teacher is None:
            return []
    _train_model(run, recipe, model, train, val, teacher)
    return []


def _train_model(
    run: TrainingRun,
    recipe: Recipe,
    model: Model,
    train: EncodedDataset,
    val: EncodedDataset,
    teacher: Tensor | None = None,
) -> None:
    """Let one model learn what an LLM says, then the label; and settle what comes after.

    `teacher` are logits of the training posts that it learns beside their labels.
    """
    if recipe.reasoning.epochs:
        train_stage(run, model, ReasoningStage(recipe), train, val)
    stage = TaskStage(recipe, train, teacher)
    if recipe.task.epochs:
        train_stage(run, model, stage, train, val)
    if recipe.based:
        mix_with_probe(run, recipe, model, train, val)
    if model.image_tower is not None:
        merge_lora(model.image_tower)
    if model.text_tower is not None:
        merge_lora(model.text_tower)
    if stage.retrieving is not None:
        model.vote = stage.retrieving.vote(model, len(train.truth.questions.names))
    if not recipe.task.epochs:
        log_validation(run, stage.name, 0, stage.validate(model, val))
