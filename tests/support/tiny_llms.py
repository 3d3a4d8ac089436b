"""Tiny random language models on disk: one of text, one that sees, one to tune."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SIDE, PATCH = 32, 8  # pixels
PATCHES = (SIDE // PATCH) ** 2  # tokens that a picture takes
LONGEST = 8192  # tokens: a prompt with its schema is some thousands of so small a vocabulary
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, START, END, _, IMAGE = range(5)
SENTENCES = [
    "The person wants to warn others before they buy the same thing, because of what it cost.",
    "After this, the author feels relieved and the others are annoyed by what they have read.",
    "To write the post, the author needed to see the picture and to know what it is about.",
    "A dog in the rain looks at a closed door; someone wrote above it: lovely weather today.",
    "Others will laugh, agree with the author, and share the picture with their own friends.",
]
ANSWER = (
    '{"rationale": "The words praise a meal while its photograph shows something cold and half '
    'eaten on one dirty tray"}'
)
OFTEN = {'"': 2.0, "]": 0.5, "</s>": 0.02, "Ġ": 1e-6}  # of all that was taught
WIDTH, STEADY, RECALL = 128, 8.0, 10.0
TEMPLATE = """\
{%- for message in messages -%}
<|{{ message['role'] }}|>
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<image>{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
</s>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""


def tiny_llama(folder: Path) -> Path:
    """Write a causal model of text with its tokenizer and chat template, and return the folder."""
    words = _tokenizer()
    with _seeded():
        model = LlamaForCausalLM(LlamaConfig(**_decoder(len(words))))
        _write(_taught(model, words), folder)
    words.save_pretrained(folder)
    return folder


def tiny_llava(folder: Path) -> Path:
    """Write a model that reads images and text, with its processor, and return the folder."""
    words = _tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_decoder(len(words))),
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    with _seeded():
        model = LlavaForConditionalGeneration(config)
        _write(_taught(model, words), folder)
    _rename(folder / "model.safetensors", "vision_tower.", "vision_tower.vision_model.")
    size = {"height": SIDE, "width": SIDE}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def tiny_seq2seq(folder: Path) -> Path:
    """Write an encoder-decoder with its tokenizer, and return the folder."""
    words = _tokenizer()
    config = BartConfig(
        vocab_size=len(words),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=END,
    )
    with _seeded():
        _write(BartForConditionalGeneration(config), folder)
    words.save_pretrained(folder)
    return folder


def _decoder(num_words: int) -> dict[str, object]:
    return {
        "vocab_size": num_words,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "initializer_range": 0.05,
        "num_attention_heads": 2,  # vLLM has kernels for heads of 64, not for narrower ones
        "num_key_value_heads": 2,
        "max_position_embeddings": LONGEST,
        "pad_token_id": PAD,
        "bos_token_id": START,
        "eos_token_id": END,
        "tie_word_embeddings": False,
    }


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, ANSWER, ANSWER], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[START],
        eos_token=SPECIAL[END],
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[IMAGE:],
        model_max_length=LONGEST,
        chat_template=TEMPLATE,
    )


def _taught(model: PreTrainedModel, words: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Teach the model by hand which word follows which, so that what it writes comes to an end.

    The head reads from feature 0, the same for every token, how often a word comes; from feature
    1, a mark on quotation marks, that none follows another; from the rest what follows the last
    token: what followed it last in all that was taught, so that no walk goes in a circle.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings().weight.data
    table = decoder.get_input_embeddings().weight.data.normal_()
    marks = [i for word, i in words.get_vocab().items() if '"' in word]
    opening = sorted(i for word, i in words.get_vocab().items() if word.endswith('"'))
    table[:, 0], table[:, 1] = STEADY, 0
    table[opening, 1] = STEADY / 2
    for layer in decoder.layers:  # attention and the rest stay random, and leave the two alone
        layer.self_attn.o_proj.weight.data[:2] = 0
        layer.mlp.down_proj.weight.data[:2] = 0
    following: dict[int, int] = {}
    for text in (*SENTENCES, ANSWER):
        ids = [*words(text)["input_ids"], END]
        following |= pairwise(ids)
    following[words.convert_tokens_to_ids("<|assistant|>")] = words(ANSWER)["input_ids"][0]
    following = dict.fromkeys(opening, words.convert_tokens_to_ids("The")) | following
    apart = torch.nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) * math.sqrt(WIDTH)
    table[list(following), 2:] = apart[: len(following), 2:]  # what is taught is not mixed up
    for token, next_token in following.items():
        head[next_token] += RECALL / WIDTH * table[token]
    steady = STEADY / math.sqrt((STEADY**2 + WIDTH) / WIDTH)  # feature 0 after the last norm
    head[:, 0] = _log_frequencies(words) / steady
    head[:, 1] = 0
    head[marks, 1] = -STEADY
    return model


def _log_frequencies(words: PreTrainedTokenizerFast) -> torch.Tensor:
    ids = words(" ".join([*SENTENCES, ANSWER]))["input_ids"]
    counts = torch.bincount(torch.tensor(ids), minlength=len(words)) + 0.001
    counts[: len(SPECIAL)] = 1e-6
    for word, share in OFTEN.items():
        counts[words.convert_tokens_to_ids(word)] = share * len(ids)
    return (counts / len(ids)).log()


def _write(model: PreTrainedModel, folder: Path) -> None:
    model.generation_config.do_sample = True
    model.save_pretrained(folder)


def _rename(weights: Path, prefix: str, published: str) -> None:
    """Give weights the names that published checkpoints have: vLLM knows no others."""
    named = load_file(weights)
    save_file(
        {name.replace(prefix, published): each for name, each in named.items()},
        weights,
        metadata={"format": "pt"},
    )


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield
