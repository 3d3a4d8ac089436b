"""Retrieval: neighbours that teach, a contrast that ends, a vote that finds them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from miko_clf.data.post import Post
from miko_clf.errors import RecipeError
from miko_clf.fuse.outputs import ModelOutput
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.sections import RetrievalSection
from miko_clf.train.retrieval import (
    NO_NEIGHBOUR,
    RetrievalContrast,
    compute_contrast_loss,
    embed_posts,
    find_contrast_pairs,
)


class ToyFeed:
    """Posts whose features are given; the label is the sign of nothing that is linear."""

    def __init__(self, features: Tensor, labels: list[int], posts: list[Post]) -> None:
        self.features, self.labels, self.posts = features, labels, posts

    def __len__(self) -> int:
        return len(self.posts)

    def length(self, index: int) -> int:
        return 7 * index % 5

    def batch(self, indices: Any) -> dict[str, Tensor]:
        rows = torch.tensor(list(indices))
        return {
            "features": self.features[rows],
            "label": torch.tensor(self.labels)[rows],
            "row": rows,
            "written_ids": rows[:, None],
        }


class ToyModel(nn.Module):
    """An embedding and a head, with the face of a classifier."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, width))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(width, 2)

    def forward(self, batch: dict[str, Tensor]) -> ModelOutput:
        assert "written_ids" not in batch
        embedding = self.body(self.dropout(batch["features"]))
        return ModelOutput(self.head(embedding), embedding=embedding)


def toy(num_posts: int = 60, groups: int = 20) -> ToyFeed:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(num_posts, 3, generator=random)
    labels = (features[:, 0] * features[:, 1] > 0).long().tolist()
    posts = [
        Post(id=str(i), text=f"text {i // 2}", label=str(labels[i]), group=f"g{i % groups}")
        for i in range(num_posts)
    ]
    return ToyFeed(features, labels, posts)


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def alone(num_posts: int) -> Tensor:
    return torch.arange(num_posts)


def test_the_nearest_of_the_same_label_and_of_another_are_found_by_cosine() -> None:
    embeddings = torch.tensor([unit(0), unit(10), unit(40), unit(15), unit(90)])
    embeddings[3] *= 50  # length says nothing
    labels = torch.tensor([0, 0, 0, 1, 1])
    positive, negative = find_contrast_pairs(embeddings, labels, alone(5), alone(5))
    assert positive.tolist() == [1, 0, 1, 4, 3]
    assert negative.tolist() == [3, 3, 3, 1, 2]


@given(st.integers(2, 24), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_no_neighbour_is_the_post_itself_or_one_of_its_group(
    num_posts: int, classes: int, num_groups: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_posts, 3, generator=random)
    embeddings[num_posts // 2 :] = embeddings[: num_posts - num_posts // 2].clone()  # copies
    labels = torch.randint(classes, (num_posts,), generator=random)
    groups = torch.randint(num_groups, (num_posts,), generator=random)
    texts = torch.randint(3, (num_posts,), generator=random)
    positive, negative = find_contrast_pairs(embeddings, labels, groups, texts)
    for row in range(num_posts):
        for found, same in ((int(positive[row]), True), (int(negative[row]), False)):
            if found != NO_NEIGHBOUR:
                assert found != row
                assert groups[found] != groups[row]
                assert (labels[found] == labels[row]) == same
        if positive[row] != NO_NEIGHBOUR:
            assert texts[positive[row]] != texts[row]


def test_a_post_whose_group_is_all_there_is_has_no_neighbour() -> None:
    embeddings, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    positive, negative = find_contrast_pairs(
        embeddings, labels, torch.zeros(4, dtype=int), alone(4)
    )
    assert positive.tolist() == negative.tolist() == [NO_NEIGHBOUR] * 4


def test_the_order_of_posts_changes_nothing_but_the_order() -> None:
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(1100, 8, generator=random)  # more than are compared at a time
    labels = torch.randint(2, (1100,), generator=random)
    groups = torch.randint(50, (1100,), generator=random)
    order = torch.randperm(1100, generator=random)
    before = find_contrast_pairs(embeddings, labels, groups, alone(1100))
    after = find_contrast_pairs(embeddings[order], labels[order], groups[order], alone(1100))
    for one, other in zip(before, after, strict=True):
        assert torch.equal(order[other], one[order])


def test_the_contrast_is_zero_once_the_margin_holds() -> None:
    anchor = torch.tensor([unit(0)])
    near, far = torch.tensor([unit(10)]), torch.tensor([unit(60)])
    assert compute_contrast_loss(anchor, near, far, 0.4) == 0
    wanted = 0.6 - math.cos(math.radians(10)) + math.cos(math.radians(60))
    assert float(compute_contrast_loss(anchor, near, far, 0.6)) == pytest.approx(wanted, abs=1e-6)
    assert compute_contrast_loss(anchor, far, near, 0.1) > 0.1


def test_embeddings_come_in_the_order_of_the_feed_and_without_dropout() -> None:
    feed, model = toy(), ToyModel().train()
    found = embed_posts(model, feed)
    assert model.training
    assert torch.allclose(found, model.body(feed.features), atol=1e-6)
    assert not found.requires_grad


def test_neighbours_are_found_once_an_epoch_by_the_model_as_it_is() -> None:
    feed, model = toy(), ToyModel()
    retrieving = RetrievalContrast(RetrievalSection(), feed)
    retrieving.begin(model, 0)
    first = retrieving.positive
    nn.init.normal_(model.body[2].weight)
    retrieving.begin(model, 0)
    assert retrieving.positive is first
    retrieving.begin(model, 1)
    assert not torch.equal(retrieving.positive, first)


def test_a_killed_run_has_the_neighbours_of_its_epoch_back() -> None:
    feed, model = toy(), ToyModel()
    retrieving = RetrievalContrast(RetrievalSection(), feed)
    retrieving.begin(model, 3)
    again = RetrievalContrast(RetrievalSection(), feed)
    again.load_state_dict(retrieving.state_dict())
    nn.init.normal_(model.body[2].weight)
    again.begin(model, 3)  # the epoch goes on: nothing is looked for
    assert torch.equal(again.positive, retrieving.positive)
    assert torch.equal(again.negative, retrieving.negative)


def test_posts_of_the_same_words_are_no_positives_but_may_be_negatives() -> None:
    posts = [
        Post(id="a", text="Same  words", label="0"),
        Post(id="b", text="same words", label="0"),
        Post(id="c", text="same words", label="1"),
        Post(id="d", text="others", label="0"),
    ]
    features = torch.tensor([[1.0, 0, 0], [1.0, 0.01, 0], [1.0, 0.02, 0], [0, 1.0, 0]])
    retrieving = RetrievalContrast(RetrievalSection(), ToyFeed(features, [0, 0, 1, 0], posts))
    retrieving.begin(ToyModel(), 0)
    assert retrieving.positive.tolist() == [3, 3, NO_NEIGHBOUR, 0] or retrieving.positive[3] == 1
    assert retrieving.negative[:2].tolist() == [2, 2]


def test_a_post_without_neighbours_counts_as_zero_in_the_loss() -> None:
    feed, model = toy(4, groups=1), ToyModel()
    retrieving = RetrievalContrast(RetrievalSection(), feed)
    retrieving.begin(model, 0)
    batch = feed.batch(range(4))
    rows = batch.pop("row")
    batch.pop("written_ids")
    loss = retrieving.loss(model, model(batch), rows)
    loss.backward()
    assert loss == 0


def test_the_loss_pulls_labels_apart_and_the_vote_finds_them() -> None:
    feed, model = toy(120), ToyModel()
    retrieving = RetrievalContrast(
        RetrievalSection(weight=1.0, margin=0.1, neighbours=5, vote=1.0), feed
    )
    new = torch.randn(400, 3, generator=torch.Generator().manual_seed(5))
    label = (new[:, 0] * new[:, 1] > 0).long()

    def accuracy() -> float:
        vote = retrieving.vote(model, 2)
        votes = vote(torch.zeros(400, 2), model.body(new).detach())
        return (votes.argmax(1) == label).float().mean().item()

    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses, before = [], accuracy()
    for epoch in range(60):
        retrieving.begin(model, epoch)
        batch = {k: v for k, v in feed.batch(range(120)).items() if k != "written_ids"}
        loss = retrieving.loss(model, model(batch), torch.arange(120))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]
    assert before < 0.88
    assert accuracy() > 0.9


def test_labels_of_several_names_are_the_same_only_if_all_are() -> None:
    feed = toy(4)
    feed.labels = [[1, 0], [1, 1], [1, 0], [0, 1]]
    retrieving = RetrievalContrast(RetrievalSection(), feed)
    assert retrieving.labels[0] == retrieving.labels[2]
    assert len(set(retrieving.labels.tolist())) == 3


def test_an_embedding_too_wide_to_keep_for_every_post_is_refused() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch: dict[str, Tensor]) -> ModelOutput:
            posts = len(batch["label"])
            return ModelOutput(torch.zeros(posts, 2), embedding=torch.zeros(posts, 9000))

    with pytest.raises(RecipeError, match="9,000 channels"):
        embed_posts(Wide(), toy(4))


def test_the_retrieval_recipes_build_on_the_product_and_contrast() -> None:
    for name in ("retrieval", "retrieval-mobilenet-minilm"):
        recipe = recipes.load_recipe(name)
        assert recipe.fusion.kind == "product"
        assert recipe.task.retrieval is not None
        assert recipe.task.retrieval.neighbours == 20
