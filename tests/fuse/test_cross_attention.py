"""Fusion: gates that start shut, memories that are never empty, any subset of inputs."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miko_clf.encode.tower import Attention
from miko_clf.export.parity import draw_example_batch
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.cross_attention import NUM_SLOTS, FusionLayer, GatedReader, NullToken
from miko_clf.fuse.rationale_decoder import RationaleDecoder
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train.predict import mask_for_arm, mask_inputs
from miko_clf.train.stages import compute_alignment_loss, compute_class_weights, drop_inputs
from tests.support import checkpoints

LABELS = ("no", "yes")
TEXTS = ["the burnt cake is so lovely", "a sunny beach and a calm sea", "to mock the baker"]


@pytest.fixture(scope="module")
def model(small: Recipe) -> MikoClassifier:
    return build_model(small, LABELS, TEXTS).eval()


def batch_of(model: MikoClassifier, recipe: Recipe, size: int = 4) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return draw_example_batch(model, build_preparation(recipe, model), size, 6, random)


def test_an_untrained_reader_changes_nothing() -> None:
    reader = GatedReader(16, 2, 0.0)
    content, memory = torch.randn(3, 5, 16), torch.randn(3, 4, 16)
    read = reader(content, memory, torch.ones(3, 4, dtype=torch.bool))
    assert torch.equal(read, content)


def test_a_reader_whose_gate_opened_changes_the_content() -> None:
    layer = FusionLayer(16, 2, 0.0, reader=True)
    torch.nn.init.ones_(layer.reader.gate)
    content, present = torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool)
    memory = (torch.randn(3, 4, 16), torch.ones(3, 4, dtype=torch.bool))
    assert not torch.allclose(layer(content, present, memory), layer(content, present, None))


def test_every_memory_starts_with_a_token_that_is_present() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    memory, present = NullToken(8)([torch.randn(2, 3, 8)], [nothing], 2)
    assert memory.shape == (2, 4, 8)
    assert present[:, 0].all()
    assert not present[:, 1:].any()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_tokens_that_are_absent_are_never_read(
    posts: int, queries: int, tokens: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    attention = Attention(8, 2, 0.0)
    query = torch.randn(posts, queries, 8, generator=random)
    memory = torch.randn(posts, tokens + 1, 8, generator=random)
    present = torch.rand(posts, tokens + 1, generator=random) < 0.5
    present[:, 0] = True
    other = torch.where(present[..., None], memory, torch.full_like(memory, 1e3))
    read = attention(query, memory, present)
    assert torch.allclose(read, attention(query, other, present), atol=1e-5)


def test_any_subset_of_inputs_gives_finite_logits(model: MikoClassifier, small: Recipe) -> None:
    batch = batch_of(model, small)
    inputs = ("image", "text", "intention")
    for count in range(4):
        for gone in itertools.combinations(inputs, count):
            for arm in ("with", "student", "without"):
                logits = model(mask_inputs(mask_for_arm(batch, arm), gone)).logits
                assert torch.isfinite(logits).all(), (gone, arm)


def test_what_is_masked_does_not_reach_the_logits(model: MikoClassifier, small: Recipe) -> None:
    batch = batch_of(model, small)
    gone = mask_inputs(batch, ("image", "intention"))
    other = {**gone, "pixels": 255 - gone["pixels"], "relation": gone["relation"] * 0}
    other["intention_ids"] = gone["intention_ids"] * 0
    assert torch.allclose(model(gone).logits, model(other).logits, atol=1e-6)


def test_slots_stand_in_only_where_a_post_has_no_intention(
    model: MikoClassifier, small: Recipe
) -> None:
    opened = build_model(small, LABELS, TEXTS).eval()
    for layer in opened.fusion.layers:
        torch.nn.init.ones_(layer.reader.gate)
    batch = batch_of(opened, small)
    batch["intention_mask"][0] = False
    batch["student"] = torch.ones(4, dtype=torch.bool)
    without = {**batch, "student": torch.zeros(4, dtype=torch.bool)}
    difference = (opened(batch).logits - opened(without).logits).abs().sum(1)
    assert difference[0] > 1e-4
    assert (difference[1:] < 1e-6).all()


def test_there_is_a_slot_for_each_relation_and_one_for_the_rationale(
    model: MikoClassifier, small: Recipe
) -> None:
    guess = model(batch_of(model, small), guess_only=True).guess
    assert guess.shape == (4, 11, model.text_tower.width)
    assert NUM_SLOTS == 11


def test_latents_may_look_at_the_content_in_its_stead(small: Recipe) -> None:
    recipe = small.model_copy(update={"fusion": small.fusion.model_copy(update={"latents": 3})})
    model = build_model(recipe, LABELS, TEXTS).eval()
    fused = model(batch_of(model, recipe))
    assert fused.tokens.shape[1] == 3
    assert torch.isfinite(fused.logits).all()


def test_the_same_seed_gives_the_same_weights(small: Recipe) -> None:
    one, two = build_model(small, LABELS, TEXTS), build_model(small, LABELS, TEXTS)
    other = build_model(small.model_copy(update={"seed": 1}), LABELS, TEXTS)
    key = "fusion.slots.queries"
    assert torch.equal(one.state_dict()[key], two.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])


def test_alignment_is_least_where_each_slot_guesses_its_own_text() -> None:
    target = torch.randn(5, 3, 16)
    present = torch.ones(5, 3, dtype=torch.bool)
    right = compute_alignment_loss(target, target, present)
    wrong = compute_alignment_loss(target.roll(1, 0), target, present)
    assert right < 0.1 < wrong


def test_alignment_without_a_teacher_is_zero_and_has_a_gradient() -> None:
    guess = torch.randn(5, 3, 16, requires_grad=True)
    loss = compute_alignment_loss(guess, torch.zeros(5, 3, 16), torch.zeros(5, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert torch.isfinite(guess.grad).all()


@given(st.lists(st.integers(0, 2), min_size=3, max_size=60))
def test_class_weights_give_each_class_the_same_total(labels: list[int]) -> None:
    weights = compute_class_weights(labels, 3)
    counts = np.bincount(labels, minlength=3)
    totals = [float(weights[c] * counts[c]) for c in range(3) if counts[c]]
    assert totals == pytest.approx([totals[0]] * len(totals), rel=1e-5)


def test_no_post_loses_its_image_and_its_text_together(
    model: MikoClassifier, small: Recipe
) -> None:
    fusion = small.fusion.model_copy(update={"modality_dropout": 0.9})
    recipe = small.model_copy(update={"fusion": fusion})
    batch = {**batch_of(model, recipe, 64), "label": torch.zeros(64, dtype=torch.long)}
    batch["image_present"] = torch.ones(64, dtype=torch.bool)
    varied = drop_inputs(batch, recipe, np.random.default_rng(0))
    text, image = varied["text_mask"].any(1), varied["image_present"]
    assert (text | image).all()
    assert not text.all()
    assert not image.all()


def test_the_decoder_is_built_only_where_a_rationale_is_written(small: Recipe) -> None:
    silent = recipes.parse_recipe(
        {**small.model_dump(), "reasoning": {"epochs": 1, "align": 1.0, "generate": 0.0}}, "test"
    )
    assert build_model(small, LABELS, TEXTS).decoder is not None
    assert build_model(silent, LABELS, TEXTS).decoder is None


def test_a_decoder_of_known_words_writes_them_and_takes_the_rest_for_one() -> None:
    torch.manual_seed(0)
    known = RationaleDecoder(40, 8, 16, 2, 0.0, known=[3, 5, 7]).eval()
    tokens, present = torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.bool)
    mask = torch.ones(2, 4, dtype=torch.bool)
    assert known(torch.tensor([[3, 5, 7]] * 2), tokens, present).shape == (2, 3, 4)
    one = known.loss(torch.tensor([[3, 5, 20, 7]] * 2), mask, tokens, present)
    other = known.loss(torch.tensor([[3, 5, 21, 7]] * 2), mask, tokens, present)
    changed = known.loss(torch.tensor([[3, 7, 20, 7]] * 2), mask, tokens, present)
    assert one == other
    assert one != changed


def test_the_decoder_of_a_large_vocabulary_knows_the_words_of_training_alone(
    small: Recipe, tmp_path: Path
) -> None:
    learned = build_model(small, LABELS, TEXTS)
    assert learned.decoder is not None
    assert learned.text_tower is not None
    pieces = learned.text_tower.words.tokenizer.get_vocab_size()
    assert learned.decoder.word.num_embeddings == pieces  # they were learned from these texts
    checkpoints.bert(tmp_path / "bert")
    text = {"source": "transformers", "name": str(tmp_path / "bert")}
    values = {**small.model_dump(), "inputs": ["text"], "image": None, "text": text}
    model = build_model(recipes.parse_recipe(values, "test"), LABELS, ["a burnt cake", "a cake"])
    assert model.decoder is not None
    assert model.decoder.word.num_embeddings == 4  # three words, and one for the five others
