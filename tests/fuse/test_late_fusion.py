"""Late fusion: a classifier over one vector an input, and products of image and text."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from miko_clf.errors import RecipeError
from miko_clf.fuse.late_fusion import (
    MAX_PRODUCT_WEIGHTS,
    ConcatFusion,
    ProductFusion,
    multiply_channels,
)
from miko_clf.recipe import schema as recipes

Batch = dict[str, Tensor]
BASELINES = ("text-only", "image-only", "clip-linear", "debate-text")


def make_pooled(**changed: object) -> ConcatFusion:
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
    return ConcatFusion(**{**values, **changed}).eval()


def make_pooled_states(posts: int, words: int = 3, seed: int = 1) -> Batch:
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


def drop_pooled_inputs(batch: Batch, *names: str) -> Batch:
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}


def normal(vector: Tensor) -> Tensor:
    return (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()


def test_the_embedding_is_each_pooled_input_normalised_side_by_side() -> None:
    batch = make_pooled_states(1)
    batch["text_mask"] = torch.tensor([[True, True, False]])
    batch["description_mask"] = torch.tensor([[True, False, False]])
    wanted = [
        batch["image_states"][0].mean(0),
        batch["text_states"][0, :2].mean(0),
        batch["description_states"][0, 0],
    ]
    embedding = make_pooled()(batch).embedding[0]
    assert torch.allclose(embedding, torch.cat([normal(one) for one in wanted]), atol=1e-6)


def intended(posts: int, intentions: int = 3, words: int = 4) -> Batch:
    """States in which every post has two intentions and room for another."""
    random = torch.Generator().manual_seed(2)
    ends = torch.randint(1, words + 1, (posts, intentions, 1), generator=random)
    mask = torch.arange(words) < ends
    mask[:, 2:] = False
    return {
        **make_pooled_states(posts),
        "intention_states": torch.randn(posts, intentions, words, 5, generator=random),
        "intention_mask": mask,
    }


def test_intentions_count_as_the_mean_of_those_that_are_there() -> None:
    batch, model = intended(1), make_pooled(reads_intentions=True)
    given, mask = batch["intention_states"][0], batch["intention_mask"][0]
    wanted = torch.stack([given[n][mask[n]].mean(0) for n in range(2)]).mean(0)
    assert torch.allclose(model(batch).embedding[0, -5:], normal(wanted), atol=1e-6)

    turned = {n: t[:, [1, 2, 0]] if n.startswith("intention") else t for n, t in batch.items()}
    assert torch.allclose(model(turned).logits, model(batch).logits, atol=1e-6)


def test_a_post_without_intentions_reads_a_learned_vector_for_them() -> None:
    batch, model = intended(3), make_pooled(reads_intentions=True)
    with torch.no_grad():
        model.vectors["intention"].null += 1
    batch["intention_mask"][1] = False
    embedding = model(batch).embedding[:, -5:]
    assert embedding[1].tolist() == [1] * 5
    assert not (embedding[[0, 2]] == 1).all(1).any()


@pytest.mark.parametrize(("how", "word"), [("first", 0), ("last", 1)])
def test_a_text_may_count_as_its_first_or_its_last_word(how: str, word: int) -> None:
    batch = make_pooled_states(1)
    batch["text_mask"] = torch.tensor([[True, True, False]])
    embedding = make_pooled(text_pool=how)(batch).embedding[0, 6:11]
    assert torch.allclose(embedding, normal(batch["text_states"][0, word]), atol=1e-6)


def test_without_a_hidden_layer_the_logits_are_linear_in_the_embedding() -> None:
    model = make_pooled()
    fused = model(make_pooled_states(3))
    wanted = fused.embedding @ model.head.weight.T + model.head.bias
    assert torch.allclose(fused.logits, wanted, atol=1e-6)


def test_a_hidden_layer_is_what_the_head_reads() -> None:
    model = make_pooled(hidden=7)
    fused = model(make_pooled_states(3))
    assert fused.embedding.shape == (3, 7)
    wanted = model.head(nn.functional.gelu(fused.embedding))
    assert torch.allclose(fused.logits, wanted, atol=1e-6)


def test_what_a_post_lacks_is_a_learned_vector_and_never_its_states() -> None:
    model = make_pooled()
    for name, vector in model.vectors.items():
        batch = drop_pooled_inputs(make_pooled_states(2), name)
        key = f"{name}_states"
        assert torch.equal(model(batch).logits, model({**batch, key: batch[key] * 100 + 7}).logits)
        before = model(batch).logits
        with torch.no_grad():
            vector.null += 1
        assert not torch.allclose(model(batch).logits, before)


def test_a_post_of_nothing_has_finite_logits_and_gradients() -> None:
    model = make_pooled(hidden=4).train()
    fused = model(drop_pooled_inputs(make_pooled_states(2), "image", "text", "description"))
    fused.logits.sum().backward()
    assert torch.isfinite(fused.logits).all()
    assert all(torch.isfinite(v.null.grad).all() for v in model.vectors.values())


def test_the_order_of_posts_changes_nothing_but_the_order() -> None:
    model, batch = make_pooled(hidden=4), make_pooled_states(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = {name: tensor[order] for name, tensor in batch.items()}
    assert torch.allclose(model(turned).logits, model(batch).logits[order], atol=1e-6)


def test_words_that_pad_a_text_change_nothing() -> None:
    batch = make_pooled_states(3)
    longer = dict(batch)
    for name in ("text", "description"):
        longer[f"{name}_states"] = torch.cat([batch[f"{name}_states"], torch.randn(3, 2, 5)], 1)
        longer[f"{name}_mask"] = torch.cat(
            [batch[f"{name}_mask"], torch.zeros(3, 2, dtype=torch.bool)], 1
        )
    for how in ("mean", "first", "last"):
        model = make_pooled(text_pool=how)
        assert torch.allclose(model(longer).logits, model(batch).logits, atol=1e-6)


def test_dropout_acts_in_training_alone() -> None:
    model, batch = make_pooled(dropout=0.5, input_dropout=0.5), make_pooled_states(4)
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_an_image_alone_and_a_text_alone_are_read() -> None:
    image = make_pooled(text_width=None, content_texts=())
    text = make_pooled(image_width=None, num_image_tokens=0, content_texts=("text",))
    assert image(make_pooled_states(2)).embedding.shape == (2, 6)
    assert text(make_pooled_states(2)).embedding.shape == (2, 5)
    assert image.reads_images
    assert not text.reads_images


def test_a_linear_probe_learns_a_label_that_stands_in_one_input() -> None:
    model, batch = make_pooled().train(), make_pooled_states(64)
    label = (batch["image_states"].mean(1)[:, 0] > 0).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(batch).logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    accuracy = (model.eval()(batch).logits.argmax(1) == label).float().mean()
    assert accuracy > 0.9


def test_inputs_weighed_alike_have_unit_length_whatever_their_channels() -> None:
    batch, model = make_pooled_states(4), make_pooled()
    model.weigh_inputs_alike()
    parts = model(batch).embedding.split([6, 5, 5], dim=1)
    for part in parts:
        assert torch.allclose(part.norm(dim=1), torch.ones(4), atol=1e-4)
    absent = model(drop_pooled_inputs(batch, "image")).embedding
    assert not absent[:, :6].any()


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_is_a_pooled_recipe_with_versions_on_small_towers(name: str) -> None:
    assert recipes.load_recipe(name).fusion.kind == "pooled"
    small = [other for other in recipes.list_recipes() if _small(other, name)]
    assert small
    for other in small:
        assert recipes.load_recipe(other).fusion.kind == "pooled"
        assert recipes.load_recipe(other).name == other


def _small(other: str, name: str) -> bool:
    stem = name.replace("clip-linear", "linear")
    return other.startswith(f"{stem}-") and other.endswith(("minilm", "mobilenet"))


def test_the_seven_mixes_of_the_sarcasm_experiment_differ_in_inputs_alone() -> None:
    names = [name for name in recipes.list_recipes() if name.startswith("miko-text-")]
    for tower in ("", "-minilm"):
        ends = [n for n in names if n.endswith("-minilm") == bool(tower) and "bare" not in n]
        mixes = [recipes.load_recipe(name) for name in ends]
        assert len(mixes) == 7
        assert len({one.inputs for one in mixes}) == 7
        alike = [one.model_copy(update={"name": "", "inputs": ()}) for one in mixes]
        assert all(one == alike[0] for one in alike)
        assert all(one.joined == "separated" for one in mixes)


ProductBatch = dict[str, Tensor]


def make_product(**changed: object) -> ProductFusion:
    torch.manual_seed(0)
    values: dict = {
        "image_width": 6,
        "num_image_tokens": 4,
        "text_width": 5,
        "text_pool": "mean",
        "content_texts": ("text",),
        "num_labels": 2,
        "width": 8,
        "mix": "align",
        "layers": 1,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "projection_dropout": 0.0,
        "product_dropout": 0.0,
    }
    return ProductFusion(**{**values, **changed}).eval()


def make_product_states(posts: int, words: int = 3, seed: int = 1) -> ProductBatch:
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(1, words + 1, (posts, 1), generator=random)
    return {
        "image_states": torch.randn(posts, 4, 6, generator=random),
        "image_present": torch.ones(posts, dtype=torch.bool),
        "text_states": torch.randn(posts, words, 5, generator=random),
        "text_mask": torch.arange(words) < ends,
    }


def drop_product_inputs(batch: ProductBatch, *names: str) -> ProductBatch:
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}


def by_hand(model: ProductFusion) -> ProductFusion:
    """Let the projections pass the first channels of image and text as they are."""
    with torch.no_grad():
        for side in (model.image, model.text):
            linear = side.project[1]
            linear.weight.copy_(torch.eye(*linear.weight.shape))
            linear.bias.zero_()
    return model


def meeting(model: ProductFusion) -> Tensor:
    """Return the embedding of the image 3, 4 and the text 0.6, 0.8."""
    batch = {
        "image_states": torch.tensor([[[3.0, 4.0]]]),
        "image_present": torch.tensor([True]),
        "text_states": torch.tensor([[[0.6, 0.8]]]),
        "text_mask": torch.tensor([[True]]),
    }
    embedding = model(batch).embedding
    assert embedding is not None
    return embedding[0].detach()


NARROW = {"image_width": 2, "num_image_tokens": 1, "text_width": 2, "width": 2, "layers": 0}


def test_aligned_vectors_of_unit_length_are_multiplied_element_by_element() -> None:
    embedding = meeting(by_hand(make_product(**NARROW, mix="align")))
    assert torch.allclose(embedding, torch.tensor([0.36, 0.64]), atol=1e-6)


def test_crossed_vectors_of_unit_length_give_their_outer_product() -> None:
    embedding = meeting(by_hand(make_product(**NARROW, mix="cross")))
    assert torch.allclose(embedding, torch.tensor([0.36, 0.48, 0.48, 0.64]), atol=1e-6)


def test_the_outer_product_has_the_image_in_rows_and_the_text_in_columns() -> None:
    image, text = torch.randn(3, 4), torch.randn(3, 4)
    wanted = torch.stack([torch.outer(*pair) for pair in zip(image, text, strict=True)])
    assert torch.allclose(multiply_channels(image, text), wanted.flatten(1))


def test_the_embedding_is_the_last_hidden_layer_before_its_activation() -> None:
    model = make_product(layers=2)
    fused = model(make_product_states(3))
    assert fused.embedding.shape == (3, 8)
    assert (fused.embedding < 0).any()
    assert torch.allclose(fused.logits, model.head(functional.relu(fused.embedding)), atol=1e-6)


@pytest.mark.parametrize("mix", ["align", "cross"])
@pytest.mark.parametrize("gone", [(), ("image",), ("text",), ("image", "text")])
def test_any_subset_of_inputs_gives_finite_logits(mix: str, gone: tuple[str, ...]) -> None:
    model = make_product(mix=mix).train()
    fused = model(drop_product_inputs(make_product_states(3), *gone))
    fused.logits.sum().backward()
    assert torch.isfinite(fused.logits).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_absent_side_is_a_learned_vector_and_leaves_the_other_one_readable() -> None:
    model = make_product(layers=0)
    batch = drop_product_inputs(make_product_states(3), "text")
    other = {**batch, "text_states": batch["text_states"] * 9 + 1}
    assert torch.equal(model(batch).logits, model(other).logits)
    image = model.image(batch["image_states"].mean(1), batch["image_present"])
    seen = functional.cosine_similarity(model(batch).embedding, image)
    assert torch.allclose(seen, torch.ones(3), atol=1e-5)
    before = model(batch).logits
    with torch.no_grad():
        model.text.null[0] += 1
    assert not torch.allclose(model(batch).logits, before)


def test_several_texts_become_one_side() -> None:
    model = make_product(content_texts=("text", "description"))
    batch = make_product_states(3)
    other = make_product_states(3, seed=2)
    both = {**batch, **{f"description_{k}": other[f"text_{k}"] for k in ("states", "mask")}}
    one = model(drop_product_inputs(both, "description")).logits
    assert not torch.allclose(model(both).logits, one)
    assert torch.isfinite(model(drop_product_inputs(both, "text", "description")).logits).all()


def test_the_order_of_posts_changes_nothing_but_the_order_of_products() -> None:
    batch, order = make_product_states(5), torch.tensor([3, 0, 4, 1, 2])
    turned = {name: tensor[order] for name, tensor in batch.items()}
    for mix in ("align", "cross"):
        model = make_product(mix=mix)
        assert torch.allclose(model(turned).logits, model(batch).logits[order], atol=1e-6)


def test_an_outer_product_too_wide_for_its_layer_is_refused_with_a_width_that_fits() -> None:
    with pytest.raises(RecipeError, match=r"1,073,741,824 weights.*a width of at most 464"):
        make_product(width=1024, mix="cross")
    assert 464**3 <= MAX_PRODUCT_WEIGHTS < 465**3
    with torch.device("meta"):
        wide = make_product(width=1024, mix="cross", layers=0)
    assert wide.head.weight.shape == (2, 1024**2)


@pytest.mark.parametrize("gone", ["image_width", "text_width"])
def test_a_product_of_one_input_is_refused(gone: str) -> None:
    with pytest.raises(RecipeError, match="needs an image and a text"):
        make_product(**{gone: None})


def test_a_label_that_stands_in_image_and_text_together_is_learned() -> None:
    model, batch = make_product(width=16).train(), make_product_states(128)
    image, text = batch["image_states"].mean(1)[:, 0], batch["text_states"][:, 0, 0]
    batch["text_mask"] = torch.tensor([[True, False, False]]).expand(128, 3)
    label = (image * text > 0).long()  # neither side says it alone
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = functional.cross_entropy(model(batch).logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (model.eval()(batch).logits.argmax(1) == label).float().mean() > 0.9


@pytest.mark.parametrize("mix", ["align", "cross"])
def test_hate_clipper_has_a_recipe_on_clip_and_one_on_small_towers(mix: str) -> None:
    published = recipes.load_recipe(f"hate-clipper-{mix}")
    small = recipes.load_recipe(f"hate-clipper-{mix}-mobilenet-minilm")
    for one in (published, small):
        assert one.fusion.kind == "product"
        assert one.fusion.mix == mix
    assert published.fusion.width == 1024
    assert small.image.source == "timm"
