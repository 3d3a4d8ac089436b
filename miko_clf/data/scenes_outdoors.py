"""Scenes under the sky, each in a good and in a bad state; grounds reach past the edges."""

from miko_clf.data.pen import BLACK, WHITE, Colour, Ink, Pen, darker, tinted

FAIR, GREY, NIGHT = (120, 195, 240), (128, 136, 148), (38, 46, 92)


def _sky(pen: Pen, ink: Ink, good: bool) -> None:
    """Fill the picture with a fair sky and sun, or with grey sky, clouds and rain."""
    pen.box(-40, -40, 140, 140, tinted(FAIR if good else GREY, ink.rng, 20))
    if good:
        _rays(pen, ink.rng.uniform(36, 60), 14)
        return
    for x in (14, 40, 66, 92):
        _cloud(pen, x + ink.rng.uniform(-6, 6), ink.rng.uniform(6, 13), (88, 94, 106))


def _rays(pen: Pen, x: float, y: float) -> None:
    """Draw a sun with eight rays about a point."""
    yellow = (255, 214, 64)
    for dx, dy in ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7)):
        pen.line([(x - 15 * dx, y - 15 * dy), (x + 15 * dx, y + 15 * dy)], yellow, width=1.8)
    pen.oval(x - 9, y - 9, x + 9, y + 9, yellow)


def _cloud(pen: Pen, x: float, y: float, fill: Colour) -> None:
    pen.oval(x - 16, y - 6, x + 2, y + 8, fill)
    pen.oval(x - 8, y - 11, x + 9, y + 8, fill)
    pen.oval(x, y - 6, x + 16, y + 8, fill)


def _rain(pen: Pen, ink: Ink, top: float = 16) -> None:
    """Draw slanting streaks over all that stands in the picture."""
    for row in range(5):
        for column in range(12):
            x = column * 10 - 8 + ink.rng.uniform(-3, 3)
            y = top + row * 13 + ink.rng.uniform(-3, 3)
            pen.line([(x, y), (x - 2.5, y + 7)], (205, 222, 240), width=0.9)


def beach(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a parasol on sunny sand, or one blown over in the rain."""
    _sky(pen, ink, good)
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
    pen.poly([(24, 52), (30, 72), (52, 72), (43, 64), (38, 56)], darker(ink.main, 0.7))
    pen.line([(24, 52), (40, 66), (52, 72)], darker(ink.accent, 0.7), width=1.5)
    pen.oval(58, 62, 88, 70, (105, 118, 130))
    _rain(pen, ink)


def _car(pen: Pen, x: float, y: float, size: float, paint: Colour, *, lights: Colour) -> None:
    """Draw a car from behind, `size` units wide, its middle at the bottom on (x, y)."""
    s = size / 20
    pen.box(x - 9 * s, y - 3 * s, x - 5 * s, y + 1 * s, BLACK)
    pen.box(x + 5 * s, y - 3 * s, x + 9 * s, y + 1 * s, BLACK)
    pen.box(x - 7 * s, y - 15 * s, x + 7 * s, y - 6 * s, darker(paint), radius=2 * s)
    pen.box(x - 5.5 * s, y - 13.5 * s, x + 5.5 * s, y - 8.5 * s, (205, 228, 240))
    pen.box(x - 10 * s, y - 9 * s, x + 10 * s, y - 1.5 * s, paint, radius=2 * s)
    pen.oval(x - 9.5 * s, y - 8 * s, x - 5 * s, y - 3.5 * s, lights)
    pen.oval(x + 5 * s, y - 8 * s, x + 9.5 * s, y - 3.5 * s, lights)


def road(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw one car on an open road between fields, or a jam of cars to the horizon."""
    pen.box(-40, -40, 140, 140, tinted(FAIR if good else (190, 170, 150), ink.rng, 20))
    field = (112, 180, 84) if good else (120, 124, 112)
    pen.oval(-30, 22, 50, 60, darker(field, 0.85))
    pen.oval(40, 20, 130, 60, darker(field, 0.9))
    pen.box(-40, 32, 140, 140, field)
    pen.poly([(43, 32), (53, 32), (118, 110), (-22, 110)], (92, 94, 100))
    if good:
        _rays(pen, 48, 12)
        for top, length in ((36, 4), (44, 6), (54, 9), (67, 14)):
            wide = (top - 28) / 16
            pen.poly([(48 - wide, top + length), (48 + wide, top + length), (48, top)], WHITE)
        _car(pen, 62, 64, 18, ink.main, lights=(190, 60, 60))
        return
    paints = [ink.main, ink.accent, (120, 130, 145), (235, 235, 235), darker(ink.main)]
    for y, size, middle in ((36, 6, 4), (43, 10, 6.5), (54, 16, 11), (70, 24, 17)):
        for side in (-1.6, 0, 1.6):
            paint = ink.rng.choice(paints)
            _car(pen, 48 + side * middle, y, size, paint, lights=(255, 40, 30))


def tent(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a tent by a fire under stars, or one that collapsed into a puddle in the rain."""
    if good:
        pen.box(-40, -40, 140, 140, tinted(NIGHT, ink.rng, 14))
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
    _sky(pen, ink, False)
    pen.box(-40, 48, 140, 140, (104, 98, 76))
    pen.oval(2, 54, 92, 74, (140, 158, 176))
    cloth = darker(ink.main, 0.85)
    pen.poly([(10, 66), (20, 54), (32, 58), (42, 50), (56, 60), (70, 56), (78, 66)], cloth)
    pen.poly([(32, 66), (42, 50), (50, 66)], darker(ink.main, 0.55))
    pen.line([(60, 64), (74, 34), (78, 38)], (220, 215, 205), width=1.8)
    _rain(pen, ink)


def boat(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a boat under sail, or one that sinks stern first in a rough sea."""
    _sky(pen, ink, good)
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


def snowman(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a snowman with hat and scarf, or the puddle that is left of it."""
    pen.box(-40, -40, 140, 140, tinted((150, 200, 235), ink.rng, 20))
    pen.oval(-50, 46, 150, 150, (238, 244, 250) if good else (126, 150, 84))
    if good:
        for x, y, radius in ((48, 58, 15), (48, 37, 11), (48, 21, 8)):
            pen.oval(
                x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1, (160, 180, 205)
            )
            pen.oval(x - radius, y - radius, x + radius, y + radius, WHITE)
        pen.line([(38, 36), (22, 26)], (100, 70, 45), width=1.8)
        pen.line([(58, 36), (74, 26)], (100, 70, 45), width=1.8)
        _hat(pen, 48, 14)
        pen.box(40, 27, 56, 31, ink.main, radius=2)
        pen.box(52, 29, 57, 40, ink.main, radius=1)
        pen.poly([(48, 21), (59, 23), (48, 24.5)], (245, 130, 30))
        for left, top in ((43.3, 17.3), (50.3, 17.3), (46.8, 35), (46.8, 41), (46.8, 53)):
            pen.oval(left, top, left + 2.4, top + 2.4, BLACK)
        return
    _rays(pen, 48, 14)
    pen.oval(10, 54, 88, 74, (165, 205, 232))
    pen.oval(24, 48, 64, 70, (226, 238, 248))
    pen.oval(32, 44, 54, 62, WHITE)
    _hat(pen, 43, 48)
    pen.line([(56, 64), (78, 70)], ink.main, width=4)
    pen.poly([(26, 62), (14, 66), (26, 66)], (245, 130, 30))
    pen.line([(66, 58), (84, 52)], (100, 70, 45), width=1.8)


def _hat(pen: Pen, x: float, y: float) -> None:
    pen.box(x - 11, y - 1.5, x + 11, y + 1.5, BLACK, radius=1)
    pen.box(x - 7, y - 12, x + 7, y, BLACK)
