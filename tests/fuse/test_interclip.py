"""CLIP conditioned on text: its own tokens where no word is read."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from miko_clf.data.preprocess import Preprocessing
from miko_clf.encode import tiny_towers
from miko_clf.encode.hf_towers import HfVisionTrunk, load_hf_text_tower
from miko_clf.encode.tower import ImageTower
from miko_clf.errors import EncoderError, RecipeError
from miko_clf.fuse.interclip import InterClip
from miko_clf.fuse.outputs import Batch
from tests.support import checkpoints

PREPROCESS = Preprocessing(
    height=32, width=32, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "clip-tiny"
    checkpoints.clip(path)
    return path


def build(folder: Path, *, layers: int = 1) -> InterClip:
    torch.manual_seed(1)
    image = ImageTower(HfVisionTrunk(CLIPModel.from_pretrained(folder)), PREPROCESS, {})
    text = load_hf_text_tower(str(folder))
    for tower in (image, text):
        tower.requires_grad_(False)
    return InterClip(
        image, text, content_texts=("text",), num_labels=3, layers=layers, width=8, dropout=0.1
    ).eval()


def posts(size: int = 4, length: int = 6, seed: int = 0) -> Batch:
    """Posts with every pattern of missing inputs: whole, no image, no text, neither, over again."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(1, length + 1, (size, 1), generator=random)
    pattern = torch.arange(size) % 4
    return {
        "pixels": torch.randint(0, 256, (size, 3, 32, 32), generator=random).to(torch.uint8),
        "image_present": pattern % 2 == 0,
        "text_ids": torch.randint(2, 8, (size, length), generator=random),
        "text_mask": (torch.arange(length) < ends) & (pattern < 2)[:, None],
    }


@pytest.mark.parametrize("layers", [1, 2])
def test_without_a_text_the_tokens_are_clips_own(folder: Path, layers: int) -> None:
    model, batch = build(folder, layers=layers), posts()
    clip = model.vision(pixel_values=(batch["pixels"].float() / 255 - 0.5) / 0.25)
    same = (model(batch).tokens - clip.last_hidden_state).abs().amax((1, 2)) < 1e-6
    assert same.tolist() == [False, False, True, True]


def test_only_the_top_layers_see_the_text(folder: Path) -> None:
    model, batch = build(folder, layers=1), posts()
    below = model.vision.encoder.layers[0]
    seen: list[Tensor] = []
    below.register_forward_hook(lambda _, __, tokens: seen.append(tokens))
    model(batch)
    model({**batch, "text_ids": batch["text_ids"].flip(1)})
    assert torch.equal(*seen)
    assert len(model.conditions) == 1


def test_absent_words_and_absent_images_change_nothing(folder: Path) -> None:
    model, batch = build(folder), posts()
    logits = model(batch).logits
    padded = {
        **batch,
        "text_ids": functional.pad(batch["text_ids"], (0, 3), value=5),
        "text_mask": functional.pad(batch["text_mask"], (0, 3)),
    }
    assert torch.allclose(model(padded).logits, logits, atol=1e-6)
    changed = (model({**batch, "pixels": 255 - batch["pixels"]}).logits - logits).abs().amax(1)
    assert changed[~batch["image_present"]].max() == 0
    assert changed[batch["image_present"]].min() > 1e-5


def test_the_text_is_pooled_at_clips_end_of_text(folder: Path) -> None:
    model, batch = build(folder), posts(2)
    ids = torch.tensor([[6, 2, 3, 7, 0, 0], [6, 4, 7, 0, 0, 0]])  # 7 is the end of text
    batch |= {"text_ids": ids, "text_mask": ids > 0}
    clip = CLIPModel.from_pretrained(folder).text_model
    wanted = clip(input_ids=ids, attention_mask=(ids > 0).long()).pooler_output
    read: list[Tensor] = []
    model.hidden.register_forward_hook(lambda _, given, __: read.append(given[0][:, 16:]))
    model(batch)
    assert torch.allclose(read[0], wanted, atol=1e-6)


def test_a_layer_is_attention_over_image_and_projected_words(folder: Path) -> None:
    model, batch = build(folder, layers=2), posts(1)
    with torch.no_grad():
        model.conditions[0].gate.fill_(0.5)
    condition, layer = model.conditions[0], model.vision.encoder.layers[0]
    own = layer.layer_norm1(torch.randn(1, 5, 16))
    words = torch.randn(1, 6, 16)
    present = batch["text_mask"]
    memory = torch.cat([own, condition.words(words)[:, present[0]]], dim=1)
    attention = layer.self_attn
    query, key, value = attention.q_proj(own), attention.k_proj(memory), attention.v_proj(memory)
    heads = [
        (q @ k.T / 8**0.5).softmax(-1) @ v
        for q, k, v in zip(*(x[0].split(8, -1) for x in (query, key, value)), strict=True)
    ]
    read = torch.cat(heads, dim=-1)[None]
    wanted = attention.out_proj(read) + np.tanh(0.5) * condition.out(read)
    assert torch.allclose(condition._attend(attention, own, words, present), wanted, atol=1e-5)


def test_every_pattern_of_missing_inputs_is_finite(folder: Path) -> None:
    model = build(folder).train()
    fused = model(posts(8, 1))
    functional.cross_entropy(fused.logits, torch.arange(8) % 3).backward()
    assert torch.isfinite(fused.logits).all()
    assert fused.embedding.shape == (8, 8)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_gradients_reach_adapters_and_head_and_nothing_else(folder: Path) -> None:
    model = build(folder)
    settings = LoraConfig(r=2, target_modules=["k_proj", "v_proj", "out_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tower in (model.image_tower, model.text_tower):
            inject_adapter_in_model(settings, tower.trunk)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model.train()
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    functional.cross_entropy(model(posts()).logits, torch.tensor([0, 1, 2, 0])).backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {n for n, p in model.named_parameters() if p.requires_grad}
    own = ("conditions", "no_image", "no_text", "hidden", "head")
    assert all("lora_" in name or name.startswith(own) for name in learned)
    for half in ("image_tower", "text_tower"):
        for part in ("k_proj", "v_proj", "out_proj"):
            assert any(name.startswith(half) and part in name for name in learned)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters() if n in before)


def test_words_reach_the_vision_layers_without_a_gradient(folder: Path) -> None:
    model, batch = build(folder), posts()
    states = model.encode(batch)["text_states"].requires_grad_()
    kept = {k: v for k, v in batch.items() if k != "text_ids"} | {"text_states": states}
    assert model.split == ("text",)
    fused = model(kept)
    assert torch.equal(fused.logits, model(batch).logits)
    fused.tokens.sum().backward(retain_graph=True)
    assert states.grad is None
    fused.logits.sum().backward()
    assert states.grad.abs().amax(-1).gt(0).sum() == 2  # the last word of each post with a text


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"content_texts": ("text", "description")}, RecipeError, "joined: separated"),
        ({"image_tower": None}, RecipeError, "reads an image and one text"),
        ({"layers": 3}, RecipeError, "fusion.layers 3 is more than the 2"),
        (
            {"image_tower": tiny_towers.build_tiny_image_tower(32, 16)},
            EncoderError,
            "CLIP image tower of trans",
        ),
    ],
)
def test_what_cannot_be_built_says_why(
    folder: Path, changes: dict, error: type[Exception], message: str
) -> None:
    whole = build(folder)
    given = {"image_tower": whole.image_tower, "text_tower": whole.text_tower, "layers": 1,
             "content_texts": ("text",), "num_labels": 2, "width": 8, "dropout": 0.0}  # fmt: skip
    with pytest.raises(error, match=message):
        InterClip(**{**given, **changes})
