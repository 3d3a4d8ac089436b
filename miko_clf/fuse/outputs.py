"""What goes into a model and what comes out, and what a fusion behind the towers is."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from miko_clf.encode.tower import ImageTower, TextTower

# Arrays of a post as tensors, and `*_states` where a tower has already run.
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

    `content_texts` are the texts that it reads as content; it may read intentions besides. Of
    the texts in `reads_ids` it reads the token ids themselves, beside their states.
    """

    content_texts: tuple[str, ...]
    reads_intentions: bool
    reads_ids: tuple[str, ...]

    def __call__(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return what the states are fused to; with `guess_only` the guess alone is worth it."""


def set_frozen_to_eval(*towers: ImageTower | TextTower | None) -> None:
    """Put the towers in evaluation mode of which nothing learns."""
    for tower in towers:
        if tower is not None and not any(p.requires_grad for p in tower.parameters()):
            tower.eval()
