"""Encoder-decoders of the T5 family: a text tower that can also write."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.encode.hf_towers import load_hf_tokenizer, rebuild_hf_config
from miko_clf.encode.tower import TextTower, TowerPlan
from miko_clf.errors import EncoderError

T5_MAX_TOKENS = 512  # tokens; positions are relative, and no longer text was seen in training
_HEAD = "lm_head.weight"
_FAMILY = "t5"  # what transformers calls T5, T5 1.1 and Flan-T5
_BlockHook = Callable[[int, Tensor], Tensor]


class T5Trunk(nn.Module):
    """A T5 whose encoder can be interrupted after each block.

    A tied weight is saved under its first name alone.
    """

    splits = False  # no part of it is cached apart from the rest

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        named = list(model.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in reversed(named)}
        self.tied = {name: first[id(p)] for name, p in named if first[id(p)] != name}
        self.register_state_dict_post_hook(_drop_tied)
        self.register_load_state_dict_pre_hook(_restore_tied)

    def list_blocks(self) -> list[list[nn.Module]]:
        """Return the blocks, bottom to top: those of the encoder, then those of the decoder."""
        halves = (self.model.encoder, self.model.decoder)
        return [[block] for half in halves for block in half.block]

    def list_top(self) -> list[nn.Module]:
        """Return what stands on the decoder's blocks: their norm, and a head of its own."""
        norm, head = self.model.decoder.final_layer_norm, self.model.lm_head
        return [norm] if _HEAD in self.tied else [norm, head]

    @property
    def num_blocks(self) -> int:
        """How many blocks the encoder has."""
        return len(self.model.encoder.block)

    @property
    def start_id(self) -> int:
        """The token that every written text begins after."""
        start: int = self.model.config.decoder_start_token_id
        return start

    @property
    def end_id(self) -> int:
        """The token that ends a written text."""
        end: int = self.model.config.eos_token_id
        return end

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the last hidden state of the encoder."""
        return self.read(ids, present, lambda _, words: words)

    def read(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"], look: _BlockHook
    ) -> Float[Tensor, "text word width"]:
        """Return the last hidden state; `look(place, words)` moves the words after each block.

        It is called once more, with the number of blocks, on the encoder's output.
        """
        encoder = self.model.encoder
        words = encoder.dropout(encoder.embed_tokens(ids))
        barred = torch.zeros_like(present, dtype=words.dtype)
        barred = barred.masked_fill(~present, torch.finfo(words.dtype).min)[:, None, None, :]
        bias = None
        for place, block in enumerate(encoder.block):
            words, bias, _ = block(words, barred, bias)
            words = look(place, words)
        words = encoder.dropout(encoder.final_layer_norm(words))
        return look(self.num_blocks, words)

    def predict(
        self,
        ids: Int[Tensor, "text written"],
        states: Float[Tensor, "text word width"],
        present: Bool[Tensor, "text word"],
    ) -> Float[Tensor, "text written vocabulary"]:
        """Return the logits of the token after each of `ids`, the first of them `start_id`."""
        logits: Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=present,
            decoder_input_ids=ids,
            use_cache=False,
        ).logits
        return logits

    def write(
        self,
        begun: Int[Tensor, "text begun"],
        states: Float[Tensor, "text word width"],
        present: Bool[Tensor, "text word"],
        max_length: int,
        beams: int,
    ) -> Int[Tensor, "text written"]:
        """Return how a text that begins with `begun` goes on, greedily or by beam search.

        Behind the end of a text stands padding.
        """
        ids: Tensor = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=present.long(),
            decoder_input_ids=begun,
            max_new_tokens=max_length,
            num_beams=beams,
            do_sample=False,
        )
        ids = ids[:, begun.shape[1] :]
        ends = ids == self.end_id
        return ids.masked_fill(ends.cumsum(1) - ends.long() > 0, self.model.config.pad_token_id)


def load_t5_tower(name: str) -> TextTower:
    """Return the encoder-decoder of a checkpoint by folder or hub name, with its tokenizer."""
    config = AutoConfig.from_pretrained(name)
    if config.model_type != _FAMILY:
        raise EncoderError(
            f"{name}: a generator needs an encoder-decoder of the T5 family, such as "
            f"google/flan-t5-base; this is a {config.model_type}"
        )
    model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
    tokenizer, backend = load_hf_tokenizer(name)
    limit = min(tokenizer.model_max_length, T5_MAX_TOKENS)
    trunk = T5Trunk(model)
    plan = {"source": "seq2seq", "config": config.to_dict(), "limit": limit, "tied": trunk.tied}
    return TextTower(trunk, TextTokenizer(backend, config.pad_token_id), limit, plan)


def rebuild_t5_tower(plan: TowerPlan, words: TextTokenizer) -> TextTower:
    """Return the tower that a plan describes, with untrained weights."""
    model = AutoModelForSeq2SeqLM.from_config(rebuild_hf_config(plan))
    if _HEAD not in plan["tied"]:  # transformers ties it whatever the checkpoint did
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return TextTower(T5Trunk(model), words, plan["limit"], plan)


def _drop_tied(trunk: T5Trunk, state: dict[str, Any], prefix: str, _: Mapping[str, Any]) -> None:
    """Leave every name of a tied weight but the first out of what is saved."""
    for name in trunk.tied:
        state.pop(f"{prefix}model.{name}", None)


def _restore_tied(trunk: T5Trunk, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give every name of a tied weight what its first name was saved with."""
    for name, first in trunk.tied.items():
        if f"{prefix}model.{first}" in state:
            state.setdefault(f"{prefix}model.{name}", state[f"{prefix}model.{first}"])
