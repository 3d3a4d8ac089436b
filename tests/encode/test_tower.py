"""Towers of every family say what their own library says of the same picture and text."""

import io
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
    for name in ("clip", "siglip", "vit", "dinov2", "bert", "roberta", "mpnet", "deberta", "t5"):
        getattr(checkpoints, name)(root / name)
    for name, (architecture, arguments) in TIMM.items():
        checkpoints.of_timm(root / name, architecture, **arguments)
    checkpoints.open_clip_dual(root / "open-clip")
    checkpoints.open_clip_siglip(root / "open-clip-siglip")
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


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "dinov2"])
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


@pytest.mark.parametrize("name", TIMM)
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


@pytest.mark.parametrize("name", ["open-clip", "open-clip-siglip"])
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


def test_the_text_embedding_of_clip_is_its_last_word_projected(folder: Path) -> None:
    texts = [f"{text} beach" for text in TEXTS]  # the tiny checkpoint ends texts with this word
    given = AutoTokenizer.from_pretrained(folder / "clip")(texts, padding=True, return_tensors="pt")
    own = AutoModel.from_pretrained(folder / "clip").eval()
    tower = hf_towers.load_hf_text_tower(str(folder / "clip"), "embedding")
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
    assert torch.allclose(states[mask], wanted[mask], atol=1e-5)
    one, mask = read(hf_towers.load_hf_text_tower(str(folder / "siglip"), "embedding"), TEXTS)
    for pool in ("mean", "first", "last"):
        assert torch.allclose(pool_states(one, mask, pool), output.pooler_output, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pool", "limit"),
    [("bert", "mean", 16), ("roberta", "first", 16), ("mpnet", "mean", 16), ("clip", "last", 16)],
)
def test_a_text_tower_knows_its_limit_and_how_it_pools(
    name: str, pool: str, limit: int, folder: Path
) -> None:
    tower = hf_towers.load_hf_text_tower(str(folder / name))
    assert (tower.pool, tower.limit) == (pool, limit)
    states, _ = read(tower, ["a burnt cake " * 20])
    assert states.shape[1] == limit


@pytest.mark.parametrize("output", ["tokens", "embedding"])
@pytest.mark.parametrize("name", ["siglip", "vit", "timm-vit", "open-clip-siglip"])
def test_a_bundle_rebuilds_the_same_tower_without_weights(
    name: str, output: str, folder: Path, tmp_path: Path
) -> None:
    source = {"timm-vit": "timm", "open-clip-siglip": "open_clip"}.get(name, "transformers")
    section = {"name": str(folder / name), "source": source, "output": output}
    image = build_image_tower(sections.ImageTowerSection(**section))
    speaks = name in ("siglip", "open-clip-siglip")
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
    assert torch.equal(image.eval()(probe), again.eval()(probe))
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
