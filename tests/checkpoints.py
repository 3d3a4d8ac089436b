"""Tiny random checkpoints, as each library itself writes them."""

import json
from pathlib import Path

import open_clip
import timm
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
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
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    torch.save(model.state_dict(), path / "open_clip_pytorch_model.bin")
