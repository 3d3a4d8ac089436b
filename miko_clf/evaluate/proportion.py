"""The interval of a share of rows."""

from typing import TypeVar

import numpy as np

Numbers = TypeVar("Numbers", float, np.ndarray)


def wilson(share: Numbers, count: Numbers) -> tuple[Numbers, Numbers]:
    """Return the bounds of Wilson's score interval (JASA 1927) at 95 %."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    half = z * spread / (1 + z**2 / count)
    return centre - half, centre + half
