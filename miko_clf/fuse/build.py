"""Recipe to model: the only place where names become objects."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from miko_clf.data.collate import Preparation
from miko_clf.data.words import Words
from miko_clf.encode import build as encoders
from miko_clf.encode.towers import ImageTower, TextTower
from miko_clf.errors import BundleError
from miko_clf.fuse.classifier import Fusion, MikoClassifier
from miko_clf.fuse.decoder import Decoder
from miko_clf.recipe import Recipe


def build(recipe: Recipe, num_labels: int, texts: Sequence[str]) -> MikoClassifier:
    """Return the untrained classifier of a recipe; the same seed gives the same weights.

    `texts` are the training texts; only a tiny text tower looks at them.
    """
    torch.manual_seed(recipe.seed)
    image = encoders.image_tower(recipe.image) if recipe.image else None
    text = encoders.text_tower(recipe.text, list(texts))
    torch.manual_seed(recipe.seed)
    fusion = _fusion(recipe, image, text, num_labels)
    return MikoClassifier(image, text, fusion, _decoder(recipe, text))


def rebuild(folder: Path, recipe: Recipe, num_labels: int, words: Words) -> MikoClassifier:
    """Return the trained classifier of a bundle, in evaluation mode and without a hub."""
    image, text = encoders.rebuild(folder / "towers.json", words)
    model = MikoClassifier(image, text, _fusion(recipe, image, text, num_labels))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, OSError) as error:
        reason = str(error).split("\n")[0][:200]
        raise BundleError(f"{folder}: weights do not fit the recipe: {reason}") from None
    return model.eval()


def prepare(recipe: Recipe, model: MikoClassifier) -> Preparation:
    """Return how posts become arrays for this model."""
    limit = model.text_tower.limit
    return Preparation(
        inputs=recipe.inputs,
        image=model.image_tower.preprocess if model.image_tower else None,
        pad_id=model.text_tower.words.pad_id,
        max_length=min(recipe.text.max_length, limit),
        intention_length=min(recipe.intention.max_length, limit),
        slots=recipe.fusion.slots,
    )


def _fusion(recipe: Recipe, image: ImageTower | None, text: TextTower, num_labels: int) -> Fusion:
    fusion = recipe.fusion
    return Fusion(
        image_width=image.width if image else None,
        num_image_tokens=image.num_tokens if image else 0,
        text_width=text.width,
        content_texts=recipe.content_texts,
        reads_intentions="intention" in recipe.inputs,
        num_labels=num_labels,
        width=fusion.width,
        layers=fusion.layers,
        latents=fusion.latents,
        heads=fusion.heads,
        dropout=fusion.dropout,
        input_dropout=fusion.input_dropout,
        reader=fusion.reader,
        slot_layers=fusion.slot_layers if fusion.slots else 0,
    )


def _decoder(recipe: Recipe, text: TextTower) -> Decoder | None:
    if not (recipe.reasoning.epochs and recipe.reasoning.generate):
        return None
    return Decoder(
        vocabulary=text.words.tokenizer.get_vocab_size(),
        max_length=recipe.reasoning.max_length,
        width=recipe.fusion.width,
        heads=recipe.fusion.heads,
        dropout=recipe.fusion.dropout,
    )
