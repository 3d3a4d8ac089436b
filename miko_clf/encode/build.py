"""Towers by the source and name that a recipe gives."""

import json
from pathlib import Path
from typing import Any, TypeVar

from miko_clf import recipe as recipes
from miko_clf.data.words import Words
from miko_clf.encode import from_open_clip, from_timm, from_transformers, resolve, tiny
from miko_clf.encode.towers import ImageTower, Plan, TextTower
from miko_clf.errors import EncoderError

AnyTower = TypeVar("AnyTower", ImageTower, TextTower)
SOURCES: dict[str, Any] = {
    "transformers": from_transformers,
    "open_clip": from_open_clip,
    "timm": from_timm,
}


def image_tower(section: recipes.ImageTower) -> ImageTower:
    """Return the image tower that the recipe names, frozen where it says so."""
    if section.source == "tiny":
        return tiny.image_tower(section.size, section.width)
    make = SOURCES[section.source].image_tower
    tower = resolve.build(section.name, make, section.source)
    return _freeze(tower) if section.frozen else tower


def text_tower(section: recipes.TextTower, texts: list[str]) -> TextTower:
    """Return the text tower that the recipe names, frozen where it says so.

    `texts` are the training texts; a tiny tower learns its word pieces from them.
    """
    if section.source == "tiny":
        words = tiny.learn_words(texts, section.vocabulary)
        return tiny.text_tower(words, section.width, section.layers)
    if section.source == "timm":
        raise EncoderError("timm has no text towers; use transformers, open_clip or tiny")
    make = SOURCES[section.source].text_tower
    tower = resolve.build(section.name, make, section.source)
    return _freeze(tower) if section.frozen else tower


def write_plans(path: Path, image: ImageTower | None, text: TextTower) -> None:
    """Write what rebuilds both towers without a hub."""
    plans = {"image": image.plan if image else None, "text": text.plan}
    path.write_text(json.dumps(plans, indent=1, default=str) + "\n", encoding="utf-8")


def rebuild(path: Path, words: Words) -> tuple[ImageTower | None, TextTower]:
    """Return the towers that `write_plans` described, with untrained weights."""
    plans = json.loads(path.read_text(encoding="utf-8"))
    image = _rebuild_image(plans["image"]) if plans["image"] else None
    return image, _rebuild_text(plans["text"], words)


def _rebuild_image(plan: Plan) -> ImageTower:
    if plan["source"] == "tiny":
        return tiny.image_tower(plan["size"], plan["width"])
    tower: ImageTower = SOURCES[plan["source"]].rebuild_image(plan)
    return tower


def _rebuild_text(plan: Plan, words: Words) -> TextTower:
    if plan["source"] == "tiny":
        return tiny.text_tower(words, plan["width"], plan["layers"])
    tower: TextTower = SOURCES[plan["source"]].rebuild_text(plan, words)
    return tower


def _freeze(tower: AnyTower) -> AnyTower:
    tower.requires_grad_(False)
    return tower.eval()
