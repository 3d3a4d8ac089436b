"""Zero-shot: labels by their prompts, as CLIP itself does it, and nothing trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from miko_clf.bundle import TOWERS_FILE, WEIGHTS_FILE
from miko_clf.encode.build import write_plans
from miko_clf.encode.hf_towers import load_hf_text_tower
from miko_clf.errors import RecipeError
from miko_clf.fuse.build import Model, build_model, build_preparation, rebuild_model
from miko_clf.fuse.zero_shot import ZeroShotFusion, embed_prompts, set_label_vectors, write_prompts
from miko_clf.recipe import schema as recipes
from tests.support import checkpoints

LABELS = ("burnt", "lovely")
ONE_PROMPT = {"burnt": ["a burnt cake beach"], "lovely": ["lovely beach"]}
DUAL = ("clip", "metaclip2", "siglip", "open_clip_dual", "open_clip_siglip", "mobileclip2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dual")
    torch.manual_seed(0)
    for name in (*DUAL, "bert"):
        getattr(checkpoints, name)(root / name)
    return root


def build(folder: Path, name: str = "clip", text: bool = False, **fusion: Any) -> Model:
    return build_model(make_recipe(folder, name, text, **fusion), LABELS, [])


def make_recipe(folder: Path, name: str, text: bool, **fusion: Any) -> recipes.Recipe:
    source = "open_clip" if name.startswith(("open_clip", "mobileclip")) else "transformers"
    tower = {"source": source, "name": str(folder / name), "output": "embedding"}
    values = {
        "name": "zero",
        "inputs": ["image", "text"] if text else ["image"],
        "image": tower,
        "text": {**tower, "max_length": 8},
        "fusion": {"kind": "zero_shot", "prompts": ONE_PROMPT, **fusion},
        "task": {"epochs": 0},
    }
    return recipes.parse_recipe(values, "zero.yaml")


def draw_pixels(model: Model, posts: int = 3) -> dict[str, Tensor]:
    assert model.image_tower is not None
    size = (posts, 3, model.image_tower.preprocess.height, model.image_tower.preprocess.width)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, size, generator=random).to(torch.uint8)
    return {"pixels": pixels, "image_present": torch.ones(posts, dtype=torch.bool)}


def add_text(model: Model, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    assert model.text_tower is not None
    row = model.text_tower.words.encode(["a sunny cake beach"], 8)[0]
    ids = torch.tensor([row] * len(batch["pixels"]))
    return {**batch, "text_ids": ids, "text_mask": torch.ones_like(ids, dtype=torch.bool)}


@torch.no_grad()
def test_the_logits_are_those_of_clip_itself(folder: Path) -> None:
    model = build(folder).eval()
    batch = draw_pixels(model)
    own = AutoModel.from_pretrained(folder / "clip").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "clip")
    texts = tokenizer([ONE_PROMPT[label][0] for label in LABELS], padding=True, return_tensors="pt")
    seen = (batch["pixels"] / 255 - model.image_tower.mean) / model.image_tower.std
    wanted = own(pixel_values=seen, **texts).logits_per_image
    assert torch.allclose(model(batch).logits, wanted, atol=1e-4)


@pytest.mark.parametrize("name", DUAL)
def test_every_dual_encoder_brings_its_own_scale_and_trains_nothing(
    name: str, folder: Path
) -> None:
    model = build(folder, name)
    assert isinstance(model.fusion, ZeroShotFusion)
    scale = load_scale(folder / name)
    assert model.fusion.scale.item() == pytest.approx(scale)
    norms = model.fusion.label_vectors.norm(dim=1)
    assert torch.allclose(norms, torch.ones(2), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    largest = model.eval()(draw_pixels(model)).logits.abs().max().item()
    assert 0 < largest <= scale * 1.0001


def load_scale(path: Path) -> float:
    if (path / "open_clip_pytorch_model.bin").exists():
        return torch.load(path / "open_clip_pytorch_model.bin")["logit_scale"].exp().item()
    return AutoModel.from_pretrained(path).logit_scale.exp().item()


@torch.no_grad()
def test_a_label_is_the_mean_of_the_unit_embeddings_of_its_prompts(folder: Path) -> None:
    tower = load_hf_text_tower(str(folder / "clip"), "embedding").eval()
    both = ["a burnt cake beach", "lovely beach"]
    one, two = (embed_prompts(tower, [[prompt]])[0] for prompt in both)
    together = embed_prompts(tower, [both])[0]
    assert torch.allclose(together, functional.normalize(one + two, dim=0), atol=1e-6)
    assert torch.allclose(embed_prompts(tower, [both[::-1]])[0], together, atol=1e-6)


@torch.no_grad()
def test_image_and_text_count_alike(folder: Path) -> None:
    model = build(folder, text=True).eval()
    both = add_text(model, draw_pixels(model))
    image = {**both, "text_mask": torch.zeros_like(both["text_mask"])}
    text = {**both, "image_present": torch.zeros_like(both["image_present"])}
    halves = model(image).embedding + model(text).embedding
    assert torch.allclose(model(both).embedding, functional.normalize(halves, dim=1), atol=1e-6)


@torch.no_grad()
def test_a_post_of_nothing_is_any_label_alike(folder: Path) -> None:
    model = build(folder).eval()
    batch = {**draw_pixels(model), "image_present": torch.zeros(3, dtype=torch.bool)}
    assert torch.equal(model(batch).logits, torch.zeros(3, 2))


@torch.no_grad()
def test_an_image_alone_needs_no_text_tower_once_the_prompts_are_read(
    folder: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(folder, "clip", text=False)
    model = build_model(recipe, LABELS, []).eval()
    assert model.text_tower is None
    assert build_preparation(recipe, model).texts == ()
    write_plans(tmp_path / TOWERS_FILE, model.image_tower, model.text_tower)
    assert json.loads((tmp_path / TOWERS_FILE).read_text())["text"] is None
    save_file(model.state_dict(), tmp_path / WEIGHTS_FILE)
    again, batch = rebuild_model(tmp_path, recipe, LABELS, None), draw_pixels(model)
    assert model(batch).logits.std() > 0
    assert torch.allclose(again(batch).logits, model(batch).logits, atol=1e-6)


def test_a_label_has_its_own_prompts_or_the_templates_with_its_name() -> None:
    written = write_prompts(
        ("very_harmful", "harmless"),
        ("a {label} meme.", "{label}, a {label} post"),
        {"harmless": ["a kind picture"]},
    )
    assert written == [["a very harmful meme.", "very harmful, a very harmful post"],
                       ["a kind picture"]]  # fmt: skip


def test_prompts_of_what_is_no_label_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"no label called 'lovly'; there are .*mean 'lovely'"):
        build(folder, prompts={"lovly": ["lovely"]})


def test_an_encoder_of_text_alone_is_refused(folder: Path) -> None:
    tower = load_hf_text_tower(str(folder / "bert"), "embedding")
    fusion = ZeroShotFusion(width=16, text_pool="mean", content_texts=(), num_labels=1)
    with pytest.raises(RecipeError, match="has a logit scale; name a CLIP or a SigLIP"):
        set_label_vectors(fusion, tower, [["a cake"]])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"task": {"epochs": 3}}, "nothing to train; set task.epochs: 0"),
        ({"text": None}, "a text tower is given exactly where .* zero_shot reads prompts"),
        ({"inputs": ["text"], "image": None}, "compares images with prompts; name image"),
        ({"image": {"source": "timm", "name": "vit"}}, "two halves of one encoder; .* not 'vit'"),
        ({"image": {"source": "transformers", "name": "c"}}, "set image.output and text.output"),
        ({"joined": "separated"}, "joined says how texts become one"),
        ({"task": {"epochs": 0, "retrieval": {}}}, "learns from no post; leave out task.retr"),
        ({"fusion": {"kind": "zero_shot", "templates": ["a post"]}}, "prompts with {label} where"),
        ({"fusion": {"kind": "zero_shot", "prompts": {"a": []}}}, "label 'a' are blank or none"),
    ],
)
def test_a_zero_shot_recipe_that_cannot_be_says_why(change: dict[str, Any], line: str) -> None:
    tower = {"source": "transformers", "name": "c", "output": "embedding"}
    values = {"name": "zero", "inputs": ["image"], "image": tower, "text": tower}
    values |= {"fusion": {"kind": "zero_shot"}, "task": {"epochs": 0}}
    recipes.parse_recipe(values, "zero.yaml")
    with pytest.raises(RecipeError, match=line):
        recipes.parse_recipe({**values, **change}, "zero.yaml")
