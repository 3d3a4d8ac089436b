"""Towers by the source and name that a recipe gives."""

import json
from pathlib import Path
from typing import Any, TypeVar

from miko_clf import recipe as recipes
from miko_clf.data.words import Words
from miko_clf.encode import from_open_clip, from_timm, from_transformers, resolve, seq2seq, tiny
from miko_clf.encode.learn import freeze, unfreeze
from miko_clf.encode.lora import adapt
from miko_clf.encode.towers import ImageTower, Plan, TextTower
from miko_clf.errors import EncoderError

AnyTower = TypeVar("AnyTower", ImageTower, TextTower)
SOURCES: dict[str, Any] = {
    "transformers": from_transformers,
    "open_clip": from_open_clip,
    "timm": from_timm,
    "seq2seq": seq2seq,
}


def image_tower(section: recipes.ImageTower) -> ImageTower:
    """Return the image tower that the recipe names; what learns of it is what the recipe says."""
    if section.source == "tiny":
        return tiny.image_tower(section.size, section.width)
    make = SOURCES[section.source].image_tower
    tower = resolve.build(section.name, lambda name: make(name, section.output), section.source)
    if section.normalise == "half":
        tower.normalise_by((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return _taught(tower, section)


def text_tower(section: recipes.TextTower, texts: list[str], *, writes: bool = False) -> TextTower:
    """Return the text tower that the recipe names; what learns of it is what the recipe says.

    `texts` are the training texts; a tiny tower learns its word pieces from them. One that
    `writes` is an encoder-decoder.
    """
    if writes:
        if section.source != "transformers":
            raise EncoderError(
                f"text.source {section.source} has no encoder-decoders; use transformers"
            )
        return _taught(resolve.build(section.name, seq2seq.text_tower, section.source), section)
    tower = _text_tower(section, texts)
    if section.long == "chunk":
        tower.chunk()
    return tower


def write_plans(path: Path, image: ImageTower | None, text: TextTower | None) -> None:
    """Write what rebuilds both towers without a hub."""
    plans = {"image": image.plan if image else None, "text": text.plan if text else None}
    path.write_text(json.dumps(plans, indent=1, default=str) + "\n", encoding="utf-8")


def rebuild(path: Path, words: Words | None) -> tuple[ImageTower | None, TextTower | None]:
    """Return the towers that `write_plans` described, with untrained weights."""
    plans = json.loads(path.read_text(encoding="utf-8"))
    image = _rebuild_image(plans["image"]) if plans["image"] else None
    return image, _rebuild_text(plans["text"], words) if words is not None else None


def _rebuild_image(plan: Plan) -> ImageTower:
    if plan["source"] == "tiny":
        return tiny.image_tower(plan["size"], plan["width"])
    tower: ImageTower = SOURCES[plan["source"]].rebuild_image(plan)
    return tower


def _rebuild_text(plan: Plan, words: Words) -> TextTower:
    tower: TextTower
    if plan["source"] == "tiny":
        tower = tiny.text_tower(words, plan["width"], plan["layers"])
    else:
        tower = SOURCES[plan["source"]].rebuild_text(plan, words)
    if plan.get("chunked"):
        tower.chunk()
    return tower


def _text_tower(section: recipes.TextTower, texts: list[str]) -> TextTower:
    if section.source == "tiny":
        words = tiny.learn_words(texts, section.vocabulary)
        return tiny.text_tower(words, section.width, section.layers)
    if section.source == "timm":
        raise EncoderError("timm has no text towers; use transformers, open_clip or tiny")
    make = SOURCES[section.source].text_tower
    tower = resolve.build(section.name, lambda name: make(name, section.output), section.source)
    return _taught(tower, section)


def _taught(tower: AnyTower, section: recipes.Tower) -> AnyTower:
    """Return the tower with what the recipe lets learn."""
    if not section.frozen:
        return tower
    if section.lora is not None:
        return adapt(
            tower,
            rank=section.lora.rank,
            alpha=float(section.lora.alpha),
            dropout=section.lora.dropout,
            targets=section.lora.targets,
        )
    return unfreeze(tower, section.unfreeze) if section.unfreeze else freeze(tower)
