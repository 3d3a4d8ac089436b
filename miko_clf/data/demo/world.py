"""The demo world: posts of which it is known by construction what tells their labels.

A group is two pictures (good, bad) crossed with two texts (praise, complaint): four posts.
`sarcasm` asks whether words and picture disagree: every text and every picture stands under both
labels equally often, and only together they tell. `harm` asks whether the author stands outside
the club that the words taunt: one picture in three shows the author's pennant, and of the rest
nothing tells but what is said of the author's intentions.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import comb
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

from miko_clf.data.demo import captions, render
from miko_clf.data.demo.captions import TEXT_FAMILIES, DemoText
from miko_clf.data.demo.scenes import SCENES
from miko_clf.data.post import KeyInformation, Post, Rationale
from miko_clf.data.splits import SPLITS
from miko_clf.errors import PostError

DemoTask = Literal["sarcasm", "harm"]
_Cell = tuple[int, str, int]  # template family, subject, variant of the scene
_Progress = Callable[[Sequence[render.DemoPicture]], Iterable[render.DemoPicture]]

_WORLD_VERSION = 2
_STAMP = "world.json"
_BOTH = "both"  # folder of posts that are labelled for every task
DEMO_CLASSES: Mapping[DemoTask, tuple[str, str]] = {
    "sarcasm": ("sincere", "sarcastic"),
    "harm": ("harmless", "harmful"),
}
WITHOUT_PENNANT = 2 / 3  # of the pictures of each split
_POSTS_A_GROUP = 4
_FEWEST_POSTS = 40
_MOST_POSTS = _POSTS_A_GROUP * len(TEXT_FAMILIES) * len(SCENES) * render.NUM_VARIANTS


@dataclass(frozen=True)
class Draft:
    """A post before it is drawn and written down, with the facts that decide its labels."""

    id: str
    picture: render.DemoPicture
    words: DemoText
    group: str
    split: str

    @property
    def sarcastic(self) -> bool:
        """Whether the words say the opposite of what the picture shows."""
        return self.words.praise != (self.picture.state == "good")

    @property
    def harmful(self) -> bool:
        """Whether the taunt hits a club other than the author's own."""
        return self.picture.club != captions.TAUNTED

    def label(self, task: DemoTask) -> str:
        """Return the name of the draft's class in a task."""
        return DEMO_CLASSES[task][self.sarcastic if task == "sarcasm" else self.harmful]


def draft_world(seed: int = 0, num_posts: int = 3000) -> list[Draft]:
    """Return every post of a world, undrawn, in the order of its files.

    Raises PostError where `num_posts` is not a multiple of four from 40 to 3,840.
    """
    if num_posts % _POSTS_A_GROUP or not _FEWEST_POSTS <= num_posts <= _MOST_POSTS:
        raise PostError(
            f"a demo world of {num_posts} posts cannot be made; "
            f"choose a multiple of {_POSTS_A_GROUP} from {_FEWEST_POSTS} to {_MOST_POSTS}"
        )
    rng = Random(f"miko-world/{_WORLD_VERSION}/{seed}")
    num_groups = num_posts // _POSTS_A_GROUP
    tenth = round(num_groups / 10)  # of the groups go to test, as many to val
    splits = ["test"] * tenth + ["val"] * tenth + ["train"] * (num_groups - 2 * tenth)
    cells = rng.sample(
        list(product(range(len(TEXT_FAMILIES)), SCENES, range(render.NUM_VARIANTS))), num_groups
    )
    names = [f"{number:012x}" for number in rng.sample(range(16**12), num_groups * 6)]
    written: set[str] = set()
    drafts = []
    for place, (cell, split, pennants) in enumerate(
        zip(cells, splits, _draw_pennants(splits, rng), strict=True)
    ):
        own = names[place * 6 : place * 6 + 6]
        drafts += _draft_group(cell, split, pennants, own, written, rng)
    rng.shuffle(drafts)
    return drafts


def compute_best_auroc(task: DemoTask, *, intentions: bool) -> float:
    """Return the AUROC of whoever knows how the world is made and reads a post, over all posts.

    A post whose words and picture tell its label stands above, or below, all others. The rest are
    ranked by how many of the intentions that speak of the aim say harmful, none where none are
    given. Ties count half.
    """
    if task == "sarcasm":
        return 1.0
    told = len(captions.AIM_INTENTIONS) if intentions else 0
    wrong = captions.WRONG_INTENTION
    chances = [
        comb(told, right) * (1 - wrong) ** right * wrong ** (told - right)
        for right in range(told + 1)
    ]
    above = sum(
        chance * other * (0.5 if right == said else float(right > said))
        for right, chance in enumerate(chances)  # of a harmful post that say harmful
        for said, other in enumerate(reversed(chances))  # of a harmless one
    )
    return 1 - WITHOUT_PENNANT**2 * (1 - above)


def build_task_post(draft: Draft, task: DemoTask) -> Post:
    """Return the draft as a post of one task; its image path is relative to the task's folder."""
    picture, words = draft.picture, draft.words
    tone, aim = captions.explain_tone(picture, words), captions.explain_aim(picture)
    return Post(
        id=draft.id,
        text=words.text,
        image=Path("..", "images", f"{picture.name}.png"),
        label=draft.label(task),
        description=captions.describe_picture(picture, Random(picture.name)),
        key_information=KeyInformation(  # nothing on how picture and words judge it
            concept=picture.subject, object=words.noun, keywords=(words.noun, captions.TAUNTED)
        ),
        intentions=captions.write_intentions(
            words, ironic=draft.sarcastic, hostile=draft.harmful, rng=Random(draft.id)
        ),
        rationale=tone if task == "sarcasm" else aim,
        group=draft.group,
    )


def build_post_of_both(draft: Draft) -> Post:
    """Return the draft as a post that is labelled for every task, and explained for each."""
    by_task = {task: build_task_post(draft, task) for task in DEMO_CLASSES}
    reasons = [post.rationale.text for post in by_task.values() if post.rationale]
    return by_task["sarcasm"].model_copy(
        update={
            "label": {task: draft.label(task) for task in DEMO_CLASSES},
            "rationale": Rationale(text=" ".join(reasons), saw_label=True),
        }
    )


def write_world(
    folder: Path, *, seed: int = 0, num_posts: int = 3000, progress: _Progress = iter
) -> Path:
    """Write `images/`, `sarcasm/`, `harm/` and `both/` under a folder, and return the folder.

    The same seed and size give the same bytes. A folder that holds this very world is left as it
    is, apart from a `both/` that it lacks; any other that is not empty raises PostError.
    `progress` may watch the drawing.
    """
    folder = Path(folder)
    stamp = {"version": _WORLD_VERSION, "seed": seed, "num_posts": num_posts}
    drafts = draft_world(seed, num_posts)
    before = _read_stamp(folder)
    if before == stamp:
        if not (folder / _BOTH).exists():
            _write_both(folder, drafts)
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        other = "a demo world of another version, seed or size" if before else "something else"
        raise PostError(f"{folder} holds {other}; choose a new folder, or delete this one")
    home = folder.resolve().parent
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=home) as scrap:
        aside = Path(scrap, "world")
        (aside / "images").mkdir(parents=True)
        for picture in progress(list(dict.fromkeys(draft.picture for draft in drafts))):
            render.draw_picture(picture).save(aside / "images" / f"{picture.name}.png")
        for task in DEMO_CLASSES:
            _write_posts(aside / task, drafts, partial(build_task_post, task=task))
        _write_both(aside, drafts)
        (aside / _STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
        _move_into_place(aside, folder, stamp)
    return folder


def _move_into_place(aside: Path, folder: Path, stamp: object) -> None:
    """Put the world in its place, unless another process has put the same one there first."""
    try:
        aside.rename(folder)
    except OSError:
        if _read_stamp(folder) != stamp:
            raise


def _draw_pennants(splits: Sequence[str], rng: Random) -> list[tuple[bool, bool]]:
    """Return for each group which of its pictures show a pennant: of a split a fixed share."""
    shown: dict[str, list[bool]] = {}
    for split in dict.fromkeys(splits):
        num_pictures = 2 * splits.count(split)
        hidden = round(WITHOUT_PENNANT * num_pictures)
        shown[split] = [True] * (num_pictures - hidden) + [False] * hidden
        rng.shuffle(shown[split])
    return [(shown[split].pop(), shown[split].pop()) for split in splits]


def _draft_group(
    cell: _Cell,
    split: str,
    pennants: tuple[bool, bool],
    names: Sequence[str],
    written: set[str],
    rng: Random,
) -> list[Draft]:
    """Return two pictures crossed with two texts, none of which was written before."""
    family, subject, variant = cell
    clubs = rng.sample(render.CLUBS, 2)
    pictures = [
        render.DemoPicture(name, subject, state, club, pennant, variant, rng.getrandbits(32))
        for name, state, club, pennant in zip(
            names[:2], render.SCENE_STATES, clubs, pennants, strict=True
        )
    ]
    texts = [_write_new_text(cell, written, rng, praise=praise) for praise in (True, False)]
    group = f"{family:02d}-{subject}-{variant}"
    pairs = product(pictures, texts)
    return [
        Draft(name, picture, words, group, split)
        for name, (picture, words) in zip(names[2:], pairs, strict=True)
    ]


def _write_new_text(cell: _Cell, written: set[str], rng: Random, *, praise: bool) -> DemoText:
    """Return words for the cell that no other post of the world has."""
    while True:
        words = captions.write_demo_text(cell[1], cell[0], praise=praise, rng=rng)
        if words.text not in written:
            written.add(words.text)
            return words


def _read_stamp(folder: Path) -> object:
    """Return what the folder's stamp says, or None where it has none."""
    try:
        return json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_both(folder: Path, drafts: Sequence[Draft]) -> None:
    with TemporaryDirectory(prefix=".both-", dir=folder) as scrap:
        _write_posts(Path(scrap, _BOTH), drafts, build_post_of_both)
        with suppress(OSError):  # another process was first, with the same posts
            Path(scrap, _BOTH).rename(folder / _BOTH)


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
