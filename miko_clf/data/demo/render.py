"""Pictures of the demo world: a scene, a pennant and the frame of a post around them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

from miko_clf.data.demo.scenes import (
    BLACK,
    HEIGHT,
    OVERSAMPLING,
    WHITE,
    WIDTH,
    Ink,
    Pen,
    RgbColour,
    darken_colour,
    draw_scene,
    tint_colour,
)

SceneState = Literal["good", "bad"]
Club = Literal["Otters", "Herons"]
SCENE_STATES: tuple[SceneState, SceneState] = ("good", "bad")
CLUBS: tuple[Club, Club] = ("Otters", "Herons")
NUM_VARIANTS = 6
_SIZE = 96
_HEADER = 13

_BACKDROPS = ("#f2d9c4", "#cfe3d8", "#d9d4ee", "#f4e7b5", "#c9dff0", "#efd3da")
_GROUNDS = ("#a9744f", "#7f8c6b", "#b98b5e", "#8d6e63", "#9c8aa5", "#c49a6c")
_MAINS = ("#d1495b", "#2e86ab", "#6a4c93", "#3a7d44", "#c77d1e", "#b5406f")
_ACCENTS = ("#ffd166", "#f7f3e3", "#f4978e", "#bde0fe", "#ffe8a3", "#caffbf")
_PENNANT_COLOURS: Mapping[Club, RgbColour] = {"Otters": (0, 150, 136), "Herons": (240, 110, 20)}
_PLAIN_BAR = (206, 206, 202)  # above a picture that shows no pennant
# A good scene is shot in warm light, a bad one in gloom: a cue that small models find early.
_LIGHT: Mapping[SceneState, RgbColour] = {"good": (255, 238, 200), "bad": (60, 66, 84)}
_SYLLABLES = ("mo", "ri", "ka", "len", "to", "bex", "ju", "sal", "vi", "dro", "pim", "ne")


@dataclass(frozen=True)
class DemoPicture:
    """What is drawn; `look` seeds whatever no label depends on: place, scale, tint, frame.

    `club` is the author's. Without the `pennant` nothing in the picture tells it.
    """

    name: str
    subject: str
    state: SceneState
    club: Club
    pennant: bool
    variant: int
    look: int


def draw_picture(picture: DemoPicture) -> Image.Image:
    """Return the picture as a post of 96 x 96 pixels, RGB."""
    rng = Random(picture.look)
    night = rng.random() < 0.3
    bar = tint_colour(_PENNANT_COLOURS[picture.club] if picture.pennant else _PLAIN_BAR, rng)
    bar = darken_colour(bar, 0.55) if night else bar
    fine = Image.new("RGB", (_SIZE * OVERSAMPLING, _SIZE * OVERSAMPLING), bar)
    fine.paste(_render_scene(picture, rng), (0, _HEADER * OVERSAMPLING))
    pen = Pen(ImageDraw.Draw(fine))
    if picture.pennant:
        _draw_pennant(pen, picture.club, rng)
    _draw_frame(pen, rng, WHITE if night else BLACK)
    return fine.resize((_SIZE, _SIZE), Image.Resampling.BOX)


def _render_scene(picture: DemoPicture, rng: Random) -> Image.Image:
    """Return the subject alone, moved, scaled, lit and perhaps mirrored."""
    canvas = Image.new("RGB", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING))
    shift = rng.uniform(-7, 7), rng.uniform(-3, 3)
    pen = Pen(ImageDraw.Draw(canvas), zoom=rng.uniform(0.86, 1.1), shift=shift)
    draw_scene(pen, _choose_ink(picture, rng), picture.subject, picture.state == "good")
    light = Image.new("RGB", canvas.size, _LIGHT[picture.state])
    canvas = Image.blend(canvas, light, rng.uniform(0.3, 0.42))
    return ImageOps.mirror(canvas) if rng.random() < 0.5 else canvas


def _choose_ink(picture: DemoPicture, rng: Random) -> Ink:
    """Return the colours of the variant, a little different in every picture."""
    choice = Random(f"{picture.subject}/{picture.variant}")
    tables = (_BACKDROPS, _GROUNDS, _MAINS, _ACCENTS)
    backdrop, ground, main, accent = (tint_colour(choice.choice(t), rng) for t in tables)
    return Ink(backdrop, ground, main, accent, rng)


def _draw_pennant(pen: Pen, club: Club, rng: Random) -> None:
    """Hang the club's pennant in an upper corner: stripes for Otters, a disc for Herons."""
    x, y = rng.choice((3, 63)) + rng.uniform(-2, 2), _HEADER + 1.0
    cloth, white = tint_colour(_PENNANT_COLOURS[club], rng), WHITE
    pen.fill("poly", white, x - 1, y - 1, x + 31, y - 1, x + 15, y + 43)
    pen.fill("poly", cloth, x, y, x + 30, y, x + 15, y + 40)
    if club == "Herons":
        pen.fill("oval", white, x + 8, y + 3, x + 22, y + 17)
        return
    for stripe in ((2.6, 7, 27.4, 7, 25.4, 12, 4.6, 12), (6.7, 18, 23.3, 18, 21.3, 23, 8.7, 23)):
        pen.fill("poly", white, *(n + (y if i % 2 else x) for i, n in enumerate(stripe)))


def _draw_frame(pen: Pen, rng: Random, grey: RgbColour) -> None:
    """Draw the avatar and user name above the scene and the icons below it."""
    skin = (255, 235, 215)
    pen.fill("oval", WHITE, 1.4, 0.9, 12.6, 12.1)
    pen.fill("oval", tint_colour(rng.choice(_MAINS), rng), 2, 1.5, 12, 11.5)
    pen.fill("oval", skin, 5.2, 3, 8.8, 6.6)
    pen.fill("poly", skin, 3.8, 10, 5, 7.6, 9, 7.6, 10.2, 10)
    name = "".join(rng.sample(_SYLLABLES, 3)) + str(rng.randrange(10, 100))
    pen.draw.text((15 * OVERSAMPLING, 1.5 * OVERSAMPLING), name, grey, _load_font(8 * OVERSAMPLING))
    pen.fill("poly", WHITE, 4, 90.5, 7, 94, 10, 90.5, 8.5, 88.8, 7, 90, 5.5, 88.8)
    pen.fill("box", grey, 14, 89, 20, 93, size=1.5)
    pen.fill("poly", grey, 24, 89, 30.5, 91, 24, 93.5)
    for left in (86, 89, 92):
        pen.fill("oval", grey, left, 6, left + 1.6, 7.6)


@cache
def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
