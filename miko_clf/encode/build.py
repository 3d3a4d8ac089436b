"""Towers by the source and name that a recipe gives."""

import json
from pathlib import Path

from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.data.unicode_folding import fold_disguises
from miko_clf.encode import hf_towers, open_clip_towers, t5_tower, timm_towers, tiny_towers
from miko_clf.encode.finetune import let_learn
from miko_clf.encode.tower import ImageTower, TextTower, TowerPlan, load_encoder
from miko_clf.errors import EncoderError
from miko_clf.recipe import sections

_IMAGE_LOADERS = {
    "transformers": hf_towers.load_hf_image_tower,
    "open_clip": open_clip_towers.load_open_clip_image_tower,
    "timm": timm_towers.load_timm_image_tower,
}
_TEXT_LOADERS = {
    "transformers": hf_towers.load_hf_text_tower,
    "open_clip": open_clip_towers.load_open_clip_text_tower,
}
_IMAGE_REBUILDERS = {
    "transformers": hf_towers.rebuild_hf_image_tower,
    "open_clip": open_clip_towers.rebuild_open_clip_image_tower,
    "timm": timm_towers.rebuild_timm_image_tower,
}
_TEXT_REBUILDERS = {
    "transformers": hf_towers.rebuild_hf_text_tower,
    "open_clip": open_clip_towers.rebuild_open_clip_text_tower,
    "seq2seq": t5_tower.rebuild_t5_tower,
}


def build_image_tower(section: sections.ImageTowerSection) -> ImageTower:
    """Return the image tower that the recipe names; what learns of it is what the recipe says."""
    if section.source == "tiny":
        return tiny_towers.build_tiny_image_tower(section.size, section.width)
    load = _IMAGE_LOADERS[section.source]
    tower = load_encoder(section.name, lambda name: load(name, section.output), section.source)
    if section.normalise == "half":
        tower.normalise_by((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return let_learn(tower, section)


def build_text_tower(
    section: sections.TextTowerSection, texts: list[str], *, writes: bool = False
) -> TextTower:
    """Return the text tower that the recipe names; what learns of it is what the recipe says.

    `texts` are the training texts; a tiny tower learns its word pieces from them. One that
    `writes` is an encoder-decoder.
    """
    tower = _load_text_tower(section, texts, writes=writes)
    tower.words.fold = section.fold
    return tower


def _load_text_tower(
    section: sections.TextTowerSection, texts: list[str], *, writes: bool
) -> TextTower:
    if writes:
        if section.source != "transformers":
            raise EncoderError(
                f"text.source {section.source} has no encoder-decoders; use transformers"
            )
        tower = load_encoder(section.name, t5_tower.load_t5_tower, section.source)
        return let_learn(tower, section)
    tower = _build_trained_text(section, texts)
    if section.pool != "auto":
        tower.pool_by(section.pool)
    if section.long == "chunk" and section.max_length > tower.limit:
        tower.chunk()
    return tower


def write_plans(path: Path, image: ImageTower | None, text: TextTower | None) -> None:
    """Write what rebuilds both towers without a hub."""
    plans = {"image": image.plan if image else None, "text": text.plan if text else None}
    path.write_text(json.dumps(plans, indent=1, default=str) + "\n", encoding="utf-8")


def rebuild_towers(
    path: Path, words: TextTokenizer | None
) -> tuple[ImageTower | None, TextTower | None]:
    """Return the towers that `write_plans` described, with untrained weights."""
    plans = json.loads(path.read_text(encoding="utf-8"))
    image = _rebuild_image(plans["image"]) if plans["image"] else None
    return image, _rebuild_text(plans["text"], words) if words is not None else None


def _rebuild_image(plan: TowerPlan) -> ImageTower:
    if plan["source"] == "tiny":
        return tiny_towers.build_tiny_image_tower(plan["size"], plan["width"])
    return _IMAGE_REBUILDERS[plan["source"]](plan)


def _rebuild_text(plan: TowerPlan, words: TextTokenizer) -> TextTower:
    tower: TextTower
    if plan["source"] == "tiny":
        tower = tiny_towers.build_tiny_text_tower(words, plan["width"], plan["layers"])
    else:
        tower = _TEXT_REBUILDERS[plan["source"]](plan, words)
    if "pool" in plan:
        tower.pool_by(plan["pool"])
    if plan.get("chunked"):
        tower.chunk()
    return tower


def _build_trained_text(section: sections.TextTowerSection, texts: list[str]) -> TextTower:
    if section.source == "tiny":
        learned = list(map(fold_disguises, texts)) if section.fold else texts
        words = tiny_towers.train_tokenizer(learned, section.vocabulary)
        return tiny_towers.build_tiny_text_tower(words, section.width, section.layers)
    if section.source == "timm":
        raise EncoderError("timm has no text towers; use transformers, open_clip or tiny")
    load = _TEXT_LOADERS[section.source]
    tower = load_encoder(section.name, lambda name: load(name, section.output), section.source)
    return let_learn(tower, section)
