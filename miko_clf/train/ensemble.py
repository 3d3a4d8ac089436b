"""Members of an ensemble: each learns from a seed of its own, and they answer as one."""

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from miko_clf.fuse.build import Model
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.ensemble import EnsembleFusion
from miko_clf.progress import print_notice
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.loop import TrainingRun, log_validation
from miko_clf.train.predict import list_serving_arms, predict_logits
from miko_clf.train.stages import TaskStage

BuildMember = Callable[[Recipe], Model]
TrainMember = Callable[[TrainingRun, Recipe, Model], None]


def train_members(
    run: TrainingRun,
    recipe: Recipe,
    model: Model,
    train: EncodedDataset,
    val: EncodedDataset,
    *,
    build: BuildMember,
    learn: TrainMember,
) -> Float[Tensor, "post label"] | None:
    """Train every member and make the model their mean, or return what they teach another.

    Each trains in a folder of its own, so a run that was stopped goes on with the member and the
    step at which it was. Where the recipe distils, the mean logits of the training posts are
    returned, in the first arm that the system serves in, and the model is left as it was.
    """
    logits: list[Float[np.ndarray, "post label"]] = []
    kept: list[dict[str, Any]] = []
    for number, own in enumerate(recipe.list_members()):
        print_notice(f"member {number + 1} of {recipe.ensemble}, seed {own.seed}")
        member_run = _enter_folder(run, f"member-{number + 1}", own.seed)
        member = build(own)
        _share_frozen_towers(own, member, model)
        learn(member_run, own, member)
        kept.append({"seed": own.seed, **TaskStage(own, train).validate(member, val)})
        if recipe.distil:
            logits.append(predict_logits(member, train, list_serving_arms(own)[0]))
            continue
        _put_member(model, number, member)
        if not number:
            shutil.copy(member_run.metrics, run.metrics)
    measured = _average_metrics(kept)
    if not recipe.distil:
        measured = TaskStage(recipe, train).validate(model, val)
    log_validation(run, "ensemble", 1, measured, members=kept)
    return torch.from_numpy(np.mean(logits, axis=0)).float() if logits else None


def _enter_folder(run: TrainingRun, name: str, seed: int) -> TrainingRun:
    folder = run.folder / name
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(run, folder=folder, seed=seed)


def _share_frozen_towers(recipe: Recipe, member: Model, model: Model) -> None:
    """Let a member use the model's towers of which nothing learns: they are the same."""
    if recipe.image is not None and not recipe.image.learns:
        member.image_tower = model.image_tower
    if recipe.text is not None and not recipe.text.learns:
        member.text_tower = model.text_tower


def _put_member(model: Model, number: int, member: Model) -> None:
    assert isinstance(model, MikoClassifier)
    assert isinstance(model.fusion, EnsembleFusion)
    assert isinstance(member.fusion, nn.Module)
    model.fusion.members[number] = member.fusion


def _average_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name in rows[0] if name != "seed"]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}
