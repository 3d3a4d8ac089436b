"""Texts that give the label away, and texts that only know more than the post."""

import json
import os
import re
import shutil
from pathlib import Path
from random import Random

import pytest

from miko_clf.data.audit.label_leakage import (
    FEWEST_PROBED_ROWS,
    LabelLeak,
    check_input_leakage,
    flag_class_mentions,
    probe_leakage,
)
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import name_label
from miko_clf.data.post import Intention, Post, Rationale
from miko_clf.errors import PostError
from miko_clf.pipeline import fit
from miko_clf.recipe.schema import Recipe
from tests.support.repository import SHARED


def test_a_class_is_named_in_any_inflection() -> None:
    said = ["it is harmless", "a harmony of colours", None, "they label it"]
    assert flag_class_mentions(said, "harmful") == [1.0, 0.0, None, 0.0]


def test_several_labels_count_as_one_name_in_any_order() -> None:
    assert name_label(("b", "a")) == name_label(("a", "b")) == "a + b"
    assert name_label(()) == "(none)"
    assert name_label(None) is None


WORDS = ("rain", "cake", "boat", "phone", "tree", "road", "cup", "tent", "fish", "lamp")
LABELS = ("harmful", "harmless")


def babble(random: Random, words: int = 8) -> str:
    return " ".join(random.choices(WORDS, k=words))


def posts(
    count: int, told: float, *, labels: tuple[str, ...] = LABELS, seed: int = 0
) -> list[Post]:
    """Return posts of which a share of the rationales and intentions tell the label in words."""
    random = Random(seed)
    made = []
    for number in range(count):
        label = labels[number % len(labels)]
        hint = label if random.random() < told else random.choice(labels)
        text = f"{babble(random)} {'spite' if hint == labels[0] else 'praise'}"
        made.append(
            Post(
                id=str(number),
                text=babble(random),
                label=label,
                description=babble(random),
                intentions=(Intention(relation="Open", text=text),),
                rationale=Rationale(text=f"{text} so it is {hint}", saw_label=False),
            )
        )
    return made


def leak(text_f1: float, masked_f1: float, post_f1: float, classes: int = 2) -> LabelLeak:
    return LabelLeak(
        name="rationale", rows=100, classes=classes, text_f1=text_f1, masked_f1=masked_f1,
        post_f1=post_f1, explicit=0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((0.999, 0.998, 0.70), "flagged"),
        ((0.999, 0.60, 0.70), "flagged"),
        ((0.90, 0.96, 0.70), "flagged"),
        ((0.94, 0.93, 0.70), "suspect"),
        ((0.70, 0.85, 0.70), "suspect"),
        ((0.97, 0.97, 0.90), "no finding"),
        ((0.70, 0.70, 0.70), "no finding"),
        ((0.55, 0.55, 0.34), "no finding"),
        ((0.65, 0.65, 0.34), "suspect"),
    ],
)
def test_the_verdict_reads_both_figures_against_the_post_and_chance(
    figures: tuple[float, float, float], verdict: str
) -> None:
    assert leak(*figures).verdict == verdict
    assert leak(*figures).flagged == (verdict == "flagged")


def test_the_line_says_verdict_and_both_figures() -> None:
    line = leak(0.999, 0.61, 0.70).line()
    assert line.startswith("rationale: flagged")
    assert all(figure in line for figure in ("0.999", "0.610 with label words masked", "0.700"))
    assert "\n" not in line


def test_a_finding_can_be_written_into_a_manifest() -> None:
    record = json.loads(json.dumps(leak(0.999, 0.61, 0.7).model_dump()))
    assert record["verdict"] == "flagged"
    assert record["gap"] == pytest.approx(0.299)


def test_a_text_that_tells_the_label_is_refused_in_one_line_that_says_what_to_do() -> None:
    with pytest.raises(PostError, match=r"rationale: flagged.*take rationale out") as caught:
        check_input_leakage(posts(100, told=1.0), ("text", "rationale"), allow=False)
    assert "\n" not in str(caught.value)


def test_a_text_that_tells_the_label_is_let_through_where_allowed_and_still_reported() -> None:
    found = check_input_leakage(posts(100, told=1.0), ("rationale",), allow=True)
    assert [(each.name, each.verdict) for each in found] == [("rationale", "flagged")]
    assert found[0].explicit == 1.0


def test_a_text_that_knows_more_than_the_post_is_said_and_not_refused() -> None:
    found = check_input_leakage(posts(200, told=0.7), ("intention", "description"), allow=False)
    assert {each.name: each.verdict for each in found} == {
        "description": "no finding",
        "intention": "suspect",
    }


def test_masking_the_label_words_does_not_hide_a_text_that_argues_for_its_label() -> None:
    given = posts(100, told=1.0)
    texts = [post.rationale.text for post in given if post.rationale]
    found = probe_leakage(
        texts, [post.label or "" for post in given], [post.text or "" for post in given]
    )
    assert found.masked_f1 == 1.0
    assert found.flagged


def test_a_text_that_only_names_its_label_is_flagged_though_masking_cleans_it() -> None:
    random = Random(1)
    labels = [LABELS[number % 2] for number in range(100)]
    texts = [f"{babble(random)} {label}" for label in labels]
    found = probe_leakage(texts, labels, [babble(random) for _ in labels])
    assert found.masked_f1 < 0.7 < found.text_f1
    assert found.flagged


def test_a_post_against_itself_shows_no_gap() -> None:
    random = Random(2)
    texts = [f"{babble(random)} {LABELS[n % 2] * (n % 3 > 0)}" for n in range(120)]
    found = probe_leakage(texts, [LABELS[n % 2] for n in range(120)], texts)
    assert found.gap == 0.0
    assert found.verdict == "no finding"


def test_rows_of_one_group_are_not_learned_from_each_other() -> None:
    random = Random(3)
    groups = [str(n // 4) for n in range(160)]
    names = {group: babble(random, 30) for group in groups}
    sides = {group: random.choice(LABELS) for group in groups}
    texts, labels = [names[group] for group in groups], [sides[group] for group in groups]
    blank = ["x"] * len(texts)
    assert probe_leakage(texts, labels, blank).text_f1 > 0.9
    assert probe_leakage(texts, labels, blank, groups=groups).text_f1 < 0.8


def test_the_same_seed_gives_the_same_figures() -> None:
    given = posts(120, told=0.8)
    assert check_input_leakage(given, ("rationale",), allow=True) == check_input_leakage(
        given, ("rationale",), allow=True
    )


def test_a_sample_of_many_rows_keeps_the_shares_of_the_classes() -> None:
    random = Random(4)
    labels = [LABELS[number % 10 == 0] for number in range(6_000)]
    texts = [random.choice(WORDS) for _ in labels]
    assert probe_leakage(texts, labels, texts).rows == 5_000


@pytest.mark.parametrize(
    "given",
    [
        posts(FEWEST_PROBED_ROWS - 1, told=1.0),
        posts(100, told=1.0, labels=("harmful",)),
        [post.model_copy(update={"label": None}) for post in posts(100, told=1.0)],
        [post.model_copy(update={"rationale": None}) for post in posts(100, told=1.0)],
    ],
    ids=["too few", "one class", "no labels", "no text"],
)
def test_what_cannot_be_probed_is_passed_over(given: list[Post]) -> None:
    assert check_input_leakage(given, ("rationale",), allow=False) == []


def test_inputs_that_the_model_does_not_read_are_not_probed() -> None:
    assert check_input_leakage(posts(100, told=1.0), ("image", "text"), allow=False) == []


def test_labels_of_several_names_and_posts_without_text_can_be_probed() -> None:
    given = [
        post.model_copy(update={"label": (post.label, "rude"), "text": None, "image": b"x"})
        for post in posts(100, told=1.0)
    ]
    with pytest.raises(PostError, match="flagged"):
        check_input_leakage(given, ("rationale",), allow=False)


def test_texts_without_a_word_in_common_are_at_chance() -> None:
    labels = [LABELS[n % 2] for n in range(40)]
    assert probe_leakage([f"w{n}" for n in range(40)], labels, [""] * 40).verdict == "no finding"


def test_one_class_alone_is_refused_by_the_probe() -> None:
    with pytest.raises(PostError, match="two classes of at least 5 rows"):
        probe_leakage(["a b"] * 30, ["harmful"] * 28 + ["harmless"] * 2, ["c"] * 30)


def test_the_demo_world_is_suspect_at_most(world: Path) -> None:
    # A description names the pennant, where there is one, and so harm in a third of the posts.
    for task, described in (("sarcasm", "no finding"), ("harm", "suspect")):
        given = open_folder(world / task).read("train")
        found = check_input_leakage(given, ("description", "intention"), allow=False)
        assert {each.name: each.verdict for each in found} == {
            "description": described,
            "intention": "suspect",
        }


@pytest.mark.real
def test_published_rationales_that_saw_the_label_are_flagged_masked_or_not(harm_c: Path) -> None:
    told = json.loads((harm_c / "rationales.json").read_text(encoding="utf-8"))
    rows = [
        json.loads(line)
        for split in ("train", "val")
        for line in (harm_c / "annotations" / f"{split}.jsonl").read_text("utf-8").splitlines()
    ][::3]
    found = probe_leakage(
        [told[row["id"]] for row in rows],
        ["harmless" if "not harmful" in row["labels"] else "harmful" for row in rows],
        [row["text"] or "" for row in rows],
    )
    assert found.rows == 1_064
    assert found.flagged
    assert min(found.text_f1, found.masked_f1) > 0.99
    assert 0.65 < found.post_f1 < 0.78
    assert found.explicit > 0.99


@pytest.mark.real
def test_published_posts_against_themselves_show_no_gap() -> None:
    path = SHARED / "data" / "mmsd2" / "text_json_final" / "valid.json"
    if not path.is_file():
        pytest.skip("mmsd2 is not beside the project (MIKO_SHARED names its folder)")
    rows = json.loads(path.read_text(encoding="utf-8"))
    texts = [row["text"] for row in rows]
    labels = [("sincere", "sarcastic")[row["label"]] for row in rows]
    found = probe_leakage(texts, labels, texts)
    assert found.gap == 0.0
    assert found.verdict == "no finding"


def test_fit_refuses_to_read_what_gives_the_label_away_until_told(
    world: Path, small: Recipe, tmp_path: Path
) -> None:
    data = tmp_path / "harm"
    shutil.copytree(world / "harm", data)
    os.symlink(world / "images", tmp_path / "images")
    for file in data.glob("*.jsonl"):  # claim that the rationales never saw the label
        text = re.sub(r'"saw_label":\s*true', '"saw_label": false', file.read_text())
        file.write_text(text)
    recipe = small.model_copy(
        update={
            "inputs": ("text", "rationale"),
            "image": None,
            "reasoning": small.reasoning.model_copy(update={"epochs": 0}),
            "task": small.task.model_copy(update={"epochs": 1}),
        }
    )
    with pytest.raises(PostError, match=r"rationale: flagged.*--i-know-it-leaks"):
        fit(recipe, open_folder(data), tmp_path / "out")
    told = fit(recipe, open_folder(data), tmp_path / "out", leaks=True)
    (leak,) = json.loads((told / "manifest.json").read_text())["leaks"]
    assert (leak["name"], leak["verdict"]) == ("rationale", "flagged")
