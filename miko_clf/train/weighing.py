"""A critic and a knowledge base: what it learns from there, and what it says of it."""

from collections.abc import Callable, Iterable, Sequence

from miko_clf.distil.marking import Judged
from miko_clf.encode.evidence import Example
from miko_clf.train.critic import Critic


def examples(posts: Iterable[Judged]) -> list[Example]:
    """Return an example for each intention; those that nobody judged are company of the others."""
    return [
        Example(one.post.id, one.post.text, one.post.description, mark.relation, mark.text, valid)
        for one in posts
        for mark, valid in zip(one.intentions, one.valid, strict=True)
    ]


def weights(critic: Critic) -> Callable[[Sequence[Judged]], list[list[float]]]:
    """Return what a critic says of posts: a probability for each intention of each."""

    def assess(posts: Sequence[Judged]) -> list[list[float]]:
        found = iter(critic.probabilities(examples(posts)).tolist())
        return [[next(found) for _ in one.intentions] for one in posts]

    return assess
