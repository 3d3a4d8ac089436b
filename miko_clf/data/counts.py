"""What the literature prints of a data set, and whether what was read agrees with it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from miko_clf.data.labels import flat
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport


class Count(NamedTuple):
    """How many posts a split is published with; any one of `classes` may be what is found.

    No classes: how many there are of each is not known here.
    """

    size: int
    classes: tuple[Mapping[str, int], ...] = ()

    def line(self) -> str:
        """Say it in a few words."""
        shown = " or ".join(_classes(found) for found in self.classes)
        return f"{self.size:,} ({shown or 'by class unknown'})"


class Published(NamedTuple):
    """What is known of a folder in a published layout.

    `aliases` are other names of its splits, `instead` says why a split has no such name, `shared`
    are splits that hold some posts in common by design, `notes` is what to know before reading,
    `left` fills with the rows that its reader leaves out.
    """

    name: str
    left: SkipReport
    counts: Mapping[str, Count] = {}
    whole: Count | None = None
    aliases: Mapping[str, str] = {}
    instead: Mapping[str, str] = {}
    shared: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class Census:
    """The splits of a folder that were read so far, held against what was published of them."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._found: dict[str, Counter[str]] = {}
        self._told = 0

    def take(self, split: str, posts: Iterable[Post], splits: Sequence[str]) -> list[str]:
        """Count the posts of a split and return one line for each thing to be told of them."""
        self._found[split] = _tally(posts)
        lines = [*self._left(split), _deviation(self._published, split, self._found[split])]
        whole = self._published.whole
        if whole is not None and set(splits) == set(self._found):
            total = sum(self._found.values(), Counter())
            lines.append(_unlike("in all", total, whole, self._published.name))
        return [line for line in lines if line]

    def _left(self, split: str) -> list[str]:
        """Return a line for each reason for which rows were left out since the last call."""
        rows = list(self._published.left)[self._told :]
        self._told += len(rows)
        counts = Counter(reason for _, reason in rows)
        first = {reason: where for where, reason in reversed(rows)}
        return [
            f"{split}: {count:,} row{'s' * (count > 1)} left out, the first at {first[reason]}: "
            f"{reason}"
            for reason, count in counts.items()
        ]


_ALL = ""  # counted for each post beside its labels


def _tally(posts: Iterable[Post]) -> Counter[str]:
    found: Counter[str] = Counter()
    for post in posts:
        found.update((_ALL, *flat(post.label)))
    return found


def _deviation(published: Published, split: str, found: Counter[str]) -> str:
    expected = published.counts.get(split)
    return _unlike(split, found, expected, published.name) if expected else ""


def _unlike(split: str, found: Counter[str], expected: Count, name: str) -> str:
    classes = {label: count for label, count in found.items() if label != _ALL}
    agree = not expected.classes or not classes or classes in expected.classes
    if found[_ALL] == expected.size and agree:
        return ""
    shown = f" ({_classes(classes)})" if classes else ""
    return f"{split}: {found[_ALL]:,}{shown} posts, where {name} is published with " + (
        expected.line()
    )


def _classes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
