"""Recipe to model: the only place where names become objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from miko_clf.data.collate import Preparation
from miko_clf.data.words import Words
from miko_clf.encode import build as encoders
from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.errors import BundleError
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.conditioned import Conditioned
from miko_clf.fuse.decoder import Decoder
from miko_clf.fuse.fused import Fusion
from miko_clf.fuse.generator import Generator
from miko_clf.fuse.model import Model
from miko_clf.fuse.pooled import Pooled
from miko_clf.fuse.product import Product
from miko_clf.fuse.reader import Reader
from miko_clf.fuse.vote import Vote
from miko_clf.recipe import Recipe, fusions

# Keys of a fusion's section that say which class it is or how it is trained.
NOT_BUILT = {"kind", "modality_dropout", "slots", "slot_dropout"}


def build(recipe: Recipe, labels: Sequence[str], texts: Sequence[str]) -> Model:
    """Return the untrained model of a recipe; the same seed gives the same weights.

    `texts` are the training texts; only a tiny text tower looks at them.
    """
    torch.manual_seed(recipe.seed)
    image = encoders.image_tower(recipe.image) if recipe.image else None
    writes = isinstance(recipe.fusion, fusions.Generator)
    text = encoders.text_tower(recipe.text, list(texts), writes=writes) if recipe.text else None
    torch.manual_seed(recipe.seed)
    return _model(recipe, image, text, labels, _decoder(recipe, text, texts))


def rebuild(folder: Path, recipe: Recipe, labels: Sequence[str], words: Words | None) -> Model:
    """Return the trained model of a bundle, in evaluation mode and without a hub."""
    image, text = encoders.rebuild(folder / "towers.json", words)
    model = _model(recipe, image, text, labels, None)
    try:
        state = load_file(folder / "model.safetensors")
        if isinstance(model, MikoClassifier):
            model.vote = _blank_vote(recipe, state, len(labels))
        model.load_state_dict(state)
    except (RuntimeError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0][:200]
        raise BundleError(f"{folder}: weights do not fit the recipe: {reason}") from None
    return model.eval()


def prepare(recipe: Recipe, model: Model) -> Preparation:
    """Return how posts become arrays for this model."""
    text, section = model.text_tower, recipe.text
    limit = text.limit if text else 1
    longest = section.max_length if section else 1
    in_windows = section is not None and section.long == "chunk"
    return Preparation(
        inputs=recipe.inputs,
        joined=recipe.joined,
        long=section.long if section else "cut",
        window=limit if in_windows else None,
        image=model.image_tower.preprocess if model.image_tower else None,
        pad_id=text.words.pad_id if text else 0,
        max_length=longest if in_windows else min(longest, limit),
        intention_length=min(recipe.intention.max_length, limit),
        slots=recipe.slots,
    )


def _model(
    recipe: Recipe,
    image: ImageTower | None,
    text: TextTower | None,
    labels: Sequence[str],
    decoder: Decoder | None,
) -> Model:
    section = recipe.fusion
    keys = section.model_dump(exclude=NOT_BUILT)
    texts = recipe.content_texts
    if isinstance(section, fusions.Generator):
        return Generator(image, text, content_texts=texts, labels=labels, **keys)
    if isinstance(section, fusions.Conditioned):
        return Conditioned(image, text, content_texts=texts, num_labels=len(labels), **keys)
    fusion = _fusion(recipe, image, text, len(labels), keys)
    return MikoClassifier(image, text, fusion, decoder)


def _fusion(
    recipe: Recipe,
    image: ImageTower | None,
    text: TextTower | None,
    num_labels: int,
    keys: dict[str, Any],
) -> Fusion:
    section = recipe.fusion
    keys |= {
        "image_width": image.width if image else None,
        "num_image_tokens": image.num_tokens if image else 0,
        "text_width": text.width if text else None,
        "content_texts": recipe.content_texts,
        "num_labels": num_labels,
    }
    if isinstance(section, fusions.Reader):
        keys["slot_layers"] = section.slot_layers if section.slots else 0
        return Reader(**keys, reads_intentions=recipe.reads_intentions)
    keys["text_pool"] = text.pool if text else "mean"
    if isinstance(section, fusions.Pooled):
        return Pooled(**keys, reads_intentions=recipe.reads_intentions)
    return Product(**keys)


def _decoder(recipe: Recipe, text: TextTower | None, texts: Sequence[str]) -> Decoder | None:
    if not (recipe.reasoning.epochs and recipe.reasoning.generate):
        return None
    if isinstance(recipe.fusion, fusions.Generator):
        return None  # it has one of its own
    assert text is not None
    assert isinstance(recipe.fusion, fusions.Reader)
    return Decoder(
        vocabulary=text.words.tokenizer.get_vocab_size(),
        known=None if text.plan["source"] == "tiny" else _known(text.words, texts),
        max_length=recipe.reasoning.max_length,
        width=recipe.fusion.width,
        heads=recipe.fusion.heads,
        dropout=recipe.fusion.dropout,
        share=recipe.reasoning.share,
    )


def _known(words: Words, texts: Sequence[str]) -> list[int]:
    """Return the words of the training texts."""
    fresh = Words(words.tokenizer, words.pad_id)  # counts no text as cut
    longest = max([len(text) for text in texts], default=1) + fresh.num_special + 1
    return sorted({word for row in fresh.encode(list(texts), longest) for word in row})


def _blank_vote(recipe: Recipe, state: dict[str, Tensor], num_labels: int) -> Vote | None:
    found = recipe.task.retrieval
    if found is None:
        return None
    return Vote.blank(
        *state["vote.keys"].shape,
        num_labels=num_labels,
        neighbours=found.neighbours,
        share=found.vote,
    )
