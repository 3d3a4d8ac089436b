"""Posts to batches of tensors, from the feature cache where frozen, in a resumable order."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from miko_clf.data.labels import encode_labels
from miko_clf.data.post import RELATIONS, Post
from miko_clf.data.preprocess import Preparation, stack_images
from miko_clf.data.tokenizer import TextTokenizer, encode_texts, pad_ids
from miko_clf.encode.feature_cache import ImageFeatures, TextFeatures
from miko_clf.encode.tower import ImageTower, TextTower
from miko_clf.fuse.build import Model
from miko_clf.fuse.cross_attention import NUM_SLOTS
from miko_clf.fuse.outputs import Batch
from miko_clf.questions import Questions

_MAX_PICTURE_BYTES = 1_000_000_000  # of decoded pictures that a data set may hold
_Rows = list[list[int]]


class LengthGroupedBatchSampler:
    """Batches of indices for one epoch, posts of like length together.

    Set `epoch`, and `start` to skip batches that a resumed run has already seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches()[self.start :])

    def batches(self) -> list[list[int]]:
        """Return every batch of the epoch: shuffled, sorted by length in pools of 16 batches."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        pool = 16 * self.batch_size
        batches = []
        for first in range(0, len(order), pool):
            part = order[first : first + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[i].tolist() for i in random.permutation(len(batches))]


class EncodedDataset:
    """Batches of a fixed list of posts.

    Texts are tokenised once. Where `cache` names a folder, what frozen towers say of the
    posts is computed before the first batch and no image is opened after that. `targets`
    adds what the teacher wrote, which only training stages read. `split` is where the posts are
    from, where it matters: nothing is fitted on any but `train` and `val`.
    """

    def __init__(
        self,
        posts: Sequence[Post],
        questions: Questions,
        model: Model,
        preparation: Preparation,
        *,
        cache: Path | None = None,
        targets: bool = False,
        rationale_length: int = 128,
        split: str | None = None,
    ) -> None:
        self.posts = list(posts)
        self.split = split
        self.preparation = preparation
        tower = model.text_tower
        self.words = None
        if tower is not None:
            self.words = TextTokenizer(
                tower.words.tokenizer, preparation.pad_id, fold=preparation.fold
            )
        self.truth = encode_labels(self.posts, questions, "the posts", "the labels are")
        self.texts: dict[str, _Rows] = {}
        self.intentions: list[_Rows] | None = None
        self.targets: list[_Rows] | None = None
        if self.words is not None:
            self._tokenise(self.words, targets, rationale_length)
        self.decoded: dict[int, NDArray[np.uint8]] = {}
        self.images: ImageFeatures | None = None
        self.states: TextFeatures | None = None
        if cache is not None:
            self._fill(cache, model)

    def __len__(self) -> int:
        return len(self.posts)

    @cached_property
    def labels(self) -> list[int]:
        """The index of each post's label, -1 where it has none; for one choice alone."""
        return self.truth.list_choices()

    def length(self, index: int) -> int:
        """Return how many tokens a post has, for batches of posts of like length."""
        intentions = self.intentions[index] if self.intentions is not None else []
        texts = [rows[index] for rows in self.texts.values()]
        return sum(map(len, [*texts, *intentions]))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the tensors that graphs take too, states where cached, label, row and targets.

        `student` is true for every post; an arm or a stage changes it. `label` is the index of
        the label (post,) where one choice is all that is asked; otherwise 1 where a label holds
        (post, label), and `label_known` (post, question) says which questions a post answers.
        """
        arrays = self._stack_images(indices) if self.preparation.image else {}
        for name, rows in self.texts.items():
            arrays |= self._stack_texts(name, [rows[i] for i in indices])
        if self.intentions is not None:
            arrays |= self._stack_intentions([self.intentions[i] for i in indices], indices)
        if self.preparation.slots:
            arrays["student"] = np.ones(len(indices), dtype=bool)
        if self.targets is not None:
            arrays |= self._stack_targets([self.targets[i] for i in indices])
        arrays |= self._stack_labels(indices)
        arrays["row"] = np.array(indices, dtype=np.int64)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {k: v.float() if v.dtype == torch.float16 else v for k, v in batch.items()}

    def _stack_labels(self, indices: Sequence[int]) -> dict[str, NDArray]:
        if self.truth.questions.plain:
            return {"label": np.array([self.labels[i] for i in indices], dtype=np.int64)}
        labels = self.truth.given[indices].astype(np.float32)
        return {"label": labels, "label_known": self.truth.known[indices]}

    def _stack_images(self, indices: Sequence[int]) -> dict[str, NDArray]:
        if self.images is None:
            return self._stack_pixels(indices)
        keys = [self.image_keys[i] for i in indices]
        present = np.array([key is not None for key in keys], dtype=bool)
        name = f"image_{_name_kind(self.images.tower)}"
        return {name: self.images.states(keys), "image_present": present}

    def _stack_pixels(self, indices: Sequence[int]) -> dict[str, NDArray]:
        """Return images and image_present, decoding a picture once where memory allows."""
        assert self.preparation.image is not None
        new = [i for i in indices if i not in self.decoded]
        fresh = stack_images([self.posts[i] for i in new], self.preparation.image) if new else {}
        pixels = {i: self.decoded[i] for i in indices if i in self.decoded}
        pixels |= dict(zip(new, fresh.get("pixels", ()), strict=True))
        size = self.preparation.image.height * self.preparation.image.width * 3
        if (len(self.decoded) + len(new)) * size <= _MAX_PICTURE_BYTES:
            self.decoded |= {i: pixels[i] for i in new}
        present = [self.posts[i].image is not None for i in indices]
        return {
            "pixels": np.stack([pixels[i] for i in indices]),
            "image_present": np.array(present, dtype=bool),
        }

    def _stack_texts(self, name: str, rows: _Rows) -> dict[str, NDArray]:
        ids, mask = pad_ids(rows, self.preparation.pad_id)
        if self.states is None:
            return {f"{name}_ids": ids, f"{name}_mask": mask}
        states = self.states.states(rows, ids.shape[1])
        kind = _name_kind(self.states.tower)
        return {f"{name}_{kind}": states, f"{name}_ids": ids, f"{name}_mask": mask}

    def _stack_intentions(self, posts: list[_Rows], indices: Sequence[int]) -> dict[str, NDArray]:
        shape = (len(posts), max([1, *map(len, posts)]))
        flat = [row for rows in posts for row in [*rows, *[[]] * (shape[1] - len(rows))]]
        arrays = self._stack_texts("intention", flat)
        relation = np.zeros(shape, dtype=np.int64)
        for place, index in enumerate(indices):
            names = [intention.relation for intention in self.posts[index].intentions]
            relation[place, : len(names)] = [RELATIONS.index(name) for name in names]
        shaped = {key: array.reshape(*shape, *array.shape[1:]) for key, array in arrays.items()}
        return {**shaped, "relation": relation}

    def _stack_targets(self, slots: list[_Rows]) -> dict[str, NDArray]:
        flat = [row for rows in slots for row in rows]
        ids, mask = pad_ids([rows[-1] for rows in slots], self.preparation.pad_id)
        arrays = {"written_ids": ids, "written_mask": mask}
        here = np.array([bool(row) for row in flat]).reshape(-1, NUM_SLOTS)
        arrays["target_present"] = here
        if self.states is None or self.states.tower.split is not None:
            ids, mask = pad_ids(flat, self.preparation.pad_id)
            shape = (*here.shape, -1)
            return {**arrays, "target_ids": ids.reshape(shape), "target_mask": mask.reshape(shape)}
        target = np.zeros((*here.shape, self.states.tower.width), dtype=np.float16)
        for place, row in enumerate(flat):
            if row:
                target[divmod(place, NUM_SLOTS)] = self.states.mean(row)
        return {**arrays, "target": target}

    def _tokenise(self, words: TextTokenizer, targets: bool, rationale_length: int) -> None:
        length = self.preparation.intention_length
        self.texts = encode_texts(self.posts, self.preparation, words)
        if self.preparation.reads_intentions:
            texts = [[intention.text for intention in post.intentions] for post in self.posts]
            self.intentions = [words.encode(written, length) for written in texts]
        if targets:
            self.targets = self._tokenise_targets(words, rationale_length)

    def _tokenise_targets(self, words: TextTokenizer, rationale_length: int) -> list[_Rows]:
        rationales = [post.rationale.text if post.rationale else None for post in self.posts]
        length, rows = self.preparation.intention_length, []
        encoded = words.encode(rationales, rationale_length)
        for post, rationale in zip(self.posts, encoded, strict=True):
            texts = {known.relation: known.text for known in reversed(post.intentions)}
            written = [texts.get(relation) for relation in RELATIONS]
            rows.append([*words.encode(written, length), rationale])
        return rows

    def _fill(self, folder: Path, model: Model) -> None:
        image, text = model.image_tower, model.text_tower
        if image is not None and "image" in model.split and image.cached:
            self.images = ImageFeatures(folder, image)
            self.image_keys = self.images.fill(self.posts)
        if text is not None and set(self.texts) <= set(model.split) and text.cached:
            self.states = TextFeatures(folder, text)
            for name, rows in self.texts.items():
                self.states.fill(rows, f"{name}s")
            if self.intentions is not None:
                self.states.fill((row for rows in self.intentions for row in rows), "intentions")
            if self.targets is not None and text.split is None:
                self.states.fill_means((r for rows in self.targets for r in rows), "targets")


def _name_kind(tower: ImageTower | TextTower) -> str:
    """Return whether what is kept of a tower are its states, or what stands below them."""
    return "states" if tower.split is None else "below"
