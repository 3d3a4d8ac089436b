"""Which posts belong together: what rows are drawn and swapped by."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from miko_clf.data.post import Post
from miko_clf.evaluate.errors.members import MOST


def threads(posts: Sequence[Post]) -> Int[np.ndarray, " row"] | None:
    """Return a number for each post, one for all of a group; None where groups are few.

    A few groups name target groups and no threads, and too little is drawn anew of so few.
    """
    if len({post.group for post in posts if post.group}) <= MOST:
        return None
    names = [f"group {p.group}" if p.group else f"post {n}" for n, p in enumerate(posts)]
    return np.unique(names, return_inverse=True)[1]
