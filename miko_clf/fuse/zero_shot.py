"""Zero-shot classification: embeddings of a post beside those of prompts for each label."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode.tower import ImageTower, Pool, TextTower, pool_states
from miko_clf.errors import RecipeError, suggest_nearest
from miko_clf.fuse.late_fusion import pool_inputs
from miko_clf.fuse.outputs import Batch, ModelOutput

_MAX_LENGTH = 512  # tokens kept of a prompt by a tower that knows no limit


class ZeroShotFusion(nn.Module):
    """CLIP's zero-shot classifier (Radford et al., ICML 2021); nothing of it is trained.

    A post is the mean of the unit embeddings of its image and of the texts that it reads, a label
    that of its prompts, which `set_label_vectors` computes. Both vectors are part of the state, so
    a bundle and a graph that read images alone need no text tower.
    """

    label_vectors: Tensor
    scale: Tensor

    def __init__(
        self, *, width: int, text_pool: Pool, content_texts: tuple[str, ...], num_labels: int
    ) -> None:
        super().__init__()
        self.content_texts = content_texts
        self.reads_ids: tuple[str, ...] = ()
        self.text_pool = text_pool
        self.reads_images = True
        self.reads_intentions = False
        self.register_buffer("label_vectors", torch.zeros(num_labels, width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, states: Batch, guess_only: bool = False) -> ModelOutput:
        """Return the scaled cosine of each post and each label, 0 for a post of no input."""
        units = [
            functional.normalize(vector.float(), dim=1) * present[:, None].float()
            for vector, present in pool_inputs(self, states).values()
        ]
        embedding = functional.normalize(torch.stack(units).sum(0), dim=1)
        return ModelOutput(self.scale * embedding @ self.label_vectors.T, embedding=embedding)


def build_zero_shot(
    image: ImageTower | None,
    text: TextTower | None,
    *,
    content_texts: tuple[str, ...],
    num_labels: int,
) -> ZeroShotFusion:
    """Return the fusion behind two halves of an encoder; a bundle may have no text half.

    Raises `RecipeError` where the halves have no common space.
    """
    assert image is not None
    if text is not None and text.width != image.width:
        raise RecipeError(
            f"fusion.kind zero_shot needs one space for images and texts, and this encoder's "
            f"embeddings have {image.width} and {text.width} channels; name a CLIP or a SigLIP"
        )
    pool: Pool = text.pool if text is not None else "last"
    return ZeroShotFusion(
        width=image.width, text_pool=pool, content_texts=content_texts, num_labels=num_labels
    )


def set_label_vectors(
    fusion: ZeroShotFusion, tower: TextTower, prompts: Sequence[Sequence[str]]
) -> None:
    """Compute the vector of each label from its prompts, and take the encoder's logit scale.

    Raises `RecipeError` for a tower that was not trained beside an image tower.
    """
    scale = getattr(tower.trunk, "logit_scale", None)
    if scale is None:
        raise RecipeError(
            "fusion.kind zero_shot needs an encoder that was trained to match images and texts, "
            "which has a logit scale; name a CLIP or a SigLIP for image and text"
        )
    fusion.label_vectors.copy_(embed_prompts(tower, prompts))
    fusion.scale.fill_(scale)


@torch.no_grad()
def embed_prompts(
    tower: TextTower, prompts: Sequence[Sequence[str]]
) -> Float[Tensor, "label width"]:
    """Return for each label the mean of its prompts' unit embeddings, itself of unit length."""
    length = min(tower.limit, _MAX_LENGTH)
    vectors, training = [], tower.training
    tower.eval()
    for texts in prompts:
        rows = tower.words.encode(list(texts), length)
        ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, tower.words.pad_id))
        pooled = pool_states(tower(ids, mask), mask, tower.pool)
        vectors.append(functional.normalize(pooled.float(), dim=1).mean(0))
    tower.train(training)
    return functional.normalize(torch.stack(vectors), dim=1)


def write_prompts(
    labels: Sequence[str],
    templates: Sequence[str],
    prompts: Mapping[str, Sequence[str]],
) -> list[list[str]]:
    """Return the prompts of each label: its own, or the templates with its name in them.

    Raises `RecipeError` for prompts of something that is no label.
    """
    for label in prompts:
        if label not in labels:
            among = ", ".join(labels) + suggest_nearest(label, labels)
            raise RecipeError(f"fusion.prompts has no label called {label!r}; there are {among}")
    named = {label: label.replace("_", " ") for label in labels}
    return [
        list(prompts.get(label, [each.replace("{label}", named[label]) for each in templates]))
        for label in labels
    ]
