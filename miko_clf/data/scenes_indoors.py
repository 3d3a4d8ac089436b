"""Scenes on a table, each in a good and in a bad state; grounds reach past the edges."""

from miko_clf.data.pen import BLACK, WHITE, Ink, Pen, darker

STEEL, SMOKE, CREAM = (190, 196, 204), (120, 116, 114), (252, 246, 232)


def _table(pen: Pen, ink: Ink, edge: float = 52) -> None:
    """Fill the picture with a wall and a table top."""
    pen.box(-40, -40, 140, 140, ink.backdrop)
    pen.box(-40, edge, 140, 140, ink.ground)
    pen.box(-40, edge, 140, edge + 2, darker(ink.ground))


def _top(pen: Pen, ink: Ink) -> None:
    """Fill the picture with a table seen from above."""
    pen.box(-40, -40, 140, 140, ink.ground)
    for x in range(-34, 140, 22):
        pen.line([(x, -40), (x, 140)], darker(ink.ground, 0.88))


def cake(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw an iced layer cake with candles, or a charred one that smokes and has caved in."""
    _table(pen, ink)
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


def phone(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a phone with its apps lit, or one whose dark glass is shattered."""
    _top(pen, ink)
    pen.box(26, 3, 70, 72, darker(ink.main, 0.5), radius=6)
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


def dinner(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a full plate between fork and knife, or a plate with nothing but crumbs."""
    _top(pen, ink)
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


def plant(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a pot in bloom, or one whose plant hangs brown and dry."""
    _table(pen, ink, 56)
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


def coffee(pen: Pen, ink: Ink, good: bool) -> None:
    """Draw a steaming cup on its saucer, or a cup on its side in a spill."""
    _table(pen, ink, 46)
    if good:
        pen.oval(16, 56, 76, 70, darker(ink.accent, 0.85))
        pen.oval(16, 54, 76, 67, ink.accent)
        pen.oval(60, 34, 80, 54, ink.main)
        pen.oval(64, 38, 76, 50, ink.backdrop)
        pen.box(26, 28, 66, 46, ink.main)
        pen.oval(26, 26, 66, 64, ink.main)
        pen.oval(26, 23, 66, 34, darker(ink.main, 0.8))
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
    pen.oval(38, 33, 54, 61, darker(ink.main, 0.8))
    pen.oval(40.5, 36.5, 51, 57.5, BLACK)
