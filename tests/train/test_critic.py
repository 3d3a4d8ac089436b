"""The learned judge of intentions: folds that never leak, honest calibration."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from critic import assess, keep_best, read_examples, report_scores, to_arrays
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from miko_clf import manifest
from miko_clf.data.post import RELATIONS
from miko_clf.encode import build
from miko_clf.encode.tower import TextTower
from miko_clf.errors import BundleError, DistilError
from miko_clf.recipe import sections
from miko_clf.train.critic import (
    Critic,
    CriticExample,
    extract_critic_features,
    fit_critic,
    split_critic_folds,
)
from tests.support import checkpoints
from tests.support.repository import SHARED

THINGS = (("lovely", "sunny"), ("burnt", "cake"))


def posts(num_posts: int, seed: int = 0) -> list[CriticExample]:
    """Intentions that are mostly valid where they speak of what the others of their post do."""
    draw = np.random.default_rng(seed)
    examples = []
    for number in range(num_posts):
        topic, odd = draw.integers(2), draw.integers(4)
        for place, relation in enumerate(RELATIONS[:4]):
            word = draw.choice(THINGS[1 - topic if place == odd else topic])
            valid = float(draw.random() < (0.2 if place == odd else 0.9))
            examples.append(
                CriticExample(f"p{number}", f"beach {number}", relation, f"a {word} a", valid)
            )
    return examples


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextTower:
    path = tmp_path_factory.mktemp("tower") / "bert"
    torch.manual_seed(1)  # with the vectors of some random towers a critic learns less
    checkpoints.bert(path)
    return build.build_text_tower(
        sections.TextTowerSection(source="transformers", name=str(path)), []
    )


@pytest.fixture(scope="module")
def critic(tower: TextTower) -> Critic:
    return fit_critic(posts(200), tower)


def test_a_critic_knows_what_fits_a_post_that_it_never_saw(critic: Critic) -> None:
    unseen = posts(150, seed=1)
    auroc = roc_auc_score([row.valid for row in unseen], critic.probabilities(unseen))
    assert auroc > 0.7  # who knows which intention is the odd one ranks at about .8


def test_its_probabilities_are_shares(critic: Critic) -> None:
    unseen = posts(400, seed=2)
    valid = np.array([row.valid for row in unseen])
    probabilities = critic.probabilities(unseen)
    for half in (
        probabilities < np.median(probabilities),
        probabilities >= np.median(probabilities),
    ):
        assert abs(valid[half].mean() - probabilities[half].mean()) < 0.07


def test_a_critic_that_was_read_judges_as_the_one_that_was_written(
    critic: Critic, tmp_path: Path
) -> None:
    unseen = posts(20, seed=3)
    critic.write(tmp_path / "critic")
    again = Critic.read(tmp_path / "critic").probabilities(unseen)
    np.testing.assert_allclose(again, critic.probabilities(unseen), atol=1e-6)
    assert not [path for path in (tmp_path / "critic").iterdir() if path.suffix in (".pkl", ".bin")]


def test_a_changed_critic_is_refused(critic: Critic, tmp_path: Path) -> None:
    critic.write(tmp_path / "critic")
    (tmp_path / "critic" / "critic.json").write_text("{}")
    with pytest.raises(BundleError, match=r"critic\.json was changed"):
        Critic.read(tmp_path / "critic")


def test_a_critic_of_the_first_format_is_to_be_trained_again(
    critic: Critic, tmp_path: Path
) -> None:
    critic.write(tmp_path / "critic")
    path = tmp_path / "critic" / manifest.MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "critic": 1}))
    with pytest.raises(
        BundleError, match=r"a critic of format 1.*train it again with: miko-clf kb"
    ):
        Critic.read(tmp_path / "critic")


def test_another_bundle_is_no_critic(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, {"seed": 0})
    with pytest.raises(BundleError, match="not a critic"):
        Critic.read(tmp_path)


def test_posts_are_judged_alike_in_any_order_and_company(critic: Critic) -> None:
    unseen = posts(70, seed=4)  # more than are encoded together
    shuffled = np.random.default_rng(0).permutation(len(unseen))
    whole = critic.probabilities(unseen)
    np.testing.assert_allclose(
        critic.probabilities([unseen[row] for row in shuffled]), whole[shuffled], atol=1e-5
    )
    np.testing.assert_allclose(critic.probabilities(unseen[:4]), whole[:4], atol=1e-5)


def test_the_evidence_never_looks_at_labels(tower: TextTower) -> None:
    examples = posts(5)
    flipped = [row._replace(valid=1 - (row.valid or 0)) for row in examples]
    np.testing.assert_array_equal(
        extract_critic_features(examples, tower), extract_critic_features(flipped, tower)
    )


def test_the_first_columns_and_its_surface_know_nothing_of_the_other_intentions(
    tower: TextTower,
) -> None:
    together = posts(1)
    alone = [row._replace(group=row.relation) for row in together]
    before, after = extract_critic_features(together, tower), extract_critic_features(alone, tower)
    own = np.arange(before.shape[1])
    start = 3 * tower.width
    own = (own < 2 * tower.width) | (own >= start) & (own <= start + len(RELATIONS))
    np.testing.assert_allclose(before[:, own], after[:, own], atol=1e-6)
    assert np.all((before[:, ~own] != after[:, ~own]).any(axis=1))


def test_a_stem_is_not_read(tower: TextTower) -> None:
    bare = CriticExample("p", "sunny", "xWant", "a lovely beach")
    theirs = bare._replace(intention="After posting this Tweet, the user wants to a lovely beach")
    np.testing.assert_array_equal(
        extract_critic_features([bare], tower), extract_critic_features([theirs], tower)
    )


def test_a_post_of_one_intention_and_no_text_is_judged(critic: Critic) -> None:
    alone = CriticExample("p", None, "Open", "a sunny beach")
    assert 0 < critic.probabilities([alone])[0] < 1
    assert critic.probabilities([]).shape == (0,)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=120),
    st.integers(0, 5),
)
def test_no_post_and_no_text_stands_on_both_sides_of_a_fold(
    drawn: list[tuple[int, int]], seed: int
) -> None:
    text_of = dict(drawn)
    examples = [
        CriticExample(f"p{post}", f"text  {text_of[post]}", "Open", "a") for post, _ in drawn
    ]
    if len(set(text_of.values())) < 3:
        with pytest.raises(DistilError, match="needs 3"):
            split_critic_folds(examples, 3, seed)
        return
    tested = []
    for train, test in split_critic_folds(examples, 3, seed):
        learned = {(examples[row].group, examples[row].text) for row in train}
        asked = {(examples[row].group, examples[row].text) for row in test}
        for side in (0, 1):
            assert not {pair[side] for pair in learned} & {pair[side] for pair in asked}
        tested += list(test)
    assert sorted(tested) == list(range(len(examples)))


def test_posts_without_text_are_not_taken_for_copies() -> None:
    examples = [CriticExample(f"p{n}", None, "Open", "a") for n in range(9)]
    assert [len(test) for _, test in split_critic_folds(examples, 3)] == [3, 3, 3]


def test_shares_of_people_count(tower: TextTower) -> None:
    shares = [row._replace(valid=0.1 + 0.8 * (row.valid or 0)) for row in posts(60)]
    unseen = posts(60, seed=5)
    probabilities = fit_critic(shares, tower).probabilities(unseen)
    assert roc_auc_score([row.valid for row in unseen], probabilities) > 0.65


def test_a_critic_that_learned_nothing_says_so_and_never_the_opposite(tower: TextTower) -> None:
    draw = np.random.default_rng(6)
    for seed in range(3):
        noise = [row._replace(valid=float(draw.random() < 0.7)) for row in posts(24, seed)]
        critic = fit_critic(noise, tower, seed=seed)
        lesson = [row.valid for row in noise]
        assert roc_auc_score(lesson, critic.probabilities(noise)) >= 0.5


def test_intentions_that_nobody_judged_are_company_only(tower: TextTower) -> None:
    examples = [row._replace(valid=None) if row.relation == "xNeed" else row for row in posts(30)]
    probabilities = fit_critic(examples, tower).probabilities(examples)
    assert probabilities.shape == (120,)
    assert assess(examples, tower, against=(), num_resamples=20)["intentions"] == 90


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([row._replace(valid=1.0) for row in posts(9)], "judged not valid"),
        ([row._replace(valid=None) for row in posts(9)], "judged valid"),
        ([row._replace(valid=3.0) for row in posts(9)], "allowed are 0 to 1"),
        ([row._replace(relation="xLike") for row in posts(9)], "no relation called 'xLike'"),
        (posts(2), "2 different posts"),
    ],
)
def test_lessons_that_teach_nothing_are_refused(
    examples: list[CriticExample], reason: str, tower: TextTower
) -> None:
    with pytest.raises(DistilError, match=reason):
        fit_critic(examples, tower)


def test_the_assessment_tells_a_critic_from_words_alone(tower: TextTower) -> None:
    rivals = ("TF-IDF of the intention", "share of the relation")
    report = assess(posts(80), tower, against=rivals, num_resamples=20, num_seeds=2)
    rows = {row["system"]: row for row in report["rows"]}
    assert report["posts"] == 80
    assert report["num_seeds"] == len(rows["critic"]["auroc_by_seed"]) == 2
    assert rows["critic"]["metrics"]["auroc"]["value"] > 0.65
    # without the others an intention is as likely to be valid as any other
    assert rows["TF-IDF of the intention"]["metrics"]["auroc"]["high"] < 0.65
    assert rows["TF-IDF of the intention"]["ahead"]["auroc"]["low"] > 0
    assert report["relations"]["Open"] == {"intentions": 0, "base_rate": None, "auroc": None}


def test_a_score_that_knows_nothing_keeps_the_base_rate_and_ranks_by_chance() -> None:
    examples = posts(60)
    scores = {"critic": np.full((1, len(examples)), 0.7)}
    report = report_scores(to_arrays(examples), scores, num_resamples=50)
    metrics = report["rows"][0]["metrics"]
    assert metrics["auroc"]["value"] == metrics["auroc_within_posts"]["value"] == 0.5
    assert list(report["kept"].values()) == pytest.approx([report["base_rate"]] * 6)


def test_the_kept_are_the_best() -> None:
    truth, scores = np.array([1, 1, 0, 1, 0]), np.array([0.9, 0.8, 0.4, 0.7, 0.1])
    once = np.ones((1, 5), dtype=np.int64)
    assert keep_best(truth, scores, once, 0.6) == pytest.approx(1.0)
    assert keep_best(truth, scores, once, 0.8) == pytest.approx(0.75)


@pytest.mark.real
def test_a_critic_of_real_intentions_is_fitted_and_judges(encoders: Path) -> None:
    path = SHARED / "data" / "miko" / "MIKO_benchmark.json"
    if not path.is_file():
        pytest.skip("MIKO_benchmark.json is not beside the project")
    examples = read_examples(path)
    assert len(examples) == 9976
    some = examples[:200]
    name = str(encoders / "all-MiniLM-L6-v2")
    real = build.build_text_tower(sections.TextTowerSection(source="transformers", name=name), [])
    probabilities = fit_critic(some, real, max_length=32).probabilities(some)
    valid = np.array([row.valid for row in some])
    assert probabilities.mean() == pytest.approx(valid.mean(), abs=0.05)
    assert roc_auc_score(valid, probabilities) >= 0.5
