"""What inputs, words, patches and training posts have to do with a decision."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.errors import MikoError
from miko_clf.evaluate.evaluator import explain_decisions
from miko_clf.evaluate.explain.attribution import (
    MAX_INTEGRAL_ERROR,
    WordMerger,
    arrange_patches,
    attribute_decisions,
)
from miko_clf.evaluate.explain.neighbours import find_neighbours
from miko_clf.evaluate.explain.shapley import (
    compute_shapley,
    list_players,
    measure_margins,
    measure_shapley,
)
from miko_clf.evaluate.formatting import convert_to_json
from miko_clf.evaluate.predictions import SystemPredictions
from miko_clf.fuse.outputs import ModelOutput
from miko_clf.questions import Question
from miko_clf.recipe import schema as recipes
from miko_clf.train.predict import predict_logits
from tests.support import planted_systems

FINITE = st.floats(-100, 100)
GAMES = st.integers(1, 4).flatmap(lambda k: arrays(float, (2**k, 3), elements=FINITE))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> SystemPredictions:
    return planted_systems.train_where_image_decides(tmp_path_factory.mktemp("coloured"))


@pytest.fixture(scope="module")
def tested(bundle: Path, world: Path) -> SystemPredictions:
    data = open_folder(world / "sarcasm")
    return planted_systems.open_subject(bundle, data.read("test"), data.read("train"))


class Toy(torch.nn.Module):
    """Logits that are a function of which inputs a post has."""

    def __init__(self, *weights: float, pair: float = 0.0) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.pair = pair

    def encode(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return batch

    def forward(self, batch: dict[str, torch.Tensor]) -> ModelOutput:
        read = batch["intention_mask"].flatten(1).any(1) | batch["student"]
        here = torch.stack([batch["image_present"], batch["text_mask"].any(1), read], dim=1)
        score = (here * self.weights * batch["size"][:, None]).sum(1)
        score = score + self.pair * (here[:, 0] & here[:, 1])
        return ModelOutput(torch.stack([-0.5 * score - 0.5, 0.5 * score + 0.5], dim=1))


class Posts:
    """A feed of as many posts as there are sizes; the last one has no image."""

    def __init__(self, sizes: Sequence[float]) -> None:
        self.sizes = torch.tensor(sizes, dtype=torch.float64)
        self.posts = [Post(id=str(place), text="a") for place in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.posts)

    def length(self, index: int) -> int:
        return -index  # so that batches come in another order than the posts

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows = torch.tensor(indices)
        return {
            "size": self.sizes[rows],
            "image_present": rows != len(self) - 1,
            "text_mask": torch.ones(len(rows), 2, dtype=torch.bool),
            "intention_mask": torch.ones(len(rows), 1, 2, dtype=torch.bool),
            "student": torch.ones(len(rows), dtype=torch.bool),
        }


def toy(model: Toy, sizes: Sequence[float], arm: str = "with") -> SystemPredictions:
    feed: Any = Posts(sizes)
    even = np.full((len(sizes), 2), 0.5)
    return SystemPredictions(
        opened=SimpleNamespace(recipe=recipes.load_recipe("tiny")),
        predictor=SimpleNamespace(model=model, feed=feed),
        posts=feed.posts,
        question=Question(labels=("no", "yes")),
        span=slice(0, 2),
        truth=np.zeros(len(sizes), dtype=np.int64),
        arm=arm,
        probabilities=even,
        threshold=0.5,
        train=[],
        cache=None,
    )


@given(GAMES)
@settings(max_examples=50, deadline=None)
def test_shapley_values_add_up_to_what_all_players_win(values: np.ndarray) -> None:
    assert np.allclose(compute_shapley(values).sum(0), values[-1] - values[0], atol=1e-9)


@given(GAMES)
@settings(max_examples=50, deadline=None)
def test_shapley_values_are_the_mean_gain_over_every_order_of_arrival(values: np.ndarray) -> None:
    orders = list(permutations(range(len(values).bit_length() - 1)))
    total = np.zeros((len(orders[0]), values.shape[1]))
    for order in orders:
        there = 0
        for player in order:
            total[player] += values[there | 1 << player] - values[there]
            there |= 1 << player
    assert np.allclose(compute_shapley(values), total / len(orders), atol=1e-9)


@given(st.integers(2, 4), st.data())
@settings(max_examples=30, deadline=None)
def test_players_that_are_interchangeable_get_the_same(count: int, data: st.DataObject) -> None:
    drawn = data.draw(arrays(float, (2**count, 2), elements=FINITE))
    swapped = [(c & ~3) | (c & 1) << 1 | (c & 2) >> 1 for c in range(2**count)]
    found = compute_shapley(drawn + drawn[swapped])
    assert np.allclose(found[0], found[1], atol=1e-9)


@given(st.integers(2, 4), st.data())
@settings(max_examples=30, deadline=None)
def test_a_player_that_changes_nothing_gets_nothing(count: int, data: st.DataObject) -> None:
    drawn = data.draw(arrays(float, (2**count, 2), elements=FINITE))
    without_first = [c & ~1 for c in range(2**count)]
    assert np.allclose(compute_shapley(drawn[without_first])[0], 0, atol=1e-9)


@pytest.mark.parametrize("arm", ["with", "student"])
def test_what_each_input_adds_is_found_exactly_whatever_the_arm(arm: str) -> None:
    found = measure_shapley(toy(Toy(2.0, -1.0, 0.25), [1.0, 3.0, 2.0], arm), 50)
    wanted = [
        {"image": 2.0, "text": -1.0, "intention": 0.25},
        {"image": 6.0, "text": -3.0, "intention": 0.75},
        {"image": 0.0, "text": -2.0, "intention": 0.5},
    ]
    assert [row.values for row in found.rows] == [pytest.approx(each) for each in wanted]
    assert [row.base for row in found.rows] == [1.0, 1.0, 1.0]
    assert [row.full for row in found.rows] == pytest.approx([2.25, 4.75, -0.5])
    assert found.of == "logit of yes minus logit of no"
    assert found.mean["text"].value == pytest.approx(-2.0)
    assert found.mean_absolute["text"].value == pytest.approx(2.0)
    assert found.mean["text"].low < -2.0 < found.mean["text"].high


def test_what_two_inputs_add_together_is_shared_between_them() -> None:
    found = measure_shapley(toy(Toy(0.0, 0.0, 0.0, pair=3.0), [1.0, 1.0]), 10)
    assert found.rows[0].values == pytest.approx({"image": 1.5, "text": 1.5, "intention": 0.0})


def test_a_trained_system_s_values_add_up_to_its_own_logits(tested: SystemPredictions) -> None:
    found = measure_shapley(tested, 20)
    predictor = tested.predictor
    full = predict_logits(predictor.model, predictor.feed, "with")
    bare = predict_logits(predictor.model, predictor.feed, "without", ("image", "text"))
    for place, row in enumerate(found.rows):
        assert row.id == tested.posts[place].id
        assert row.full == pytest.approx(full[place, 1] - full[place, 0], abs=1e-5)
        assert row.base == pytest.approx(bare[place, 1] - bare[place, 0], abs=1e-5)
        assert row.base + sum(row.values.values()) == pytest.approx(row.full, abs=1e-5)
    assert any(abs(row.values["intention"]) > 1e-4 for row in found.rows)


def test_where_the_image_alone_decides_it_gets_the_most(coloured: SystemPredictions) -> None:
    assert (coloured.decided == coloured.truth).all()
    found = measure_shapley(coloured, 200)
    assert found.players == ["image", "text"]
    assert found.mean_absolute["image"].low > 2 * found.mean_absolute["text"].high


def test_of_many_labels_the_decided_one_is_measured_against_the_mean_of_the_rest() -> None:
    question = Question(labels=("a", "b", "c"))
    found = measure_margins(
        np.array([[1.0, 2.0, 6.0], [4.0, 1.0, 0.0]]), question, np.array([2, 0])
    )
    assert found.tolist() == [4.5, 3.5]


def test_joined_texts_are_one_player_and_the_note_says_so() -> None:
    joined = recipes.load_recipe("tiny", {"joined": "separated", "fusion.slots": False})
    assert list(list_players(joined)) == ["image", "text"]
    apart = recipes.load_recipe("tiny", {"inputs": ["image", "text"]})
    assert list(list_players(apart)) == ["image", "text", "intention"]
    blind = recipes.load_recipe("tiny", {"inputs": ["text"], "image": None, "fusion.slots": False})
    assert list(list_players(blind)) == ["text"]
    subject = toy(Toy(1.0, 1.0, 1.0), [1.0])
    found = measure_shapley(replace(subject, opened=SimpleNamespace(recipe=joined)), 5)
    assert found.note.startswith("text and intention are read as one text")


def test_a_copy_among_the_training_posts_is_the_nearest(tested: SystemPredictions) -> None:
    rows = [5, 2]
    copies = [tested.posts[row].model_copy(update={"id": f"copy-{row}"}) for row in rows]
    own = [tested.posts[row] for row in rows]
    found = find_neighbours(replace(tested, train=[*tested.train[:40], *own, *copies]), rows, 3)
    for row, near in zip(rows, found, strict=True):
        assert near.id == tested.posts[row].id
        assert near.decided == tested.question.labels[tested.decided[row]]
        assert near.neighbours[0].id == f"copy-{row}"
        assert near.neighbours[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert near.neighbours[0].label == near.label == tested.posts[row].label
        likeness = [each.similarity for each in near.neighbours]
        assert likeness == sorted(likeness, reverse=True)
        assert near.id not in [each.id for each in near.neighbours]


def test_neighbours_are_of_the_label_that_a_clear_cut_decides_on(
    coloured: SystemPredictions,
) -> None:
    for near in find_neighbours(coloured, [0, 1, 2], 5):
        assert {each.label for each in near.neighbours} == {near.decided}


def test_a_model_without_an_embedding_has_no_neighbours() -> None:
    subject = toy(Toy(1.0, 1.0, 1.0), [1.0, 2.0])
    assert find_neighbours(replace(subject, train=list(subject.posts)), [0]) == []


def test_words_and_patches_add_up_to_the_difference_from_the_mean_states(
    tested: SystemPredictions,
) -> None:
    found = attribute_decisions(tested, [0, 3])
    assert found is not None
    full = predict_logits(tested.predictor.model, tested.predictor.feed, "with")
    for row, one in zip((0, 3), found.rows, strict=True):
        assert one.image is not None
        total = one.image + sum(weight for _, weight in one.tokens)
        assert total == pytest.approx(one.full - one.baseline + one.delta, abs=1e-9)
        assert abs(one.delta) <= MAX_INTEGRAL_ERROR * abs(one.full - one.baseline)
        assert one.full == pytest.approx(full[row, 1] - full[row, 0], abs=1e-4)
        assert one.patches is not None
        assert np.array(one.patches).sum() == pytest.approx(one.image)
        assert len(one.tokens) == one.words["text"] + one.words["intention"]


def test_where_the_image_decides_no_word_weighs_as_much(coloured: SystemPredictions) -> None:
    cruel = int(np.flatnonzero(coloured.truth == 1)[0])
    found = attribute_decisions(coloured, [cruel])
    assert found is not None
    assert found.rows[0].image is not None
    assert found.rows[0].image > 10 * max(abs(weight) for _, weight in found.rows[0].tokens) > 0


def test_without_captum_one_line_names_the_extra(
    tested: SystemPredictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MikoError, match=r"captum.*pip install 'miko-clf\[explain\]'") as caught:
        explain_decisions(tested, [0], num_resamples=5, attribution=True)
    assert "\n" not in str(caught.value)
    assert "shapley" in explain_decisions(tested, [], num_resamples=5)


@pytest.mark.parametrize(("count", "side"), [(49, 7), (50, 7), (48, None), (1, None), (2, None)])
def test_patches_are_a_grid_where_the_tokens_make_a_square(count: int, side: int | None) -> None:
    found = arrange_patches(np.arange(count, dtype=float))
    assert (found and (len(found), len(found[0]))) == (side and (side, side))
    if found:
        assert found[-1][-1] == count - 1


def test_findings_have_the_names_and_the_plain_values_of_a_report(
    tested: SystemPredictions,
) -> None:
    found = convert_to_json(explain_decisions(tested, [1], num_resamples=20, attribution=True))
    assert list(found) == ["shapley", "relations", "neighbours", "attribution"]
    assert set(found["shapley"]["mean"]["text"]) == {"value", "low", "high"}
    assert found["relations"][-1]["left_out"]["auroc"]["value"] is None
    assert isinstance(found["neighbours"][0]["neighbours"][0]["similarity"], float)
    word, weight = found["attribution"]["rows"][0]["tokens"][1]
    assert isinstance(word, str)
    assert isinstance(weight, float)


def wordpiece() -> Tokenizer:
    names = ["[UNK]", "[CLS]", "[SEP]", "trump", "em", "##bed", "##ding", "a", "##s"]
    ids = {name: place for place, name in enumerate(names)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return made


def byte_level() -> Tokenizer:
    pieces = ["caf", "Ã", "©", "Ġ", "Ġa", "Ġco", "zy"]
    ids = {name: place for place, name in enumerate(pieces)}
    made = Tokenizer(models.BPE(ids, []))
    made.decoder = decoders.ByteLevel()
    return made


def marked(*pieces: str) -> Tokenizer:
    return Tokenizer(models.BPE({name: place for place, name in enumerate(pieces)}, []))


def test_continued_pieces_join_the_word_they_continue() -> None:
    made = wordpiece()
    ids = made.encode("embedding trumps a").ids
    words = WordMerger(made).words(ids, np.arange(len(ids), dtype=float))
    assert words == [("[CLS]", 0), ("embedding", 6), ("trumps", 9), ("a", 6), ("[SEP]", 7)]


def test_words_of_several_bytes_a_letter_are_readable() -> None:
    words = WordMerger(byte_level()).words([0, 1, 2, 4, 5, 6], np.ones(6))
    assert words == [("café", 3), ("a", 1), ("cozy", 2)]


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (("▁so", "ft", "▁tea"), [("soft", 3.0), ("tea", 4.0)]),
        (("so", "ft</w>", "tea</w>"), [("soft", 3.0), ("tea", 4.0)]),
    ],
)
def test_marks_of_where_words_begin_or_end_are_taken_off(
    pieces: tuple[str, ...], wanted: list[tuple[str, float]]
) -> None:
    assert WordMerger(marked(*pieces)).words([0, 1, 2], np.array([1.0, 2.0, 4.0])) == wanted


def test_a_text_without_pieces_has_no_words() -> None:
    assert WordMerger(wordpiece()).words([], np.zeros(0)) == []
