"""What the towers say of the posts of a batch: as it stands there, or by running them."""

import torch
from jaxtyping import Float
from torch import Tensor

from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.fuse.fused import Batch


def image_states(tower: ImageTower, batch: Batch) -> Float[Tensor, "post token width"]:
    """Return the tokens of each post's image: `image_states`, `image_below` or `pixels`."""
    if "image_states" in batch:
        return batch["image_states"]
    if "image_below" in batch:
        return tower.above(batch["image_below"])
    return tower(batch["pixels"])


def text_states(tower: TextTower, batch: Batch, name: str) -> Float[Tensor, "post word width"]:
    """Return the state of each word of a text: `NAME_states`, `NAME_below` or `NAME_ids`."""
    if f"{name}_states" in batch:
        return batch[f"{name}_states"]
    mask = batch[f"{name}_mask"]
    if f"{name}_below" in batch:
        return tower.above(batch[f"{name}_below"], mask)
    return tower(batch[f"{name}_ids"], mask)


def intention_states(tower: TextTower, batch: Batch) -> Float[Tensor, "post intention word width"]:
    """Return the state of each word of each intention, zeros where a post has fewer."""
    if "intention_states" in batch:
        return batch["intention_states"]
    below = "intention_below" in batch
    given = batch["intention_below" if below else "intention_ids"].flatten(0, 1)
    mask = batch["intention_mask"].flatten(0, 1)
    shape = (*batch["intention_mask"].shape, -1)
    run = tower.above if below else tower
    if torch.compiler.is_exporting():
        return run(given, mask).reshape(shape)
    here = mask.any(1)  # an absent intention costs nothing
    states = tower.blank(*mask.shape)
    if here.any():
        found = run(given[here], mask[here])
        states = states.to(found.dtype).index_put((here,), found)
    return states.reshape(shape)
