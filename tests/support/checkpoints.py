"""Tiny random checkpoints of encoders, as each library itself writes them."""

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    DebertaV2Config,
    DebertaV2Model,
    Dinov2Config,
    Dinov2Model,
    MetaClip2Config,
    MetaClip2Model,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

WORDS = ["[PAD]", "[UNK]", "a", "burnt", "cake", "lovely", "sunny", "beach"]


def _tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    fast.save_pretrained(path)


def bert(path: Path) -> None:
    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    _tokenizer(path)


def clip(path: Path) -> None:
    half = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    half["intermediate_size"] = 32
    config = CLIPConfig(
        text_config={**half, "vocab_size": 8, "max_position_embeddings": 16,
                     "bos_token_id": 6, "eos_token_id": 7},
        vision_config={**half, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(path)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(path)
    _tokenizer(path)


def metaclip2(path: Path) -> None:
    """A tiny MetaCLIP 2: pictures squashed, texts pooled at the token that ends them."""
    ends = {"bos_token_id": 6, "eos_token_id": 7, "pad_token_id": 1}
    text = {**HALF, "vocab_size": 8, "max_position_embeddings": 16, **ends}
    vision = {**HALF, "image_size": 32, "patch_size": 16}
    config = MetaClip2Config(text_config=text, vision_config=vision, projection_dim=8)
    MetaClip2Model(config).save_pretrained(path)
    square = {"height": 32, "width": 32}
    CLIPImageProcessor(size=square, crop_size=square).save_pretrained(path)
    marked(path, max_length=16, starts=True)


def mobilenet(path: Path) -> None:
    path.mkdir()
    model = timm.create_model("mobilenetv2_050", num_classes=4)
    timm.models.save_for_hf(model, str(path), {"num_classes": 4}, safe_serialization=True)


def open_clip_dual(path: Path) -> None:
    path.mkdir()
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2,
                     "layers": 2},
    }  # fmt: skip
    _save_open_clip(path, config)


def eva_clip(path: Path) -> None:
    """A small EVA-CLIP of open_clip: rotary positions, pooled at the class token."""
    vision = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"}
    _save_open_clip(path, _halve(vision, 224))


def mobileclip2(path: Path) -> None:
    """A small MobileCLIP2 of open_clip: a hybrid net, and texts whose padding is read."""
    vision = {"timm_model_name": "fastvit_mci0", "timm_pool": "avg"}
    bare = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}
    _save_open_clip(path, _halve(vision, 64, no_causal_mask=True), bare)


def _halve(vision: dict[str, Any], size: int, **text: Any) -> dict[str, Any]:
    words = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    picture = {"image_size": size, "timm_model_pretrained": False, "timm_proj": None}
    return {
        "embed_dim": 8,
        "custom_text": True,
        "vision_cfg": {**vision, **picture},
        "text_cfg": {**words, **text},
    }


def _save_open_clip(
    path: Path, config: dict[str, Any], preprocess: dict[str, Any] | None = None
) -> None:
    path.mkdir(exist_ok=True)
    whole = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (path / "open_clip_config.json").write_text(json.dumps(whole))
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    torch.save(model.state_dict(), path / "open_clip_pytorch_model.bin")


def dinov3(path: Path) -> None:
    """A tiny DINOv3 of timm: rotary positions, and registers beside the class token."""
    of_timm(path, "vit_small_patch16_dinov3", embed_dim=16, depth=2, num_heads=2, img_size=32)


def t5(path: Path) -> None:
    """A tiny Flan-T5: gated feed-forward, a head apart from the embeddings, unigram pieces."""
    tokenizer = _pieces()
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=16, d_kv=8, d_ff=32, num_layers=2,
        num_decoder_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
        decoder_start_token_id=0, initializer_factor=0.5, tie_word_embeddings=False,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(path)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=512,
    )  # fmt: skip
    fast.save_pretrained(path)


def _pieces() -> Tokenizer:
    words = [f"▁{word}" for word in ("Output:", "The", "answer", "is:", "a", "burnt", "cake")]
    scores = dict.fromkeys(["<pad>", "</s>", "<unk>"], 0.0)
    scores |= dict.fromkeys(words, -2.0) | dict.fromkeys("▁abcdefhilmnorstuvy", -4.0)
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


HALF: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


def siglip(path: Path) -> None:
    """A tiny SigLIP: texts padded to 8 words with the token that ends them, pooled at the last."""
    ends = {"bos_token_id": 6, "eos_token_id": 7, "pad_token_id": 7}
    text = {**HALF, "vocab_size": 8, "max_position_embeddings": 8, "projection_size": 16, **ends}
    config = SiglipConfig(
        text_config=text, vision_config={**HALF, "image_size": 32, "patch_size": 16}
    )
    SiglipModel(config).save_pretrained(path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    marked(path, max_length=8)


def siglip2(path: Path) -> None:
    """A tiny SigLIP 2 of variable resolution, whose texts are padded with no word of their own."""
    ends = {"bos_token_id": 6, "eos_token_id": 7, "pad_token_id": 0}
    text = {**HALF, "vocab_size": 8, "max_position_embeddings": 8, "projection_size": 16, **ends}
    config = Siglip2Config(
        text_config=text, vision_config={**HALF, "num_patches": 4, "patch_size": 16}
    )
    Siglip2Model(config).save_pretrained(path)
    marked(path, max_length=8, pad="[PAD]")


def vit(path: Path) -> None:
    """A tiny ViT, its pooling map included."""
    ViTModel(ViTConfig(**HALF, image_size=32, patch_size=8)).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)


def dinov2(path: Path) -> None:
    """A tiny DINOv2, whose processor cuts the centre out."""
    config = {key: value for key, value in HALF.items() if key != "intermediate_size"}
    Dinov2Model(Dinov2Config(**config, image_size=28, patch_size=14)).save_pretrained(path)
    processor = BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, resample=3
    )
    processor.save_pretrained(path)


def roberta(path: Path) -> None:
    """A tiny RoBERTa: 18 positions, of which it reads 16."""
    config = RobertaConfig(
        **HALF, vocab_size=8, max_position_embeddings=18, pad_token_id=1, bos_token_id=6,
        eos_token_id=7,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(path)
    marked(path, max_length=512, starts=True)


def mpnet(path: Path) -> None:
    """A tiny MPNet, with the file by which sentence-transformers says how it pools."""
    config = MPNetConfig(**HALF, vocab_size=8, max_position_embeddings=18)
    MPNetModel(config).save_pretrained(path)
    marked(path, max_length=16, starts=True)
    (path / "1_Pooling").mkdir()
    said = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(said))


def deberta(path: Path) -> None:
    """A tiny DeBERTa v3, which knows relative positions alone."""
    config = DebertaV2Config(
        **HALF, vocab_size=8, max_position_embeddings=16, relative_attention=True,
        position_buckets=4, pos_att_type=["p2c", "c2p"], position_biased_input=False,
        share_att_key=True, norm_rel_ebd="layer_norm",
    )  # fmt: skip
    DebertaV2Model(config).save_pretrained(path)
    marked(path, max_length=16, starts=True)


def of_timm(path: Path, architecture: str, **arguments: Any) -> None:
    """A tiny timm model that reads pictures of 32 pixels a side."""
    path.mkdir()
    overlay = {"input_size": (3, 32, 32)}
    model = timm.create_model(
        architecture, num_classes=4, pretrained_cfg_overlay=overlay, **arguments
    )
    settings = {"num_classes": 4}
    timm.models.save_for_hf(
        model, str(path), settings, model_args=arguments, safe_serialization=True
    )


def open_clip_siglip(path: Path) -> None:
    """A tiny SigLIP of open_clip: a timm picture half, a text half that reads its padding."""
    path.mkdir()
    config = {
        "embed_dim": 64, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map",
                       "timm_proj": "none"},
        "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 16, "heads": 2, "layers": 2,
                     "hf_tokenizer_name": "tiny", "tokenizer_kwargs": {"clean": "canonicalize"},
                     "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    }  # fmt: skip
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    torch.save(model.state_dict(), path / "open_clip_pytorch_model.bin")
    marked(path, max_length=8)


def marked(path: Path, max_length: int, starts: bool = False, pad: str | None = None) -> None:
    """Write a tokenizer that ends a text with `beach`, and may start it with `sunny`."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="sunny $A beach" if starts else "$A beach",
        special_tokens=[("sunny", 6), ("beach", 7)],
    )
    pad = pad or ("[UNK]" if starts else "beach")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token="[UNK]", cls_token="sunny",
        eos_token="beach", model_max_length=max_length, padding_side="right",
    )  # fmt: skip
    fast.save_pretrained(path)


# Decoders by what transformers calls their configuration, and what makes one small.
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 3},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 3},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 3},
    "olmo2": {"num_key_value_heads": 1},
    "phi3": {"num_key_value_heads": 1, "pad_token_id": 0},
    "smollm3": {"num_key_value_heads": 1, "pad_token_id": 0},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 16},
    "gpt_neox": {},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
}


def decoder(path: Path, family: str = "llama") -> None:
    """A tiny language model; its tokenizer adds no marks and pads with nothing of its own."""
    sizes = {} if family == "gpt2" else {**HALF, "max_position_embeddings": 16}
    ends = {"bos_token_id": 6, "eos_token_id": 7, "vocab_size": 8}
    wide = {"initializer_range": 0.3, "init_std": 0.3}  # so that attention is far from even
    config = AutoConfig.for_model(family, **{**sizes, **ends, **wide, **DECODERS[family]})
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="beach", model_max_length=16
    )
    fast.save_pretrained(path)
