"""What learns of a tower: its last blocks, or adapters; all the rest is the same by hash."""

import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from miko_clf import bundle as bundles
from miko_clf.data.dataset import open_folder
from miko_clf.data.post import Post
from miko_clf.data.preprocess import preprocess_image
from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode import hf_towers, open_clip_towers, timm_towers
from miko_clf.encode.build import build_image_tower, build_text_tower
from miko_clf.encode.feature_cache import ImageFeatures, TextFeatures, fingerprint_tower
from miko_clf.encode.finetune import (
    add_lora,
    count_blocks_above,
    freeze_tower,
    merge_lora,
    unfreeze_blocks,
)
from miko_clf.encode.tower import ImageTower
from miko_clf.errors import EncoderError
from miko_clf.evaluate.predictions import Predictor
from miko_clf.pipeline import fit
from miko_clf.recipe import schema as recipes
from miko_clf.recipe import sections
from miko_clf.train import optim
from tests.support import checkpoints
from tests.support.small_recipes import SMALL_KEYS

TIMM: dict[str, dict[str, Any]] = {
    "test_vit": {"img_size": 32},
    "test_resnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
}
ADAPTERS: dict[str, Any] = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "targets": ("k", "v", "out")}
IMAGES = ["clip", "siglip", "vit", "dinov2", "open-clip", *TIMM]
TEXTS = ["bert", "roberta", "clip", "open-clip"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("learning")
    torch.manual_seed(0)
    for name in ("clip", "siglip", "vit", "dinov2", "bert", "roberta", "deberta", "t5"):
        getattr(checkpoints, name)(root / name)
    for name, arguments in TIMM.items():
        checkpoints.of_timm(root / name, name, **arguments)
    checkpoints.open_clip_dual(root / "open-clip")
    return root


def make(folder: Path, name: str, half: str, output: str = "tokens") -> Any:
    return copy.deepcopy(made(folder, name, half, output))


@functools.cache
def made(folder: Path, name: str, half: str, output: str) -> Any:
    loaders = {
        "hf image": hf_towers.load_hf_image_tower,
        "hf text": hf_towers.load_hf_text_tower,
        "timm image": timm_towers.load_timm_image_tower,
        "open-clip image": open_clip_towers.load_open_clip_image_tower,
        "open-clip text": open_clip_towers.load_open_clip_text_tower,
    }
    source = "timm" if name in TIMM else name if name == "open-clip" else "hf"
    return loaders[f"{source} {half}"](str(folder / name), output)


def given(tower: Any) -> tuple[Tensor, ...]:
    if isinstance(tower, ImageTower):
        shape = (3, 3, tower.preprocess.height, tower.preprocess.width)
        return (torch.randint(0, 256, shape, dtype=torch.uint8),)
    ids = torch.tensor([[2, 3, 4, 5, 7], [5, 2, 7, 0, 0], [4, 4, 3, 7, 0]])
    ids[ids == 0] = tower.words.pad_id
    mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    return ids, mask


def hashes(tower: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()
        for name, tensor in tower.state_dict().items()
    }


def step(tower: Any, times: int = 3) -> None:
    learning = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=0.1)
    for _ in range(times):
        optimiser.zero_grad()
        tower.train()(*given(tower)).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("output", ["tokens", "embedding"])
@pytest.mark.parametrize(
    ("half", "name"), [*(("image", n) for n in IMAGES), *(("text", n) for n in TEXTS)]
)
def test_a_split_tower_is_what_stands_above_what_stands_below(
    half: str, name: str, output: str, folder: Path
) -> None:
    tower = make(folder, name, half, output).eval()
    inputs = given(tower)
    with torch.no_grad():
        wanted = tower(*inputs)
        unfreeze_blocks(tower, 1).eval()
        assert tower.split
        states = tower.below(*inputs)
        assert torch.allclose(tower.above(states, *inputs[1:]), wanted, atol=1e-6)
        assert torch.allclose(tower(*inputs), wanted, atol=1e-6)
    shape = tower.below_shape if half == "image" else (5, tower.below_width)
    assert tuple(states.shape[1:]) == tuple(shape)


@pytest.mark.parametrize(
    ("half", "name"),
    [("image", "vit"), ("image", "test_resnet"), ("image", "test_efficientnet"), ("text", "bert"),
     ("text", "deberta"), ("text", "t5"), ("text", "siglip"), ("image", "open-clip")],
)  # fmt: skip
def test_only_the_last_block_and_its_norm_change_in_training(
    half: str, name: str, folder: Path
) -> None:
    tower = unfreeze_blocks(make(folder, name, half), 1)
    before = hashes(tower)
    step(tower)
    after = hashes(tower)
    changed = {key for key in before if before[key] != after[key]}
    free = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert changed
    assert changed <= free
    under = count_blocks_above(tower)
    assert {under[name] for name in free} == {0}


@pytest.mark.parametrize(
    ("half", "name", "targets"),
    [("image", "clip", ("k", "v", "out")), ("image", "siglip", ("q", "v")),
     ("image", "vit", ("k", "v", "out", "mlp")), ("image", "test_vit", ("q", "k", "v")),
     ("text", "bert", ("k", "v", "out")), ("text", "roberta", ("out", "mlp")),
     ("text", "deberta", ("q", "k", "v")), ("text", "t5", ("k", "v", "out", "mlp")),
     ("text", "open-clip", ("mlp",))],
)  # fmt: skip
def test_adapters_learn_beside_weights_that_stay_and_merge_into_the_tower_itself(
    half: str, name: str, targets: tuple[str, ...], folder: Path
) -> None:
    tower = make(folder, name, half)
    plain, inputs = hashes(tower), given(tower)
    bare = tower.eval()(*inputs)
    add_lora(tower, rank=2, alpha=4.0, dropout=0.5, targets=targets)
    assert torch.allclose(tower.eval()(*inputs), bare, atol=1e-6)
    before = hashes(tower)
    step(tower)
    changed = {key for key, value in hashes(tower).items() if before[key] != value}
    assert changed
    assert all("lora_" in key for key in changed)
    learned = tower.eval()(*inputs)
    assert not torch.allclose(learned, bare, atol=1e-3)
    merge_lora(tower)
    assert hashes(tower).keys() == plain.keys()
    assert not any("peft" in type(module).__module__ for module in tower.modules())
    assert torch.allclose(tower.eval()(*inputs), learned, atol=1e-5)


def test_adapters_have_no_place_in_a_convolutional_net(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"convolutional net has neither; use unfreeze"):
        add_lora(make(folder, "test_resnet", "image"), **ADAPTERS)


@pytest.mark.parametrize("name", ["open-clip", "test_vit"])
def test_packed_attention_is_refused_in_one_line(name: str, folder: Path) -> None:
    with pytest.raises(EncoderError, match="this library packs") as caught:
        add_lora(make(folder, name, "image"), **ADAPTERS)
    assert "\n" not in str(caught.value)


def test_more_blocks_than_there_are_cannot_be_unfrozen(folder: Path) -> None:
    with pytest.raises(EncoderError, match="unfreeze: 4, but the tower has 3 blocks"):
        unfreeze_blocks(make(folder, "vit", "image"), 4)


def test_training_mode_reaches_what_learns_and_never_the_statistics_of_batches(
    folder: Path,
) -> None:
    tower = unfreeze_blocks(make(folder, "test_resnet", "image"), 1).train()
    top = list(tower.trunk.model.layer4.modules())
    awake = {module for module in tower.trunk.modules() if module.training}
    assert awake == {module for module in top[1:] if not isinstance(module, _BatchNorm)}
    text = unfreeze_blocks(make(folder, "bert", "text"), 1).train()
    model = text.trunk.model
    assert model.encoder.layer[1].output.dropout.training
    assert not model.embeddings.dropout.training
    assert not model.encoder.layer[0].output.dropout.training
    assert not any(module.training for module in freeze_tower(text).train().trunk.modules())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_tower_that_learns_as_a_whole_keeps_the_statistics_of_its_batchnorm(
    name: str, folder: Path
) -> None:
    tower = make(folder, name, "image")
    norms = [module for module in tower.modules() if isinstance(module, _BatchNorm)]
    statistics = {key for key, _ in tower.named_buffers() if "running" in key or "num_b" in key}
    before = hashes(tower)
    step(tower)
    changed = {key for key, value in hashes(tower).items() if before[key] != value}
    assert len(statistics) == 3 * len(norms) > 0
    assert not changed & statistics
    assert any(key.endswith("bn1.weight") for key in changed)
    assert {module for module in tower.modules() if not module.training} == set(norms)


def test_what_validation_measured_through_the_average_is_what_the_bundle_scores(
    folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    noise = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        names = [f"{split}-{n}" for n in range(12)]
        rows = [{"id": n, "text": f"cake {n}", "label": "yn"[int(n[-1]) % 2]} for n in names]
        for n, row in enumerate(rows[:9]):  # the others have no image and read a black one
            pixels = noise.integers(0, 100 + 100 * (n % 2), (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / f"{split}-{n}.png")
            row["image"] = f"{split}-{n}.png"
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    image = {"source": "timm", "name": str(folder / "test_resnet"), "frozen": False}
    keys = {**{f"image.{key}": value for key, value in image.items()}, "inputs": ["image", "text"]}
    recipe = recipes.load_recipe(
        "tiny", {**SMALL_KEYS, **keys, "reasoning.epochs": 0, "fusion.slots": False,
                 "fusion.reader": False, "batch_size": 4, "task.optimiser.rate": 0.01,
                 "task.early.metric": "loss"},
    )  # fmt: skip
    path = fit(recipe, open_folder(data), tmp_path / "bundle")
    lines = (path / bundles.METRICS_FILE).read_text().splitlines()
    losses = [row["validation"]["loss"] for row in map(json.loads, lines) if "validation" in row]
    opened = bundles.load_bundle(path)
    predictor = Predictor(opened, open_folder(data).read("val"), None)
    logits = torch.from_numpy(predictor.logits("without"))
    truth = torch.tensor(predictor.feed.labels)
    assert float(nn.functional.cross_entropy(logits, truth)) == pytest.approx(min(losses), abs=1e-6)
    own = made(folder, "test_resnet", "image", "tokens")
    kept = predictor.model.image_tower.state_dict()
    means = {key for key in kept if "running_mean" in key}
    assert all(torch.equal(kept[key], own.state_dict()[key]) for key in means)


def test_the_features_below_are_kept_when_what_is_above_has_learned(
    folder: Path, tmp_path: Path
) -> None:
    tower = unfreeze_blocks(make(folder, "roberta", "text"), 1)
    before = fingerprint_tower(tower)
    rows = [[2, 3, 4], [5, 6], []]
    features = TextFeatures(tmp_path, tower)
    features.fill(rows, "texts")
    step(tower)
    assert fingerprint_tower(tower) == before
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, tower.words.pad_id))
    kept = torch.from_numpy(TextFeatures(tmp_path, tower).states(rows, 3)).float()
    with torch.no_grad():
        wanted, found = tower.eval()(ids, mask), tower.above(kept, mask)
    assert torch.allclose(found[mask], wanted[mask], atol=2e-3, rtol=2e-3)
    assert (
        len(
            {
                before,
                fingerprint_tower(freeze_tower(tower)),
                fingerprint_tower(unfreeze_blocks(tower, 2)),
            }
        )
        == 3
    )


def test_the_grid_below_a_convolutional_block_is_kept_and_read_again(
    folder: Path, tmp_path: Path
) -> None:
    tower = unfreeze_blocks(make(folder, "test_resnet", "image"), 1)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    posts = [Post(id="noise", image=tmp_path / "noise.png"), Post(id="words", text="a cake")]
    features = ImageFeatures(tmp_path / "cache", tower)
    states = torch.from_numpy(features.states(features.fill(posts))).float()
    shown = torch.from_numpy(preprocess_image(tmp_path / "noise.png", tower.preprocess))[None]
    with torch.no_grad():
        wanted, found = tower.eval()(shown), tower.above(states)
    assert found.shape == (2, 1, tower.width)
    assert torch.allclose(found[0], wanted[0], atol=1e-2, rtol=1e-2)


def test_a_recipe_says_what_learns_of_its_towers(folder: Path) -> None:
    place: dict[str, Any] = {"source": "transformers", "name": str(folder / "clip")}
    lora = sections.LoraSection(rank=2, targets=("k", "v"))
    adapted = build_image_tower(sections.ImageTowerSection(**place, lora=lora))
    names = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(names) == 8
    assert all("k_proj.lora_" in name or "v_proj.lora_" in name for name in names)
    top = build_text_tower(sections.TextTowerSection(**place, unfreeze=1), [])
    assert (top.split, top.cached) == (1, True)
    still = build_image_tower(sections.ImageTowerSection(**place, normalise="half"))
    assert still.cached
    assert still.split is None
    assert still.mean.flatten().tolist() == [0.5] * 3
    assert still.plan["preprocess"]["std"] == [0.5] * 3
    free = build_text_tower(sections.TextTowerSection(**place, frozen=False), [])
    assert not free.cached
    assert all(p.requires_grad for p in free.parameters())


def test_each_tower_and_each_block_learns_at_its_own_rate(folder: Path) -> None:
    towers = {
        "text_tower": make(folder, "bert", "text"),
        "image_tower": unfreeze_blocks(make(folder, "test_resnet", "image"), 1),
    }
    model = nn.ModuleDict({**towers, "head": nn.Linear(2, 2)})
    settings = sections.OptimiserSection(rate=0.1, tower_rate=1e-4, weight_decay=0.01)
    paces = {
        "text_tower.": optim.LayerwiseRate(1e-3, 0.5, count_blocks_above(towers["text_tower"])),
        "image_tower.": optim.LayerwiseRate(settings.tower_rate),
    }
    rates = rate_by_name(model, optim.build_optimiser(model, settings, paces))
    layer = "text_tower.trunk.model.encoder.layer.{}.output.dense.weight"
    assert rates[layer.format(1)] == (1e-3, 0.01)
    assert rates[layer.format(0)] == (5e-4, 0.01)
    assert rates["text_tower.trunk.model.embeddings.LayerNorm.weight"] == (2.5e-4, 0.0)
    assert rates["image_tower.trunk.model.layer4.0.conv1.weight"] == (1e-4, 0.01)
    assert rates["head.weight"] == (0.1, 0.01)
    assert not any("layer3" in name for name in rates)


def rate_by_name(model: nn.Module, optimiser: torch.optim.AdamW) -> dict[str, Any]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
