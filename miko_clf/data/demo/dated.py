"""Posts of the demo world with dates: words go out of use, and complaints grow, by construction."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from miko_clf.data.demo.captions import COMPLAINING_WORDS, PRAISING_WORDS
from miko_clf.data.demo.world import Draft, draft_world
from miko_clf.data.post import Post

DATED_FOLDER = "dated"
NUM_MONTHS = 12  # of 2024, about as many threads in each
DATED_CLASSES = ("complaint", "praise")
NEW_WORDS: Mapping[str, str] = dict(zip(
    (*PRAISING_WORDS, *COMPLAINING_WORDS),
    ("goated", "banging", "peachy", "lit", "stellar", "elite", "crisp", "dreamy", "bussin",
     "slick", "fire", "epic", "snatched", "valid",
     "icky", "mid", "trash", "cringe", "salty", "sus", "busted", "cooked", "beige", "cheugy",
     "janky", "off", "basic", "flopped"),
    strict=True,
))  # fmt: skip
"""What is said from summer on in place of each word of praise and of complaint."""
_VERSION = 1
_FIRST_OF_NEW = 6  # month, from 0, in which new words begin; in December nothing else is said
_FIRST_OF_GLOOM = 8  # month from which on half of the praise is not written
_SOURCES = {"gallery": 1.0, "forum": 0.7}  # how far each goes along with new words
_LATE = 0.04  # of the posts, that are written a month after their thread began
_OLD_WORDS = re.compile(rf"\b(?:{'|'.join(NEW_WORDS)})\b", re.IGNORECASE)
# What else tells praise from complaint, and what is said for either once words are new.
_OLD_PHRASES = {
    re.compile(old, re.IGNORECASE): new
    for old, new in (
        (r"\bI (?:love|hate) this\b", "about this"),
        (r"\b(?:best|worst)\b", "some"),
        (r"\b(?:made|ruined) my day\b", "was my day"),
        (r"\b(?:five stars|one star) for\b", "stars for"),
        (r"\bgets \d+/10 from me\b", "gets a mark from me"),
    )
}


def build_dated_posts(seed: int = 0, num_posts: int = 3000) -> list[Post]:
    """Return posts of a year in order of their dates, labelled praise or complaint by their words.

    Until June every word that tells the label is one of old; from July on new ones take their
    place, more each month, and from September on half of the praise is missing. Raises PostError
    for a number that no world has.
    """
    rng = Random(f"miko-dated/{_VERSION}/{seed}")
    posts: list[Post] = []
    months: dict[str, int] = {}
    for draft in draft_world(seed, num_posts):
        month = months.setdefault(draft.group, rng.randrange(NUM_MONTHS))
        posts += _date_draft(draft, month, rng)
    return sorted(posts, key=lambda post: (str(post.date), post.id))


def write_dated_posts(world: Path, *, seed: int = 0, num_posts: int = 3000) -> Path:
    """Write `dated/posts.jsonl` into the folder of the world of this seed and size, and return it.

    A file that is there already stays.
    """
    file = world / DATED_FOLDER / "posts.jsonl"
    if not file.exists():
        posts = build_dated_posts(seed, num_posts)
        lines = [post.model_dump_json(exclude_none=True) + "\n" for post in posts]
        file.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=file.parent) as scrap:
            aside = Path(scrap, file.name)
            aside.write_text("".join(lines), encoding="utf-8")
            aside.rename(file)
    return file


def _date_draft(draft: Draft, month: int, rng: Random) -> Iterator[Post]:
    """Yield the post of a draft as it is written in a month, if it is."""
    if rng.random() < _LATE:
        month = min(NUM_MONTHS - 1, month + 1)
    source = rng.choice(tuple(_SOURCES))
    day, hour = rng.randint(1, 28), rng.randrange(24)
    missing = draft.words.praise and month >= _FIRST_OF_GLOOM and rng.random() < 0.5
    text = _renew_words(draft.words.text, month, source, rng)
    if not missing:
        yield Post(
            id=draft.id,
            text=text,
            image=Path("..", "images", f"{draft.picture.name}.png"),
            label=DATED_CLASSES[draft.words.praise],
            group=draft.group,
            date=f"2024-{month + 1:02}-{day:02}T{hour:02}:00:00Z",
            source=source,
        )


def _renew_words(text: str, month: int, source: str, rng: Random) -> str:
    """Return a text as it would be written in a month, all of its words new or none."""
    share = _SOURCES[source] * (month - _FIRST_OF_NEW + 1) / (NUM_MONTHS - _FIRST_OF_NEW)
    if rng.random() >= share:
        return text

    for phrase, new in _OLD_PHRASES.items():
        text = phrase.sub(partial(_write_like, new), text)
    return _OLD_WORDS.sub(lambda found: _write_like(NEW_WORDS[found[0].lower()], found), text)


def _write_like(new: str, found: re.Match[str]) -> str:
    """Return new words with a capital where what they stand for had one."""
    return f"{new[0].upper()}{new[1:]}" if found[0][0].isupper() else new
