"""The ten scenes of the demo world, each in a good and a bad state, and their pen."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import ImageColor, ImageDraw

RgbColour = tuple[int, int, int]
_Point = tuple[float, float]

OVERSAMPLING = 4  # drawn at four times the size, then averaged down
WIDTH, HEIGHT = 96, 75  # the scene, in picture units
WHITE, BLACK = (255, 255, 255), (35, 32, 34)


@dataclass(frozen=True)
class Ink:
    """The colours of one picture, and the chance that scatters its small things."""

    backdrop: RgbColour
    ground: RgbColour
    main: RgbColour
    accent: RgbColour
    rng: Random


class Pen:
    """Draws shapes given in picture units, scaled about the middle of the scene and moved."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, *, zoom: float = 1, shift: _Point = (0, 0)
    ) -> None:
        self.draw = draw
        self.zoom = zoom
        self.shift = shift

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: RgbColour, *, radius: float = 0
    ) -> None:
        """Fill a rectangle, with round corners where a radius is given."""
        corners = self._place([(x0, y0), (x1, y1)])
        self.draw.rounded_rectangle(corners, radius * self.zoom * OVERSAMPLING, fill)

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: RgbColour) -> None:
        """Fill the ellipse that fits the rectangle."""
        self.draw.ellipse(self._place([(x0, y0), (x1, y1)]), fill)

    def poly(self, points: Sequence[_Point], fill: RgbColour) -> None:
        """Fill a polygon."""
        self.draw.polygon(self._place(points), fill)

    def line(self, points: Sequence[_Point], fill: RgbColour, *, width: float = 1) -> None:
        """Draw a line through the points."""
        thick = max(1, round(width * self.zoom * OVERSAMPLING))
        self.draw.line(self._place(points), fill, thick, joint="curve")

    def pie(
        self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, fill: RgbColour
    ) -> None:
        """Fill a slice of the ellipse, angles in degrees clockwise from three o'clock."""
        self.draw.pieslice(self._place([(x0, y0), (x1, y1)]), start, end, fill)

    def _place(self, points: Sequence[_Point]) -> list[_Point]:
        """Return the points in fine pixels."""
        (dx, dy), cx, cy = self.shift, WIDTH / 2, HEIGHT / 2
        return [
            (
                ((x - cx) * self.zoom + cx + dx) * OVERSAMPLING,
                ((y - cy) * self.zoom + cy + dy) * OVERSAMPLING,
            )
            for x, y in points
        ]


def tint_colour(colour: str | RgbColour, rng: Random, spread: int = 12) -> RgbColour:
    """Return the colour moved by at most `spread` levels in each channel."""
    red, green, blue = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour
    move = [rng.randint(-spread, spread) for _ in range(3)]
    r, g, b = (min(255, max(0, c + m)) for c, m in zip((red, green, blue), move, strict=True))
    return r, g, b


def darken_colour(colour: RgbColour, share: float = 0.75) -> RgbColour:
    """Return the colour with its brightness multiplied by `share`."""
    red, green, blue = colour
    return round(red * share), round(green * share), round(blue * share)


FAIR, GREY, NIGHT = (120, 195, 240), (128, 136, 148), (38, 46, 92)


def _draw_sky(pen: Pen, ink: Ink, good: bool) -> None:
    """Fill the picture with a fair sky and sun, or with grey sky, clouds and rain."""
    pen.box(-40, -40, 140, 140, tint_colour(FAIR if good else GREY, ink.rng, 20))
    if good:
        _draw_sun(pen, ink.rng.uniform(36, 60), 14)
        return
    for x in (14, 40, 66, 92):
        _draw_cloud(pen, x + ink.rng.uniform(-6, 6), ink.rng.uniform(6, 13), (88, 94, 106))


def _draw_sun(pen: Pen, x: float, y: float) -> None:
    """Draw a sun with eight rays about a point."""
    yellow = (255, 214, 64)
    for dx, dy in ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7)):
        pen.line([(x - 15 * dx, y - 15 * dy), (x + 15 * dx, y + 15 * dy)], yellow, width=1.8)
    pen.oval(x - 9, y - 9, x + 9, y + 9, yellow)


def _draw_cloud(pen: Pen, x: float, y: float, fill: RgbColour) -> None:
    pen.oval(x - 16, y - 6, x + 2, y + 8, fill)
    pen.oval(x - 8, y - 11, x + 9, y + 8, fill)
    pen.oval(x, y - 6, x + 16, y + 8, fill)


def _draw_rain(pen: Pen, ink: Ink, top: float = 16) -> None:
    """Draw slanting streaks over all that stands in the picture."""
    for row in range(5):
        for column in range(12):
            x = column * 10 - 8 + ink.rng.uniform(-3, 3)
            y = top + row * 13 + ink.rng.uniform(-3, 3)
            pen.line([(x, y), (x - 2.5, y + 7)], (205, 222, 240), width=0.9)


def draw_beach(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a parasol on sunny sand, or one blown over in the rain."""
    _draw_sky(pen, ink, good)
    pen.box(-40, 36, 140, 140, (40, 140, 200) if good else (88, 104, 118))
    for x in range(-10, 110, 14):
        pen.line([(x, 42), (x + 4, 40.5), (x + 8, 42)], WHITE if good else (150, 160, 170))
    pen.oval(-60, 48, 160, 150, (242, 214, 150) if good else (150, 138, 116))
    if good:
        pen.line([(34, 28), (38, 66)], (250, 245, 235), width=2)
        pen.pie(12, 16, 58, 56, 176, 356, ink.main)
        pen.pie(26, 16, 44, 56, 176, 356, ink.accent)
        pen.poly([(50, 62), (76, 58), (80, 66), (54, 70)], ink.main)
        pen.oval(78, 50, 90, 62, WHITE)
        pen.pie(78, 50, 90, 62, 0, 120, ink.main)
        return
    pen.line([(40, 66), (70, 50)], (210, 205, 195), width=2)
    pen.poly([(24, 52), (30, 72), (52, 72), (43, 64), (38, 56)], darken_colour(ink.main, 0.7))
    pen.line([(24, 52), (40, 66), (52, 72)], darken_colour(ink.accent, 0.7), width=1.5)
    pen.oval(58, 62, 88, 70, (105, 118, 130))
    _draw_rain(pen, ink)


def _draw_car(
    pen: Pen, x: float, y: float, size: float, paint: RgbColour, *, lights: RgbColour
) -> None:
    """Draw a car from behind, `size` units wide, its middle at the bottom on (x, y)."""
    s = size / 20
    pen.box(x - 9 * s, y - 3 * s, x - 5 * s, y + 1 * s, BLACK)
    pen.box(x + 5 * s, y - 3 * s, x + 9 * s, y + 1 * s, BLACK)
    pen.box(x - 7 * s, y - 15 * s, x + 7 * s, y - 6 * s, darken_colour(paint), radius=2 * s)
    pen.box(x - 5.5 * s, y - 13.5 * s, x + 5.5 * s, y - 8.5 * s, (205, 228, 240))
    pen.box(x - 10 * s, y - 9 * s, x + 10 * s, y - 1.5 * s, paint, radius=2 * s)
    pen.oval(x - 9.5 * s, y - 8 * s, x - 5 * s, y - 3.5 * s, lights)
    pen.oval(x + 5 * s, y - 8 * s, x + 9.5 * s, y - 3.5 * s, lights)


def draw_road(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw one car on an open road between fields, or a jam of cars to the horizon."""
    pen.box(-40, -40, 140, 140, tint_colour(FAIR if good else (190, 170, 150), ink.rng, 20))
    field = (112, 180, 84) if good else (120, 124, 112)
    pen.oval(-30, 22, 50, 60, darken_colour(field, 0.85))
    pen.oval(40, 20, 130, 60, darken_colour(field, 0.9))
    pen.box(-40, 32, 140, 140, field)
    pen.poly([(43, 32), (53, 32), (118, 110), (-22, 110)], (92, 94, 100))
    if good:
        _draw_sun(pen, 48, 12)
        for top, length in ((36, 4), (44, 6), (54, 9), (67, 14)):
            wide = (top - 28) / 16
            pen.poly([(48 - wide, top + length), (48 + wide, top + length), (48, top)], WHITE)
        _draw_car(pen, 62, 64, 18, ink.main, lights=(190, 60, 60))
        return
    paints = [ink.main, ink.accent, (120, 130, 145), (235, 235, 235), darken_colour(ink.main)]
    for y, size, middle in ((36, 6, 4), (43, 10, 6.5), (54, 16, 11), (70, 24, 17)):
        for side in (-1.6, 0, 1.6):
            paint = ink.rng.choice(paints)
            _draw_car(pen, 48 + side * middle, y, size, paint, lights=(255, 40, 30))


def draw_tent(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a tent by a fire under stars, or one that collapsed into a puddle in the rain."""
    if good:
        pen.box(-40, -40, 140, 140, tint_colour(NIGHT, ink.rng, 14))
        for _ in range(16):
            x, y = ink.rng.uniform(0, 96), ink.rng.uniform(0, 40)
            pen.oval(x, y, x + 1.4, y + 1.4, (255, 250, 215))
        pen.oval(40, 5, 54, 19, (250, 240, 190))
        pen.box(-40, 52, 140, 140, (58, 110, 66))
        pen.poly([(10, 64), (36, 24), (62, 64)], ink.main)
        pen.poly([(28, 64), (36, 24), (44, 64)], (255, 224, 130))
        pen.poly([(68, 66), (76, 42), (84, 66)], (255, 140, 30))
        pen.poly([(72, 66), (76, 52), (80, 66)], (255, 225, 90))
        pen.line([(66, 68), (86, 64)], (110, 70, 40), width=2.5)
        pen.line([(66, 64), (86, 68)], (110, 70, 40), width=2.5)
        return
    _draw_sky(pen, ink, False)
    pen.box(-40, 48, 140, 140, (104, 98, 76))
    pen.oval(2, 54, 92, 74, (140, 158, 176))
    cloth = darken_colour(ink.main, 0.85)
    pen.poly([(10, 66), (20, 54), (32, 58), (42, 50), (56, 60), (70, 56), (78, 66)], cloth)
    pen.poly([(32, 66), (42, 50), (50, 66)], darken_colour(ink.main, 0.55))
    pen.line([(60, 64), (74, 34), (78, 38)], (220, 215, 205), width=1.8)
    _draw_rain(pen, ink)


def draw_boat(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a boat under sail, or one that sinks stern first in a rough sea."""
    _draw_sky(pen, ink, good)
    sea = (46, 130, 190) if good else (70, 90, 108)
    if good:
        pen.line([(48, 12), (48, 54)], (120, 80, 50), width=2)
        pen.poly([(50, 14), (50, 48), (74, 48)], WHITE)
        pen.poly([(46, 18), (46, 48), (28, 48)], ink.accent)
        pen.poly([(22, 52), (78, 52), (68, 64), (32, 64)], ink.main)
    else:
        pen.line([(44, 58), (18, 30)], (120, 80, 50), width=2)
        pen.poly([(42, 54), (20, 32), (20, 50)], (196, 196, 190))
        pen.poly([(36, 66), (62, 22), (74, 26), (70, 42), (60, 66)], ink.main)
        pen.line([(62, 22), (74, 26)], ink.accent, width=2.5)
    pen.box(-40, 60, 140, 140, sea)
    for x in range(-20, 120, 12):
        crest = 58 if good else 53 + ink.rng.uniform(-2, 2)
        pen.poly([(x - 1, 61), (x + 6, crest), (x + 13, 61)], sea)
        pen.line([(x, 67), (x + 4, 65.5), (x + 8, 67)], WHITE if good else (165, 178, 190))
    if not good:
        pen.oval(80, 58, 92, 68, (240, 90, 50))
        pen.oval(83, 60.5, 89, 65.5, sea)


def draw_snowman(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a snowman with hat and scarf, or the puddle that is left of it."""
    pen.box(-40, -40, 140, 140, tint_colour((150, 200, 235), ink.rng, 20))
    pen.oval(-50, 46, 150, 150, (238, 244, 250) if good else (126, 150, 84))
    if good:
        for x, y, radius in ((48, 58, 15), (48, 37, 11), (48, 21, 8)):
            pen.oval(
                x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1, (160, 180, 205)
            )
            pen.oval(x - radius, y - radius, x + radius, y + radius, WHITE)
        pen.line([(38, 36), (22, 26)], (100, 70, 45), width=1.8)
        pen.line([(58, 36), (74, 26)], (100, 70, 45), width=1.8)
        _draw_hat(pen, 48, 14)
        pen.box(40, 27, 56, 31, ink.main, radius=2)
        pen.box(52, 29, 57, 40, ink.main, radius=1)
        pen.poly([(48, 21), (59, 23), (48, 24.5)], (245, 130, 30))
        for left, top in ((43.3, 17.3), (50.3, 17.3), (46.8, 35), (46.8, 41), (46.8, 53)):
            pen.oval(left, top, left + 2.4, top + 2.4, BLACK)
        return
    _draw_sun(pen, 48, 14)
    pen.oval(10, 54, 88, 74, (165, 205, 232))
    pen.oval(24, 48, 64, 70, (226, 238, 248))
    pen.oval(32, 44, 54, 62, WHITE)
    _draw_hat(pen, 43, 48)
    pen.line([(56, 64), (78, 70)], ink.main, width=4)
    pen.poly([(26, 62), (14, 66), (26, 66)], (245, 130, 30))
    pen.line([(66, 58), (84, 52)], (100, 70, 45), width=1.8)


def _draw_hat(pen: Pen, x: float, y: float) -> None:
    pen.box(x - 11, y - 1.5, x + 11, y + 1.5, BLACK, radius=1)
    pen.box(x - 7, y - 12, x + 7, y, BLACK)


STEEL, SMOKE, CREAM = (190, 196, 204), (120, 116, 114), (252, 246, 232)


def _draw_table(pen: Pen, ink: Ink, edge: float = 52) -> None:
    """Fill the picture with a wall and a table top."""
    pen.box(-40, -40, 140, 140, ink.backdrop)
    pen.box(-40, edge, 140, 140, ink.ground)
    pen.box(-40, edge, 140, edge + 2, darken_colour(ink.ground))


def _draw_table_top(pen: Pen, ink: Ink) -> None:
    """Fill the picture with a table seen from above."""
    pen.box(-40, -40, 140, 140, ink.ground)
    for x in range(-34, 140, 22):
        pen.line([(x, -40), (x, 140)], darken_colour(ink.ground, 0.88))


def draw_cake(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw an iced layer cake with candles, or a charred one that smokes and has caved in."""
    _draw_table(pen, ink)
    pen.oval(14, 56, 82, 70, STEEL)
    pen.oval(17, 56, 79, 67, WHITE)
    if not good:
        coal = (52, 38, 32)
        pen.poly([(22, 62), (24, 42), (36, 38), (46, 49), (56, 47), (70, 37), (74, 62)], coal)
        pen.oval(22, 57, 74, 66, coal)
        pen.line([(32, 44), (36, 54), (33, 60)], (224, 96, 34), width=1.4)
        pen.line([(62, 46), (58, 53), (63, 61)], (224, 96, 34), width=1.4)
        for x in (30, 48, 66):
            wave = [(x, 38), (x + 4, 31), (x - 3, 23), (x + 4, 14), (x, 6)]
            pen.line(wave, SMOKE, width=3.4)
        return
    pen.box(22, 40, 74, 62, ink.accent, radius=3)
    pen.box(22, 48, 74, 52, ink.main)
    pen.box(29, 26, 67, 42, CREAM, radius=3)
    pen.box(29, 26, 67, 31, ink.main, radius=2)
    for x in (33, 42, 51, 60):
        pen.oval(x - 4, 28, x + 5, 36, ink.main)
    for x in (37, 48, 59):
        pen.box(x - 1.3, 15, x + 1.3, 26, WHITE)
        pen.oval(x - 2.2, 8.5, x + 2.2, 15.5, (255, 190, 40))
    for x in range(26, 74, 8):
        pen.oval(x - 3, 58, x + 4, 65, CREAM)


def draw_phone(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a phone with its apps lit, or one whose dark glass is shattered."""
    _draw_table_top(pen, ink)
    pen.box(26, 3, 70, 72, darken_colour(ink.main, 0.5), radius=6)
    pen.box(29, 8, 67, 67, (225, 242, 255) if good else (24, 26, 30), radius=2)
    if good:
        apps = [ink.main, (255, 190, 40), (60, 180, 110), (60, 140, 230), (235, 90, 110)]
        for row in range(4):
            for column in range(3):
                x, y = 32.5 + column * 11.5, 12 + row * 11.5
                pen.box(x, y, x + 8.5, y + 8.5, ink.rng.choice(apps), radius=2)
        pen.box(34, 59, 62, 65, ink.accent, radius=2)
        return
    hub = (ink.rng.uniform(42, 54), ink.rng.uniform(26, 44))
    for x, y in (
        (29, 12),
        (40, 8),
        (58, 8),
        (67, 20),
        (67, 48),
        (60, 67),
        (40, 67),
        (29, 52),
        (29, 30),
    ):
        bend = (
            (x + hub[0]) / 2 + ink.rng.uniform(-4, 4),
            (y + hub[1]) / 2 + ink.rng.uniform(-4, 4),
        )
        pen.line([hub, bend, (x, y)], (232, 236, 240), width=1.3)
    for reach in (6, 13):
        ring = [(-1, 0), (-0.6, -0.9), (0.3, -1.1), (1, -0.3), (0.8, 0.8), (-0.2, 1.1), (-1, 0)]
        pen.line([(hub[0] + reach * x, hub[1] + reach * y) for x, y in ring], (205, 210, 216))
    for x, y in ((14, 60), (78, 54), (20, 50), (82, 66)):
        pen.poly([(x, y), (x + 5, y + 2), (x + 1, y + 6)], (210, 226, 236))


def draw_dinner(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a full plate between fork and knife, or a plate with nothing but crumbs."""
    _draw_table_top(pen, ink)
    pen.oval(20, 9, 78, 67, (206, 206, 206))
    pen.oval(19, 7, 77, 65, WHITE)
    pen.oval(26, 14, 70, 58, (226, 230, 234))
    for x in (7, 10, 13):
        pen.line([(x, 14), (x, 28)], STEEL, width=1.6)
    pen.line([(7, 28), (13, 28)], STEEL, width=2)
    pen.line([(10, 28), (10, 64)], STEEL, width=2.4)
    pen.poly([(84, 14), (89, 20), (89, 40), (84, 40)], STEEL)
    pen.line([(86, 40), (86, 64)], STEEL, width=3)
    if not good:
        for _ in range(9):
            left, top = ink.rng.uniform(34, 62), ink.rng.uniform(24, 50)
            pen.oval(left, top, left + 1.8, top + 1.5, (150, 105, 60))
        return
    pen.oval(28, 15, 58, 38, (140, 74, 44))
    pen.line([(34, 22), (50, 30)], (96, 48, 28), width=1.6)
    pen.line([(38, 18), (54, 26)], (96, 48, 28), width=1.6)
    pen.oval(48, 30, 70, 50, (250, 250, 245))
    pen.oval(54, 35, 64, 45, (255, 186, 30))
    for x, y in ((30, 40), (36, 43), (32, 47), (40, 49), (37, 37), (45, 45), (42, 54), (48, 52)):
        pen.oval(x, y, x + 6, y + 6, (84, 170, 60))
    pen.oval(56, 16, 68, 28, (222, 60, 48))


def draw_plant(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a pot in bloom, or one whose plant hangs brown and dry."""
    _draw_table(pen, ink, 56)
    pen.poly([(34, 46), (62, 46), (58, 70), (38, 70)], (196, 98, 62))
    pen.box(31, 42, 65, 48, (212, 112, 74), radius=1)
    if good:
        green = (62, 150, 70)
        for x, y in ((28, 20), (48, 12), (68, 20), (37, 28), (59, 28)):
            pen.line([(48, 42), ((48 + x) / 2, 34), (x, y)], green, width=2)
        pen.oval(22, 30, 46, 42, green)
        pen.oval(50, 30, 74, 42, green)
        for x, y in ((28, 20), (48, 12), (68, 20), (38, 27), (58, 27)):
            for dx, dy in ((0, -5), (4.8, -1.5), (3, 4), (-3, 4), (-4.8, -1.5)):
                pen.oval(x + dx - 3.6, y + dy - 3.6, x + dx + 3.6, y + dy + 3.6, ink.main)
            pen.oval(x - 3, y - 3, x + 3, y + 3, (255, 214, 64))
        return
    brown = (120, 92, 52)
    dry = (150, 116, 60)
    for bend, tip, top, low in (
        (41.5, 35, 24, 40),
        (54.5, 61, 24, 40),
        (37, 26, 18, 56),
        (59, 70, 18, 56),
    ):
        pen.line([(48, 42), (bend, top), (tip, top + 8), (tip, low)], brown, width=1.6)
        pen.poly([(tip, low - 6), (tip + 4, low), (tip, low + 8), (tip - 4, low)], dry)
    for left in (22, 34, 66, 76):
        fallen = 66 + ink.rng.uniform(-3, 3)
        pen.poly(
            [(left, fallen), (left + 4, fallen - 2), (left + 8, fallen), (left + 4, fallen + 2)],
            dry,
        )


def draw_coffee(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a steaming cup on its saucer, or a cup on its side in a spill."""
    _draw_table(pen, ink, 46)
    if good:
        pen.oval(16, 56, 76, 70, darken_colour(ink.accent, 0.85))
        pen.oval(16, 54, 76, 67, ink.accent)
        pen.oval(60, 34, 80, 54, ink.main)
        pen.oval(64, 38, 76, 50, ink.backdrop)
        pen.box(26, 28, 66, 46, ink.main)
        pen.oval(26, 26, 66, 64, ink.main)
        pen.oval(26, 23, 66, 34, darken_colour(ink.main, 0.8))
        pen.oval(29, 25, 63, 33, (88, 52, 30))
        for x in (36, 46, 56):
            pen.line([(x, 22), (x + 3, 17), (x - 2, 11), (x + 2, 4)], WHITE, width=2)
        return
    spill = (88, 52, 30)
    pen.oval(0, 55, 60, 71, spill)
    pen.oval(-10, 61, 26, 75, spill)
    pen.poly([(38, 50), (52, 58), (46, 68), (28, 62)], spill)
    pen.oval(58, 22, 76, 40, ink.main)
    pen.oval(62, 26, 72, 36, ink.backdrop)
    pen.oval(62, 33, 88, 61, ink.main)
    pen.box(46, 33, 76, 61, ink.main)
    pen.oval(38, 33, 54, 61, darken_colour(ink.main, 0.8))
    pen.oval(40.5, 36.5, 51, 57.5, BLACK)
