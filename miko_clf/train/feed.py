"""Posts to batches of tensors, from the feature cache where a tower is frozen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from miko_clf.data.collate import Preparation, content_text, images
from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.words import Words, pad
from miko_clf.encode.cache import ImageFeatures, TextFeatures
from miko_clf.fuse.classifier import NUM_SLOTS, Batch, MikoClassifier

Rows = list[list[int]]
KEPT = 1_000_000_000  # bytes of decoded pictures that a feed may hold


class Feed:
    """Batches of a fixed list of posts.

    Texts are tokenised once. Where `cache` names a folder, what frozen towers say of the
    posts is computed before the first batch and no image is opened after that. `targets`
    adds what the teacher wrote, which only training stages read.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        labels: Sequence[str],
        model: MikoClassifier,
        preparation: Preparation,
        *,
        cache: Path | None = None,
        targets: bool = False,
        rationale_length: int = 128,
    ) -> None:
        self.posts = list(posts)
        self.preparation = preparation
        self.words = Words(model.text_tower.words.tokenizer, preparation.pad_id)
        self.labels = [labels.index(p.label) if isinstance(p.label, str) else -1 for p in posts]
        self.texts = {
            name: self.words.encode(content_text(self.posts, name), preparation.max_length)
            for name in ("text", "description", "rationale")
            if name in preparation.inputs
        }
        self.intentions = self._intention_rows() if "intention" in preparation.inputs else None
        self.targets = self._target_rows(rationale_length) if targets else None
        self.decoded: dict[int, NDArray[np.uint8]] = {}
        self.images: ImageFeatures | None = None
        self.states: TextFeatures | None = None
        if cache is not None:
            self._fill(cache, model)

    def __len__(self) -> int:
        return len(self.posts)

    def length(self, index: int) -> int:
        """Return how many tokens a post has, for batches of posts of like length."""
        given = self.intentions[index] if self.intentions is not None else []
        texts = sum(len(rows[index]) for rows in self.texts.values())
        return texts + sum(map(len, given))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the named tensors of `data.collate`, states where cached, label and targets.

        `student` is true for every post; an arm or a stage changes it.
        """
        arrays = self._images(indices) if self.preparation.image else {}
        for name, rows in self.texts.items():
            arrays |= self._text(name, [rows[i] for i in indices])
        if self.intentions is not None:
            arrays |= self._intentions([self.intentions[i] for i in indices], indices)
        if self.preparation.slots:
            arrays["student"] = np.ones(len(indices), dtype=bool)
        if self.targets is not None:
            arrays |= self._targets([self.targets[i] for i in indices])
        arrays["label"] = np.array([self.labels[i] for i in indices], dtype=np.int64)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {k: v.float() if v.dtype == torch.float16 else v for k, v in batch.items()}

    def _images(self, indices: Sequence[int]) -> dict[str, NDArray]:
        if self.images is None:
            return self._pixels(indices)
        keys = [self.image_keys[i] for i in indices]
        present = np.array([key is not None for key in keys], dtype=bool)
        return {"image_states": self.images.states(keys), "image_present": present}

    def _pixels(self, indices: Sequence[int]) -> dict[str, NDArray]:
        """Return images and image_present, decoding a picture once where memory allows."""
        assert self.preparation.image is not None
        new = [i for i in indices if i not in self.decoded]
        fresh = images([self.posts[i] for i in new], self.preparation.image) if new else {}
        found = {i: self.decoded[i] for i in indices if i in self.decoded}
        found |= dict(zip(new, fresh.get("pixels", ()), strict=True))
        size = self.preparation.image.height * self.preparation.image.width * 3
        if (len(self.decoded) + len(new)) * size <= KEPT:
            self.decoded |= {i: found[i] for i in new}
        present = [self.posts[i].image is not None for i in indices]
        return {
            "pixels": np.stack([found[i] for i in indices]),
            "image_present": np.array(present, dtype=bool),
        }

    def _text(self, name: str, rows: Rows) -> dict[str, NDArray]:
        ids, mask = pad(rows, self.words.pad_id)
        if self.states is None:
            return {f"{name}_ids": ids, f"{name}_mask": mask}
        return {f"{name}_states": self.states.states(rows, ids.shape[1]), f"{name}_mask": mask}

    def _intentions(self, given: list[Rows], indices: Sequence[int]) -> dict[str, NDArray]:
        shape = (len(given), max([1, *map(len, given)]))
        flat = [row for rows in given for row in [*rows, *[[]] * (shape[1] - len(rows))]]
        arrays = self._text("intention", flat)
        relation = np.zeros(shape, dtype=np.int64)
        for place, index in enumerate(indices):
            kinds = [RELATIONS.index(one.relation) for one in self.posts[index].intentions]
            relation[place, : len(kinds)] = kinds
        shaped = {key: array.reshape(*shape, *array.shape[1:]) for key, array in arrays.items()}
        return {**shaped, "relation": relation}

    def _targets(self, slots: list[Rows]) -> dict[str, NDArray]:
        flat = [row for rows in slots for row in rows]
        ids, mask = pad([rows[-1] for rows in slots], self.words.pad_id)
        arrays = {"written_ids": ids, "written_mask": mask}
        here = np.array([bool(row) for row in flat]).reshape(-1, NUM_SLOTS)
        arrays["target_present"] = here
        if self.states is None:
            ids, mask = pad(flat, self.words.pad_id)
            shape = (*here.shape, -1)
            return {**arrays, "target_ids": ids.reshape(shape), "target_mask": mask.reshape(shape)}
        target = np.zeros((*here.shape, self.states.tower.width), dtype=np.float16)
        for place, row in enumerate(flat):
            if row:
                target[divmod(place, NUM_SLOTS)] = self.states.mean(row)
        return {**arrays, "target": target}

    def _intention_rows(self) -> list[Rows]:
        length = self.preparation.intention_length
        return [self.words.encode([i.text for i in p.intentions], length) for p in self.posts]

    def _target_rows(self, rationale_length: int) -> list[Rows]:
        written = self.words.encode(
            [p.rationale.text if p.rationale else None for p in self.posts], rationale_length
        )
        rows = []
        for post, rationale in zip(self.posts, written, strict=True):
            texts = {one.relation: one.text for one in reversed(post.intentions)}
            wanted = [texts.get(relation) for relation in RELATIONS]
            length = self.preparation.intention_length
            rows.append([*self.words.encode(wanted, length), rationale])
        return rows

    def _fill(self, folder: Path, model: MikoClassifier) -> None:
        image, text = model.image_tower, model.text_tower
        if image is not None and _is_frozen(image):
            self.images = ImageFeatures(folder, image)
            self.image_keys = self.images.fill(self.posts)
        if _is_frozen(text):
            self.states = TextFeatures(folder, text)
            for name, rows in self.texts.items():
                self.states.fill(rows, f"{name}s")
            if self.intentions is not None:
                self.states.fill((row for rows in self.intentions for row in rows), "intentions")
            if self.targets is not None:
                self.states.fill_means((r for rows in self.targets for r in rows), "targets")


def _is_frozen(tower: torch.nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in tower.parameters())
