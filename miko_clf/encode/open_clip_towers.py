"""Both towers of an open_clip model."""

import json
import string
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from huggingface_hub import hf_hub_download
from jaxtyping import Bool, Float, Int
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from tokenizers import Regex, Tokenizer, normalizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from miko_clf.data.preprocess import Preprocessing
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.encode import timm_towers
from miko_clf.encode.preprocess_parity import check_preprocessing
from miko_clf.encode.tower import (
    ImageTower,
    Pool,
    TextTower,
    TowerPlan,
    find_encoder_folder,
    trim_padding,
)
from miko_clf.errors import EncoderError

_CONFIG = "open_clip_config.json"
_RESIZE = {"shortest": "crop", "squash": "squash", "longest": "pad"}


class OpenClipVisionTrunk(nn.Module):
    """The vision half: its tokens, or its pooled and projected embedding."""

    def __init__(self, model: Any, output: str = "tokens") -> None:
        super().__init__()
        self.visual = model.visual
        self.pools = output == "embedding"
        self.is_timm = isinstance(self.visual, TimmModel)
        is_vit = isinstance(self.visual, VisionTransformer)
        if not (self.is_timm or is_vit or self.pools):
            raise EncoderError(
                f"open_clip's {type(self.visual).__name__} gives no tokens; set output: embedding"
            )
        if self.is_timm:
            self.splits = bool(self.list_blocks())
        else:
            self.splits = is_vit and bool(self.visual.transformer.batch_first)

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top; none for an architecture that is not known here."""
        if self.is_timm:
            return timm_towers.list_timm_blocks(self.visual.trunk)
        blocks = getattr(getattr(self.visual, "transformer", None), "resblocks", ())
        return [[block] for block in blocks]

    def list_top(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        if self.is_timm:
            return timm_towers.list_timm_top(self.visual.trunk)
        norm = getattr(self.visual, "ln_post", None)
        return [] if norm is None else [norm]

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the tokens, or the embedding as one token."""
        if self.is_timm:
            return self._finish_timm(self.visual.trunk.forward_features(pixels))
        if self.splits:
            return self.finish(self.climb(self.start(pixels), 0, None))
        self.visual.output_tokens = not self.pools
        output = self.visual(pixels)
        tokens: Tensor = output[:, None] if self.pools else output[1]
        return tokens

    def start(self, pixels: Tensor) -> Tensor:
        """Return what the first block reads."""
        if self.is_timm:
            return timm_towers.embed_timm_pixels(self.visual.trunk, pixels)
        states: Tensor = self.visual._embeds(pixels)
        return states

    def climb(self, states: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        for block in self.list_blocks()[first:last]:
            for module in block:
                states = module(states)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the tokens, or the embedding as one token."""
        if self.is_timm:
            return self._finish_timm(timm_towers.run_timm_top(self.visual.trunk, states))
        pooled, tokens = self.visual._pool(states)
        if not self.pools:
            return tokens
        projected = pooled if self.visual.proj is None else pooled @ self.visual.proj
        return projected[:, None]

    def _finish_timm(self, states: Tensor) -> Tensor:
        if not self.pools:
            last = getattr(self.visual.trunk, "output_fmt", "NCHW") == "NHWC"
            return timm_towers.flatten_feature_map(states, last)
        embedding: Tensor = self.visual.head(self.visual.trunk.forward_head(states))
        return embedding[:, None]


class OpenClipTextTrunk(nn.Module):
    """The text half.

    CLIP's attention is causal, so padding behind a text changes nothing and is left out.
    SigLIP's is not: it was trained on texts padded to the full context, and reads the padding.
    With output `embedding` each state of the former is projected; the one embedding of the
    latter stands at every word. Where open_clip pools the last place of the context, its state
    stands at the last word.
    """

    def __init__(self, model: Any, output: str = "tokens", pad_id: int = 0) -> None:
        super().__init__()
        self.text = model.text
        if not isinstance(self.text, TextTransformer) or self.text.cls_emb is not None:
            raise EncoderError("this open_clip text half is not a plain transformer; CoCa's is not")
        self.pools = output == "embedding"
        self.logit_scale = model.logit_scale.exp().item() if self.pools else None
        self.pad_id = pad_id
        self.is_causal = self.text.attn_mask is not None
        self.pools_last_place = self.text.pool_type == "last"
        self.splits = (
            self.is_causal and not self.pools_last_place and bool(self.text.transformer.batch_first)
        )
        self.text.output_tokens = True

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return [[block] for block in self.text.transformer.resblocks]

    def list_top(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        return [self.text.ln_final]

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the state of each word."""
        if self.splits:
            return self.finish(self.climb(self.start(ids), present, 0, None))
        length = ids.shape[1]
        shown = ids.where(present, self.pad_id)
        rest = self.text.context_length - length
        pooled, tokens = self.text(functional.pad(shown, (0, rest), value=self.pad_id))
        if self.pools and not self.is_causal:
            embedding: Tensor = pooled[:, None].expand(-1, length, -1)
            return embedding
        words = trim_padding(tokens, present) if self.pools_last_place else tokens[:, :length]
        return self._project(words) if self.pools else words

    def start(self, ids: Tensor) -> Tensor:
        """Return what the first block reads."""
        places: Tensor = self.text.positional_embedding[: ids.shape[1]]
        return self.text.token_embedding(ids) + places

    def climb(self, states: Tensor, present: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        length = states.shape[1]
        mask = self.text.attn_mask[:length, :length]
        for (block,) in self.list_blocks()[first:last]:
            states = block(states, attn_mask=mask)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the states, normed, and projected for output `embedding`."""
        tokens: Tensor = self.text.ln_final(states)
        return self._project(tokens) if self.pools else tokens

    def _project(self, tokens: Tensor) -> Tensor:
        projection = self.text.text_projection
        if projection is None:
            return tokens
        return projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection


def load_open_clip_image_tower(name: str, output: str = "tokens") -> ImageTower:
    """Return the image tower of `ARCHITECTURE:tag`, a folder, or a hub name.

    Raises `EncoderError` where open_clip's own transform sees pictures in another way.
    """
    model, config, _ = _load(name)
    preprocess = _read_preprocess(model)
    settings = open_clip.get_model_preprocess_cfg(model)
    see = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**settings), is_train=False
    )
    check_preprocessing(preprocess, lambda image: see(image).numpy(), name)
    plan = {
        "source": "open_clip",
        "config": config,
        "preprocess": preprocess.model_dump(mode="json"),
        "output": output,
    }
    return ImageTower(OpenClipVisionTrunk(model, output), preprocess, plan)


def load_open_clip_text_tower(name: str, output: str = "tokens") -> TextTower:
    """Return the text tower of `ARCHITECTURE:tag`, a folder, or a hub name."""
    model, config, address = _load(name)
    if "hf_model_name" in config["text_cfg"]:
        raise EncoderError(f"{name}: its text half comes from transformers; use that source")
    backend, pad_id = _load_tokenizer(address, name)
    plan = {"source": "open_clip", "config": config, "output": output}
    trunk = OpenClipTextTrunk(model, output, pad_id)
    words, pool = TextTokenizer(backend, pad_id), _choose_pool(model.text)
    return TextTower(trunk, words, model.context_length, plan, pool)


def rebuild_open_clip_image_tower(plan: TowerPlan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    trunk = OpenClipVisionTrunk(_create_untrained(plan["config"]), plan["output"])
    return ImageTower(trunk, Preprocessing(**plan["preprocess"]), plan)


def rebuild_open_clip_text_tower(plan: TowerPlan, words: TextTokenizer) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = _create_untrained(plan["config"])
    trunk = OpenClipTextTrunk(model, plan["output"], words.pad_id)
    return TextTower(trunk, words, model.context_length, plan, _choose_pool(model.text))


def _load(name: str) -> tuple[Any, dict[str, Any], str]:
    folder = find_encoder_folder(name)
    architecture, _, tag = name.partition(":")
    if folder:
        config = json.loads((folder / _CONFIG).read_text())["model_cfg"]
        address, pretrained = f"local-dir:{folder}", None
    elif tag:
        config = open_clip.get_model_config(architecture)
        address, pretrained = architecture, tag
    else:
        config = json.loads(Path(hf_hub_download(name, _CONFIG)).read_text())["model_cfg"]
        address, pretrained = f"hf-hub:{name}", None
    model = open_clip.create_model(
        address, pretrained, force_custom_text=True, require_pretrained=True
    )
    return model, config, address


def _create_untrained(config: dict[str, Any]) -> Any:
    with TemporaryDirectory() as folder:
        (Path(folder) / _CONFIG).write_text(json.dumps({"model_cfg": config}))
        return open_clip.create_model(
            f"local-dir:{folder}", force_custom_text=True, load_weights=False
        )


def _choose_pool(text: Any) -> Pool:
    """Return which word's state open_clip pools; the token that ends a text is the last one."""
    return "first" if text.pool_type == "first" else "last"


def _read_preprocess(model: nn.Module) -> Preprocessing:
    config = open_clip.get_model_preprocess_cfg(model)
    size, fill = config["size"], config["fill_color"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return Preprocessing.model_validate(
        {
            "height": height,
            "width": width,
            "resize": _RESIZE[config["resize_mode"]],
            "resample": config["interpolation"],
            "mean": config["mean"],
            "std": config["std"],
            "ground": (fill,) * 3 if isinstance(fill, int) else tuple(fill),
        }
    )


def _load_tokenizer(address: str, name: str) -> tuple[Tokenizer, int]:
    """Return the tokenizer of a model as open_clip itself picks it, and its padding."""
    own = open_clip.get_tokenizer(address)
    if isinstance(own, open_clip.SimpleTokenizer):
        return Tokenizer.from_str(_read_clip_tokenizer()), 0
    fast = getattr(own.tokenizer, "backend_tokenizer", None)
    if fast is None or getattr(own, "strip_sep_token", False) or getattr(own, "tokenizer_mode", ""):
        raise EncoderError(f"{name}: its tokenizer has no tokenizer.json form")
    backend = Tokenizer.from_str(fast.to_str())
    if own.clean_fn("A_b!") == own.clean_fn("a b"):
        backend.normalizer = _strip_normalizer(backend.normalizer)
    return backend, own.tokenizer.pad_token_id or 0


def _strip_normalizer(normalizer: Any) -> normalizers.Sequence:
    """Return a normaliser that lowers letters and drops punctuation before the given one."""
    marks = "".join(mark for mark in string.punctuation if mark != "_")
    steps = [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex("[" + "".join(rf"\{mark}" for mark in marks) + "]"), ""),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    return normalizers.Sequence([*steps, normalizer] if normalizer is not None else steps)


@cache
def _read_clip_tokenizer() -> str:
    """Return CLIP's own tokenizer, the same for every model, as JSON."""
    own = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(own.bpe_ranks.items(), key=lambda item: item[1])]
    start, end = own.decoder[own.sot_token_id], own.decoder[own.eot_token_id]
    specials = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    fast = CLIPTokenizer(vocab=own.encoder, merges=merges, **specials)
    json_form: str = fast.backend_tokenizer.to_str()
    return json_form
