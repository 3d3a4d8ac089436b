"""Things joined in pairs fall into groups; each thing is in one group and no other."""

import numpy as np
from numpy.typing import NDArray


class Joined:
    """So many things, at first each alone; joining two joins their groups (Tarjan, 1975)."""

    def __init__(self, num_things: int) -> None:
        self._parents = list(range(num_things))

    def join(self, one: int, other: int) -> None:
        """Put two things, and all that was joined with either, in one group."""
        roots = sorted((self.group(one), self.group(other)))
        self._parents[roots[1]] = roots[0]

    def group(self, thing: int) -> int:
        """Return the lowest thing in the same group."""
        parents = self._parents
        while parents[thing] != thing:
            parents[thing] = parents[parents[thing]]
            thing = parents[thing]
        return thing

    def groups(self) -> NDArray[np.int64]:
        """Return the group of every thing."""
        return np.array([self.group(thing) for thing in range(len(self._parents))], dtype=np.int64)
