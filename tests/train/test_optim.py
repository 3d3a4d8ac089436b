"""What decays and what does not, in every family of towers and in the fusions."""

from pathlib import Path

import pytest
import torch
from torch import nn

from miko_clf.encode import hf_towers, open_clip_towers, t5_tower, timm_towers
from miko_clf.encode.tower import ImageTower, TextTower
from miko_clf.fuse.build import Model, build_model
from miko_clf.recipe import schema as recipes
from miko_clf.recipe.schema import Recipe
from miko_clf.recipe.sections import OptimiserSection
from miko_clf.train.optim import build_optimiser
from tests.support import checkpoints

TOWERS = {
    "bert": hf_towers.load_hf_text_tower,
    "clip": hf_towers.load_hf_image_tower,
    "deberta": hf_towers.load_hf_text_tower,
    "decoder": hf_towers.load_hf_text_tower,
    "dinov2": hf_towers.load_hf_image_tower,
    "dinov3": timm_towers.load_timm_image_tower,
    "eva_clip": open_clip_towers.load_open_clip_image_tower,
    "mobileclip2": open_clip_towers.load_open_clip_image_tower,
    "mpnet": hf_towers.load_hf_text_tower,
    "open_clip_dual": open_clip_towers.load_open_clip_text_tower,
    "open_clip_siglip": open_clip_towers.load_open_clip_image_tower,
    "roberta": hf_towers.load_hf_text_tower,
    "siglip": hf_towers.load_hf_image_tower,
    "test_vit": timm_towers.load_timm_image_tower,
    "test_vit3": timm_towers.load_timm_image_tower,
    "vit": hf_towers.load_hf_image_tower,
}
# Modules whose matrices map vectors; whatever else a module owns itself is learned as a vector.
MAPS = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
PROJECTIONS = ("proj", "text_projection")  # which open_clip keeps as bare parameters


def _load_tower(name: str, folder: Path) -> ImageTower | TextTower:
    if name.startswith("test_"):
        checkpoints.of_timm(folder, name, img_size=32)
    else:
        getattr(checkpoints, name)(folder)
    return TOWERS[name](str(folder), "embedding")


def _list_wrong(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return what decays and should not, and what does not and should."""
    model.requires_grad_(True)
    groups = build_optimiser(model, OptimiserSection(weight_decay=0.1), {}).param_groups
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    owners, wrong, missing = dict(model.named_modules()), [], []
    for name, parameter in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        maps = isinstance(owners[path], MAPS) or leaf in PROJECTIONS
        wanted = maps and parameter.ndim > 1
        if wanted != (id(parameter) in decaying):
            (missing if wanted else wrong).append(name)
    return wrong, missing


@pytest.mark.parametrize("name", TOWERS)
def test_no_embedding_token_or_position_of_a_tower_decays_and_every_map_does(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    assert _list_wrong(_load_tower(name, tmp_path / name)) == ([], [])


def test_no_embedding_of_an_encoder_decoder_decays_even_where_its_head_is_tied(
    tmp_path: Path,
) -> None:
    checkpoints.t5(tmp_path / "t5")
    tower = t5_tower.load_t5_tower(str(tmp_path / "t5"))
    assert _list_wrong(tower) == ([], [])
    words = nn.Embedding(8, 4)
    head = nn.Linear(4, 8, bias=False)
    head.weight = words.weight
    (group,) = build_optimiser(nn.ModuleList([head, words]), OptimiserSection(), {}).param_groups
    assert group["weight_decay"] == 0


def _build(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    checkpoints.mobilenet(folder / "mobilenetv2_100")
    checkpoints.bert(folder / "all-MiniLM-L6-v2")
    monkeypatch.setenv("MIKO_ENCODERS", str(folder))
    return build_model(recipe, ("no", "yes"), ["a burnt cake"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tiny", {"reasoning.generate": 1.0, "fusion.latents": 3}),
        ("mobilenet-minilm-student", {}),
        ("linear-mobilenet-minilm", {"fusion.solver": "adamw", "task.refit": False}),
        ("hate-clipper-cross-mobilenet-minilm", {"fusion.width": 8}),
    ],
)
def test_no_learned_token_of_a_fusion_decays_and_every_map_does(
    name: str, changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _build(recipes.load_recipe(name, changes), tmp_path, monkeypatch)
    assert _list_wrong(model) == ([], [])
