"""Towers from transformers: vision models, text encoders, decoders, halves of CLIP and SigLIP."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, normalizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.masking_utils import create_bidirectional_mask, create_masks_for_generate
from transformers.utils import cached_file, logging

from miko_clf.data.preprocess import Preprocessing
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.encode.preprocess_parity import check_preprocessing
from miko_clf.encode.tower import ImageTower, Pool, TextTower, TowerPlan, trim_padding
from miko_clf.errors import EncoderError

# Where models keep their blocks, and the norm that stands on them.
_BLOCKS = (
    "encoder.layers", "encoder.layer", "layers", "block", "transformer.layer", "h",
    "decoder.layers",
)  # fmt: skip
_NORMS = ("final_layer_norm", "layernorm", "post_layernorm", "norm", "final_norm", "ln_f")
# Architectures whose blocks are called here one by one, so that the lower ones can be cached.
_SPLIT_IMAGE = (
    "clip_vision_model", "siglip_vision_model", "vit", "dinov2", "dinov2_with_registers",
)  # fmt: skip
_ROTARY = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2", "phi3", "smollm3",
)  # fmt: skip
_SPLIT_TEXT = ("bert", "roberta", "xlm-roberta", "camembert", "clip_text_model", "gpt2", *_ROTARY)
# Fused attention of these comes out of no exporter with lengths that vary (torch 2.15).
_UNEXPORTABLE = ("t5", "mt5", "umt5")
_PADDED = ("siglip_text_model", "siglip2_text_model")  # trained on texts padded to the full length
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as processors have them
_NO_LIMIT = 10**6  # words of a text that an encoder without positions may read
logging.disable_progress_bar()


class HfVisionTrunk(nn.Module):
    """A vision model: the tokens of its last block, or its pooled and projected embedding.

    `has_pooler` says that the checkpoint brought a pooling map; without one the first token
    is the embedding of models that have such a token.
    """

    def __init__(self, model: Any, output: str = "tokens", has_pooler: bool = True) -> None:
        super().__init__()
        self.model = getattr(model, "vision_model", model)
        self.kind: str = self.model.config.model_type
        if self.kind == "siglip2_vision_model":
            raise EncoderError(
                "SigLIP 2 of variable resolution takes patches and not pictures; name one of "
                "fixed resolution, such as siglip2-base-patch16-224"
            )
        self.output = output
        self.splits = self.kind in _SPLIT_IMAGE
        self.projection = getattr(model, "visual_projection", None) if self._pools else None
        for name in ("pooler", "head"):
            unused = not self._pools or (name == "pooler" and not has_pooler)
            if unused and getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)
        is_siglip = self.kind == "siglip_vision_model"  # its first token is a patch like others
        if self._pools and is_siglip and getattr(self.model, "head", None) is None:
            raise EncoderError(f"this {self.kind} has no pooled embedding; set output: tokens")

    @property
    def _pools(self) -> bool:
        return self.output == "embedding"

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return _list_blocks(self.model)

    def list_top(self) -> list[nn.Module]:
        """Return the norm on the blocks; CLIP's is on the embedding alone."""
        bare = self.kind == "clip_vision_model" and not self._pools
        return [] if bare else _list_norms(self.model)

    def forward(
        self, pixels: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the tokens, a feature map as one a cell, or the embedding as one token."""
        if self.splits:
            return self.finish(self.climb(self.start(pixels), 0, None))
        output = self.model(pixel_values=pixels)
        if self._pools:
            return self._project(_read_pooled(output, self.kind))
        states: Tensor = output.last_hidden_state
        return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states

    def start(self, pixels: Tensor) -> Tensor:
        """Return what the first block reads."""
        states: Tensor = self.model.embeddings(pixels)
        return self.model.pre_layrnorm(states) if self.kind == "clip_vision_model" else states

    def climb(self, states: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        for (block,) in self.list_blocks()[first:last]:
            states = block(states, None)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the tokens, or the embedding as one token."""
        if self.kind == "clip_vision_model":
            if not self._pools:
                return states
            return self._project(self.model.post_layernorm(states[:, 0]))
        (norm,) = _list_norms(self.model)
        tokens: Tensor = norm(states)
        if not self._pools:
            return tokens
        pool = getattr(self.model, "head", None) or getattr(self.model, "pooler", None)
        return self._project(pool(tokens) if pool is not None else tokens[:, 0])

    def _project(self, embedding: Tensor) -> Tensor:
        whole = embedding.flatten(1)
        return (self.projection(whole) if self.projection is not None else whole)[:, None]


class HfTextTrunk(nn.Module):
    """A text encoder, the text half of a dual encoder, or a decoder without its head.

    With output `embedding` each state goes through the text projection, where there is one;
    SigLIP's one embedding stands at every word. Of its states, the one that it pools stands at
    the last word.
    """

    def __init__(self, model: Any, output: str = "tokens", pad_id: int = 0) -> None:
        super().__init__()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self.model = getattr(model, "text_model", model)
        if self.model.config.model_type in _UNEXPORTABLE:
            self.model.set_attn_implementation("eager")
        self.kind: str = self.model.config.model_type
        self.pad_id = pad_id
        self.pools = output == "embedding"
        scale = getattr(model, "logit_scale", None) if self.pools else None
        self.logit_scale = None if scale is None else scale.exp().item()
        self.splits = self.kind in _SPLIT_TEXT
        self.is_padded = self.kind in _PADDED
        self.is_causal = self.kind == "clip_text_model" or any(
            getattr(module, "is_causal", False) for module in self.model.modules()
        )
        if self.is_causal and getattr(self.model.config, "use_cache", False):
            self.model.config.use_cache = False  # no text is continued here
        self.projection = getattr(model, "text_projection", None) if self.pools else None
        for name in ("pooler", "head"):
            used = name == "head" and self.is_padded
            if not used and getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)  # tokens are read, the pooled state is not

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top."""
        return _list_blocks(self.model)

    def list_top(self) -> list[nn.Module]:
        """Return the norm on the blocks."""
        return _list_norms(self.model)

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return the state of each word."""
        if self.is_padded:
            return self._read_padded(ids, present)
        if self.splits:
            return self.finish(self.climb(self.start(ids), present, 0, None))
        turned = hasattr(self.model, "rotary_emb")
        extra = {"position_ids": _number_words(ids)} if turned else {}
        output = self.model(input_ids=ids, attention_mask=present.long(), **extra)
        return self._project(output.last_hidden_state)

    def start(self, ids: Tensor) -> Tensor:
        """Return what the first block reads."""
        if self.kind in _ROTARY:
            states: Tensor = self.model.embed_tokens(ids)
        elif self.kind == "gpt2":
            places = self.model.wpe(_number_words(ids))
            states = self.model.drop(self.model.wte(ids) + places)
        else:
            states = self.model.embeddings(input_ids=ids)
        return states

    def climb(self, states: Tensor, present: Tensor, first: int, last: int | None) -> Tensor:
        """Return the states after some of the blocks."""
        known: dict[str, Any] = {"config": self.model.config, "attention_mask": present.long()}
        known["inputs_embeds"] = states
        extra: dict[str, Any] = {"is_causal": True} if self.kind == "clip_text_model" else {}
        if self.kind in _ROTARY:
            places = _number_words(states)
            turns = self.model.rotary_emb(states, places)
            extra = {"position_ids": places, "position_embeddings": turns}
        if self.is_causal:
            masks = create_masks_for_generate(**known, past_key_values=None)
        else:
            masks = create_bidirectional_mask(**known)
        kinds: Any = getattr(self.model.config, "layer_types", None)
        for place, (block,) in list(enumerate(self.list_blocks()))[first:last]:
            mask = masks[kinds[place]] if isinstance(masks, dict) else masks
            states = block(states, attention_mask=mask, **extra)
        return states

    def finish(self, states: Tensor) -> Tensor:
        """Return the states, normed and projected where the encoder does."""
        for norm in _list_norms(self.model):
            states = norm(states)
        return self._project(states)

    def _project(self, states: Tensor) -> Tensor:
        return states if self.projection is None else self.projection(states)

    def _read_padded(self, ids: Tensor, present: Tensor) -> Tensor:
        length = ids.shape[1]
        size: int = self.model.config.max_position_embeddings
        shown = ids.where(present, self.pad_id)
        whole = functional.pad(shown, (0, size - length), value=self.pad_id)
        output = self.model(input_ids=whole)
        if self.pools:
            embedding: Tensor = output.pooler_output
            return embedding[:, None].expand(-1, length, -1)
        return trim_padding(output.last_hidden_state, present)


def _number_words(words: Tensor) -> Tensor:
    """Return the place of each word, (text, word).

    Every text has its own: ONNX Runtime refuses rotary embeddings that all texts share.
    """
    return torch.arange(words.shape[1], device=words.device).expand(words.shape[:2])


def _list_blocks(model: nn.Module) -> list[list[nn.Module]]:
    for path in _BLOCKS:
        module: Any = model
        for part in path.split("."):
            module = getattr(module, part, None)
        if isinstance(module, nn.ModuleList):
            return [[block] for block in module]
    return []


def _list_norms(model: nn.Module) -> list[nn.Module]:
    norms = (getattr(model, name, None) for name in _NORMS)
    return [norm for norm in norms if norm is not None][:1]


def _read_pooled(output: Any, kind: str) -> Tensor:
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is None:
        raise EncoderError(f"{kind} has no pooled embedding; set output: tokens")
    return pooled


def load_hf_image_tower(name: str, output: str = "tokens") -> ImageTower:
    """Return the image tower of a checkpoint by folder or hub name.

    Raises `EncoderError` where the checkpoint lacks weights, or where its own processor sees
    pictures in another way than this project does.
    """
    model, absent = _load(name)
    processor = AutoImageProcessor.from_pretrained(name)
    preprocess = _read_preprocess(processor, name)
    has_pooler = not any("pooler" in key for key in absent)
    plan = {
        "source": "transformers",
        "config": model.config.to_dict(),
        "preprocess": preprocess.model_dump(mode="json"),
        "output": output,
        "pooler": has_pooler,
    }
    trunk = HfVisionTrunk(model, output, has_pooler)
    _check_whole(name, model, trunk, absent)

    def see(image: Image.Image) -> NDArray[np.float32]:
        pixels = processor(image, return_tensors="pt")["pixel_values"][0]
        return np.asarray(pixels, dtype=np.float32)

    check_preprocessing(preprocess, see, name)
    return ImageTower(trunk, preprocess, plan)


def load_hf_text_tower(name: str, output: str = "tokens") -> TextTower:
    """Return the text tower of a checkpoint, with its tokenizer.

    Raises `EncoderError` where the checkpoint lacks weights, or a tokenizer.json.
    """
    model, absent = _load(name)
    tokenizer, backend = load_hf_tokenizer(name)
    pad_id = _choose_pad_id(tokenizer, model.config)
    trunk = HfTextTrunk(model, output, pad_id)
    _check_whole(name, model, trunk, absent)
    if trunk.is_padded:
        _lower_letters(backend)
    limit = min(_count_positions(trunk.model), tokenizer.model_max_length, _NO_LIMIT)
    pool = _choose_pool(name, model.config, tokenizer, trunk)
    plan = {
        "source": "transformers",
        "config": model.config.to_dict(),
        "limit": limit,
        "output": output,
        "pool": pool,
    }
    return TextTower(trunk, TextTokenizer(backend, pad_id), limit, plan, pool)


def load_hf_tokenizer(name: str) -> tuple[Any, Tokenizer]:
    """Return a checkpoint's tokenizer, and what tokenizer.json holds of it.

    Raises `EncoderError` where it has no such form.
    """
    tokenizer = AutoTokenizer.from_pretrained(name)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise EncoderError(f"{name}: its tokenizer has no tokenizer.json form")
    return tokenizer, Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())


def _lower_letters(backend: Tokenizer) -> None:
    """Make a tokenizer lower its texts, as both SigLIPs were trained (Tschannen et al., 2025).

    The files of SigLIP 2 leave it out: its tokenizer is Gemma's, which tells capitals apart.
    """
    given = backend.normalizer
    if given is None or given.normalize_str("A") != given.normalize_str("a"):
        steps = [normalizers.Lowercase(), *([given] if given is not None else [])]
        backend.normalizer = normalizers.Sequence(steps)


def rebuild_hf_image_tower(plan: TowerPlan) -> ImageTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(rebuild_hf_config(plan))
    trunk = HfVisionTrunk(model, plan["output"], plan["pooler"])
    return ImageTower(trunk, Preprocessing(**plan["preprocess"]), plan)


def rebuild_hf_text_tower(plan: TowerPlan, words: TextTokenizer) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModel.from_config(rebuild_hf_config(plan))
    trunk = HfTextTrunk(model, plan["output"], words.pad_id)
    return TextTower(trunk, words, plan["limit"], plan, plan["pool"])


def rebuild_hf_config(plan: TowerPlan) -> Any:
    """Return the configuration that a plan holds; weights are of full precision."""
    values = {key: value for key, value in plan["config"].items() if key != "dtype"}
    return AutoConfig.for_model(**values)


def _load(name: str) -> tuple[Any, set[str]]:
    """Return the model, and the parameters that its checkpoint lacks."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # what its report says of weights is judged here
    try:
        options: Any = {"dtype": torch.float32, "output_loading_info": True}
        model, facts = AutoModel.from_pretrained(name, **options)
    finally:
        logging.set_verbosity(before)
    return model, set(facts["missing_keys"])


def _check_whole(name: str, model: nn.Module, trunk: nn.Module, absent: set[str]) -> None:
    """Raise where weights that the trunk uses are not those of the checkpoint."""
    used = {id(parameter) for parameter in trunk.parameters()}
    made_up = [
        key for key, value in model.named_parameters() if key in absent and id(value) in used
    ]
    if made_up:
        raise EncoderError(
            f"{name}: its weights lack {len(made_up)} parameters, {made_up[0]} first; "
            "a tower with random weights in it is not built"
        )


def _count_positions(model: Any) -> int:
    """Return how many words the model has positions for.

    Families after RoBERTa count from behind the padding index, and read that many fewer.
    """
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    unused = padding + 1 if padding is not None else 0
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
    return int(positions) - unused


def _choose_pad_id(tokenizer: Any, config: Any) -> int:
    """Return the token that fills up short texts: the tokenizer's padding, or the end of a text.

    Tokenizers of decoders may have no padding, or one for which the model has no embedding.
    """
    size: int = config.get_text_config().vocab_size
    marks = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((mark for mark in marks if mark is not None and mark < size), 0)


def _choose_pool(name: str, config: Any, tokenizer: Any, trunk: HfTextTrunk) -> Pool:
    """Return how an encoder's states become one: as its files say, or by its kind.

    A language model with a mask was tuned on its first token; an encoder saved bare, as
    sentence embedders are, on the mean. Of a decoder the last token alone has read the whole text.
    """
    if trunk.kind in ("clip_text_model", "metaclip_2_text_model", *_PADDED):
        return "last"
    try:
        path = cached_file(name, "1_Pooling/config.json")  # of sentence-transformers
        pooling = json.loads(Path(path).read_text(encoding="utf-8"))
        kinds: dict[str, Pool] = {"cls_token": "first", "lasttoken": "last"}
        return next((p for k, p in kinds.items() if pooling.get(f"pooling_mode_{k}")), "mean")
    except OSError:
        if trunk.is_causal:
            return "last"
        architecture = (getattr(config, "architectures", None) or [""])[0]
        is_masked = architecture.endswith(("ForMaskedLM", "ForPreTraining"))
        return "first" if is_masked and tokenizer.cls_token_id is not None else "mean"


def _read_preprocess(processor: Any, name: str) -> Preprocessing:
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    crops = bool(getattr(processor, "do_center_crop", False) and crop)
    resample = int(processor.resample)
    if resample not in _RESAMPLE:
        raise EncoderError(f"{name}: its processor asks for resampling {resample}; known are 1-3")
    short = size.get("shortest_edge")
    height, width = _read_shape(crop if crops else size, short)
    return Preprocessing.model_validate(
        {
            "height": height,
            "width": width,
            "resize": "crop" if crops and short else "squash",
            "resample": _RESAMPLE[resample],
            "crop_fraction": _compute_crop_fraction(height, short) if crops and short else 1.0,
            "half": "down",
            "mean": tuple(processor.image_mean),
            "std": tuple(processor.image_std),
        }
    )


def _compute_crop_fraction(height: int, short: int) -> float:
    """Return the share of the short side that is kept, rounded so that it leads back to it."""
    share = height / short
    while int(height / share) < short:
        share = math.nextafter(share, 0)
    return share


def _read_shape(size: dict[str, int], short: int | None) -> tuple[int, int]:
    edge = size.get("shortest_edge") or short or 0
    return size.get("height") or edge, size.get("width") or edge
