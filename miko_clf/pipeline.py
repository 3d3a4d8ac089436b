"""The method on one page: read posts, train, calibrate, write a bundle."""

import json
import shutil
import time
from collections import Counter
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
from miko_clf.data.collate import Preparation, input_rationale
from miko_clf.data.folder import DataFolder, labels
from miko_clf.data.pixels import golden_digest
from miko_clf.data.post import Post
from miko_clf.distil.leak import check_inputs
from miko_clf.encode.build import write_plans
from miko_clf.errors import BundleError, PostError
from miko_clf.evaluate.card import write_card
from miko_clf.evaluate.predict import calibrate
from miko_clf.fuse.build import build, prepare
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed
from miko_clf.train.loop import Run, run
from miko_clf.train.stages import ReasoningStage, TaskStage


@dataclass(frozen=True)
class Plan:
    """How a recipe is trained, apart from what the recipe says.

    `out` is the bundle to write. `cache` is the folder of token features of frozen towers,
    none to run them in every epoch. `minutes` pass between checkpoints within an epoch.
    `leaks` lets texts be inputs that give the label away.
    """

    out: Path
    cache: Path | None = None
    positive: str | None = None
    overwrite: bool = False
    minutes: float = 10.0
    trackers: tuple[str, ...] = ()
    leaks: bool = False

    @property
    def work(self) -> Path:
        """Where the run keeps its checkpoints until the bundle is written."""
        return self.out.with_name(self.out.name + ".training")


def fit(recipe: Recipe, data: DataFolder, plan: Plan) -> Path:
    """Train a recipe on the train and val splits and return the bundle.

    The test split is not opened. A run that was stopped or killed goes on where it was.
    Raises a `MikoError` for anything in the data, the recipe or the place that cannot be used.
    """
    started = time.monotonic()
    with _only_run(plan):
        train, val = labelled(data, "train"), labelled(data, "val")
        names = label_order(train, plan.positive)
        _check_labels(val, names, data.path)
        facts = _facts(recipe, data, names, len(train), len(val))
        facts["leaks"] = _probe_inputs(train, recipe, allow=plan.leaks)
        _continue_or_start(plan, facts)
        model = build(recipe, len(names), _texts(train)).to(_device())
        preparation = prepare(recipe, model)
        feeds = [_feed(recipe, posts, names, model, preparation, plan) for posts in (train, val)]
        settings = Run(recipe, plan.work, plan.minutes, plan.trackers)
        if recipe.reasoning.epochs:
            run(settings, model, ReasoningStage(recipe), *feeds)
        run(settings, model, TaskStage(recipe, feeds[0].labels, len(names)), *feeds)
        facts["seconds"] = round(time.monotonic() - started, 1)
        _write(recipe, names, model, preparation, feeds[1], plan, facts)
        shutil.rmtree(plan.work)
    return plan.out


def labelled(data: DataFolder, split: str) -> list[Post]:
    """Return the posts of a split, each with one label."""
    posts = data.read(split)
    for post in posts:
        if not isinstance(post.label, str):
            what = "no label" if post.label is None else "a list of labels"
            raise PostError(f"{data.path}: post {post.id!r} of {split} has {what}, one is needed")
    return posts


def label_order(posts: Sequence[Post], positive: str | None) -> tuple[str, ...]:
    """Return the labels, of two the positive one second.

    Without a choice the positive one is the rarer, at equal counts the first by name.
    """
    names = labels(posts)
    if len(names) < 2:
        raise PostError(f"the training posts have one label, {names[0]!r}; two are needed")
    if positive is not None and positive not in names:
        raise PostError(f"no training post is labelled {positive!r}; labels: {', '.join(names)}")
    if len(names) > 2:
        return names
    counts = Counter(post.label for post in posts)
    chosen = positive or min(names, key=lambda name: (counts[name], name))
    return tuple(sorted(names, key=lambda name: name == chosen))


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


def _check_labels(posts: Sequence[Post], names: tuple[str, ...], where: Path) -> None:
    for post in posts:
        if post.label not in names:
            known = ", ".join(names)
            raise PostError(
                f"{where}: post {post.id!r} of val is labelled {post.label!r}; "
                f"the labels of train are {known}"
            )


def _feed(
    recipe: Recipe,
    posts: list[Post],
    names: tuple[str, ...],
    model: MikoClassifier,
    preparation: Preparation,
    plan: Plan,
) -> Feed:
    feed = Feed(
        posts,
        names,
        model,
        preparation,
        cache=plan.cache,
        targets=recipe.fusion.slots,
        rationale_length=recipe.reasoning.max_length,
    )
    if feed.words.num_cut:
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


def _facts(
    recipe: Recipe, data: DataFolder, names: tuple[str, ...], num_train: int, num_val: int
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "labels": list(names),
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
    names: tuple[str, ...],
    model: MikoClassifier,
    preparation: Preparation,
    val: Feed,
    plan: Plan,
    facts: dict[str, Any],
) -> None:
    fitted = calibrate(recipe, model, val, names)
    golden = golden_digest(preparation.image) if preparation.image else None
    model.decoder = None
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with manifest.aside(plan.out) as folder:
        folder.mkdir()
        (folder / bundle.RECIPE).write_text(recipes.dump(recipe), encoding="utf-8")
        _json(folder / bundle.LABELS, list(names))
        _json(
            folder / bundle.PREPROCESS,
            preparation.model_copy(update={"golden": golden}).model_dump(mode="json"),
        )
        _json(folder / bundle.CALIBRATION, fitted.model_dump(mode="json"))
        val.words.write(folder / bundle.TOKENIZER)
        write_plans(folder / bundle.TOWERS, model.image_tower, model.text_tower)
        save_file(state, folder / bundle.WEIGHTS)
        shutil.copy(plan.work / bundle.METRICS, folder / bundle.METRICS)
        write_card(folder, recipe, model, val, names, fitted, facts)
        manifest.write(folder, facts)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
