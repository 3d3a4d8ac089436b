"""The demo world: drawn posts whose labels stand in neither the words nor the picture alone.

A group is two pictures (good, bad) crossed with two texts (praise, complaint): four posts. Every
text and every picture thus stands under both labels equally often, in each of the two tasks:
`sarcasm` asks whether words and picture disagree, `harm` whether the club that the words taunt
is another than the one whose pennant the picture shows.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

from miko_clf.data import motives, phrases
from miko_clf.data.phrases import FAMILIES, Words
from miko_clf.data.post import Post, Rationale
from miko_clf.data.scenes import CLUBS, NUM_VARIANTS, SCENES, STATES, Picture, draw
from miko_clf.errors import PostError

Task = Literal["sarcasm", "harm"]
Split = Literal["train", "val", "test"]
Cell = tuple[int, str, int]  # template family, subject, variant of the scene
Progress = Callable[[Sequence[Picture]], Iterable[Picture]]

VERSION = 1
STAMP = "world.json"
BOTH = "both"  # folder of posts that are labelled for every task
CLASSES: Mapping[Task, tuple[str, str]] = {
    "sarcasm": ("sincere", "sarcastic"),
    "harm": ("harmless", "harmful"),
}
SPLITS: tuple[Split, ...] = ("train", "val", "test")
POSTS_A_GROUP = 4
FEWEST = 40
MOST = POSTS_A_GROUP * len(FAMILIES) * len(SCENES) * NUM_VARIANTS


@dataclass(frozen=True)
class Draft:
    """A post before it is drawn and written down, with the facts that decide its labels."""

    id: str
    picture: Picture
    words: Words
    group: str
    split: Split

    @property
    def sarcastic(self) -> bool:
        """Whether the words say the opposite of what the picture shows."""
        return self.words.praise != (self.picture.state == "good")

    @property
    def harmful(self) -> bool:
        """Whether the taunt hits a club other than the author's own."""
        return self.words.club != self.picture.club

    def label(self, task: Task) -> str:
        """Return the name of the draft's class in a task."""
        return CLASSES[task][self.sarcastic if task == "sarcasm" else self.harmful]


def world_posts(seed: int = 0, num_posts: int = 3000) -> list[Draft]:
    """Return every post of a world, undrawn, in the order of its files.

    Raises PostError where `num_posts` is not a multiple of four from 40 to 3,840.
    """
    if num_posts % POSTS_A_GROUP or not FEWEST <= num_posts <= MOST:
        raise PostError(
            f"a demo world of {num_posts} posts cannot be made; "
            f"choose a multiple of {POSTS_A_GROUP} from {FEWEST} to {MOST}"
        )
    rng = Random(f"miko-world/{VERSION}/{seed}")
    num_groups = num_posts // POSTS_A_GROUP
    cells = rng.sample(list(product(range(len(FAMILIES)), SCENES, range(NUM_VARIANTS))), num_groups)
    names = [f"{number:012x}" for number in rng.sample(range(16**12), num_groups * 6)]
    written: set[str] = set()
    drafts = []
    for place, cell in enumerate(cells):
        split = _split(place, num_groups)
        drafts += _group(cell, split, names[place * 6 : place * 6 + 6], written, rng)
    rng.shuffle(drafts)
    return drafts


def to_post(draft: Draft, task: Task) -> Post:
    """Return the draft as a post of one task; its image path is relative to the task's folder."""
    picture, words = draft.picture, draft.words
    explain = motives.explain_tone if task == "sarcasm" else motives.explain_aim
    return Post(
        id=draft.id,
        text=words.text,
        image=Path("..", "images", f"{picture.name}.png"),
        label=draft.label(task),
        description=motives.describe(picture, Random(picture.name)),
        key_information=motives.summarise(picture, words),
        intentions=motives.intend(
            words, ironic=draft.sarcastic, hostile=draft.harmful, rng=Random(draft.id)
        ),
        rationale=explain(picture, words),
        group=draft.group,
    )


def to_post_of_both(draft: Draft) -> Post:
    """Return the draft as a post that is labelled for every task, and explained for each."""
    by_task = {task: to_post(draft, task) for task in CLASSES}
    reasons = [post.rationale.text for post in by_task.values() if post.rationale]
    return by_task["sarcasm"].model_copy(
        update={
            "label": {task: draft.label(task) for task in CLASSES},
            "rationale": Rationale(text=" ".join(reasons), saw_label=True),
        }
    )


def write_world(
    folder: Path, *, seed: int = 0, num_posts: int = 3000, progress: Progress = iter
) -> Path:
    """Write `images/`, `sarcasm/`, `harm/` and `both/` under a folder, and return the folder.

    The same seed and size give the same bytes. A folder that holds this very world is left as it
    is, apart from a `both/` that it lacks; any other that is not empty raises PostError.
    `progress` may watch the drawing.
    """
    folder = Path(folder)
    stamp = {"version": VERSION, "seed": seed, "num_posts": num_posts}
    drafts = world_posts(seed, num_posts)
    if _stamp(folder) == stamp:
        if not (folder / BOTH).exists():
            _write_both(folder, drafts)
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PostError(f"{folder} holds something else; choose a new folder, or delete this one")
    home = folder.resolve().parent
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=home) as scrap:
        aside = Path(scrap, "world")
        _write_images(aside / "images", drafts, progress)
        for task in CLASSES:
            _write_posts(aside / task, drafts, partial(to_post, task=task))
        _write_both(aside, drafts)
        (aside / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
        _move(aside, folder, stamp)
    return folder


def _move(aside: Path, folder: Path, stamp: object) -> None:
    """Put the world in its place, unless another process has put the same one there first."""
    try:
        aside.rename(folder)
    except OSError:
        if _stamp(folder) != stamp:
            raise


def _split(place: int, num_groups: int) -> Split:
    """Return the split of a group: a tenth each to test and val, the rest to train."""
    tenth = round(num_groups / 10)
    return "test" if place < tenth else "val" if place < 2 * tenth else "train"


def _group(
    cell: Cell, split: Split, names: Sequence[str], written: set[str], rng: Random
) -> list[Draft]:
    """Return two pictures crossed with two texts, none of which was written before."""
    family, subject, variant = cell
    pictures = [
        Picture(name, subject, state, club, variant, rng.getrandbits(32))
        for name, state, club in zip(names[:2], STATES, rng.sample(CLUBS, 2), strict=True)
    ]
    texts = [
        _new_words(cell, written, rng, praise=praise, club=club)
        for praise, club in zip((True, False), rng.sample(CLUBS, 2), strict=True)
    ]
    group = f"{family:02d}-{subject}-{variant}"
    pairs = product(pictures, texts)
    return [
        Draft(name, picture, words, group, split)
        for name, (picture, words) in zip(names[2:], pairs, strict=True)
    ]


def _new_words(
    cell: Cell, written: set[str], rng: Random, *, praise: bool, club: phrases.Club
) -> Words:
    """Return words for the cell that no other post of the world has."""
    while True:
        words = phrases.write(cell[1], cell[0], praise=praise, club=club, rng=rng)
        if words.text not in written:
            written.add(words.text)
            return words


def _stamp(folder: Path) -> object:
    """Return what the folder's stamp says, or None where it has none."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_images(folder: Path, drafts: Iterable[Draft], progress: Progress) -> None:
    """Draw every picture once."""
    folder.mkdir(parents=True)
    for picture in progress(list(dict.fromkeys(draft.picture for draft in drafts))):
        draw(picture).save(folder / f"{picture.name}.png")


def _write_both(folder: Path, drafts: Sequence[Draft]) -> None:
    with TemporaryDirectory(prefix=".both-", dir=folder) as scrap:
        _write_posts(Path(scrap, BOTH), drafts, to_post_of_both)
        with suppress(OSError):  # another process was first, with the same posts
            Path(scrap, BOTH).rename(folder / BOTH)


def _write_posts(folder: Path, drafts: Sequence[Draft], build: Callable[[Draft], Post]) -> None:
    """Write the three files of a task."""
    folder.mkdir()
    for split in SPLITS:
        lines = [
            build(draft).model_dump_json(exclude_none=True) + "\n"
            for draft in drafts
            if draft.split == split
        ]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
