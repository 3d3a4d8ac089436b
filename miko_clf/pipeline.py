"""The method on one page: read posts, build, train, calibrate, write a bundle."""

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
from miko_clf.data.audit.label_leakage import check_input_leakage
from miko_clf.data.audit.quick import list_quick_warnings
from miko_clf.data.collate import Preparation, get_input_rationale
from miko_clf.data.labels import encode_labels, find_questions
from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_golden_image
from miko_clf.data.splits import PostSplits
from miko_clf.encode.build import write_plans
from miko_clf.encode.finetune import merge_lora
from miko_clf.errors import BundleError, PostError, RecipeError
from miko_clf.evaluate.calibration import check_decision, fit_calibrations
from miko_clf.evaluate.model_card import write_model_card
from miko_clf.fuse.build import Model, build_model, build_preparation
from miko_clf.questions import Questions
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import GeneratorSection
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.loop import TrainingRun, train_stage
from miko_clf.train.stages import ReasoningStage, TaskStage


@dataclass(frozen=True)
class FitOptions:
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


def fit(recipe: Recipe, data: PostSplits, plan: FitOptions) -> Path:
    """Train a recipe on the train and val splits and return the bundle.

    The test split is not opened. A run that was stopped or killed goes on where it was.
    Raises a `MikoError` for anything in the data, the recipe or the place that cannot be used.
    """
    started = time.monotonic()
    with _hold_output(plan):
        train, val = read_labelled_split(data, "train"), read_labelled_split(data, "val")
        _print_warnings(list_quick_warnings({"train": train, "val": val}))
        questions = find_questions(train, plan.positive)
        _check_task(recipe, questions, val, data.path)
        facts = _describe_run(recipe, data, questions, len(train), len(val))
        facts["leaks"] = _probe_inputs(train, recipe, allow=plan.leaks)
        _resume_or_start(plan, facts)
        model = _build_model(recipe, questions, _collect_texts(train), plan.twin)
        preparation = build_preparation(recipe, model)
        feeds = [
            _make_feed(recipe, posts, split, questions, model, preparation, plan)
            for split, posts in (("train", train), ("val", val))
        ]
        settings = TrainingRun(recipe, plan.work, plan.minutes, plan.trackers, plan.lengths)
        if recipe.reasoning.epochs:
            train_stage(settings, model, ReasoningStage(recipe), *feeds)
        stage = TaskStage(recipe, feeds[0])
        train_stage(settings, model, stage, *feeds)
        _merge_adapters(model)
        if stage.retrieving is not None:
            model.vote = stage.retrieving.vote(model, len(questions.names))
        facts["seconds"] = round(time.monotonic() - started, 1)
        _write_bundle(recipe, questions, model, preparation, feeds[1], plan, facts)
        shutil.rmtree(plan.work)
    return plan.out


def read_labelled_split(data: PostSplits, split: str) -> list[Post]:
    """Return the posts of a split, each with a label."""
    posts = data.read(split)
    for post in posts:
        if post.label is None:
            raise PostError(f"{data.path}: post {post.id!r} of {split} has no label; it needs one")
    return posts


def _build_model(
    recipe: Recipe, questions: Questions, texts: list[str], twin: Recipe | None
) -> Model:
    """Return the untrained model, with what it shares with its twin as the twin has it."""
    model = build_model(recipe, questions.names, texts)
    if twin is not None:
        own, given = model.state_dict(), build_model(twin, questions.names, texts).state_dict()
        shared = {
            name: tensor
            for name, tensor in given.items()
            if name in own and own[name].shape == tensor.shape
        }
        model.load_state_dict(shared, strict=False)
    return model.to(_find_device())


def _print_warnings(lines: Sequence[str]) -> None:
    for line in lines:
        Console(stderr=True).print(f"audit: {line}", highlight=False, soft_wrap=True)


def _probe_inputs(posts: list[Post], recipe: Recipe, *, allow: bool) -> list[dict[str, Any]]:
    """Return what the LLM's texts among the inputs give away; raises `PostError` if too much."""
    if "rationale" in recipe.inputs:
        for post in posts:
            get_input_rationale(post)
    found = check_input_leakage(posts, recipe.inputs, allow=allow)
    for leak in found:
        if leak.verdict != "no finding":
            Console(stderr=True).print(f"leak probe: {leak.line()}", highlight=False)
    return [leak.model_dump(mode="json") for leak in found]


def _check_task(recipe: Recipe, questions: Questions, val: Sequence[Post], where: Path) -> None:
    """Raise where the recipe cannot learn these questions, or val cannot judge them."""
    sections = {
        "fusion.kind generator": isinstance(recipe.fusion, GeneratorSection),
        "task.retrieval": recipe.task.retrieval is not None,
    }
    for key, used in sections.items():
        if used and not questions.plain:
            asked = "; ".join(one.line() for one in questions)
            raise RecipeError(
                f"{key} learns one question with one answer, and the posts of {where} are "
                f"labelled for {asked}; take a recipe without it, or posts of one task"
            )
    check_decision(recipe.decision, questions)
    truth = encode_labels(val, questions, f"{where}, val", "the labels of train are")
    for part in truth.parts():
        if not len(part.rows):
            raise PostError(f"{where}: no post of val has a label for {part.question.name}")
        if part.question.kind == "one" and len(set(part.truth.tolist())) < 2:
            only = part.question.labels[int(part.truth[0])]
            raise PostError(
                f"{where}: every post of val is labelled {only!r}; epoch and threshold are "
                f"chosen there, so it needs posts of {' and '.join(part.question.labels)}"
            )


def _make_feed(
    recipe: Recipe,
    posts: list[Post],
    split: str,
    questions: Questions,
    model: Model,
    preparation: Preparation,
    plan: FitOptions,
) -> EncodedDataset:
    feed = EncodedDataset(
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


def _collect_texts(posts: Sequence[Post]) -> list[str]:
    """Return every training text, those of the teacher included."""
    texts: list[str | None] = []
    for post in posts:
        texts += [post.text, post.description, *(one.text for one in post.intentions)]
        texts.append(post.rationale.text if post.rationale else None)
    return [text for text in texts if text]


def _merge_adapters(model: Model) -> None:
    """Add the adapters that learned into the weights of the towers."""
    if model.image_tower is not None:
        merge_lora(model.image_tower)
    if model.text_tower is not None:
        merge_lora(model.text_tower)


def _describe_run(
    recipe: Recipe, data: PostSplits, questions: Questions, num_train: int, num_val: int
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "labels": questions.to_json(),
        "data": {split: data.fingerprint(split) for split in ("train", "val")},
        "rows": {"train": num_train, "val": num_val},
        "versions": manifest.collect_versions(),
    }


@contextmanager
def _hold_output(plan: FitOptions) -> Iterator[None]:
    if plan.out.exists():
        if not plan.overwrite:
            raise BundleError(f"{plan.out} exists; name another --out, or add --overwrite")
        if not (plan.out / manifest.MANIFEST_FILE).is_file():
            raise BundleError(f"{plan.out} is not a bundle, so --overwrite leaves it alone")
    with manifest.lock_folder(plan.work):
        yield


def _resume_or_start(plan: FitOptions, facts: dict[str, Any]) -> None:
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
        manifest.empty_folder(plan.work)
    manifest.write_json(path, facts)


def _write_bundle(
    recipe: Recipe,
    questions: Questions,
    model: Model,
    preparation: Preparation,
    val: EncodedDataset,
    plan: FitOptions,
    facts: dict[str, Any],
) -> None:
    fitted = fit_calibrations(recipe, model, val)
    golden = digest_golden_image(preparation.image) if preparation.image else None
    model.decoder = None
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with manifest.write_atomically(plan.out) as folder:
        folder.mkdir()
        (folder / bundle.RECIPE_FILE).write_text(recipes.dump_recipe(recipe), encoding="utf-8")
        _write_indented(folder / bundle.LABELS_FILE, questions.to_json())
        _write_indented(
            folder / bundle.PREPROCESS_FILE,
            preparation.model_copy(update={"golden": golden}).model_dump(mode="json"),
        )
        _write_indented(
            folder / bundle.CALIBRATION_FILE, bundle.dump_calibrations(questions, fitted)
        )
        if val.words is not None:
            val.words.write(folder / bundle.TOKENIZER_FILE)
        write_plans(folder / bundle.TOWERS_FILE, model.image_tower, model.text_tower)
        save_file(state, folder / bundle.WEIGHTS_FILE)
        shutil.copy(plan.work / bundle.METRICS_FILE, folder / bundle.METRICS_FILE)
        write_model_card(folder, recipe, model, val, fitted, facts)
        manifest.write_manifest(folder, facts)


def _write_indented(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _find_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
