"""Stages: texts that are told apart by what they say, and inputs that are never all lost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from miko_clf.data.post import Intention, Post
from miko_clf.fuse.build import build_model, build_preparation
from miko_clf.fuse.outputs import ModelOutput
from miko_clf.questions import make_single_choice
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.train.dataloader import EncodedDataset
from miko_clf.train.stages import compute_alignment_loss, drop_inputs, measure_alignment


def _draw_guesses(
    num_posts: int, num_texts: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return guesses, targets, which slots have a text, and which of `num_texts` each has."""
    random = torch.Generator().manual_seed(seed)
    texts = torch.randint(num_texts, (num_posts, 3), generator=random)
    guess = torch.randn(num_posts, 3, 8, generator=random)
    target = torch.randn(num_texts, 8, generator=random)[texts]
    return guess, target, torch.rand(num_posts, 3, generator=random) < 0.7, texts


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_a_post_that_is_there_twice_changes_the_loss_of_no_other(
    num_posts: int, num_texts: int, seed: int
) -> None:
    guess, target, present, _ = _draw_guesses(num_posts, num_texts, seed)

    def total(rows: list[int]) -> float:
        loss = compute_alignment_loss(guess[rows], target[rows], present[rows])
        return float(loss) * int(present[rows].sum())

    posts = list(range(num_posts))
    added = [total([*posts, post]) - total(posts) for post in posts]
    assert sum(added) == pytest.approx(total(posts), abs=1e-3)


def test_guesses_that_are_right_cost_nothing_where_texts_repeat() -> None:
    target = torch.eye(8)[[0, 1, 2, 0, 1, 0]][:, None]
    present = torch.ones(6, 1, dtype=torch.bool)
    assert float(compute_alignment_loss(target, target, present)) < 1e-4
    wrong = torch.eye(8)[[3] * 6][:, None]
    assert float(compute_alignment_loss(wrong, target, present)) == pytest.approx(math.log(3))


def test_posts_of_one_text_alone_have_nothing_to_be_told_from() -> None:
    guess = torch.randn(4, 1, 8, requires_grad=True)
    target = torch.randn(1, 1, 8).expand(4, 1, 8)
    loss = compute_alignment_loss(guess, target, torch.ones(4, 1, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(guess.grad).all()


def test_texts_are_told_apart_by_their_words_where_a_tower_that_learns_blurs_them() -> None:
    guess, target, present, texts = _draw_guesses(12, 4, seed=0)
    blurred = target + 1e-4 * torch.randn(12, 3, 8)  # as dropout does
    words = texts[..., None]
    wanted = float(compute_alignment_loss(guess, target, present))
    found = float(compute_alignment_loss(guess, blurred, present, words))
    assert found == pytest.approx(wanted, abs=1e-2)
    assert float(compute_alignment_loss(guess, blurred, present)) > wanted + 0.1


def test_copies_of_a_post_are_not_pushed_apart_by_a_text_tower_that_learns(small: Recipe) -> None:
    post = Post(id="a", text="a cake", intentions=[Intention(relation="xWant", text="to mock")])
    model = build_model(small, ("no", "yes"), ["a burnt cake", "to mock"])
    questions, preparation = make_single_choice(("no", "yes")), build_preparation(small, model)
    posts = EncodedDataset([post] * 4, questions, model, preparation, targets=True)
    batch = posts.batch(range(4))
    assert "target_ids" in batch
    guess = torch.randn(4, 11, model.text_tower.width)
    fused = ModelOutput(torch.zeros(4, 2), guess=guess)
    assert float(measure_alignment(model.train(), fused, batch)) == pytest.approx(0, abs=1e-5)


def _vary(recipe: Recipe, batch: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    return drop_inputs(batch, recipe, np.random.default_rng(seed))


def _make_recipe(inputs: tuple[str, ...], rate: float) -> Recipe:
    changes = {"inputs": list(inputs), "fusion.modality_dropout": rate}
    return recipes.load_recipe("tiny", changes | ({} if "image" in inputs else {"image": None}))


def _make_batch(has: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return a batch of posts that have the inputs which the columns of `has` say."""
    batch = {"label": torch.zeros(len(has), dtype=torch.int64)}
    for name, column in zip(names, has.T, strict=True):
        key = "image_present" if name == "image" else f"{name}_mask"
        batch[key] = column if name == "image" else column[:, None].expand(-1, 3).clone()
    return batch


def _list_kept(batch: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return torch.stack([batch[key].reshape(len(batch["label"]), -1).any(1) for key in keys], 1)


@given(
    st.sampled_from([("image", "text", "description"), ("image", "description"), ("text",)]),
    st.sampled_from([0.05, 0.5, 0.95]),
    st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_no_post_loses_all_that_it_has(names: tuple[str, ...], rate: float, seed: int) -> None:
    has = torch.rand(200, len(names), generator=torch.Generator().manual_seed(seed)) < 0.6
    batch = _make_batch(has, names)
    kept = _list_kept(_vary(_make_recipe(names, rate), batch, seed), names)
    assert not (kept & ~has).any()
    assert torch.equal(kept.any(1), has.any(1))


@pytest.mark.parametrize("lacks", ["text", "description", "image", "none"])
def test_each_input_may_be_lost_beside_another(lacks: str) -> None:
    names = ("image", "text", "description")
    has = torch.tensor([[name != lacks for name in names]]).expand(400, 3)
    kept = _list_kept(_vary(_make_recipe(names, 0.5), _make_batch(has, names)), names)
    for place, name in enumerate(names):
        if name != lacks:
            share = float(kept[:, place].float().mean())
            assert 0.3 < share < 0.9, name


def test_posts_with_image_and_text_lose_what_the_same_draws_always_took() -> None:
    recipe, random = _make_recipe(("image", "text"), 0.4), np.random.default_rng(3)
    batch = _make_batch(torch.ones(50, 2, dtype=torch.bool), ("image", "text"))
    varied = drop_inputs({**batch, "student": torch.ones(50, dtype=torch.bool)}, recipe, random)
    draws = np.random.default_rng(3)
    text, image = draws.random(50) >= 0.4, draws.random(50) >= 0.4
    slots = draws.random(50) >= recipe.fusion.slot_dropout
    assert varied["text_mask"].any(1).tolist() == text.tolist()
    assert varied["image_present"].tolist() == (image | ~text).tolist()
    assert varied["student"].tolist() == slots.tolist()
    assert random.random() == draws.random()  # and no draw besides
