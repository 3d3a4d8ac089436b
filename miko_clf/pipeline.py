"""The method on one page: read posts, train, calibrate, write a bundle."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from miko_clf import bundle, manifest
from miko_clf import recipe as recipes
from miko_clf.data.audit.quick import quick
from miko_clf.data.collate import Preparation, input_rationale
from miko_clf.data.held import Splits
from miko_clf.data.labels import encode, find
from miko_clf.data.pixels import golden_digest
from miko_clf.data.post import Post
from miko_clf.distil.leak import check_inputs
from miko_clf.encode.build import write_plans
from miko_clf.encode.lora import merge
from miko_clf.errors import BundleError, PostError, RecipeError
from miko_clf.evaluate.card import write_card
from miko_clf.evaluate.fitting import calibrate, check
from miko_clf.fuse.build import build, prepare
from miko_clf.fuse.model import Model
from miko_clf.questions import Questions
from miko_clf.recipe import Recipe
from miko_clf.recipe.fusions import Generator
from miko_clf.train.feed import Feed
from miko_clf.train.loop import Run, run
from miko_clf.train.stages import ReasoningStage, TaskStage


@dataclass(frozen=True)
class Plan:
    """How a recipe is trained, apart from what the recipe says.

    `out` is the bundle to write. `cache` is the folder of token features of frozen towers,
    none to run them in every epoch. `minutes` pass between checkpoints within an epoch.
    `leaks` lets texts be inputs that give the label away. `twin` is a recipe whose initial weights
    are taken wherever this one's have the same name and shape, and `lengths` say of each training
    post what it counts as when posts of like length are batched: so that two systems differ in
    nothing but what is compared.
    """

    out: Path
    cache: Path | None = None
    positive: str | None = None
    overwrite: bool = False
    minutes: float = 10.0
    trackers: tuple[str, ...] = ()
    leaks: bool = False
    twin: Recipe | None = None
    lengths: tuple[int, ...] | None = None

    @property
    def work(self) -> Path:
        """Where the run keeps its checkpoints until the bundle is written."""
        return self.out.with_name(self.out.name + ".training")


def fit(recipe: Recipe, data: Splits, plan: Plan) -> Path:
    """Train a recipe on the train and val splits and return the bundle.

    The test split is not opened. A run that was stopped or killed goes on where it was.
    Raises a `MikoError` for anything in the data, the recipe or the place that cannot be used.
    """
    started = time.monotonic()
    with _only_run(plan):
        train, val = labelled(data, "train"), labelled(data, "val")
        _warn(quick({"train": train, "val": val}))
        questions = find(train, plan.positive)
        _check(recipe, questions, val, data.path)
        facts = _facts(recipe, data, questions, len(train), len(val))
        facts["leaks"] = _probe_inputs(train, recipe, allow=plan.leaks)
        _continue_or_start(plan, facts)
        model = _model(recipe, questions, _texts(train), plan.twin)
        preparation = prepare(recipe, model)
        feeds = [
            _feed(recipe, posts, split, questions, model, preparation, plan)
            for split, posts in (("train", train), ("val", val))
        ]
        settings = Run(recipe, plan.work, plan.minutes, plan.trackers, plan.lengths)
        if recipe.reasoning.epochs:
            run(settings, model, ReasoningStage(recipe), *feeds)
        stage = TaskStage(recipe, feeds[0])
        run(settings, model, stage, *feeds)
        _merge(model)
        if stage.retrieving is not None:
            model.vote = stage.retrieving.vote(model, len(questions.names))
        facts["seconds"] = round(time.monotonic() - started, 1)
        _write(recipe, questions, model, preparation, feeds[1], plan, facts)
        shutil.rmtree(plan.work)
    return plan.out


def labelled(data: Splits, split: str) -> list[Post]:
    """Return the posts of a split, each with a label."""
    posts = data.read(split)
    for post in posts:
        if post.label is None:
            raise PostError(f"{data.path}: post {post.id!r} of {split} has no label; it needs one")
    return posts


def _model(recipe: Recipe, questions: Questions, texts: list[str], twin: Recipe | None) -> Model:
    """Return the untrained model, with what it shares with its twin as the twin has it."""
    model = build(recipe, questions.names, texts)
    if twin is not None:
        own, given = model.state_dict(), build(twin, questions.names, texts).state_dict()
        shared = {
            name: tensor
            for name, tensor in given.items()
            if name in own and own[name].shape == tensor.shape
        }
        model.load_state_dict(shared, strict=False)
    return model.to(_device())


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        Console(stderr=True).print(f"audit: {line}", highlight=False, soft_wrap=True)


def _probe_inputs(posts: list[Post], recipe: Recipe, *, allow: bool) -> list[dict[str, Any]]:
    """Return what the LLM's texts among the inputs give away; raises `PostError` if too much."""
    if "rationale" in recipe.inputs:
        for post in posts:
            input_rationale(post)
    found = check_inputs(posts, recipe.inputs, allow=allow)
    for leak in found:
        if leak.verdict != "no finding":
            Console(stderr=True).print(f"leak probe: {leak.line()}", highlight=False)
    return [leak.model_dump(mode="json") for leak in found]


def _check(recipe: Recipe, questions: Questions, val: Sequence[Post], where: Path) -> None:
    """Raise where the recipe cannot learn these questions, or val cannot judge them."""
    sections = {
        "fusion.kind generator": isinstance(recipe.fusion, Generator),
        "task.retrieval": recipe.task.retrieval is not None,
    }
    for key, used in sections.items():
        if used and not questions.plain:
            asked = "; ".join(one.line() for one in questions)
            raise RecipeError(
                f"{key} learns one question with one answer, and the posts of {where} are "
                f"labelled for {asked}; take a recipe without it, or posts of one task"
            )
    check(recipe.decision, questions)
    truth = encode(val, questions, f"{where}, val", "the labels of train are")
    for part in truth.parts():
        if not len(part.rows):
            raise PostError(f"{where}: no post of val has a label for {part.question.name}")
        if part.question.kind == "one" and len(set(part.truth.tolist())) < 2:
            only = part.question.labels[int(part.truth[0])]
            raise PostError(
                f"{where}: every post of val is labelled {only!r}; epoch and threshold are "
                f"chosen there, so it needs posts of {' and '.join(part.question.labels)}"
            )


def _feed(
    recipe: Recipe,
    posts: list[Post],
    split: str,
    questions: Questions,
    model: Model,
    preparation: Preparation,
    plan: Plan,
) -> Feed:
    feed = Feed(
        posts,
        questions,
        model,
        preparation,
        cache=plan.cache,
        targets=recipe.slots or recipe.reasoning.epochs > 0,
        rationale_length=recipe.reasoning.max_length,
        split=split,
    )
    if feed.words is not None and feed.words.num_cut:
        Console(stderr=True).print(
            f"{feed.words.num_cut:,} of {feed.words.num_texts:,} texts were cut at their limit "
            f"(text {preparation.max_length}, intention {preparation.intention_length}, "
            f"rationale {recipe.reasoning.max_length} tokens)",
            highlight=False,
        )
    return feed


def _texts(posts: Sequence[Post]) -> list[str]:
    """Return every training text, those of the teacher included."""
    texts: list[str | None] = []
    for post in posts:
        texts += [post.text, post.description, *(one.text for one in post.intentions)]
        texts.append(post.rationale.text if post.rationale else None)
    return [text for text in texts if text]


def _merge(model: Model) -> None:
    """Add the adapters that learned into the weights of the towers."""
    if model.image_tower is not None:
        merge(model.image_tower)
    if model.text_tower is not None:
        merge(model.text_tower)


def _facts(
    recipe: Recipe, data: Splits, questions: Questions, num_train: int, num_val: int
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "labels": questions.to_json(),
        "data": {split: data.fingerprint(split) for split in ("train", "val")},
        "rows": {"train": num_train, "val": num_val},
        "versions": manifest.versions(),
    }


@contextmanager
def _only_run(plan: Plan) -> Iterator[None]:
    if plan.out.exists():
        if not plan.overwrite:
            raise BundleError(f"{plan.out} exists; name another --out, or add --overwrite")
        if not (plan.out / manifest.NAME).is_file():
            raise BundleError(f"{plan.out} is not a bundle, so --overwrite leaves it alone")
    with manifest.alone(plan.work):
        yield


def _continue_or_start(plan: Plan, facts: dict[str, Any]) -> None:
    """Claim the working folder for this run, or find that it already is this run's."""
    path = plan.work / "run.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in facts if before.get(name) != facts[name]]
        if not differ:
            Console(stderr=True).print(f"going on with the run in {plan.work}", highlight=False)
            return
        if not plan.overwrite:
            raise BundleError(
                f"{plan.work} holds a run with other {' and '.join(differ)}; "
                "name another --out, or add --overwrite"
            )
        manifest.clear(plan.work)
    manifest.write_json(path, facts)


def _write(
    recipe: Recipe,
    questions: Questions,
    model: Model,
    preparation: Preparation,
    val: Feed,
    plan: Plan,
    facts: dict[str, Any],
) -> None:
    fitted = calibrate(recipe, model, val)
    golden = golden_digest(preparation.image) if preparation.image else None
    model.decoder = None
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with manifest.aside(plan.out) as folder:
        folder.mkdir()
        (folder / bundle.RECIPE).write_text(recipes.dump(recipe), encoding="utf-8")
        _json(folder / bundle.LABELS, questions.to_json())
        _json(
            folder / bundle.PREPROCESS,
            preparation.model_copy(update={"golden": golden}).model_dump(mode="json"),
        )
        _json(folder / bundle.CALIBRATION, bundle.calibration_json(questions, fitted))
        if val.words is not None:
            val.words.write(folder / bundle.TOKENIZER)
        write_plans(folder / bundle.TOWERS, model.image_tower, model.text_tower)
        save_file(state, folder / bundle.WEIGHTS)
        shutil.copy(plan.work / bundle.METRICS, folder / bundle.METRICS)
        write_card(folder, recipe, model, val, fitted, facts)
        manifest.write(folder, facts)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
