"""Token features of frozen towers, computed once, kept on disk and read by content."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from miko_clf.data.post import Post
from miko_clf.data.preprocess import digest_image, preprocess_image
from miko_clf.data.tokenizer import pad_ids
from miko_clf.encode.tower import ImageTower, TextTower, mean_pool
from miko_clf.errors import EncoderError
from miko_clf.progress import show_progress

_Half = NDArray[np.float16]
_Single = NDArray[np.float32]
_Ids = Sequence[int]
_CHUNK = 32  # items encoded, written and indexed at a time
_LARGEST = float(np.finfo(np.float16).max)
_TRUNKS = 2  # raised when a trunk of ours gives other states of the same weights and plan
# What plans hold that changes no state: names, places, versions, and how windows are exported.
# Weights are hashed with their own type, and the ids of a text are what its features are found by.
_NAMES = frozenset(
    {"_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures",
     "dtype", "torch_dtype", "id2label", "label2id", "tokenizer_class", "hf_tokenizer_name",
     "chunked"}
)  # fmt: skip


class FeatureStore:
    """Ragged float16 features of one tower: a flat memory-mapped file and an index of it.

    Keys are digests of content. Features are flushed before they are indexed, so a killed
    writer leaves a shorter store and never a wrong one.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("features.f16", "index.jsonl"):
                (folder / name).touch()
        except OSError as error:
            raise EncoderError(f"cannot write the cache {folder}: {error.strerror}") from None
        self.places: dict[str, tuple[int, int]] = {}
        self.num_tokens = 0
        self._load()

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def get(self, key: str) -> _Half:
        """Return the features of a key, (token, width)."""
        start, length = self.places[key]
        return self.features[start : start + length]

    def fill(
        self,
        items: Mapping[str, Any],
        num_tokens: Callable[[Any], int],
        encode: Callable[[Sequence[Any]], list[_Single]],
        what: str,
        by: Callable[[Any], int] | None = None,
    ) -> None:
        """Encode the items whose keys are missing; say first how much disk they take.

        `num_tokens` is what an item will take up; items of like `by` are encoded together. Raises
        `EncoderError` for what float16 cannot hold, before any item encoded with it is written.
        """
        with self.hold():
            missing = [key for key in items if key not in self]
            if not missing:
                return
            missing.sort(key=lambda key: (by or num_tokens)(items[key]))
            size = sum(num_tokens(items[key]) for key in missing) * self.width * 2
            _announce_size(self.folder, what, len(missing), size)
            chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
            for keys in show_progress(chunks, f"encoding {what}"):
                rows = encode([items[key] for key in keys])
                halves = [_round_to_half(row, what) for row in rows]
                self.append(dict(zip(keys, halves, strict=True)))

    def append(self, rows: Mapping[str, _Half]) -> None:
        """Write features and index them, durably."""
        start = self.num_tokens
        with (self.folder / "features.f16").open("ab") as file:
            file.write(np.concatenate(list(rows.values())).tobytes())
            _flush(file)
        with (self.folder / "index.jsonl").open("a", encoding="utf-8") as file:
            for key, row in rows.items():
                file.write(json.dumps([key, start, len(row)]) + "\n")
                self.places[key] = (start, len(row))
                start += len(row)
            _flush(file)
        self.num_tokens = start

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the store alone, trimmed to what is indexed; map it anew at the end."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._load()
            self._trim()
            try:
                yield
            finally:
                self._load()

    def _load(self) -> None:
        self.places, self.num_tokens = {}, 0
        for line in (self.folder / "index.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                key, start, length = json.loads(line)
            except ValueError:
                break  # the line a killed writer was at
            self.places[key] = (start, length)
            self.num_tokens = start + length
        self.features = (
            np.memmap(self.folder / "features.f16", dtype=np.float16, mode="r")[
                : self.num_tokens * self.width
            ].reshape(self.num_tokens, self.width)
            if self.num_tokens
            else np.empty((0, self.width), dtype=np.float16)
        )

    def _trim(self) -> None:
        os.truncate(self.folder / "features.f16", self.num_tokens * self.width * 2)
        index = self.folder / "index.jsonl"
        content = index.read_bytes()
        lines = content.splitlines(keepends=True)[: len(self.places)]
        if len(whole := b"".join(lines)) != len(content):
            os.truncate(index, len(whole))


def fingerprint_tower(tower: ImageTower | TextTower) -> str:
    """Return a digest of all that decides the states of a tower: no name and no path does.

    It is of the weights that never change, of the plan that rebuilds the trunk around them
    (source, architecture and its settings, output, pool and longest text), of how many blocks
    stand below, of how an input is prepared (pixels; the token that texts are padded with), and
    of the libraries that the trunk is made of, by name and release (5.23 of 5.23.1).
    """
    hasher = sha256(json.dumps(_describe_tower(tower), sort_keys=True).encode())
    learned = _find_learning(tower) if tower.split is not None else set()
    for name, tensor in sorted(tower.trunk.state_dict(keep_vars=True).items()):
        if id(tensor) in learned:
            continue
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return hasher.hexdigest()[:20]


def _describe_tower(tower: ImageTower | TextTower) -> dict[str, Any]:
    if isinstance(tower, ImageTower):
        prepared: Any = tower.preprocess.model_dump(mode="json")
    else:
        prepared = tower.words.pad_id
    plan = json.loads(json.dumps(tower.plan, default=str))  # as a bundle reads it back
    return {
        "trunks": _TRUNKS,
        "plan": _drop_names(plan),
        "below": tower.split,
        "input": prepared,
        "libraries": _list_releases(tower.trunk),
    }


def _drop_names(plan: Any) -> Any:
    """Return the plan without what changes no state, at any depth."""
    if isinstance(plan, list):
        return [_drop_names(value) for value in plan]
    if isinstance(plan, dict):
        return {key: _drop_names(value) for key, value in plan.items() if key not in _NAMES}
    return plan


def _list_releases(trunk: torch.nn.Module) -> dict[str, str]:
    """Return major and minor version of each library that wrote a module of the trunk."""
    packages = {type(module).__module__.partition(".")[0] for module in trunk.modules()}
    versions = {name: getattr(sys.modules[name], "__version__", "") for name in packages}
    ours = ("miko_clf", "torch")
    return {
        name: ".".join(version.split(".")[:2])
        for name, version in versions.items()
        if name not in ours
    }


def _find_learning(tower: ImageTower | TextTower) -> set[int]:
    return {
        id(tensor)
        for module in tower.awake or ()
        for tensor in (*module.parameters(), *module.buffers())
    }


def _announce_size(folder: Path, what: str, count: int, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EncoderError(
            f"the features of {count:,} {what} take {size / 1e6:,.0f} MB and {folder} has "
            f"{free / 1e6:,.0f} MB left; free some space or name another folder by --cache"
        )
    Console(stderr=True).print(
        f"features of {count:,} {what}: {size / 1e6:,.1f} MB in {folder}", highlight=False
    )


def _round_to_half(row: _Single, what: str) -> _Half:
    """Return features as float16; raises `EncoderError` for one that it cannot hold."""
    largest = float(np.abs(row).max())
    if not np.isfinite(largest):
        raise EncoderError(
            f"the tower that reads {what} gave a state that is not finite, so none of its "
            "features are kept; name a tower whose weights are whole"
        )
    if largest > _LARGEST:
        raise EncoderError(
            f"the tower that reads {what} gave a state of {largest:,.0f}, and the float16 of the "
            f"feature cache ends at {_LARGEST:,.0f}; compute features each time by --no-cache "
            "(cache=None), or name another tower"
        )
    return row.astype(np.float16)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


class ImageFeatures:
    """What `below` says of images, by the digest of their bytes: tokens of an undivided tower."""

    def __init__(self, folder: Path, tower: ImageTower) -> None:
        self.tower = tower
        self.num_tokens, width = tower.below_shape
        self.store = FeatureStore(folder / f"image-{fingerprint_tower(tower)}", width)

    def fill(self, posts: Iterable[Post]) -> list[str | None]:
        """Encode what is missing and return the key of each post's image, none without one."""
        keys, sources = [], {}
        for post in posts:
            key = digest_image(post.image) if post.image is not None else None
            keys.append(key)
            if key is not None:
                sources[key] = post.image
        self.store.fill(sources, lambda _: self.num_tokens, self._encode, "images")
        return keys

    def states(self, keys: Sequence[str | None]) -> NDArray[np.float16]:
        """Return (post, token, width), zeros where there is no image."""
        blank = np.zeros((self.num_tokens, self.store.width), dtype=np.float16)
        return np.stack([blank if key is None else self.store.get(key) for key in keys])

    @torch.inference_mode()
    def _encode(self, sources: Sequence[Path | bytes]) -> list[_Single]:
        stack = np.stack([preprocess_image(source, self.tower.preprocess) for source in sources])
        device = self.tower.mean.device
        tokens = self.tower.eval().below(torch.from_numpy(stack).to(device))
        return list(tokens.float().cpu().numpy())


class TextFeatures:
    """What `below` says of texts, or their mean token, by the digest of their ids."""

    def __init__(self, folder: Path, tower: TextTower) -> None:
        self.tower = tower
        name = fingerprint_tower(tower)
        self.tokens = FeatureStore(folder / f"text-{name}", tower.below_width)
        self.means = FeatureStore(folder / f"mean-{name}", tower.width)

    def fill(self, rows: Iterable[_Ids], what: str) -> None:
        """Encode the tokens of the texts that are missing."""
        self.tokens.fill(_index_texts(rows), len, self._encode, what)

    def fill_means(self, rows: Iterable[_Ids], what: str) -> None:
        """Encode the mean tokens of the texts that are missing; the tower is undivided."""
        assert self.tower.split is None
        self.means.fill(_index_texts(rows), lambda _: 1, self._encode_means, what, by=len)

    def states(self, rows: Sequence[_Ids], length: int) -> NDArray[np.float16]:
        """Return (text, length, width), zeros where a text ends."""
        states = np.zeros((len(rows), length, self.tokens.width), dtype=np.float16)
        for place, row in enumerate(rows):
            if row:
                states[place, : len(row)] = self.tokens.get(_hash_token_ids(row))
        return states

    def mean(self, row: _Ids) -> _Half:
        """Return the mean token of a text, (width,)."""
        return self.means.get(_hash_token_ids(row))[0]

    @torch.inference_mode()
    def _encode(self, rows: Sequence[_Ids]) -> list[_Single]:
        states, _ = self._run(rows)
        tokens = states.float().cpu().numpy()
        return [tokens[place, : len(row)] for place, row in enumerate(rows)]

    @torch.inference_mode()
    def _encode_means(self, rows: Sequence[_Ids]) -> list[_Single]:
        states, mask = self._run(rows)
        return list(mean_pool(states, mask).float().cpu().numpy()[:, None])

    def _run(self, rows: Sequence[_Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = (torch.from_numpy(array) for array in pad_ids(rows, self.tower.words.pad_id))
        device = next(self.tower.parameters()).device
        states = self.tower.eval().below(ids.to(device), mask.to(device))
        return states, mask.to(device)


def _hash_token_ids(row: _Ids) -> str:
    """Return the digest of a text's ids."""
    return sha256(np.asarray(row, dtype=np.int32).tobytes()).hexdigest()[:32]


def _index_texts(rows: Iterable[_Ids]) -> dict[str, _Ids]:
    return {_hash_token_ids(row): row for row in rows if row}
