"""The dated world: a year in which words change and a class grows, as it says of itself."""

from collections import Counter
from pathlib import Path

from miko_clf.data.dataset import open_folder
from miko_clf.data.demo.dated import NEW_WORDS, build_dated_posts, write_dated_posts
from miko_clf.data.demo.world import write_world
from miko_clf.data.sets.base import DatedSplit


def test_new_words_come_in_july_and_complaints_grow_in_september() -> None:
    posts = build_dated_posts(num_posts=1200)
    new = Counter[str]()
    sizes = Counter(str(post.date)[:7] for post in posts)
    complaints = Counter(str(post.date)[:7] for post in posts if post.label == "complaint")
    for post in posts:
        words = set(str(post.text).lower().replace("!", " ").replace(",", " ").split())
        new[str(post.date)[:7]] += bool(words & (set(NEW_WORDS.values()) - {"off", "fire"}))
    assert list(sizes) == [f"2024-{month:02}" for month in range(1, 13)]
    assert all(new[month] == 0 for month in list(sizes)[:6])
    assert new["2024-07"] / sizes["2024-07"] < 0.3 < 0.5 < new["2024-12"] / sizes["2024-12"]
    early = sum(complaints[month] for month in list(sizes)[:8]) / sum(list(sizes.values())[:8])
    late = sum(complaints[month] for month in list(sizes)[8:]) / sum(list(sizes.values())[8:])
    assert abs(early - 0.5) < 0.03
    assert abs(late - 2 / 3) < 0.06


def test_the_same_seed_gives_the_same_file_which_a_dated_split_reads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_world(tmp_path / name, num_posts=120)
    first, second = (write_dated_posts(tmp_path / n, num_posts=120) for n in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    data = open_folder(first.parent, dated=DatedSplit("2024-08-01"))
    assert min(len(data.read(split)) for split in ("train", "val", "test")) > 5
    assert write_world(tmp_path / "a", num_posts=120) == tmp_path / "a"
