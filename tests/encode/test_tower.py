"""Towers of every family say what their own library says of the same picture and text."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from miko_clf.data.preprocess import Preprocessing, preprocess_image
from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode import hf_towers, open_clip_towers, preprocess_parity, timm_towers
from miko_clf.encode.build import build_image_tower, build_text_tower, rebuild_towers, write_plans
from miko_clf.encode.tower import ImageTower, TextTower, pool_states
from miko_clf.errors import EncoderError
from miko_clf.recipe import sections
from tests.support import checkpoints

TEXTS = ["a burnt cake", "lovely burnt a cake cake"]
TIMM = {
    "timm-vit": ("test_vit", {"img_size": 32}),
    "resnet": ("test_resnet", {}),
    "convnext": ("test_convnext", {}),
    "efficientnet": ("test_efficientnet", {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random checkpoints of every family, as each library itself writes them."""
    root = tmp_path_factory.mktemp("families")
    torch.manual_seed(0)
    own = ("clip", "metaclip2", "siglip", "siglip2", "vit", "dinov2", "dinov3")
    for name in (*own, "bert", "roberta", "mpnet", "deberta", "t5"):
        getattr(checkpoints, name)(root / name)
    for name, (architecture, arguments) in TIMM.items():
        checkpoints.of_timm(root / name, architecture, **arguments)
    checkpoints.open_clip_dual(root / "open-clip")
    checkpoints.open_clip_siglip(root / "open-clip-siglip")
    checkpoints.eva_clip(root / "eva-clip")
    checkpoints.mobileclip2(root / "mobileclip2")
    return root


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def seen(tower: ImageTower, path: Path) -> Tensor:
    with torch.no_grad():
        return tower.eval()(torch.from_numpy(preprocess_image(path, tower.preprocess))[None])


def read(tower: TextTower, texts: list[str]) -> tuple[Tensor, Tensor]:
    rows = tower.words.encode(texts, tower.limit)
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, tower.words.pad_id))
    with torch.no_grad():
        return tower.eval()(ids, mask), mask


@pytest.mark.parametrize("name", ["clip", "metaclip2", "siglip", "vit", "dinov2"])
def test_an_image_tower_of_transformers_says_what_transformers_says(
    name: str, folder: Path, picture: Path
) -> None:
    own = AutoModel.from_pretrained(folder / name).eval()
    processor = AutoImageProcessor.from_pretrained(folder / name, backend="pil")
    given = processor(Image.open(picture), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = getattr(own, "vision_model", own)(pixel_values=given)
        ask = getattr(own, "get_image_features", None)
        embedding = ask(pixel_values=given).pooler_output if ask else output.pooler_output
    tokens = hf_towers.load_hf_image_tower(str(folder / name))
    one = hf_towers.load_hf_image_tower(str(folder / name), "embedding")
    assert torch.allclose(seen(tokens, picture), output.last_hidden_state, atol=1e-5)
    assert torch.allclose(seen(one, picture)[:, 0], embedding, atol=1e-5)
    assert one.num_tokens == 1


@pytest.mark.parametrize("name", [*TIMM, "dinov3"])
def test_an_image_tower_of_timm_says_what_timm_says(name: str, folder: Path, picture: Path) -> None:
    own = timm.create_model(f"local-dir:{folder / name}", pretrained=True, num_classes=0).eval()
    see = timm.data.create_transform(**timm.data.resolve_model_data_config(own))
    given = see(Image.open(picture))[None]
    with torch.no_grad():
        states, embedding = own.forward_features(given), own(given)
    wanted = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
    tokens = timm_towers.load_timm_image_tower(str(folder / name))
    assert torch.allclose(seen(tokens, picture), wanted, atol=1e-5)
    one = timm_towers.load_timm_image_tower(str(folder / name), "embedding")
    assert torch.allclose(seen(one, picture)[:, 0], embedding, atol=1e-5)


@pytest.mark.parametrize("name", ["open-clip", "open-clip-siglip", "eva-clip", "mobileclip2"])
def test_both_towers_of_open_clip_say_what_open_clip_says(
    name: str, folder: Path, picture: Path
) -> None:
    address = f"local-dir:{folder / name}"
    own, _, see = open_clip.create_model_and_transforms(address, force_custom_text=True)
    own.eval()
    image = open_clip_towers.load_open_clip_image_tower(str(folder / name), "embedding")
    text = open_clip_towers.load_open_clip_text_tower(str(folder / name), "embedding")
    said = open_clip.get_tokenizer(address)([f"A {TEXTS[0].upper()}!", TEXTS[1]])
    with torch.no_grad():
        wanted = own.encode_image(see(Image.open(picture))[None])
        worded = own.encode_text(said)
    assert torch.allclose(seen(image, picture)[:, 0], wanted, atol=1e-5)
    states, mask = read(text, [f"A {TEXTS[0].upper()}!", TEXTS[1]])
    assert torch.allclose(pool_states(states, mask, text.pool), worded, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "deberta", "t5"])
def test_a_text_tower_of_transformers_says_what_transformers_says(name: str, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    own = AutoModel.from_pretrained(folder / name).eval()
    own = own.get_encoder() if name == "t5" else own
    given = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        wanted = own(**given).last_hidden_state
    states, mask = read(hf_towers.load_hf_text_tower(str(folder / name)), TEXTS)
    assert torch.equal(mask, given["attention_mask"].bool())
    assert torch.allclose(states[mask], wanted[mask], atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "metaclip2"])
def test_the_text_embedding_of_clip_is_its_last_word_projected(name: str, folder: Path) -> None:
    ended = name == "metaclip2"  # by its tokenizer; the tiny CLIP's leaves it to the texts
    texts = TEXTS if ended else [f"{text} beach" for text in TEXTS]
    given = AutoTokenizer.from_pretrained(folder / name)(texts, padding=True, return_tensors="pt")
    own = AutoModel.from_pretrained(folder / name).eval()
    tower = hf_towers.load_hf_text_tower(str(folder / name), "embedding")
    with torch.no_grad():
        wanted = own.get_text_features(given["input_ids"], given["attention_mask"]).pooler_output
    states, mask = read(tower, texts)
    assert tower.pool == "last"
    assert torch.allclose(pool_states(states, mask, tower.pool), wanted, atol=1e-5)


def test_siglip_reads_its_padding_and_its_one_embedding_stands_at_every_word(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "siglip")
    own = AutoModel.from_pretrained(folder / "siglip").eval()
    given = tokenizer(TEXTS, padding="max_length", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = own.text_model(input_ids=given)
    states, mask = read(hf_towers.load_hf_text_tower(str(folder / "siglip")), TEXTS)
    wanted = output.last_hidden_state[:, : states.shape[1]]
    inner = [range(length - 1) for length in mask.sum(1)]  # at the last stands the pooled place
    for row, places in enumerate(inner):
        assert torch.allclose(states[row, places], wanted[row, places], atol=1e-5)
    one, mask = read(hf_towers.load_hf_text_tower(str(folder / "siglip"), "embedding"), TEXTS)
    for pool in ("mean", "first", "last"):
        assert torch.allclose(pool_states(one, mask, pool), output.pooler_output, atol=1e-5)


def test_siglip_reads_texts_in_lower_case_as_it_was_trained(folder: Path) -> None:
    words = hf_towers.load_hf_text_tower(str(folder / "siglip")).words
    assert words.encode(["A BURNT Cake"], 8) == words.encode(["a burnt cake"], 8)
    cased = hf_towers.load_hf_text_tower(str(folder / "metaclip2")).words
    assert cased.encode(["A BURNT Cake"], 8) != cased.encode(["a burnt cake"], 8)


SHORT_AND_FULL = ["a burnt cake", "lovely burnt a cake cake lovely a cake cake", "cake"]


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_the_state_that_siglip_pools_is_that_of_its_last_place_padding_or_not(
    name: str, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    own = AutoModel.from_pretrained(folder / name).eval()
    texts = SHORT_AND_FULL
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    tower = hf_towers.load_hf_text_tower(str(folder / name))
    states, mask = read(tower, texts)
    pooled = pool_states(states, mask, tower.pool)
    with torch.no_grad():
        output = own.text_model(input_ids=given["input_ids"])
        assert torch.allclose(pooled, output.last_hidden_state[:, -1], atol=1e-5)
        assert torch.allclose(own.text_model.head(pooled), output.pooler_output, atol=1e-5)
    lengths = mask.sum(1).tolist()
    assert min(lengths) < max(lengths) == 8
    states, mask = read(tower, [*texts, ""])
    assert torch.isfinite(states).all()
    assert not pool_states(states, mask, tower.pool)[-1].any()


def test_the_pooled_state_of_a_text_in_windows_is_that_of_its_last_window(folder: Path) -> None:
    tower = hf_towers.load_hf_text_tower(str(folder / "siglip"))
    last = pool_states(*read(tower, ["lovely cake a"]), "last")
    rows = tower.words.encode(
        ["burnt a a cake sunny a sunny lovely cake a"], 16, window=8, long="chunk"
    )
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, tower.words.pad_id))
    with torch.no_grad():
        assert torch.allclose(pool_states(tower(ids, mask), mask, "last"), last, atol=1e-5)
    assert ids.shape[1] == 12


@pytest.mark.parametrize("output", ["tokens", "embedding"])
@pytest.mark.parametrize(
    ("pool", "is_causal"),
    [("last", False), ("last", True), ("first", False), ("first", True), ("eos", True),
     ("argmax", True), ("argmax", False)],
)  # fmt: skip
def test_a_text_of_open_clip_is_pooled_where_open_clip_pools_it(
    pool: str, is_causal: bool, output: str, folder: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(folder / "open-clip-siglip", tmp_path / "variant")
    config = json.loads((path / "open_clip_config.json").read_text())
    changes = {"pool_type": pool, "no_causal_mask": not is_causal, "eos_id": 7}
    config["model_cfg"]["text_cfg"].update(changes)
    (path / "open_clip_config.json").write_text(json.dumps(config))
    texts = SHORT_AND_FULL
    own = open_clip.create_model(f"local-dir:{path}", force_custom_text=True).eval()
    tower = open_clip_towers.load_open_clip_text_tower(str(path), output)
    write_plans(tmp_path / "towers.json", None, tower)
    again = rebuild_towers(tmp_path / "towers.json", tower.words)[1]
    again.load_state_dict(tower.state_dict())
    with torch.no_grad():
        wanted = own.encode_text(open_clip.get_tokenizer(f"local-dir:{path}")(texts))
        for one in (tower, again):
            states, mask = read(one, texts)
            pooled = pool_states(states, mask, one.pool)
            found = pooled if output == "embedding" else own.text.text_projection(pooled)
            assert torch.allclose(found, wanted, atol=1e-5)


def test_an_embedding_of_siglip_without_its_pooling_head_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    model = AutoModel.from_pretrained(folder / "siglip").vision_model
    model.config.vision_use_head = False
    headless = type(model)(model.config)
    headless.save_pretrained(tmp_path / "headless")
    AutoImageProcessor.from_pretrained(folder / "siglip").save_pretrained(tmp_path / "headless")
    with pytest.raises(EncoderError, match="no pooled embedding; set output: tokens"):
        hf_towers.load_hf_image_tower(str(tmp_path / "headless"), "embedding")
    hf_towers.load_hf_image_tower(str(tmp_path / "headless"))


@pytest.mark.parametrize(
    ("name", "pool", "limit"),
    [
        ("bert", "mean", 16),
        ("roberta", "first", 16),
        ("mpnet", "mean", 16),
        ("clip", "last", 16),
        ("metaclip2", "last", 16),
    ],
)
def test_a_text_tower_knows_its_limit_and_how_it_pools(
    name: str, pool: str, limit: int, folder: Path
) -> None:
    tower = hf_towers.load_hf_text_tower(str(folder / name))
    assert (tower.pool, tower.limit) == (pool, limit)
    states, _ = read(tower, ["a burnt cake " * 20])
    assert states.shape[1] == limit


@pytest.mark.parametrize("output", ["tokens", "embedding"])
@pytest.mark.parametrize(
    "name",
    ["siglip", "metaclip2", "vit", "timm-vit", "dinov3", "open-clip-siglip", "eva-clip",
     "mobileclip2"],
)  # fmt: skip
def test_a_bundle_rebuilds_the_same_tower_without_weights(
    name: str, output: str, folder: Path, tmp_path: Path
) -> None:
    own = {"timm-vit": "timm", "dinov3": "timm"}
    own |= dict.fromkeys(("open-clip-siglip", "eva-clip", "mobileclip2"), "open_clip")
    source = own.get(name, "transformers")
    section = {"name": str(folder / name), "source": source, "output": output}
    image = build_image_tower(sections.ImageTowerSection(**section))
    speaks = name not in ("vit", "timm-vit", "dinov3")
    text = (
        build_text_tower(sections.TextTowerSection(**section, long="chunk"), []) if speaks else None
    )
    write_plans(tmp_path / "towers.json", image, text)
    again, text_again = rebuild_towers(tmp_path / "towers.json", text.words if text else None)
    for one, two in ((image, again), (text, text_again)):
        if one is not None:
            two.load_state_dict(one.state_dict())
            assert two.width == one.width
    probe = torch.full((1, 3, image.preprocess.height, image.preprocess.width), 80).to(torch.uint8)
    # Where weights lie in memory decides which kernel multiplies them: the last bits differ.
    assert torch.allclose(image.eval()(probe), again.eval()(probe), atol=1e-6)
    assert text is None or (text_again.chunked and text_again.pool == text.pool)


def test_a_checkpoint_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folder / "bert")
    state = {k: v for k, v in model.state_dict().items() if "layer.1.output" not in k}
    model.save_pretrained(tmp_path / "holes", state_dict=state)
    AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(tmp_path / "holes")
    with pytest.raises(EncoderError, match=r"lack 4 parameters, encoder\.layer\.1\.output"):
        hf_towers.load_hf_text_tower(str(tmp_path / "holes"))


@pytest.mark.parametrize(
    "change",
    [{"half": "even", "height": 29, "width": 29}, {"resample": "bilinear"}, {"resize": "squash"},
     {"mean": (0.5, 0.5, 0.5)}, {"std": (0.25, 0.25, 0.25)}],
)  # fmt: skip
def test_a_tower_that_would_be_served_other_pictures_is_not_built(change: dict[str, Any]) -> None:
    theirs = Preprocessing(height=28, width=28, half="down", mean=(0.4,) * 3, std=(0.3,) * 3)
    ours = theirs.model_copy(update=change)

    def see(image: Image.Image) -> np.ndarray:
        path = as_png(image)
        array = preprocess_image(path, theirs) / 255
        return (array - np.reshape(theirs.mean, (3, 1, 1))) / np.reshape(theirs.std, (3, 1, 1))

    assert preprocess_parity.check_preprocessing(theirs, see, "the same") < 1e-6
    with pytest.raises(EncoderError, match="grey levels on average"):
        preprocess_parity.check_preprocessing(ours, see, "another")


def test_a_processor_that_rescales_otherwise_stops_the_building(
    folder: Path, tmp_path: Path
) -> None:
    AutoModel.from_pretrained(folder / "vit").save_pretrained(tmp_path / "vit")
    processor = AutoImageProcessor.from_pretrained(folder / "vit")
    processor.rescale_factor = 1 / 127.5
    processor.save_pretrained(tmp_path / "vit")
    with pytest.raises(EncoderError, match="grey levels"):
        hf_towers.load_hf_image_tower(str(tmp_path / "vit"))


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
