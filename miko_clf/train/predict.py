"""Which inputs a batch shows in an arm, and the logits of every post."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from miko_clf.fuse.build import Model
from miko_clf.fuse.outputs import Batch
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset

PREDICT_BATCH_SIZE = 64


def list_arms(recipe: Recipe) -> tuple[str, ...]:
    """Return the arms that a system can be compared in.

    `with` given intentions, `student` the model's own guess of them, `without` either.
    """
    if "intention" in recipe.inputs and recipe.joined != "no":
        return ("with",)  # they are a part of its text, which has no second form
    reads = ("with",) if "intention" in recipe.inputs else ()
    guesses = ("student",) if recipe.slots else ()
    return (*reads, *guesses, "without")


def list_serving_arms(recipe: Recipe) -> tuple[str, ...]:
    """Return the arms that the system is meant to be used in; the first is the usual one."""
    return tuple(arm for arm in list_arms(recipe) if arm != "without") or ("without",)


def mask_for_arm(batch: Batch, arm: str) -> Batch:
    """Return the batch as the arm sees it."""
    masked = dict(batch)
    if arm != "with" and "intention_mask" in batch:
        masked["intention_mask"] = torch.zeros_like(batch["intention_mask"])
    if arm != "student" and "student" in batch:
        masked["student"] = torch.zeros_like(batch["student"])
    return masked


@torch.inference_mode()
def predict_logits(
    model: Model, dataset: EncodedDataset, arm: str, without: tuple[str, ...] = ()
) -> NDArray[np.float64]:
    """Return (post, label) in the order of the posts; `without` names inputs to take away."""
    rows, parts = [], []
    for indices, batch in iterate_batches(model, dataset):
        masked = mask_inputs(mask_for_arm(batch, arm), without)
        rows += indices
        parts.append(model(masked).logits.cpu().double().numpy())
    result = np.empty((len(rows), parts[0].shape[1]))
    result[rows] = np.concatenate(parts)
    return result


def iterate_batches(
    model: nn.Module, dataset: EncodedDataset, batch_size: int = PREDICT_BATCH_SIZE
) -> Iterator[tuple[list[int], Batch]]:
    """Yield every post once, posts of like length together, on the model's device.

    With each batch come the indices of its posts. The model is in evaluation mode until the end.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    order = np.argsort([dataset.length(i) for i in range(len(dataset))], kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, {k: v.to(device) for k, v in dataset.batch(indices).items()}
    model.train(was_training)


def mask_inputs(batch: Batch, names: tuple[str, ...]) -> Batch:
    """Return the batch with the named inputs masked for every post.

    An image is hidden by `image_present`, a text or the intentions by their `NAME_mask`.
    """
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}
