"""What the frozen parts of towers say of posts: filled from content, read by content."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from miko_clf.data.pixels import digest, pixels
from miko_clf.data.post import Post
from miko_clf.data.words import pad
from miko_clf.encode.features import FeatureStore, Half, fill, fingerprint
from miko_clf.encode.towers import ImageTower, TextTower, mean_pool

Ids = Sequence[int]


class ImageFeatures:
    """What `below` says of images, by the digest of their bytes: tokens of an undivided tower."""

    def __init__(self, folder: Path, tower: ImageTower) -> None:
        self.tower = tower
        self.num_tokens, width = tower.below_shape
        self.store = FeatureStore(folder / f"image-{fingerprint(tower)}", width)

    def fill(self, posts: Iterable[Post]) -> list[str | None]:
        """Encode what is missing and return the key of each post's image, none without one."""
        keys, sources = [], {}
        for post in posts:
            key = digest(post.image) if post.image is not None else None
            keys.append(key)
            if key is not None:
                sources[key] = post.image
        fill(self.store, sources, lambda _: self.num_tokens, self._encode, "images")
        return keys

    def states(self, keys: Sequence[str | None]) -> NDArray[np.float16]:
        """Return (post, token, width), zeros where there is no image."""
        blank = np.zeros((self.num_tokens, self.store.width), dtype=np.float16)
        return np.stack([blank if key is None else self.store.get(key) for key in keys])

    @torch.inference_mode()
    def _encode(self, sources: Sequence[Path | bytes]) -> list[Half]:
        stack = np.stack([pixels(source, self.tower.preprocess) for source in sources])
        device = self.tower.mean.device
        tokens = self.tower.eval().below(torch.from_numpy(stack).to(device))
        return list(tokens.cpu().half().numpy())


class TextFeatures:
    """What `below` says of texts, or their mean token, by the digest of their ids."""

    def __init__(self, folder: Path, tower: TextTower) -> None:
        self.tower = tower
        name = fingerprint(tower)
        self.tokens = FeatureStore(folder / f"text-{name}", tower.below_width)
        self.means = FeatureStore(folder / f"mean-{name}", tower.width)

    def fill(self, rows: Iterable[Ids], what: str) -> None:
        """Encode the tokens of the texts that are missing."""
        fill(self.tokens, _by_key(rows), len, self._encode, what)

    def fill_means(self, rows: Iterable[Ids], what: str) -> None:
        """Encode the mean tokens of the texts that are missing; the tower is undivided."""
        assert self.tower.split is None
        fill(self.means, _by_key(rows), lambda _: 1, self._encode_means, what, by=len)

    def states(self, rows: Sequence[Ids], length: int) -> NDArray[np.float16]:
        """Return (text, length, width), zeros where a text ends."""
        states = np.zeros((len(rows), length, self.tokens.width), dtype=np.float16)
        for place, row in enumerate(rows):
            if row:
                states[place, : len(row)] = self.tokens.get(text_key(row))
        return states

    def mean(self, row: Ids) -> Half:
        """Return the mean token of a text, (width,)."""
        return self.means.get(text_key(row))[0]

    @torch.inference_mode()
    def _encode(self, rows: Sequence[Ids]) -> list[Half]:
        states, _ = self._run(rows)
        tokens = states.cpu().half().numpy()
        return [tokens[place, : len(row)] for place, row in enumerate(rows)]

    @torch.inference_mode()
    def _encode_means(self, rows: Sequence[Ids]) -> list[Half]:
        states, mask = self._run(rows)
        return list(mean_pool(states, mask).cpu().half().numpy()[:, None])

    def _run(self, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = (torch.from_numpy(array) for array in pad(rows, self.tower.words.pad_id))
        device = next(self.tower.parameters()).device
        states = self.tower.eval().below(ids.to(device), mask.to(device))
        return states, mask.to(device)


def text_key(row: Ids) -> str:
    """Return the digest of a text's ids."""
    return sha256(np.asarray(row, dtype=np.int32).tobytes()).hexdigest()[:32]


def _by_key(rows: Iterable[Ids]) -> dict[str, Ids]:
    return {text_key(row): row for row in rows if row}
