"""What trivial writers score on MIKO's released intentions: python benchmarks/generators.py.

A student that learned anything must beat these rows. The make-up rows (945 posts, ten intentions
each, by gpt-3.5) are the reference. Each baseline writes for a fifth of the posts from the other
four fifths; posts of one text are never parted. `--kb` adds knowledge bases of other writers.
"""

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from generator_scores import (
    BertScore,
    IntentionWriter,
    benchmark_generators,
    list_writers,
    print_benchmark,
    write_benchmark,
)
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupKFold
from transformers import AutoModel, AutoTokenizer

from miko_clf import manifest
from miko_clf.data.post import RELATIONS, Intention, Post
from miko_clf.distil.kb.import_miko import import_release
from miko_clf.distil.kb.query import iterate_knowledge
from miko_clf.distil.kb.store import open_for_reading
from miko_clf.distil.relations import make_sentence, strip_relation_stem

OUT = Path(__file__).parent / "results" / "distil" / "generators.json"
Told = tuple[Intention, ...]
Baseline = Callable[[Sequence[int]], Callable[[int], Told]]
"""Learns of some posts, by their places, and then writes for any."""


def main() -> None:
    """Write the table, and print it."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", type=Path, required=True, help="the folder of MIKO's files")
    asked.add_argument("--encoder", type=Path, required=True, help="a text encoder's folder")
    asked.add_argument("--kb", type=Path, nargs="*", default=[], help="other writers")
    asked.add_argument("--out", type=Path, default=OUT)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    start = time.monotonic()
    files = sorted(given.data.glob("*_intention_make_up.jsonl"))
    posts = released(files)
    candidates = baselines(posts, given.encoder, given.seed)
    for kb in given.kb:
        candidates += list_writers(
            kb.stem, (known.filled() for known in iterate_knowledge(open_for_reading(kb)))
        )
    likeness = BertScore(given.encoder)
    (reference,) = list_writers("MIKO make-up", posts)
    found = benchmark_generators(
        reference, candidates, likeness, tower=likeness.name, seed=given.seed
    )
    write_benchmark(
        found,
        given.out,
        command=shlex.join(["python", *sys.argv]),
        data={file.name: manifest.hash_file(file) for file in files},
        versions=manifest.collect_versions(),
        seconds=round(time.monotonic() - start, 1),
    )
    print_benchmark(found)


def released(files: Sequence[Path]) -> list[Post]:
    """Return the posts of released files that have intentions, as a knowledge base reads them."""
    with TemporaryDirectory() as folder:
        kb = Path(folder) / "kb.sqlite"
        import_release(kb, files)
        with open_for_reading(kb) as db:
            return [post for known in iterate_knowledge(db) if (post := known.filled()).intentions]


def baselines(posts: Sequence[Post], encoder: Path, seed: int) -> list[IntentionWriter]:
    """Return the trivial writers, each of which has written for every post."""
    random = np.random.default_rng(seed)
    texts = [f"{post.text or ''} {post.description or ''}" for post in posts]
    words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    meaning = embedded(texts, encoder)

    def by_words(others: Sequence[int]) -> Callable[[int], Told]:
        return lambda i: _nearest(posts, others, (words[others] @ words[i].T).toarray().ravel())

    def by_meaning(others: Sequence[int]) -> Callable[[int], Told]:
        return lambda i: _nearest(posts, others, meaning[others] @ meaning[i])

    def at_random(others: Sequence[int]) -> Callable[[int], Told]:
        return lambda _: posts[random.choice(others)].intentions

    def most_often(others: Sequence[int]) -> Callable[[int], Told]:
        told = frequent(posts, others)
        return lambda _: told

    ways: dict[str, Baseline] = {
        "random post": at_random,
        "most frequent": most_often,
        "nearest post (TF-IDF)": by_words,
        f"nearest post ({encoder.name})": by_meaning,
    }
    return [IntentionWriter(name, _written(posts, way, seed)) for name, way in ways.items()]


def frequent(posts: Sequence[Post], others: Sequence[int]) -> Told:
    """Return for each relation the completion that came most often."""
    found: dict[str, Counter[str]] = {name: Counter() for name in RELATIONS}
    for i in others:
        for one in posts[i].intentions:
            end = strip_relation_stem(one.relation, one.text).rstrip(".").lower()
            found[one.relation][end] += 1
    return tuple(
        Intention(relation=name, text=make_sentence(name, found[name].most_common(1)[0][0]))
        for name in RELATIONS
    )


@torch.inference_mode()
def embedded(texts: Sequence[str], encoder: Path) -> Float[np.ndarray, "text width"]:
    """Return the mean of the last layer's tokens, of unit length."""
    words = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder, dtype=torch.float32).eval()
    rows = []
    for start in range(0, len(texts), 32):
        part = list(texts[start : start + 32])
        read = words(part, truncation=True, max_length=256, padding=True, return_tensors="pt")
        mask = read["attention_mask"][..., None]
        rows.append((model(**read).last_hidden_state * mask).sum(1) / mask.sum(1))
    vectors = torch.nn.functional.normalize(torch.cat(rows), dim=-1)
    return vectors.numpy()


def _written(posts: Sequence[Post], way: Baseline, seed: int) -> dict[str, Post]:
    groups = [post.group or post.id for post in posts]
    folds = GroupKFold(5, shuffle=True, random_state=seed).split(posts, groups=groups)
    found = {}
    for others, mine in folds:
        tell = way(others)
        for i in mine:
            found[posts[i].id] = posts[i].model_copy(update={"intentions": tell(i)})
    return found


def _nearest(
    posts: Sequence[Post], others: Sequence[int], alike: Float[np.ndarray, " other"]
) -> Told:
    return posts[others[int(alike.argmax())]].intentions


if __name__ == "__main__":
    main()
