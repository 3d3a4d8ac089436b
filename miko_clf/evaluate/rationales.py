"""The rationales that a generator writes for posts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from miko_clf import bundle
from miko_clf.data.post import Post
from miko_clf.errors import BundleError
from miko_clf.evaluate.predict import Predictor
from miko_clf.fuse.generator import Generator

BATCH_SIZE = 16


def write_rationales(
    path: Path, posts: list[Post], *, max_length: int | None = None, beams: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield for each post, in order, its id and the rationale that the bundle's model writes.

    The model has not seen the post's label, so `saw_label` is false. At most `max_length` tokens
    are written, by default as many as it learned from. Raises `BundleError` where it cannot write.
    """
    opened = bundle.read(path)
    predictor = Predictor(opened, posts, None)
    model, words = predictor.model, predictor.feed.words
    if not isinstance(model, Generator) or words is None:
        kind = opened.recipe.fusion.kind
        raise BundleError(
            f"{path}: a model of fusion.kind {kind} writes no rationale; one of kind generator "
            "does, such as the recipe mr-harm-gated"
        )
    longest = max_length or opened.recipe.reasoning.max_length
    device = next(model.parameters()).device
    console = Console(stderr=True)
    starts = range(0, len(posts), BATCH_SIZE)
    for start in track(starts, "Writing", console=console, disable=not console.is_terminal):
        rows = range(start, min(start + BATCH_SIZE, len(posts)))
        batch = {name: tensor.to(device) for name, tensor in predictor.feed.batch(rows).items()}
        with torch.inference_mode():
            written = model.write(batch, longest, beams)
        for row, ids in zip(rows, written.tolist(), strict=True):
            text = words.tokenizer.decode(ids, skip_special_tokens=True).strip()
            yield {"id": posts[row].id, "rationale": {"text": text, "saw_label": False}}
