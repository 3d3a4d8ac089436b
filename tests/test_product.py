"""Image and text meet in a product: align and cross, as in Hate-CLIPper."""

from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from miko_clf import recipe as recipes
from miko_clf.errors import RecipeError
from miko_clf.export import to_onnx
from miko_clf.fuse.pooled import Pooled
from miko_clf.fuse.product import LARGEST, Product, outer
from miko_clf.fuse.vote import Vote

Batch = dict[str, Tensor]


def fusion(**changed: object) -> Product:
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
    return Product(**{**values, **changed}).eval()


def states(posts: int, words: int = 3, seed: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(1, words + 1, (posts, 1), generator=random)
    return {
        "image_states": torch.randn(posts, 4, 6, generator=random),
        "image_present": torch.ones(posts, dtype=torch.bool),
        "text_states": torch.randn(posts, words, 5, generator=random),
        "text_mask": torch.arange(words) < ends,
    }


def without(batch: Batch, *names: str) -> Batch:
    keys = ["image_present" if name == "image" else f"{name}_mask" for name in names]
    return {k: torch.zeros_like(v) if k in keys else v for k, v in batch.items()}


def by_hand(model: Product) -> Product:
    """Let the projections pass the first channels of image and text as they are."""
    with torch.no_grad():
        for side in (model.image, model.text):
            linear = side.project[1]
            linear.weight.copy_(torch.eye(*linear.weight.shape))
            linear.bias.zero_()
    return model


def meeting(model: Product) -> Tensor:
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
    embedding = meeting(by_hand(fusion(**NARROW, mix="align")))
    assert torch.allclose(embedding, torch.tensor([0.36, 0.64]), atol=1e-6)


def test_crossed_vectors_of_unit_length_give_their_outer_product() -> None:
    embedding = meeting(by_hand(fusion(**NARROW, mix="cross")))
    assert torch.allclose(embedding, torch.tensor([0.36, 0.48, 0.48, 0.64]), atol=1e-6)


def test_the_outer_product_has_the_image_in_rows_and_the_text_in_columns() -> None:
    image, text = torch.randn(3, 4), torch.randn(3, 4)
    wanted = torch.stack([torch.outer(*pair) for pair in zip(image, text, strict=True)])
    assert torch.allclose(outer(image, text), wanted.flatten(1))


def test_the_embedding_is_the_last_hidden_layer_before_its_activation() -> None:
    model = fusion(layers=2)
    fused = model(states(3))
    assert fused.embedding.shape == (3, 8)
    assert (fused.embedding < 0).any()
    assert torch.allclose(fused.logits, model.head(functional.relu(fused.embedding)), atol=1e-6)


@pytest.mark.parametrize("mix", ["align", "cross"])
@pytest.mark.parametrize("gone", [(), ("image",), ("text",), ("image", "text")])
def test_any_subset_of_inputs_gives_finite_logits(mix: str, gone: tuple[str, ...]) -> None:
    model = fusion(mix=mix).train()
    fused = model(without(states(3), *gone))
    fused.logits.sum().backward()
    assert torch.isfinite(fused.logits).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_absent_side_is_a_learned_vector_and_leaves_the_other_one_readable() -> None:
    model = fusion(layers=0)
    batch = without(states(3), "text")
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
    model = fusion(content_texts=("text", "description"))
    batch = states(3)
    other = states(3, seed=2)
    both = {**batch, **{f"description_{k}": other[f"text_{k}"] for k in ("states", "mask")}}
    one = model(without(both, "description")).logits
    assert not torch.allclose(model(both).logits, one)
    assert torch.isfinite(model(without(both, "text", "description")).logits).all()


def test_the_order_of_posts_changes_nothing_but_the_order() -> None:
    batch, order = states(5), torch.tensor([3, 0, 4, 1, 2])
    turned = {name: tensor[order] for name, tensor in batch.items()}
    for mix in ("align", "cross"):
        model = fusion(mix=mix)
        assert torch.allclose(model(turned).logits, model(batch).logits[order], atol=1e-6)


def test_an_outer_product_too_wide_for_its_layer_is_refused_with_a_width_that_fits() -> None:
    with pytest.raises(RecipeError, match=r"1,073,741,824 weights.*a width of at most 464"):
        fusion(width=1024, mix="cross")
    assert 464**3 <= LARGEST < 465**3
    with torch.device("meta"):
        wide = fusion(width=1024, mix="cross", layers=0)
    assert wide.head.weight.shape == (2, 1024**2)


@pytest.mark.parametrize("gone", ["image_width", "text_width"])
def test_a_product_of_one_input_is_refused(gone: str) -> None:
    with pytest.raises(RecipeError, match="needs an image and a text"):
        fusion(**{gone: None})


def test_a_label_that_stands_in_image_and_text_together_is_learned() -> None:
    model, batch = fusion(width=16).train(), states(128)
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


NAMES = ("image_states", "image_present", "text_states", "text_mask")


class _Together(nn.Module):
    """The baseline, a product and a vote behind it, called with tensors in a fixed order."""

    def __init__(self, pooled: Pooled, product: Product, vote: Vote) -> None:
        super().__init__()
        self.pooled, self.product, self.vote = pooled, product, vote

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch = dict(zip(NAMES, tensors, strict=True))
        fused = self.product(batch)
        return self.pooled(batch).logits, fused.logits, self.vote(fused.logits, fused.embedding)


def together() -> _Together:
    """A baseline with a hidden layer, and a crossed product with a vote of 5 among 40 posts."""
    keys = torch.randn(40, 8, generator=torch.Generator().manual_seed(3))
    keys[20:30] = keys[:10].clone()  # copies under another label
    vote = Vote(keys, torch.arange(40) // 20, num_labels=2, neighbours=5, share=0.5)
    pooled = Pooled(
        image_width=6,
        num_image_tokens=4,
        text_width=5,
        text_pool="last",
        content_texts=("text",),
        num_labels=2,
        hidden=4,
        dropout=0.1,
        input_dropout=0.1,
    )
    return _Together(pooled, fusion(mix="cross", layers=2), vote).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Together, Path]:
    """All three, and their graph."""
    model, path = together(), tmp_path_factory.mktemp("product") / "product.onnx"
    post, word = Dim("post", min=1, max=64), Dim("word", min=1, max=64)
    shapes = ({0: post}, {0: post}, {0: post, 1: word}, {0: post, 1: word})
    batch = states(3)
    jaxtyping.config.update("jaxtyping_disable", True)  # shapes are symbols while exporting
    try:
        with to_onnx._quiet():
            torch.onnx.export(
                model,
                tuple(batch.values()),
                path,
                input_names=NAMES,
                dynamic_shapes={"tensors": shapes},
                opset_version=to_onnx.OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return model, path


def test_baseline_product_and_vote_say_in_the_graph_what_they_say_in_torch(
    exported: tuple[_Together, Path],
) -> None:
    model, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for gone in ((), ("image",), ("text",), ("image", "text")):
        for posts, words in ((1, 1), (3, 2), (8, 9)):
            batch = without(states(posts, words), *gone)
            with torch.inference_mode():
                wanted = model(*batch.values())
            found = session.run(None, {name: value.numpy() for name, value in batch.items()})
            for one, other in zip(found, wanted, strict=True):
                assert np.abs(one - other.numpy()).max() < 1e-4, (gone, posts, words)


@pytest.mark.parametrize("mix", ["align", "cross"])
def test_hate_clipper_has_a_recipe_on_clip_and_one_on_small_towers(mix: str) -> None:
    published = recipes.load(f"hate-clipper-{mix}")
    small = recipes.load(f"hate-clipper-{mix}-mobilenet-minilm")
    for one in (published, small):
        assert one.fusion.kind == "product"
        assert one.fusion.mix == mix
    assert published.fusion.width == 1024
    assert small.image.source == "timm"
