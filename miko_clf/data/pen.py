"""A pen that draws in picture units, so that scenes are written once and moved or scaled freely."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import ImageColor, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

FINE = 4  # drawn at four times the size, then averaged down
WIDTH, HEIGHT = 96, 75  # the scene, in picture units
WHITE, BLACK = (255, 255, 255), (35, 32, 34)


@dataclass(frozen=True)
class Ink:
    """The colours of one picture, and the chance that scatters its small things."""

    backdrop: Colour
    ground: Colour
    main: Colour
    accent: Colour
    rng: Random


class Pen:
    """Draws shapes given in picture units, scaled about the middle of the scene and moved."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, *, zoom: float = 1, shift: Point = (0, 0)
    ) -> None:
        self.draw = draw
        self.zoom = zoom
        self.shift = shift

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, *, radius: float = 0
    ) -> None:
        """Fill a rectangle, with round corners where a radius is given."""
        corners = self._place([(x0, y0), (x1, y1)])
        self.draw.rounded_rectangle(corners, radius * self.zoom * FINE, fill)

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """Fill the ellipse that fits the rectangle."""
        self.draw.ellipse(self._place([(x0, y0), (x1, y1)]), fill)

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon(self._place(points), fill)

    def line(self, points: Sequence[Point], fill: Colour, *, width: float = 1) -> None:
        """Draw a line through the points."""
        thick = max(1, round(width * self.zoom * FINE))
        self.draw.line(self._place(points), fill, thick, joint="curve")

    def pie(
        self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, fill: Colour
    ) -> None:
        """Fill a slice of the ellipse, angles in degrees clockwise from three o'clock."""
        self.draw.pieslice(self._place([(x0, y0), (x1, y1)]), start, end, fill)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        """Return the points in fine pixels."""
        (dx, dy), cx, cy = self.shift, WIDTH / 2, HEIGHT / 2
        return [
            (((x - cx) * self.zoom + cx + dx) * FINE, ((y - cy) * self.zoom + cy + dy) * FINE)
            for x, y in points
        ]


def tinted(colour: str | Colour, rng: Random, spread: int = 12) -> Colour:
    """Return the colour moved by at most `spread` levels in each channel."""
    red, green, blue = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour
    move = [rng.randint(-spread, spread) for _ in range(3)]
    r, g, b = (min(255, max(0, c + m)) for c, m in zip((red, green, blue), move, strict=True))
    return r, g, b


def darker(colour: Colour, share: float = 0.75) -> Colour:
    """Return the colour with its brightness multiplied by `share`."""
    red, green, blue = colour
    return round(red * share), round(green * share), round(blue * share)
