"""What goes into a model, what its towers make of that, and what comes out."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from miko_clf.encode.tower import ImageTower, TextTower

# Arrays of `data.collate` as tensors, and `*_states` where a tower has already run.
Batch = dict[str, Tensor]


class ModelOutput(NamedTuple):
    """What a model returns.

    `logits` (post, label). What a kind of model does not have is none: `tokens` (post, token,
    width) and `present` (post, token) leave its last layer; `guess` (post, slot, text width) is
    what each slot thinks the teacher's text encodes to; `embedding` (post, width) is what the
    head reads; `writing` is the loss of writing the rationale that the batch holds.
    """

    logits: Tensor
    tokens: Tensor | None = None
    present: Tensor | None = None
    guess: Tensor | None = None
    embedding: Tensor | None = None
    writing: Tensor | None = None


@runtime_checkable
class FusionModule(Protocol):
    """What stands behind the towers: states of the inputs in, logits out.

    `content_texts` are the texts that it reads as content, `slots` what guesses intentions.
    """

    content_texts: tuple[str, ...]
    reads_intentions: bool

    def __call__(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return what the states are fused to; with `guess_only` the guess alone is worth it."""


def compute_image_states(tower: ImageTower, batch: Batch) -> Float[Tensor, "post token width"]:
    """Return the tokens of each post's image: `image_states`, `image_below` or `pixels`."""
    if "image_states" in batch:
        return batch["image_states"]
    if "image_below" in batch:
        return tower.above(batch["image_below"])
    return tower(batch["pixels"])


def compute_text_states(
    tower: TextTower, batch: Batch, name: str
) -> Float[Tensor, "post word width"]:
    """Return the state of each word of a text: `NAME_states`, `NAME_below` or `NAME_ids`."""
    if f"{name}_states" in batch:
        return batch[f"{name}_states"]
    mask = batch[f"{name}_mask"]
    if f"{name}_below" in batch:
        return tower.above(batch[f"{name}_below"], mask)
    return tower(batch[f"{name}_ids"], mask)


def compute_intention_states(
    tower: TextTower, batch: Batch
) -> Float[Tensor, "post intention word width"]:
    """Return the state of each word of each intention, zeros where a post has fewer."""
    if "intention_states" in batch:
        return batch["intention_states"]
    below = "intention_below" in batch
    words = batch["intention_below" if below else "intention_ids"].flatten(0, 1)
    mask = batch["intention_mask"].flatten(0, 1)
    shape = (*batch["intention_mask"].shape, -1)
    run = tower.above if below else tower
    if torch.compiler.is_exporting():
        return run(words, mask).reshape(shape)
    here = mask.any(1)  # an absent intention costs nothing
    states = tower.blank(*mask.shape)
    if here.any():
        present = run(words[here], mask[here])
        states = states.to(present.dtype).index_put((here,), present)
    return states.reshape(shape)


def set_frozen_to_eval(*towers: ImageTower | TextTower | None) -> None:
    """Put the towers in evaluation mode of which nothing learns."""
    for tower in towers:
        if tower is not None and not any(p.requires_grad for p in tower.parameters()):
            tower.eval()
