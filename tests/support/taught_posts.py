"""Posts from which an intention LM learns within seconds, and a base that does."""

from pathlib import Path

from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from miko_clf.data.post import Intention, Post
from miko_clf.distil.relations import make_sentence
from tests.support.tiny_llms import tiny_seq2seq

COMPLETIONS = {"xIntent": "warn others", "xReact": "relieved", "oWant": "share the picture"}
OTHERS = {"xIntent": "see the picture", "xReact": "annoyed", "oWant": "read the words"}
SUBJECTS = ("dogs", "cats", "rain", "doors", "meals", "trays", "words", "friends")


def make_taught_posts(completions: dict[str, str], times: int = 2) -> list[Post]:
    """Return posts on eight subjects that all end the same sentences in the same words."""
    told = tuple(
        Intention(relation=name, text=make_sentence(name, end)) for name, end in completions.items()
    )
    return [
        Post(id=f"{subject}-{i}", text=f"a post about {subject}, number {i}", intentions=told)
        for i in range(times)
        for subject in SUBJECTS
    ]


def tiny_t5(folder: Path) -> Path:
    """Write an encoder-decoder that learns from few rows: its random embeddings are large."""
    words = AutoTokenizer.from_pretrained(tiny_seq2seq(folder))
    config = T5Config(
        vocab_size=len(words), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4,
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.pad_token_id, dropout_rate=0.0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder
