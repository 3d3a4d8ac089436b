"""The baselines: one vector an input, and a classifier over them."""

import pytest
import torch
from torch import Tensor, nn

from miko_clf import recipe as recipes
from miko_clf.fuse.pooled import Pooled

Batch = dict[str, Tensor]
BASELINES = ("text-only", "image-only", "clip-linear", "debate-text")


def fusion(**changed: object) -> Pooled:
    torch.manual_seed(0)
    values: dict = {
        "image_width": 6,
        "num_image_tokens": 4,
        "text_width": 5,
        "text_pool": "mean",
        "content_texts": ("text", "description"),
        "num_labels": 2,
        "hidden": 0,
        "dropout": 0.0,
        "input_dropout": 0.0,
    }
    return Pooled(**{**values, **changed}).eval()


def states(posts: int, words: int = 3, seed: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(1, words + 1, (2, posts, 1), generator=random)
    masks = torch.arange(words) < ends
    return {
        "image_states": torch.randn(posts, 4, 6, generator=random),
        "image_present": torch.ones(posts, dtype=torch.bool),
        "text_states": torch.randn(posts, words, 5, generator=random),
        "text_mask": masks[0],
        "description_states": torch.randn(posts, words, 5, generator=random),
        "description_mask": masks[1],
    }


def without(batch: Batch, *names: str) -> Batch:
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}


def normal(vector: Tensor) -> Tensor:
    return (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()


def test_the_embedding_is_each_pooled_input_normalised_side_by_side() -> None:
    batch = states(1)
    batch["text_mask"] = torch.tensor([[True, True, False]])
    batch["description_mask"] = torch.tensor([[True, False, False]])
    wanted = [
        batch["image_states"][0].mean(0),
        batch["text_states"][0, :2].mean(0),
        batch["description_states"][0, 0],
    ]
    embedding = fusion()(batch).embedding[0]
    assert torch.allclose(embedding, torch.cat([normal(one) for one in wanted]), atol=1e-6)


def intended(posts: int, intentions: int = 3, words: int = 4) -> Batch:
    """States in which every post has two intentions and room for another."""
    random = torch.Generator().manual_seed(2)
    ends = torch.randint(1, words + 1, (posts, intentions, 1), generator=random)
    mask = torch.arange(words) < ends
    mask[:, 2:] = False
    return {
        **states(posts),
        "intention_states": torch.randn(posts, intentions, words, 5, generator=random),
        "intention_mask": mask,
    }


def test_intentions_count_as_the_mean_of_those_that_are_there() -> None:
    batch, model = intended(1), fusion(reads_intentions=True)
    given, mask = batch["intention_states"][0], batch["intention_mask"][0]
    wanted = torch.stack([given[n][mask[n]].mean(0) for n in range(2)]).mean(0)
    assert torch.allclose(model(batch).embedding[0, -5:], normal(wanted), atol=1e-6)

    turned = {n: t[:, [1, 2, 0]] if n.startswith("intention") else t for n, t in batch.items()}
    assert torch.allclose(model(turned).logits, model(batch).logits, atol=1e-6)


def test_a_post_without_intentions_reads_a_learned_vector_for_them() -> None:
    batch, model = intended(3), fusion(reads_intentions=True)
    with torch.no_grad():
        model.vectors["intention"].null += 1
    batch["intention_mask"][1] = False
    embedding = model(batch).embedding[:, -5:]
    assert embedding[1].tolist() == [1] * 5
    assert not (embedding[[0, 2]] == 1).all(1).any()


@pytest.mark.parametrize(("how", "word"), [("first", 0), ("last", 1)])
def test_a_text_may_count_as_its_first_or_its_last_word(how: str, word: int) -> None:
    batch = states(1)
    batch["text_mask"] = torch.tensor([[True, True, False]])
    embedding = fusion(text_pool=how)(batch).embedding[0, 6:11]
    assert torch.allclose(embedding, normal(batch["text_states"][0, word]), atol=1e-6)


def test_without_a_hidden_layer_the_logits_are_linear_in_the_embedding() -> None:
    model = fusion()
    fused = model(states(3))
    wanted = fused.embedding @ model.head.weight.T + model.head.bias
    assert torch.allclose(fused.logits, wanted, atol=1e-6)


def test_a_hidden_layer_is_what_the_head_reads() -> None:
    model = fusion(hidden=7)
    fused = model(states(3))
    assert fused.embedding.shape == (3, 7)
    wanted = model.head(nn.functional.gelu(fused.embedding))
    assert torch.allclose(fused.logits, wanted, atol=1e-6)


def test_what_a_post_lacks_is_a_learned_vector_and_never_its_states() -> None:
    model = fusion()
    for name, vector in model.vectors.items():
        batch = without(states(2), name)
        key = f"{name}_states"
        assert torch.equal(model(batch).logits, model({**batch, key: batch[key] * 100 + 7}).logits)
        before = model(batch).logits
        with torch.no_grad():
            vector.null += 1
        assert not torch.allclose(model(batch).logits, before)


def test_a_post_of_nothing_has_finite_logits_and_gradients() -> None:
    model = fusion(hidden=4).train()
    fused = model(without(states(2), "image", "text", "description"))
    fused.logits.sum().backward()
    assert torch.isfinite(fused.logits).all()
    assert all(torch.isfinite(v.null.grad).all() for v in model.vectors.values())


def test_the_order_of_posts_changes_nothing_but_the_order() -> None:
    model, batch = fusion(hidden=4), states(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = {name: tensor[order] for name, tensor in batch.items()}
    assert torch.allclose(model(turned).logits, model(batch).logits[order], atol=1e-6)


def test_words_that_pad_a_text_change_nothing() -> None:
    batch = states(3)
    longer = dict(batch)
    for name in ("text", "description"):
        longer[f"{name}_states"] = torch.cat([batch[f"{name}_states"], torch.randn(3, 2, 5)], 1)
        longer[f"{name}_mask"] = torch.cat(
            [batch[f"{name}_mask"], torch.zeros(3, 2, dtype=torch.bool)], 1
        )
    for how in ("mean", "first", "last"):
        model = fusion(text_pool=how)
        assert torch.allclose(model(longer).logits, model(batch).logits, atol=1e-6)


def test_dropout_acts_in_training_alone() -> None:
    model, batch = fusion(dropout=0.5, input_dropout=0.5), states(4)
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_an_image_alone_and_a_text_alone_are_read() -> None:
    image = fusion(text_width=None, content_texts=())
    text = fusion(image_width=None, num_image_tokens=0, content_texts=("text",))
    assert image(states(2)).embedding.shape == (2, 6)
    assert text(states(2)).embedding.shape == (2, 5)
    assert image.reads_images
    assert not text.reads_images


def test_a_linear_probe_learns_a_label_that_stands_in_one_input() -> None:
    model, batch = fusion().train(), states(64)
    label = (batch["image_states"].mean(1)[:, 0] > 0).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(batch).logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    accuracy = (model.eval()(batch).logits.argmax(1) == label).float().mean()
    assert accuracy > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_is_a_pooled_recipe_with_versions_on_small_towers(name: str) -> None:
    assert recipes.load(name).fusion.kind == "pooled"
    small = [other for other in recipes.names() if _small(other, name)]
    assert small
    for other in small:
        assert recipes.load(other).fusion.kind == "pooled"
        assert recipes.load(other).name == other


def _small(other: str, name: str) -> bool:
    stem = name.replace("clip-linear", "linear")
    return other.startswith(f"{stem}-") and other.endswith(("minilm", "mobilenet"))


def test_the_seven_mixes_of_the_sarcasm_experiment_differ_in_inputs_alone() -> None:
    names = [name for name in recipes.names() if name.startswith("miko-text-")]
    for tower in ("", "-minilm"):
        ends = [n for n in names if n.endswith("-minilm") == bool(tower) and "bare" not in n]
        mixes = [recipes.load(name) for name in ends]
        assert len(mixes) == 7
        assert len({one.inputs for one in mixes}) == 7
        alike = [one.model_copy(update={"name": "", "inputs": ()}) for one in mixes]
        assert all(one == alike[0] for one in alike)
        assert all(one.joined == "separated" for one in mixes)
