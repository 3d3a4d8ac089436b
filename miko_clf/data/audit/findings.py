"""What an audit found, as records that are written, printed and drawn."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, computed_field

from miko_clf.data.audit.lookup import Lookup
from miko_clf.data.post import Record

Verdict = Literal["shortcut", "never feed this", "no finding", "too few rows"]


class Split(Record):
    """How many posts of which class a split holds, and what its posts lack.

    `refused` posts are among none of the other figures.
    """

    name: str
    posts: int
    labels: Mapping[str, int]
    unlabelled: int
    without_text: int
    without_image: int
    refused: int


class Refused(Record):
    """A post that cannot be read, where it stands, and why."""

    split: str
    where: str
    why: str


class Shift(Record):
    """How far the share of a class moves from train to another split; chi-square's p."""

    split: str
    label: str
    train_share: float
    share: float
    p: float
    warn: bool


class Member(Record):
    """One post of a group."""

    split: str
    id: str
    label: str | None


class Group(Record):
    """Two or more posts of one key; `across` splits, and with labels in `conflict`, or not."""

    members: tuple[Member, ...]
    across: bool
    conflict: bool


class Overlap(Record):
    """Every group of posts that share one kind of key."""

    key: str
    what: str
    groups: tuple[Group, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_groups(self) -> int:
        """Groups of two or more posts."""
        return len(self.groups)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_across(self) -> int:
        """Groups that stand on two sides of a split."""
        return sum(group.across for group in self.groups)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def num_conflicts(self) -> int:
        """Groups whose posts are labelled differently."""
        return sum(group.conflict for group in self.groups)


class Confounders(Record):
    """Groups that share one part, differ in the other, and carry different labels: no leak.

    Hateful Memes (Kiela et al., NeurIPS 2020) is built of them, so that neither part is enough.
    """

    shared: Literal["text", "image"]
    groups: tuple[Group, ...]


class Cue(Record):
    """One number a post, and how well it tells a class from the rest all by itself.

    `auroc` is taken the way round in which it exceeds 0.5, with a 95 % interval, on `split`;
    `held` is the AUROC the same way round on every other split. Of several classes it is the
    one that is told best. `nearby` finds what goes up and down with a number.
    """

    name: str
    reaches: bool = Field(description="whether a model gets to see it")
    split: str
    label: str | None
    higher: bool | None = Field(description="whether the class has the higher number")
    auroc: float | None
    low: float | None
    high: float | None
    inside: float | None = Field(description="its mean in the class")
    outside: float | None = Field(description="its mean outside the class")
    nearby: float | None = Field(description="AUROC of the vote of the nearest numbers, all splits")
    nearby_low: float | None
    limit: float
    held: Mapping[str, float]
    verdict: Verdict

    @property
    def best(self) -> float:
        """The larger of the two areas, 0 where there is none."""
        return max(self.auroc or 0, self.nearby or 0)


class Naming(Record):
    """Shares of the texts about posts of a class that name it, or any class at all."""

    source: str
    label: str
    texts: int
    own: float
    any: float


class Audit(Record):
    """Everything that was found; `leaks` says in one line each why results would be void."""

    data: str
    kind: str
    splits: tuple[Split, ...]
    shifts: tuple[Shift, ...]
    overlaps: tuple[Overlap, ...]
    lookups: tuple[Lookup, ...]
    confounders: tuple[Confounders, ...]
    cues: tuple[Cue, ...]
    namings: tuple[Naming, ...]
    refused: tuple[Refused, ...]
    leaks: tuple[str, ...]
    warnings: tuple[str, ...]
    limits: Mapping[str, float]
