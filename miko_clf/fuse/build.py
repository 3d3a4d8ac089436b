"""Recipe to model: the only place where names become objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from miko_clf.bundle import TOWERS_FILE, WEIGHTS_FILE
from miko_clf.data.preprocess import Preparation
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.encode import build as encoders
from miko_clf.encode.tower import ImageTower, TextTower
from miko_clf.errors import BundleError
from miko_clf.fuse.classifier import MikoClassifier, NeighbourVote
from miko_clf.fuse.cross_attention import CrossAttentionFusion
from miko_clf.fuse.ensemble import EnsembleFusion
from miko_clf.fuse.interclip import InterClip
from miko_clf.fuse.late_fusion import ConcatFusion, ProductFusion
from miko_clf.fuse.linear_probe import LinearProbe
from miko_clf.fuse.mr_harm import MrHarm
from miko_clf.fuse.outputs import FusionModule
from miko_clf.fuse.rationale_decoder import RationaleDecoder
from miko_clf.fuse.zero_shot import (
    ZeroShotFusion,
    build_zero_shot,
    set_label_vectors,
    write_prompts,
)
from miko_clf.recipe import sections
from miko_clf.recipe.schema import Recipe

Model = MikoClassifier | InterClip | MrHarm

# Keys of a fusion's section that say which class it is or how it is trained.
_NOT_BUILT = {"kind", "modality_dropout", "slots", "slot_dropout", "solver", "words", "base"}


def build_model(recipe: Recipe, labels: Sequence[str], texts: Sequence[str]) -> Model:
    """Return the untrained model of a recipe; the same seed gives the same weights.

    `texts` are the training texts; only a tiny text tower looks at them.
    """
    torch.manual_seed(recipe.seed)
    image = encoders.build_image_tower(recipe.image) if recipe.image else None
    text = None
    if recipe.text:
        writes = isinstance(recipe.fusion, sections.GeneratorSection)
        text = encoders.build_text_tower(recipe.text, list(texts), writes=writes)
    torch.manual_seed(recipe.seed)
    model = _build_classifier(recipe, image, text, labels, _build_decoder(recipe, text, texts))
    section = recipe.fusion
    if isinstance(section, sections.ZeroShotSection):
        assert isinstance(model.fusion, ZeroShotFusion)
        assert text is not None
        prompts = write_prompts(labels, section.templates, section.prompts)
        set_label_vectors(model.fusion, text, prompts)
    if not (recipe.task.epochs or recipe.fitted):
        model.requires_grad_(False)  # the head of a system that only votes is never asked
        if isinstance(model.fusion, ConcatFusion):
            model.fusion.weigh_inputs_alike()
    return model


def rebuild_model(
    folder: Path, recipe: Recipe, labels: Sequence[str], words: TextTokenizer | None
) -> Model:
    """Return the trained model of a bundle, in evaluation mode and without a hub."""
    image, text = encoders.rebuild_towers(folder / TOWERS_FILE, words)
    model = _build_classifier(recipe, image, text, labels, None)
    try:
        state = load_file(folder / WEIGHTS_FILE)
        if isinstance(model, MikoClassifier):
            retrieval = recipe.task.retrieval
            if retrieval is not None:
                model.vote = NeighbourVote.blank(
                    *state["vote.keys"].shape,
                    num_labels=len(labels),
                    neighbours=retrieval.neighbours,
                    share=retrieval.vote,
                )
        model.load_state_dict(state)
    except (RuntimeError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0][:200]
        raise BundleError(f"{folder}: weights do not fit the recipe: {reason}") from None
    return model.eval()


def build_preparation(recipe: Recipe, model: Model) -> Preparation:
    """Return how posts become arrays for this model."""
    text = model.text_tower
    section = recipe.text if text else None  # prompts alone need no tower once they are read
    limit = text.limit if text else 1
    longest = section.max_length if section else 1
    in_windows = section is not None and section.long == "chunk"
    return Preparation(
        inputs=recipe.inputs,
        joined=recipe.joined,
        long=section.long if section else "cut",
        window=limit if in_windows else None,
        fold=section is not None and section.fold,
        image=model.image_tower.preprocess if model.image_tower else None,
        pad_id=text.words.pad_id if text else 0,
        max_length=longest if in_windows else min(longest, limit),
        intention_length=min(recipe.intention.max_length, limit),
        slots=recipe.slots,
    )


def _build_classifier(
    recipe: Recipe,
    image: ImageTower | None,
    text: TextTower | None,
    labels: Sequence[str],
    decoder: RationaleDecoder | None,
) -> Model:
    section = recipe.fusion
    keys = section.model_dump(exclude=_NOT_BUILT)
    texts = recipe.content_texts
    if isinstance(section, sections.GeneratorSection):
        return MrHarm(image, text, content_texts=texts, labels=labels, **keys)
    if isinstance(section, sections.ConditionedSection):
        return InterClip(image, text, content_texts=texts, num_labels=len(labels), **keys)
    if isinstance(section, sections.ZeroShotSection):
        zero_shot = build_zero_shot(image, text, content_texts=texts, num_labels=len(labels))
        return MikoClassifier(image, text if texts else None, zero_shot)
    members = [
        _build_fusion(recipe, image, text, len(labels), dict(keys))
        for _ in range(recipe.num_members)
    ]
    fusion = members[0] if len(members) == 1 else EnsembleFusion(members)
    return MikoClassifier(image, text, fusion, decoder)


def _build_fusion(
    recipe: Recipe,
    image: ImageTower | None,
    text: TextTower | None,
    num_labels: int,
    keys: dict[str, Any],
) -> FusionModule:
    section = recipe.fusion
    keys |= {
        "image_width": image.width if image else None,
        "num_image_tokens": image.num_tokens if image else 0,
        "text_width": text.width if text else None,
        "content_texts": recipe.content_texts,
        "num_labels": num_labels,
    }
    if isinstance(section, sections.ReaderSection):
        keys["slot_layers"] = section.slot_layers if section.slots else 0
        pools = recipe.intention.read == "vectors" and text is not None
        keys["intention_pool"] = text.pool if pools and text else None
        if section.base == "linear":
            keys["base"] = _build_probe(recipe, image, text, num_labels, words=section.words)
        else:
            keys["base"] = None
        return CrossAttentionFusion(**keys, reads_intentions=recipe.reads_intentions)
    keys["text_pool"] = text.pool if text else "mean"
    if isinstance(section, sections.PooledSection):
        if section.solver == "lbfgs":
            return _build_probe(recipe, image, text, num_labels, words=section.words)
        return ConcatFusion(**keys, reads_intentions=recipe.reads_intentions)
    return ProductFusion(**keys)


def _build_probe(
    recipe: Recipe,
    image: ImageTower | None,
    text: TextTower | None,
    num_labels: int,
    *,
    words: bool,
) -> LinearProbe:
    return LinearProbe(
        image_width=image.width if image else None,
        text_width=text.width if text else None,
        text_pool=text.pool if text else "mean",
        content_texts=recipe.content_texts,
        reads_intentions=recipe.reads_intentions,
        num_labels=num_labels,
        vocabulary=text.words.tokenizer.get_vocab_size() if words and text else None,
    )


def _build_decoder(
    recipe: Recipe, text: TextTower | None, texts: Sequence[str]
) -> RationaleDecoder | None:
    if not (recipe.reasoning.epochs and recipe.reasoning.generate):
        return None
    if isinstance(recipe.fusion, sections.GeneratorSection):
        return None  # it has one of its own
    assert text is not None
    assert isinstance(recipe.fusion, sections.ReaderSection)
    return RationaleDecoder(
        vocabulary=text.words.tokenizer.get_vocab_size(),
        known=None if text.plan["source"] == "tiny" else _list_known_tokens(text.words, texts),
        max_length=recipe.reasoning.max_length,
        width=recipe.fusion.width,
        heads=recipe.fusion.heads,
        dropout=recipe.fusion.dropout,
        share=recipe.reasoning.share,
    )


def _list_known_tokens(words: TextTokenizer, texts: Sequence[str]) -> list[int]:
    """Return the words of the training texts."""
    fresh = TextTokenizer(words.tokenizer, words.pad_id, fold=words.fold)  # counts none as cut
    longest = max([len(text) for text in texts], default=1) + fresh.num_special + 1
    return sorted({word for row in fresh.encode(list(texts), longest) for word in row})
