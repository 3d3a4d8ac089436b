"""The cache says what the towers say, and outlives kills; towers come from plans alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from miko_clf.data.post import Post
from miko_clf.data.preprocess import preprocess_image
from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode import (
    hf_towers,
    open_clip_towers,
    t5_tower,
    timm_towers,
    tiny_towers,
    tower,
)
from miko_clf.encode.build import build_image_tower, build_text_tower, rebuild_towers, write_plans
from miko_clf.encode.feature_cache import (
    FeatureStore,
    ImageFeatures,
    TextFeatures,
    fingerprint_tower,
)
from miko_clf.errors import EncoderError
from miko_clf.recipe import sections
from tests.support import checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random checkpoints as each library itself writes them."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    checkpoints.bert(root / "bert")
    checkpoints.clip(root / "clip")
    checkpoints.mobilenet(root / "mobilenet")
    checkpoints.open_clip_dual(root / "open-clip")
    checkpoints.of_timm(root / "resnet", "test_resnet", act_layer="relu")
    checkpoints.t5(root / "t5")
    return root


LOADERS: dict[str, Any] = {
    "bert text": hf_towers.load_hf_text_tower,
    "clip text": hf_towers.load_hf_text_tower,
    "clip image": hf_towers.load_hf_image_tower,
    "open-clip text": open_clip_towers.load_open_clip_text_tower,
    "open-clip image": open_clip_towers.load_open_clip_image_tower,
    "resnet image": timm_towers.load_timm_image_tower,
    "t5 text": t5_tower.load_t5_tower,
}


def load(which: str, folder: Path) -> Any:
    """Return a tower of the checkpoint in a folder, or in another that holds a copy of it."""
    return LOADERS[which](str(folder))


@pytest.fixture(autouse=True)
def _listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIKO_ENCODERS", str(folder))


def test_open_clip_towers_give_the_tokens_of_open_clip(folder: Path) -> None:
    own = open_clip.create_model(f"local-dir:{folder / 'open-clip'}", force_custom_text=True).eval()
    own.visual.output_tokens = own.text.output_tokens = True
    image = open_clip_towers.load_open_clip_image_tower("open-clip").eval()
    text = open_clip_towers.load_open_clip_text_tower("open-clip").eval()
    picture = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    wanted = own.visual((picture.float() / 255 - image.mean) / image.std)[1]
    assert torch.allclose(image(picture), wanted, atol=1e-5)
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a burnt cake, how LOVELY!"])
    rows = text.words.encode(["a burnt cake, how LOVELY!"], text.limit)
    assert rows[0] == [int(i) for i in tokens[0] if i]
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, 0))
    whole = own.text(tokens)[1][:, : ids.shape[1]]
    assert torch.allclose(text(ids, mask), whole, atol=1e-5)


@pytest.mark.parametrize("source", ["transformers", "timm", "open_clip", "tiny"])
def test_a_tower_is_rebuilt_from_its_plan_without_weights_or_hub(
    source: str, folder: Path, tmp_path: Path
) -> None:
    names = {"transformers": "clip", "timm": "mobilenet", "open_clip": "open-clip"}
    name = names.get(source, "tiny")
    frozen = source != "tiny"
    image = build_image_tower(sections.ImageTowerSection(source=source, name=name, frozen=frozen))
    words = {"timm": "transformers"}.get(source, source)
    other = sections.TextTowerSection(
        source=words, name="bert" if source == "timm" else name, frozen=frozen
    )
    text = build_text_tower(other, ["a burnt cake"])
    write_plans(tmp_path / "towers.json", image, text)
    again_image, again_text = rebuild_towers(tmp_path / "towers.json", text.words)
    again_image.load_state_dict(image.state_dict())
    again_text.load_state_dict(text.state_dict())
    assert again_image.preprocess == image.preprocess
    assert (again_text.width, again_text.limit) == (text.width, text.limit)


def test_an_encoder_that_is_nowhere_is_one_line_that_says_where_it_looked(folder: Path) -> None:
    section = sections.TextTowerSection(source="transformers", name="openai/no-such-encoder")
    with pytest.raises(EncoderError) as caught:
        build_text_tower(section, [])
    line = str(caught.value)
    assert "\n" not in line
    assert "openai/no-such-encoder" in line
    assert str(folder / "no-such-encoder") in line
    assert "hub" in line


def test_a_name_is_found_by_its_last_part(folder: Path) -> None:
    assert tower.find_encoder_folder("someone/bert") == folder / "bert"


def test_a_folder_that_holds_no_encoder_is_one_line(tmp_path: Path) -> None:
    section = sections.TextTowerSection(source="transformers", name=str(tmp_path))
    with pytest.raises(EncoderError, match="transformers cannot load this encoder") as caught:
        build_text_tower(section, [])
    assert "\n" not in str(caught.value)


def test_a_text_without_words_is_finite(folder: Path) -> None:
    tower = hf_towers.load_hf_text_tower(str(folder / "bert")).eval()
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    assert torch.isfinite(tower(torch.zeros(2, 4, dtype=torch.long), nothing)).all()


def picture(path: Path, colour: str) -> Path:
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def test_cached_features_are_what_the_towers_say(folder: Path, tmp_path: Path) -> None:
    image = hf_towers.load_hf_image_tower(str(folder / "clip")).eval()
    posts = [Post(id=c, image=picture(tmp_path / f"{c}.png", c)) for c in ("red", "blue")]
    posts.append(Post(id="words", text="a cake"))
    features = ImageFeatures(tmp_path / "cache", image)
    states = features.states(features.fill(posts))
    wanted = image(torch.from_numpy(preprocess_image(posts[1].image, image.preprocess))[None])
    assert np.allclose(states[1], wanted.detach().numpy()[0], rtol=1e-3, atol=1e-3)
    assert not states[2].any()


def test_a_filled_cache_opens_no_image_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = hf_towers.load_hf_image_tower(str(folder / "clip")).eval()
    posts = [Post(id="red", image=picture(tmp_path / "red.png", "red"))]
    ImageFeatures(tmp_path / "cache", image).fill(posts)
    monkeypatch.setattr(
        "miko_clf.encode.feature_cache.preprocess_image", lambda *_: pytest.fail("image opened")
    )
    features = ImageFeatures(tmp_path / "cache", image)
    assert features.states(features.fill(posts)).any()


def test_other_weights_and_other_preprocessing_are_other_caches(folder: Path) -> None:
    image = hf_towers.load_hf_image_tower(str(folder / "clip"))
    before = fingerprint_tower(image)
    image.preprocess = image.preprocess.model_copy(update={"resample": "bilinear"})
    other = fingerprint_tower(image)
    next(iter(image.parameters())).data.add_(1)
    assert len({before, other, fingerprint_tower(image)}) == 3


def edit(path: Path, keys: str, value: object) -> None:
    """Set one value in a file of JSON."""
    whole = json.loads(path.read_text())
    *outer, last = keys.split("/")
    inner = whole
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("which", "keys", "value"),
    [("bert text", "hidden_act", "relu"), ("clip text", "text_config/hidden_act", "gelu"),
     ("clip image", "vision_config/layer_norm_eps", 0.1),
     ("open-clip text", "model_cfg/quick_gelu", True),
     ("open-clip image", "model_cfg/quick_gelu", True),
     ("resnet image", "model_args/act_layer", "gelu"),
     ("t5 text", "feed_forward_proj", "gated-silu")],
)  # fmt: skip
def test_a_tower_with_another_activation_has_another_key(
    which: str, keys: str, value: object, folder: Path, tmp_path: Path
) -> None:
    name = which.split()[0]
    other = shutil.copytree(folder / name, tmp_path / name)
    config = "open_clip_config.json" if name == "open-clip" else "config.json"
    edit(other / config, keys, value)
    one, two = load(which, folder / name), load(which, other)
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert fingerprint_tower(one) != fingerprint_tower(two)


@pytest.mark.parametrize("which", LOADERS)
def test_a_tower_has_one_key_by_whatever_path_and_name_it_is_loaded(
    which: str, folder: Path, tmp_path: Path
) -> None:
    name = which.split()[0]
    (tmp_path / "link").symlink_to(folder / name)
    copy = shutil.copytree(folder / name, tmp_path / "copy")
    if (copy / "config.json").exists():
        edit(copy / "config.json", "_name_or_path", "someone/else")
        edit(copy / "config.json", "transformers_version", "5.0.0")
        edit(copy / "config.json", "architectures", ["Another"])
    keys = {
        fingerprint_tower(load(which, path))
        for path in (folder / name, folder / ".." / folder.name / name, tmp_path / "link", copy)
    }
    assert len(keys) == 1


@pytest.mark.parametrize("name", ["bert", "clip", "open-clip"])
def test_a_tower_rebuilt_from_its_bundle_has_the_key_that_it_was_trained_with(
    name: str, folder: Path, tmp_path: Path
) -> None:
    source = "open_clip" if name == "open-clip" else "transformers"
    text = build_text_tower(sections.TextTowerSection(source=source, name=name, long="chunk"), [])
    image = None
    if name != "bert":
        image = build_image_tower(sections.ImageTowerSection(source=source, name=name))
    write_plans(tmp_path / "towers.json", image, text)
    for one, two in zip(
        (image, text), rebuild_towers(tmp_path / "towers.json", text.words), strict=True
    ):
        if one is not None:
            two.load_state_dict(one.state_dict())
            assert fingerprint_tower(two) == fingerprint_tower(one)


def test_another_release_of_the_library_is_another_key_and_a_mended_one_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, keys = load("bert text", folder / "bert"), []
    for version in ("7.1.0", "7.1.5", "7.2.0"):
        monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
        keys.append(fingerprint_tower(text))
    assert keys[0] == keys[1] != keys[2]


def test_other_padding_is_another_key(folder: Path) -> None:
    text = load("open-clip text", folder / "open-clip")
    before = fingerprint_tower(text)
    text.words.pad_id += 1
    assert fingerprint_tower(text) != before


def test_a_key_is_the_same_in_another_process(folder: Path) -> None:
    code = (
        "import sys\n"
        "from miko_clf.encode.feature_cache import fingerprint_tower\n"
        "from miko_clf.encode.hf_towers import load_hf_text_tower\n"
        "print(fingerprint_tower(load_hf_text_tower(sys.argv[1])))\n"
    )
    key = fingerprint_tower(load("clip text", folder / "clip"))
    told = subprocess.run(
        [sys.executable, "-c", code, str(folder / "clip")],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == key


@pytest.mark.parametrize(
    ("value", "line"), [(70_000.0, r"70,000.*float16.*65,504.*--no-cache"), (np.nan, "not finite")]
)
@pytest.mark.parametrize("half", ["image", "text", "mean"])
def test_states_that_float16_cannot_hold_are_refused_before_any_is_written(
    half: str, value: float, line: str, folder: Path, tmp_path: Path
) -> None:
    which = "resnet image" if half == "image" else "bert text"
    loud = load(which, folder / which.split()[0])
    loud.trunk.register_forward_hook(lambda _, __, states: torch.full_like(states, value))
    if half == "image":
        posts = [Post(id="red", image=picture(tmp_path / "red.png", "red"))]
        fill, what = partial(ImageFeatures(tmp_path / "cache", loud).fill, posts), "images"
    else:
        features, what = TextFeatures(tmp_path / "cache", loud), "descriptions"
        fill = partial(features.fill if half == "text" else features.fill_means, [[2, 3]], what)
    with pytest.raises(EncoderError, match=line) as caught:
        fill()
    assert "\n" not in str(caught.value)
    assert what in str(caught.value)
    assert not any(path.stat().st_size for path in tmp_path.glob("cache/*/*"))


def test_the_largest_state_that_float16_holds_is_kept(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 1)
    rows = [np.array([[65_504.0], [-65_504.0]], dtype=np.float32)]
    store.fill({"one": 2}, int, lambda _: rows, "texts")
    assert store.get("one").tolist() == [[65_504], [-65_504]]


def test_texts_are_encoded_once_however_often_they_occur(folder: Path, tmp_path: Path) -> None:
    text = hf_towers.load_hf_text_tower(str(folder / "bert")).eval()
    features = TextFeatures(tmp_path, text)
    features.fill([[2, 3], [2, 3], [4], []], "texts")
    assert len(features.tokens.places) == 2
    states = features.states([[4], [], [2, 3]], 2)
    assert states.shape == (3, 2, 16)
    assert not states[1].any()


def test_the_store_goes_on_after_a_torn_write(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 4)
    with store.hold():
        store.append({"one": np.ones((2, 4), dtype=np.float16)})
    with (tmp_path / "features.f16").open("ab") as file:
        file.write(b"torn off halfway")
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write('["two", 2')
    again = FeatureStore(tmp_path, 4)
    with again.hold():
        again.append({"two": np.full((1, 4), 2, dtype=np.float16)})
    last = FeatureStore(tmp_path, 4)
    assert last.get("one").tolist() == [[1] * 4] * 2
    assert last.get("two").tolist() == [[2] * 4]


def test_a_killed_writer_leaves_only_whole_features(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from miko_clf.encode.feature_cache import FeatureStore\n"
        "store = FeatureStore(Path(sys.argv[1]), 8)\n"
        "with store.hold():\n"
        "    for i in range(100000):\n"
        "        store.append({str(i): np.full((i % 5 + 1, 8), i % 1000, dtype=np.float16)})\n"
        "        print(i, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    done = [int(child.stdout.readline()) for _ in range(40)][-1]
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    store = FeatureStore(tmp_path, 8)
    assert len(store.places) > done
    for key in store.places:
        features = store.get(key)
        assert features.shape == (int(key) % 5 + 1, 8)
        assert (features == int(key) % 1000).all()


@pytest.mark.real
def test_the_real_towers_give_the_tokens_of_their_libraries(encoders: Path) -> None:
    text = hf_towers.load_hf_text_tower(str(encoders / "all-MiniLM-L6-v2")).eval()
    rows = text.words.encode(["a burnt cake, how lovely", "sunny"], 32)
    ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, text.words.pad_id))
    own = AutoModel.from_pretrained(encoders / "all-MiniLM-L6-v2", dtype=torch.float32).eval()
    wanted = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert torch.allclose(text(ids, mask)[mask], wanted[mask], atol=1e-5)
    image = timm_towers.load_timm_image_tower(str(encoders / "mobilenetv2_100")).eval()
    assert (image.num_tokens, image.width) == (49, 1280)
    assert image.preprocess.resize == "squash"


def test_the_word_pieces_of_a_tiny_tower_are_the_same_each_time() -> None:
    texts = [f"a burnt cake {i} so lovely" for i in range(50)]
    one, two = tiny_towers.train_tokenizer(texts, 60), tiny_towers.train_tokenizer(texts, 60)
    assert one.tokenizer.to_str() == two.tokenizer.to_str()
