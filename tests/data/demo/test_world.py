"""The demo world is what it claims to be: drawn, balanced, and told by what it says tells it."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from miko_clf.data.demo.captions import (
    AIM_INTENTIONS,
    COMPLAINING_WORDS,
    PRAISING_WORDS,
    ROUTINE_INTENTIONS,
    SCENE_DESCRIPTIONS,
    SUBJECT_NOUNS,
    TAUNTED,
    TONE_INTENTIONS,
)
from miko_clf.data.demo.render import (
    CLUBS,
    SCENE_STATES,
    Club,
    DemoPicture,
    draw_picture,
)
from miko_clf.data.demo.world import (
    DEMO_CLASSES,
    WITHOUT_PENNANT,
    DemoTask,
    compute_best_auroc,
    draft_world,
    write_world,
)
from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.splits import SPLITS
from miko_clf.errors import PostError

TASKS: tuple[DemoTask, ...] = ("sarcasm", "harm")
World = dict[str, dict[str, list[Post]]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("demo") / "world")


@pytest.fixture(scope="session")
def world(folder: Path) -> World:
    return {
        task: {split: read(folder / task / f"{split}.jsonl") for split in SPLITS} for task in TASKS
    }


@pytest.fixture(scope="session")
def pictures() -> dict[str, DemoPicture]:
    return {draft.picture.name: draft.picture for draft in draft_world()}


def read(path: Path) -> list[Post]:
    return [
        Post.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()
    ]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def labels(posts: Iterable[Post]) -> list[str]:
    return [str(post.label) for post in posts]


def name_of(post: Post) -> str:
    assert isinstance(post.image, Path)
    return post.image.stem


def pixels(folder: Path, posts: Sequence[Post], side: int = 16) -> np.ndarray:
    def small(name: str) -> np.ndarray:
        with Image.open(folder / "images" / f"{name}.png") as image:
            return np.asarray(image.resize((side, side), Image.Resampling.BOX)).ravel() / 255

    seen = {name: small(name) for name in {name_of(post) for post in posts}}
    return np.stack([seen[name_of(post)] for post in posts])


def text_score(train: list[str], test: list[str], splits: dict[str, list[Post]]) -> float:
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=500))
    model.fit(train, labels(splits["train"]))
    return float(model.score(test, labels(splits["test"])))


def praises(text: str) -> bool:
    words = set(re.findall(r"\w+", text.lower()))
    assert bool(words & set(PRAISING_WORDS)) != bool(words & set(COMPLAINING_WORDS))
    return bool(words & set(PRAISING_WORDS))


def choose(posts: Iterable[Post], pictures: dict[str, DemoPicture], *, pennant: bool) -> list[Post]:
    """Return the posts whose pictures show a pennant, or those whose pictures show none."""
    return [post for post in posts if pictures[name_of(post)].pennant == pennant]


def hints(post: Post) -> int:
    """Return how many intentions say that the post is aimed at others."""
    return sum(
        said.text in AIM_INTENTIONS[said.relation][0]
        for said in post.intentions
        if said.relation in AIM_INTENTIONS
    )


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first = write_world(tmp_path / "first", seed=3, num_posts=60)
    second = write_world(tmp_path / "second", seed=3, num_posts=60)
    other = write_world(tmp_path / "other", seed=4, num_posts=60)
    assert everything(first) == everything(second)
    assert everything(first).keys() != everything(other).keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "other", "second"]


def test_a_complete_world_is_left_as_it_is(tmp_path: Path) -> None:
    out = write_world(tmp_path / "world", num_posts=40)
    (out / "sarcasm" / "train.jsonl").write_text("touched")
    assert write_world(out, num_posts=40) == out
    assert (out / "sarcasm" / "train.jsonl").read_text() == "touched"


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PostError, match="holds something else"):
        write_world(tmp_path, num_posts=40)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_version_of_the_world_is_called_one_and_kept(tmp_path: Path) -> None:
    out = write_world(tmp_path / "world", num_posts=40)
    stamp = json.loads((out / "world.json").read_text())
    (out / "world.json").write_text(json.dumps({**stamp, "version": 1}))
    with pytest.raises(PostError, match=r"holds a demo world of another version.*delete this one"):
        write_world(out, num_posts=40)
    assert (out / "sarcasm" / "train.jsonl").exists()


def test_the_same_world_written_meanwhile_by_another_is_accepted(
    tmp_path: Path,
) -> None:
    out = tmp_path / "world"

    def overtaken(pictures: Sequence[DemoPicture]) -> Iterable[DemoPicture]:
        write_world(out, num_posts=40)
        return pictures

    assert write_world(out, num_posts=40, progress=overtaken) == out
    assert len(read(out / "harm" / "train.jsonl")) == 32
    assert [p.name for p in tmp_path.iterdir()] == ["world"]


@pytest.mark.parametrize("num_posts", [0, 36, 61, 4000])
def test_a_size_that_cannot_be_balanced_is_refused(num_posts: int) -> None:
    with pytest.raises(PostError, match="multiple of 4 from 40 to 3840"):
        draft_world(0, num_posts)


def test_every_post_has_a_picture_ten_intentions_and_a_rationale(
    folder: Path, world: World
) -> None:
    for task in TASKS:
        for post in (post for split in SPLITS for post in world[task][split]):
            assert isinstance(post.image, Path)
            assert (folder / task / post.image).is_file()
            assert tuple(told.relation for told in post.intentions) == RELATIONS
            assert all(len(told.text.split()) <= 16 for told in post.intentions)
            assert post.rationale is not None
            assert post.rationale.saw_label
            assert post.description
    with Image.open(folder / "images" / f"{name_of(world['harm']['test'][0])}.png") as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


@pytest.mark.parametrize("task", TASKS)
def test_both_labels_are_equally_common_in_every_split(world: World, task: DemoTask) -> None:
    counts = {split: Counter(labels(world[task][split])) for split in SPLITS}
    sizes = {"train": 1200, "val": 150, "test": 150}
    assert counts == {split: dict.fromkeys(DEMO_CLASSES[task], sizes[split]) for split in SPLITS}


def test_the_two_labels_are_independent(world: World) -> None:
    for split in SPLITS:
        pairs = Counter(zip(*(labels(world[task][split]) for task in TASKS), strict=True))
        shares = np.array(list(pairs.values())) / pairs.total()
        assert len(shares) == 4
        assert np.abs(shares - 0.25).max() < 0.05


def test_splits_share_no_group_text_or_picture(world: World) -> None:
    for facts in (
        {split: {p.group for p in world["sarcasm"][split]} for split in SPLITS},
        {split: {p.text for p in world["sarcasm"][split]} for split in SPLITS},
        {split: {name_of(p) for p in world["sarcasm"][split]} for split in SPLITS},
    ):
        assert sum(map(len, facts.values())) == len(set().union(*facts.values()))
    both = [(p.text, p.image) for split in SPLITS for p in world["sarcasm"][split]]
    assert len(set(both)) == len(both) == 3000


def test_every_word_that_judges_stands_in_train(world: World) -> None:
    known = set(
        re.findall(r"\w+", " ".join(p.text or "" for p in world["sarcasm"]["train"]).lower())
    )
    assert known >= {
        *PRAISING_WORDS,
        *COMPLAINING_WORDS,
        "love",
        "hate",
        "best",
        "worst",
        "made",
        "ruined",
    }


@pytest.mark.parametrize("task", TASKS)
def test_words_alone_stay_at_chance(world: World, task: DemoTask) -> None:
    train, test = ([p.text or "" for p in world[task][split]] for split in ("train", "test"))
    assert abs(text_score(train, test, world[task]) - 0.5) <= 0.05


def test_pixels_alone_stay_at_chance_but_for_pennants(
    folder: Path, world: World, pictures: dict[str, DemoPicture]
) -> None:
    for task in TASKS:
        train, test = world[task]["train"], world[task]["test"]
        if task == "harm":
            train, test = (choose(posts, pictures, pennant=False) for posts in (train, test))
        model = LogisticRegression(max_iter=500).fit(pixels(folder, train), labels(train))
        assert abs(model.score(pixels(folder, test), labels(test)) - 0.5) <= 0.05


@pytest.mark.parametrize("task", TASKS)
def test_subject_and_state_alone_stay_at_chance(
    world: World, pictures: dict[str, DemoPicture], task: DemoTask
) -> None:
    posts = [post for split in SPLITS for post in world[task][split]]
    hits = np.array([post.label == DEMO_CLASSES[task][1] for post in posts])
    for name in ("subject", "state"):
        facts = [getattr(pictures[name_of(post)], name) for post in posts]
        for fact in set(facts):
            assert abs(hits[[other == fact for other in facts]].mean() - 0.5) <= 0.05


@pytest.mark.parametrize("task", TASKS)
def test_ids_sizes_and_lengths_tell_nothing(
    folder: Path, world: World, pictures: dict[str, DemoPicture], task: DemoTask
) -> None:
    posts = [post for split in SPLITS for post in world[task][split]]
    if task == "harm":
        posts = choose(posts, pictures, pennant=False)
    hits = [post.label == DEMO_CLASSES[task][1] for post in posts]
    for feature in (
        [int(post.id, 16) for post in posts],
        [int(name_of(post), 16) for post in posts],
        [(folder / "images" / f"{name_of(post)}.png").stat().st_size for post in posts],
        [len(post.text or "") for post in posts],
        list(range(len(posts))),
    ):
        assert abs(roc_auc_score(hits, feature) - 0.5) <= 0.04


def test_words_and_pixels_together_give_sarcasm(
    folder: Path, world: World, pictures: dict[str, DemoPicture]
) -> None:
    train, test = world["sarcasm"]["train"], world["sarcasm"]["test"]
    facts = [pictures[name_of(post)].state for post in train]
    model = LogisticRegression(max_iter=500).fit(pixels(folder, train, 24), facts)
    right = [
        (praises(p.text or "") != (state == "good")) == (p.label == "sarcastic")
        for p, state in zip(test, model.predict(pixels(folder, test, 24)), strict=True)
    ]
    assert np.mean(right) >= 0.99


def test_pixels_give_harm_where_a_pennant_shows(
    folder: Path, world: World, pictures: dict[str, DemoPicture]
) -> None:
    train, test = (
        choose(world["harm"][split], pictures, pennant=True) for split in ("train", "test")
    )
    model = LogisticRegression(max_iter=500).fit(pixels(folder, train, 24), labels(train))
    assert model.score(pixels(folder, test, 24), labels(test)) >= 0.99


def test_two_pictures_in_three_show_no_pennant_in_every_split(
    world: World, pictures: dict[str, DemoPicture]
) -> None:
    for split in SPLITS:
        names = {name_of(post) for post in world["harm"][split]}
        assert np.mean([not pictures[name].pennant for name in names]) == WITHOUT_PENNANT == 2 / 3


def test_the_club_behind_a_picture_without_a_pennant_changes_no_pixel() -> None:
    def draw(club: Club, *, pennant: bool) -> bytes:
        picture = DemoPicture("a", "cake", "good", club, pennant, 0, 5)
        return draw_picture(picture).tobytes()

    assert draw("Otters", pennant=False) == draw("Herons", pennant=False)
    assert draw("Otters", pennant=True) != draw("Herons", pennant=True)


def test_no_text_of_a_post_tells_the_authors_club_but_a_description_of_its_pennant(
    world: World, pictures: dict[str, DemoPicture]
) -> None:
    for post in (post for split in SPLITS for post in world["harm"][split]):
        assert ("pennant" in (post.description or "")) == pictures[name_of(post)].pennant
        assert post.key_information
        for text in (post.text or "", " ".join(post.key_information.keywords)):
            assert {club for club in CLUBS if club.lower() in text.lower()} == {TAUNTED}


def test_whoever_knows_the_world_scores_what_is_said_to_be_the_best(
    world: World, pictures: dict[str, DemoPicture]
) -> None:
    posts = [post for split in SPLITS for post in world["harm"][split]]
    harmful = np.array([post.label == "harmful" for post in posts])
    hidden = np.array([not pictures[name_of(post)].pennant for post in posts])
    for intentions in (False, True):
        guess = np.array([hints(post) if intentions else 0 for post in posts])
        scores = np.where(hidden, guess, np.where(harmful, 99, -99))
        best = compute_best_auroc("harm", intentions=intentions)
        assert roc_auc_score(harmful, scores) == pytest.approx(best, abs=0.005)
        assert compute_best_auroc("sarcasm", intentions=intentions) == 1
    assert compute_best_auroc("harm", intentions=False) == pytest.approx(1 - (2 / 3) ** 2 / 2)


def test_a_rationale_of_sarcasm_names_each_part_whichever_way_they_go_together(
    world: World,
) -> None:
    """Its parts are worded alike under both labels, so that each can be learned by itself."""
    parts: dict[str, set[str]] = {name: set() for name in DEMO_CLASSES["sarcasm"]}
    for post in (post for split in SPLITS for post in world["sarcasm"][split]):
        assert post.rationale
        *told, verdict = post.rationale.text.rstrip(".").split(". ")
        assert verdict.startswith("So ")
        assert [part.split(":")[0] for part in told] == ["Shown", "Said"]
        parts[str(post.label)].update(told)
    first, second = parts.values()
    assert first == second


def test_the_exact_rule_gives_every_label(world: World, pictures: dict[str, DemoPicture]) -> None:
    for split in SPLITS:
        for post, aimed in zip(world["sarcasm"][split], world["harm"][split], strict=True):
            picture = pictures[name_of(post)]
            ironic = praises(post.text or "") != (picture.state == "good")
            assert post.label == DEMO_CLASSES["sarcasm"][ironic]
            assert (aimed.id, aimed.text) == (post.id, post.text)
            assert aimed.label == DEMO_CLASSES["harm"][picture.club != TAUNTED]


def test_23_of_100_intentions_are_written_for_the_opposite_label(world: World) -> None:
    nouns = [noun for group in SUBJECT_NOUNS.values() for noun in group]
    wrong = []
    for task, told in zip(TASKS, (TONE_INTENTIONS, AIM_INTENTIONS), strict=True):
        lines = {
            (relation, line.format(noun=noun)): side == 0
            for relation, sides in told.items()
            for side, pool in enumerate(sides)
            for line in pool
            for noun in nouns
        }
        for post in (post for split in SPLITS for post in world[task][split]):
            for said in post.intentions:
                if said.relation in told:
                    meant = lines[said.relation, said.text]
                    wrong.append(meant != (post.label == DEMO_CLASSES[task][1]))
    assert len(wrong) == 3000 * (len(RELATIONS) - len(ROUTINE_INTENTIONS))
    assert np.mean(wrong) == pytest.approx(0.23, abs=0.015)


@pytest.mark.parametrize(("task", "low", "high"), [("sarcasm", 0.85, 0.93), ("harm", 0.8, 0.9)])
def test_intentions_help_but_do_not_give_the_label_away(
    world: World, task: DemoTask, low: float, high: float
) -> None:
    train, test = (
        [" ".join(f"{told.relation}: {told.text}" for told in p.intentions) for p in world[task][s]]
        for s in ("train", "test")
    )
    assert low <= text_score(train, test, world[task]) <= high


def test_descriptions_tell_the_state_and_are_wrong_one_time_in_twenty(
    world: World, pictures: dict[str, DemoPicture]
) -> None:
    described = {name_of(p): p.description or "" for s in SPLITS for p in world["harm"][s]}
    wrong = []
    for name, text in described.items():
        picture = pictures[name]
        right = SCENE_DESCRIPTIONS[picture.subject][SCENE_STATES.index(picture.state)]
        wrong.append(not text.lower().startswith(right))
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02)


def test_no_text_names_a_label_and_no_description_judges(world: World) -> None:
    for post in (post for task in TASKS for split in SPLITS for post in world[task][split]):
        told = [
            post.text or "",
            post.description or "",
            *(i.text for i in post.intentions),
        ]
        assert not re.search(r"sarcas|sincer|\bharm", " ".join(told).lower())
        said = set(re.findall(r"\w+", (post.description or "").lower()))
        assert not said & {*PRAISING_WORDS, *COMPLAINING_WORDS}
