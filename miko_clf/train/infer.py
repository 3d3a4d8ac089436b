"""Logits of every post of a feed, in one arm of a comparison."""

import numpy as np
import torch
from numpy.typing import NDArray

from miko_clf.fuse.fused import Batch
from miko_clf.fuse.model import Model
from miko_clf.recipe import Recipe
from miko_clf.train.feed import Feed

BATCH_SIZE = 64


def arms(recipe: Recipe) -> tuple[str, ...]:
    """Return the arms that a system can be compared in.

    `with` given intentions, `student` the model's own guess of them, `without` either.
    """
    if "intention" in recipe.inputs and recipe.joined != "no":
        return ("with",)  # they are a part of its text, which has no second form
    given = ("with",) if "intention" in recipe.inputs else ()
    guessed = ("student",) if recipe.slots else ()
    return (*given, *guessed, "without")


def serving_arms(recipe: Recipe) -> tuple[str, ...]:
    """Return the arms that the system is meant to be used in; the first is the usual one."""
    return tuple(arm for arm in arms(recipe) if arm != "without") or ("without",)


def in_arm(batch: Batch, arm: str) -> Batch:
    """Return the batch as the arm sees it."""
    seen = dict(batch)
    if arm != "with" and "intention_mask" in batch:
        seen["intention_mask"] = torch.zeros_like(batch["intention_mask"])
    if arm != "student" and "student" in batch:
        seen["student"] = torch.zeros_like(batch["student"])
    return seen


@torch.inference_mode()
def logits(
    model: Model, feed: Feed, arm: str, without: tuple[str, ...] = ()
) -> NDArray[np.float64]:
    """Return (post, label) in the order of the feed; `without` names inputs to take away."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    order = np.argsort([feed.length(i) for i in range(len(feed))], kind="stable")
    parts = []
    for start in range(0, len(order), BATCH_SIZE):
        batch = feed.batch(order[start : start + BATCH_SIZE].tolist())
        batch = take_away(in_arm(batch, arm), without)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        parts.append(model(batch).logits.double().cpu().numpy())
    model.train(was_training)
    result = np.empty((len(order), parts[0].shape[1]))
    result[order] = np.concatenate(parts)
    return result


def take_away(batch: Batch, names: tuple[str, ...]) -> Batch:
    """Return the batch with the named inputs masked for every post."""
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}
