"""The ten scenes of the demo world, each in a good and a bad state, and their pen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
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

    def mix(self, name: str) -> RgbColour:
        """Return a colour by name or by hex digits; `main*0.7` is `main` in that brightness."""
        name, _, share = name.partition("*")
        colour = getattr(self, name, None) or _NAMED.get(name) or _read_colour(f"#{name}")
        return darken_colour(colour, float(share)) if share else colour


class Pen:
    """Draws shapes given in picture units, scaled about the middle of the scene and moved."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, *, zoom: float = 1, shift: _Point = (0, 0)
    ) -> None:
        self.draw = draw
        self.zoom = zoom
        self.shift = shift

    def fill(self, shape: str, colour: RgbColour, *numbers: float, size: float = 0) -> None:
        """Draw a box, oval, pie, poly or line through x, y, x, y ... in one colour.

        `size` is the radius of a box's corners or the width of a line; a pie ends with its two
        angles, in degrees clockwise from three o'clock.
        """
        numbers, angles = (numbers[:4], numbers[4:]) if shape == "pie" else (numbers, ())
        points = self._place(numbers)
        match shape:
            case "box":
                self.draw.rounded_rectangle(points, size * self.zoom * OVERSAMPLING, colour)
            case "oval":
                self.draw.ellipse(points, colour)
            case "pie":
                self.draw.pieslice(points, int(angles[0]), int(angles[1]), colour)
            case "poly":
                self.draw.polygon(points, colour)
            case "line":
                thick = max(1, round((size or 1) * self.zoom * OVERSAMPLING))
                self.draw.line(points, colour, thick, joint="curve")

    def _place(self, numbers: Sequence[float]) -> list[_Point]:
        """Return the points in fine pixels."""
        (dx, dy), cx, cy, zoom = self.shift, WIDTH / 2, HEIGHT / 2, self.zoom
        return [
            (((x - cx) * zoom + cx + dx) * OVERSAMPLING, ((y - cy) * zoom + cy + dy) * OVERSAMPLING)
            for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]


def tint_colour(colour: str | RgbColour, rng: Random, spread: int = 12) -> RgbColour:
    """Return the colour moved by at most `spread` levels in each channel."""
    red, green, blue = _read_colour(colour) if isinstance(colour, str) else colour
    move = [rng.randint(-spread, spread) for _ in range(3)]
    r, g, b = (min(255, max(0, c + m)) for c, m in zip((red, green, blue), move, strict=True))
    return r, g, b


def darken_colour(colour: RgbColour, share: float = 0.75) -> RgbColour:
    """Return the colour with its brightness multiplied by `share`."""
    red, green, blue = colour
    return round(red * share), round(green * share), round(blue * share)


def _read_colour(code: str) -> RgbColour:
    red, green, blue = ImageColor.getrgb(code)[:3]
    return red, green, blue


def draw_scene(pen: Pen, ink: Ink, subject: str, good: bool) -> None:
    """Draw a subject as SCENES has it, one stroke after another."""
    for stroke in SCENES[subject][0 if good else 1].split(";"):
        shape, *words = stroke.split()
        if shape in _SCATTERED:
            _SCATTERED[shape](pen, ink, *words)
            continue
        size = float(words.pop(1)[1:]) if words[1].startswith("~") else 0
        count, _, step = words.pop().partition("x") if "x" in words[-1] else ("1", "", "0")
        numbers = [float(word) for word in words[1:]]
        for copy in range(int(count)):
            moved = [n if i % 2 else n + copy * float(step) for i, n in enumerate(numbers)]
            pen.fill(shape, ink.mix(words[0]), *moved, size=size)


def _draw_sky(pen: Pen, ink: Ink, colour: str, spread: str) -> None:
    pen.fill("box", tint_colour(f"#{colour}", ink.rng, int(spread)), -40, -40, 140, 140)


def _draw_sun(pen: Pen, ink: Ink, y: str, x: str = "") -> None:
    """Draw a sun with eight rays, somewhere in the middle unless `x` is given."""
    cx, cy = float(x) if x else ink.rng.uniform(36, 60), int(y)
    for dx, dy in ((15, 0), (10.5, 10.5), (0, 15), (-10.5, 10.5)):
        pen.fill("line", ink.mix("sun"), cx - dx, cy - dy, cx + dx, cy + dy, size=1.8)
    pen.fill("oval", ink.mix("sun"), cx - 9, cy - 9, cx + 9, cy + 9)


def _draw_clouds(pen: Pen, ink: Ink) -> None:
    for left in (14, 40, 66, 92):
        x, y = left + ink.rng.uniform(-6, 6), ink.rng.uniform(6, 13)
        for x0, y0, x1 in ((-16, -6, 2), (-8, -11, 9), (0, -6, 16)):
            pen.fill("oval", ink.mix("585e6a"), x + x0, y + y0, x + x1, y + 8)


def _draw_rain(pen: Pen, ink: Ink) -> None:
    """Draw slanting streaks over all that stands in the picture."""
    for row, column in product(range(5), range(12)):
        x, y = column * 10 - 8 + ink.rng.uniform(-3, 3), 16 + row * 13 + ink.rng.uniform(-3, 3)
        pen.fill("line", ink.mix("cddef0"), x, y, x - 2.5, y + 7, size=0.9)


def _draw_car(pen: Pen, paint: RgbColour, lights: str, x: float, y: float, size: float) -> None:
    """Draw a car from behind, `size` units wide, its middle at the bottom on (x, y)."""
    s = size / 20
    for shape, colour, x0, y0, x1, y1, radius in (
        ("box", BLACK, -9, -3, -5, 1, 0), ("box", BLACK, 5, -3, 9, 1, 0),
        ("box", darken_colour(paint), -7, -15, 7, -6, 2),
        ("box", (205, 228, 240), -5.5, -13.5, 5.5, -8.5, 0),
        ("box", paint, -10, -9, 10, -1.5, 2),
        ("oval", _read_colour(lights), -9.5, -8, -5, -3.5, 0),
        ("oval", _read_colour(lights), 5, -8, 9.5, -3.5, 0),
    ):  # fmt: skip
        corners = (x + x0 * s, y + y0 * s, x + x1 * s, y + y1 * s)
        pen.fill(shape, colour, *corners, size=radius * s)


def _draw_jam(pen: Pen, ink: Ink) -> None:
    paints = [ink.mix(name) for name in ("main", "accent", "788291", "ebebeb", "main*0.75")]
    for y, size, middle in ((36, 6, 4), (43, 10, 6.5), (54, 16, 11), (70, 24, 17)):
        for side in (-1.6, 0, 1.6):
            _draw_car(pen, ink.rng.choice(paints), "#ff281e", 48 + side * middle, y, size)


def _draw_stars(pen: Pen, ink: Ink) -> None:
    for _ in range(16):
        x, y = ink.rng.uniform(0, 96), ink.rng.uniform(0, 40)
        pen.fill("oval", ink.mix("fffad7"), x, y, x + 1.4, y + 1.4)


def _draw_crests(pen: Pen, ink: Ink) -> None:
    for x in range(-20, 120, 12):
        crest = 53 + ink.rng.uniform(-2, 2)
        pen.fill("poly", ink.mix("465a6c"), x - 1, 61, x + 6, crest, x + 13, 61)


def _draw_apps(pen: Pen, ink: Ink) -> None:
    apps = [ink.mix(name) for name in ("main", "ffbe28", "3cb46e", "3c8ce6", "eb5a6e")]
    for row, column in product(range(4), range(3)):
        x, y = 32.5 + column * 11.5, 12 + row * 11.5
        pen.fill("box", ink.rng.choice(apps), x, y, x + 8.5, y + 8.5, size=2)


def _draw_cracks(pen: Pen, ink: Ink) -> None:
    """Draw what runs from one point of the glass to its edges, and two rings about it."""
    x0, y0 = ink.rng.uniform(42, 54), ink.rng.uniform(26, 44)
    edges = ((29, 12), (40, 8), (58, 8), (67, 20), (67, 48), (60, 67), (40, 67), (29, 52), (29, 30))
    for x, y in edges:
        bend = (x + x0) / 2 + ink.rng.uniform(-4, 4), (y + y0) / 2 + ink.rng.uniform(-4, 4)
        pen.fill("line", ink.mix("e8ecf0"), x0, y0, *bend, x, y, size=1.3)
    ring = ((-1, 0), (-0.6, -0.9), (0.3, -1.1), (1, -0.3), (0.8, 0.8), (-0.2, 1.1), (-1, 0))
    for reach in (6, 13):
        points = (n for x, y in ring for n in (x0 + reach * x, y0 + reach * y))
        pen.fill("line", ink.mix("cdd2d8"), *points)


def _draw_crumbs(pen: Pen, ink: Ink) -> None:
    for _ in range(9):
        x, y = ink.rng.uniform(34, 62), ink.rng.uniform(24, 50)
        pen.fill("oval", ink.mix("96693c"), x, y, x + 1.8, y + 1.5)


def _draw_blossoms(pen: Pen, ink: Ink) -> None:
    for x, y in ((28, 20), (48, 12), (68, 20), (38, 27), (58, 27)):
        for dx, dy in ((0, -5), (4.8, -1.5), (3, 4), (-3, 4), (-4.8, -1.5)):
            petal = (x + dx - 3.6, y + dy - 3.6, x + dx + 3.6, y + dy + 3.6)
            pen.fill("oval", ink.main, *petal)
        pen.fill("oval", ink.mix("sun"), x - 3, y - 3, x + 3, y + 3)


def _draw_leaves(pen: Pen, ink: Ink) -> None:
    for x in (22, 34, 66, 76):
        y = 66 + ink.rng.uniform(-3, 3)
        pen.fill("poly", ink.mix("96743c"), x, y, x + 4, y - 2, x + 8, y, x + 4, y + 2)


# What a stroke may name beside the shapes: all but the first two are scattered by chance.
_SCATTERED: Mapping[str, Callable[..., None]] = {
    "sky": _draw_sky, "sun": _draw_sun, "clouds": _draw_clouds, "rain": _draw_rain,
    "car": lambda pen, ink: _draw_car(pen, ink.main, "#be3c3c", 62, 64, 18), "jam": _draw_jam,
    "stars": _draw_stars, "crests": _draw_crests, "apps": _draw_apps, "cracks": _draw_cracks,
    "crumbs": _draw_crumbs, "blossoms": _draw_blossoms, "leaves": _draw_leaves,
}  # fmt: skip
_NAMED: Mapping[str, RgbColour] = {
    "white": WHITE, "black": BLACK, "steel": (190, 196, 204), "smoke": (120, 116, 114),
    "cream": (252, 246, 232), "sun": (255, 214, 64), "green": (62, 150, 70),
    "field": (112, 180, 84), "waste": (120, 124, 112), "fair": (46, 130, 190),
}  # fmt: skip

_FAIR, _FOUL = "sky 78c3f0 20; sun 14; ", "sky 808894 20; clouds; "
_TABLE = """box backdrop -40 -40 140 140; box ground -40 {0} 140 140;
    box ground*0.75 -40 {0} 140 {1}; """
_TOP = "box ground -40 -40 140 140; line ground*0.88 -34 -40 -34 140 8x22; "
_DISH = _TABLE.format(52, 54) + "oval steel 14 56 82 70; oval white 17 56 79 67; "
_POT = _TABLE.format(56, 58) + "poly c4623e 34 46 62 46 58 70 38 70; box d4704a ~1 31 42 65 48; "
_PHONE = _TOP + "box main*0.5 ~6 26 3 70 72; "
_PLATE = f"""{_TOP} oval cecece 20 9 78 67; oval white 19 7 77 65; oval e2e6ea 26 14 70 58;
    line steel ~1.6 7 14 7 28 3x3; line steel ~2 7 28 13 28; line steel ~2.4 10 28 10 64;
    poly steel 84 14 89 20 89 40 84 40; line steel ~3 86 40 86 64; """
_ROAD = """oval {0}*0.85 -30 22 50 60; oval {0}*0.9 40 20 130 60; box {0} -40 32 140 140;
    poly 5c5e64 43 32 53 32 118 110 -22 110; """

# Each subject in its good and in its bad state; grounds reach past the edges. A stroke is a shape,
# a colour, perhaps ~SIZE, its numbers, and perhaps NxSTEP: N copies, each STEP further right.
SCENES: Mapping[str, tuple[str, str]] = {
    "beach": (  # a parasol on sunny sand, or one blown over in the rain
        _FAIR + """box 288cc8 -40 36 140 140; line white -10 42 -6 40.5 -2 42 9x14;
        oval f2d696 -60 48 160 150; line faf5eb ~2 34 28 38 66; pie main 12 16 58 56 176 356;
        pie accent 26 16 44 56 176 356; poly main 50 62 76 58 80 66 54 70; oval white 78 50 90 62;
        pie main 78 50 90 62 0 120""",
        _FOUL + """box 586876 -40 36 140 140; line 96a0aa -10 42 -6 40.5 -2 42 9x14;
        oval 968a74 -60 48 160 150; line d2cdc3 ~2 40 66 70 50;
        poly main*0.7 24 52 30 72 52 72 43 64 38 56; line accent*0.7 ~1.5 24 52 40 66 52 72;
        oval 697682 58 62 88 70; rain""",
    ),
    "road": (  # one car on an open road between fields, or a jam of cars to the horizon
        "sky 78c3f0 20; " + _ROAD.format("field") + """sun 12 48; poly white 47.5 40 48.5 40 48 36;
        poly white 47 50 49 50 48 44; poly white 46.375 63 49.625 63 48 54;
        poly white 45.5625 81 50.4375 81 48 67; car""",
        "sky beaa96 20; " + _ROAD.format("waste") + "jam",
    ),
    "tent": (  # a tent by a fire under stars, or one that collapsed into a puddle in the rain
        """sky 262e5c 14; stars; oval faf0be 40 5 54 19; box 3a6e42 -40 52 140 140;
        poly main 10 64 36 24 62 64; poly ffe082 28 64 36 24 44 64; poly ff8c1e 68 66 76 42 84 66;
        poly ffe15a 72 66 76 52 80 66; line 6e4628 ~2.5 66 68 86 64;
        line 6e4628 ~2.5 66 64 86 68""",
        _FOUL + """box 68624c -40 48 140 140; oval 8c9eb0 2 54 92 74;
        poly main*0.85 10 66 20 54 32 58 42 50 56 60 70 56 78 66; poly main*0.55 32 66 42 50 50 66;
        line dcd7cd ~1.8 60 64 74 34 78 38; rain""",
    ),
    "boat": (  # a boat under sail, or one that sinks stern first in a rough sea
        _FAIR + """line 785032 ~2 48 12 48 54; poly white 50 14 50 48 74 48;
        poly accent 46 18 46 48 28 48; poly main 22 52 78 52 68 64 32 64; box fair -40 60 140 140;
        poly fair -21 61 -14 58 -7 61 12x12; line white -20 67 -16 65.5 -12 67 12x12""",
        _FOUL + """line 785032 ~2 44 58 18 30; poly c4c4be 42 54 20 32 20 50;
        poly main 36 66 62 22 74 26 70 42 60 66; line accent ~2.5 62 22 74 26;
        box 465a6c -40 60 140 140; crests; line a5b2be -20 67 -16 65.5 -12 67 12x12;
        oval f05a32 80 58 92 68; oval 465a6c 83 60.5 89 65.5""",
    ),
    "snowman": (  # a snowman with hat and scarf, or the puddle that is left of it
        """sky 96c8eb 20; oval eef4fa -50 46 150 150; oval a0b4cd 32 42 64 74;
        oval white 33 43 63 73; oval a0b4cd 36 25 60 49; oval white 37 26 59 48;
        oval a0b4cd 39 12 57 30; oval white 40 13 56 29; line 64462d ~1.8 38 36 22 26;
        line 64462d ~1.8 58 36 74 26; box black ~1 37 12.5 59 15.5; box black 41 2 55 14;
        box main ~2 40 27 56 31; box main ~1 52 29 57 40; poly f5821e 48 21 59 23 48 24.5;
        oval black 43.3 17.3 45.7 19.7 2x7; oval black 46.8 35 49.2 37.4;
        oval black 46.8 41 49.2 43.4; oval black 46.8 53 49.2 55.4""",
        """sky 96c8eb 20; oval 7e9654 -50 46 150 150; sun 14 48; oval a5cde8 10 54 88 74;
        oval e2eef8 24 48 64 70; oval white 32 44 54 62; box black ~1 32 46.5 54 49.5;
        box black 36 36 50 48; line main ~4 56 64 78 70; poly f5821e 26 62 14 66 26 66;
        line 64462d ~1.8 66 58 84 52""",
    ),
    "cake": (  # an iced layer cake with candles, or a charred one that smokes and has caved in
        _DISH + """box accent ~3 22 40 74 62; box main 22 48 74 52; box cream ~3 29 26 67 42;
        box main ~2 29 26 67 31; oval main 29 28 38 36 4x9; box white 35.7 15 38.3 26 3x11;
        oval ffbe28 34.8 8.5 39.2 15.5 3x11; oval cream 23 58 30 65 6x8""",
        _DISH + """poly 342620 22 62 24 42 36 38 46 49 56 47 70 37 74 62; oval 342620 22 57 74 66;
        line e06022 ~1.4 32 44 36 54 33 60; line e06022 ~1.4 62 46 58 53 63 61;
        line smoke ~3.4 30 38 34 31 27 23 34 14 30 6 3x18""",
    ),
    "phone": (  # a phone with its apps lit, or one whose dark glass is shattered
        _PHONE + "box e1f2ff ~2 29 8 67 67; apps; box accent ~2 34 59 62 65",
        _PHONE + """box 181a1e ~2 29 8 67 67; cracks; poly d2e2ec 14 60 19 62 15 66;
        poly d2e2ec 78 54 83 56 79 60; poly d2e2ec 20 50 25 52 21 56;
        poly d2e2ec 82 66 87 68 83 72""",
    ),
    "dinner": (  # a full plate between fork and knife, or a plate with nothing but crumbs
        _PLATE + """oval 8c4a2c 28 15 58 38; line 60301c ~1.6 34 22 50 30;
        line 60301c ~1.6 38 18 54 26; oval fafaf5 48 30 70 50; oval ffba1e 54 35 64 45;
        oval 54aa3c 30 40 36 46; oval 54aa3c 36 43 42 49; oval 54aa3c 32 47 38 53;
        oval 54aa3c 40 49 46 55; oval 54aa3c 37 37 43 43; oval 54aa3c 45 45 51 51;
        oval 54aa3c 42 54 48 60; oval 54aa3c 48 52 54 58; oval de3c30 56 16 68 28""",
        _PLATE + "crumbs",
    ),
    "plant": (  # a pot in bloom, or one whose plant hangs brown and dry
        _POT + """line green ~2 48 42 38 34 28 20; line green ~2 48 42 48 34 48 12;
        line green ~2 48 42 58 34 68 20; line green ~2 48 42 42.5 34 37 28;
        line green ~2 48 42 53.5 34 59 28; oval green 22 30 46 42; oval green 50 30 74 42;
        blossoms""",
        _POT + """line 785c34 ~1.6 48 42 41.5 24 35 32 35 40; poly 96743c 35 34 39 40 35 48 31 40;
        line 785c34 ~1.6 48 42 54.5 24 61 32 61 40; poly 96743c 61 34 65 40 61 48 57 40;
        line 785c34 ~1.6 48 42 37 18 26 26 26 56; poly 96743c 26 50 30 56 26 64 22 56;
        line 785c34 ~1.6 48 42 59 18 70 26 70 56; poly 96743c 70 50 74 56 70 64 66 56; leaves""",
    ),
    "coffee": (  # a steaming cup on its saucer, or a cup on its side in a spill
        _TABLE.format(46, 48) + """oval accent*0.85 16 56 76 70; oval accent 16 54 76 67;
        oval main 60 34 80 54; oval backdrop 64 38 76 50; box main 26 28 66 46;
        oval main 26 26 66 64; oval main*0.8 26 23 66 34; oval 58341e 29 25 63 33;
        line white ~2 36 22 39 17 34 11 38 4 3x10""",
        _TABLE.format(46, 48) + """oval 58341e 0 55 60 71; oval 58341e -10 61 26 75;
        poly 58341e 38 50 52 58 46 68 28 62; oval main 58 22 76 40; oval backdrop 62 26 72 36;
        oval main 62 33 88 61; box main 46 33 76 61; oval main*0.8 38 33 54 61;
        oval black 40.5 36.5 51 57.5""",
    ),
}  # fmt: skip
