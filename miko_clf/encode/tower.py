"""What towers are built of, the contract they keep, and where an encoder's name leads."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from miko_clf.data.preprocess import Preprocessing
from miko_clf.data.tokenizer import TextTokenizer
from miko_clf.errors import EncoderError

TowerPlan = Mapping[str, Any]
Pool = Literal["mean", "first", "last"]
AnyTower = TypeVar("AnyTower", "ImageTower", "TextTower")
_Built = TypeVar("_Built")
_Triple = tuple[float, float, float]
_FOLDERS_VARIABLE = "MIKO_ENCODERS"


class Attention(nn.Module):
    """Scaled dot-product attention of queries over a memory (Vaswani et al., 2017).

    At least one token of each memory must be present: a row with none is finite here and
    wrong in an exported graph. Whoever builds a memory sees to that.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "post query width"],
        memory: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post query width"]:
        """Return what each query reads of the tokens that are present."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        read = functional.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(key),
            self._split(value),
            attn_mask=present[:, None, None, :].expand(-1, 1, queries.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return merged

    def weights(
        self,
        queries: Float[Tensor, "post query width"],
        memory: Float[Tensor, "post token width"],
        present: Bool[Tensor, "post token"],
    ) -> Float[Tensor, "post head query token"]:
        """Return how much of its reading each query takes from each token, 1 in all."""
        query = self._split(self.query(queries))
        key = self._split(self.key_value(memory).chunk(2, dim=-1)[0])
        alike = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        return alike.masked_fill(~present[:, None, None, :], -torch.inf).softmax(-1)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, four times as wide inside."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )


class FeatureDropout(nn.Module):
    """Dropout of whole features, the same ones for all tokens of a post (Gal, 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, states: Float[Tensor, "post *token channel"]) -> Tensor:
        """Return the states, in training with features at zero and the rest scaled up."""
        if not self.training or not self.rate:
            return states
        shape = (states.shape[0], *[1] * (states.ndim - 2), states.shape[-1])
        kept = torch.rand(shape, device=states.device) >= self.rate
        return states * (kept / (1 - self.rate))


class ImageTower(nn.Module):
    """Images to tokens. `trunk` maps normalised pixels to (image, token, width).

    `plan` is what rebuilds the trunk without weights and without a hub. Where the lower part
    never changes, `forward` is `above(below(pixels))`, and what `below` says may be kept:
    `split` counts the blocks below, none where the tower is not divided. `awake` are the
    modules that training mode reaches, none for all of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: Any, preprocess: Preprocessing, plan: TowerPlan) -> None:
        super().__init__()
        self.trunk = trunk
        self.preprocess = preprocess
        self.plan = plan
        self.split: int | None = None
        self.awake: list[nn.Module] | None = None
        self.grid: tuple[int, ...] = ()
        for name in ("mean", "std"):
            self.register_buffer(name, _channels(getattr(preprocess, name)), persistent=False)
        with torch.no_grad():
            _, self.num_tokens, self.width = self.eval()(self._probe()).shape
        self.below_shape = (self.num_tokens, self.width)
        self.train()

    @property
    def cached(self) -> bool:
        """Say whether what `below` says of an image never changes."""
        return self.split is not None or not any(p.requires_grad for p in self.parameters())

    def forward(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return one token a patch or grid cell, or one in all; pixels are normalised here."""
        tokens: Tensor = self.trunk(self._normal(pixels))
        return tokens

    def below(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image place channel"]:
        """Return what the part that never changes says: the tokens, unless the tower is split."""
        if self.split is None:
            return self(pixels)
        states = self.trunk.climb(self.trunk.start(self._normal(pixels)), 0, self.split)
        return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states

    def above(
        self, states: Float[Tensor, "image place channel"]
    ) -> Float[Tensor, "image token width"]:
        """Return the tokens of what `below` said."""
        if self.split is None:
            return states
        if self.grid:
            states = states.transpose(1, 2).unflatten(-1, self.grid)
        tokens: Tensor = self.trunk.finish(self.trunk.climb(states, self.split, None))
        return tokens

    def normalise_by(self, mean: _Triple, std: _Triple) -> None:
        """Normalise by other values than the checkpoint was trained with."""
        self.preprocess = self.preprocess.model_copy(update={"mean": mean, "std": std})
        self.plan = {**self.plan, "preprocess": self.preprocess.model_dump(mode="json")}
        self.mean, self.std = _channels(mean), _channels(std)

    @torch.no_grad()
    def divide(self, split: int | None) -> None:
        """Put a number of blocks below, none for an undivided tower."""
        self.split, self.grid = split, ()
        self.below_shape = (self.num_tokens, self.width)
        if split is not None:
            states = self.trunk.start(self._normal(self._probe()))
            states = self.trunk.climb(states, 0, split)
            self.grid = tuple(states.shape[2:]) if states.ndim == 4 else ()
            flat = states.flatten(2).transpose(1, 2) if self.grid else states
            self.below_shape = (flat.shape[1], flat.shape[2])

    def train(self, mode: bool = True) -> "ImageTower":
        """Set training mode, which reaches what learns and nothing else."""
        super().train(mode)
        _settle(self.trunk, self.awake, mode)
        return self

    def _normal(self, pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - self.mean) / self.std

    def _probe(self) -> Tensor:
        shape = (2, 3, self.preprocess.height, self.preprocess.width)
        return torch.zeros(shape, dtype=torch.uint8, device=self.mean.device)


class TextTower(nn.Module):
    """Texts to tokens. `trunk` maps ids and their presence to (text, word, width).

    `limit` is the longest text, in tokens, that the trunk can read; a longer one is read in
    windows of that length, in an exported graph only where `chunked` says so. `pool` is how
    its states become one, by its own convention. `split` and `awake` are those of an image
    tower.
    """

    def __init__(
        self, trunk: Any, words: TextTokenizer, limit: int, plan: TowerPlan, pool: Pool = "mean"
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.words = words
        self.limit = limit
        self.plan = plan
        self.pool: Pool = pool
        self.chunked = False
        self.split: int | None = None
        self.awake: list[nn.Module] | None = None
        with torch.no_grad():
            self.width = self.eval()(*self._probe()).shape[-1]
        self.below_width = self.width
        self.train()

    @property
    def cached(self) -> bool:
        """Say whether what `below` says of a text never changes."""
        return self.split is not None or not any(p.requires_grad for p in self.parameters())

    def forward(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the state of each word.

        A text with no word at all is read as one padding token, because attention over
        nothing is not a number; whoever reads the states masks them.
        """
        return self._in_windows(self.trunk, ids, present)

    def below(
        self, ids: Int[Tensor, "text word"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word channel"]:
        """Return what the part that never changes says: the states, unless the tower is split."""
        if self.split is None:
            return self(ids, present)
        return self._in_windows(self._climb_below, ids, present)

    def above(
        self, states: Float[Tensor, "text word channel"], present: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        """Return the states of words from what `below` said of them."""
        if self.split is None:
            return states
        return self._in_windows(self._climb_above, states, present)

    @torch.no_grad()
    def divide(self, split: int | None) -> None:
        """Put a number of blocks below, none for an undivided tower."""
        self.split = split
        self.below_width = self.width
        if split is not None:
            self.below_width = self.below(*self._probe()).shape[-1]

    def pool_by(self, pool: Pool) -> None:
        """Pool states otherwise than by the convention of the encoder."""
        self.pool = pool
        self.plan = {**self.plan, "pool": pool}

    def chunk(self) -> None:
        """Read long texts in windows in an exported graph too, which then pads short ones."""
        self.chunked = True
        self.plan = {**self.plan, "chunked": True}

    def train(self, mode: bool = True) -> "TextTower":
        """Set training mode, which reaches what learns and nothing else."""
        super().train(mode)
        _settle(self.trunk, self.awake, mode)
        return self

    def blank(self, num_texts: int, length: int) -> Float[Tensor, "text word width"]:
        """Return zeros in the shape of states."""
        parameter = next(self.parameters())
        return torch.zeros(num_texts, length, self.width, device=parameter.device)

    def _climb_below(self, ids: Tensor, present: Tensor) -> Tensor:
        states: Tensor = self.trunk.climb(self.trunk.start(ids), present, 0, self.split)
        return states

    def _climb_above(self, states: Tensor, present: Tensor) -> Tensor:
        tokens: Tensor = self.trunk.finish(self.trunk.climb(states, present, self.split, None))
        return tokens

    def _in_windows(
        self, run: Callable[[Tensor, Tensor], Tensor], values: Tensor, present: Tensor
    ) -> Tensor:
        """Return what `run` makes of texts, of long ones window by window."""
        length = values.shape[1]
        is_traced = self.chunked and torch.compiler.is_exporting()  # a graph knows no branches
        if not is_traced and length <= self.limit:
            return run(values, _readable(present))
        rest = -length % self.limit
        values = functional.pad(values, (0, 0) * (values.ndim - 2) + (0, rest))
        windows = functional.pad(present, (0, rest)).reshape(-1, self.limit)
        states = run(values.reshape(-1, self.limit, *values.shape[2:]), _readable(windows))
        return states.reshape(values.shape[0], -1, states.shape[-1])[:, :length]

    def _probe(self) -> tuple[Tensor, Tensor]:
        parameter = next(self.parameters())
        ids = torch.full((2, 3), self.words.pad_id, device=parameter.device)
        return ids, torch.ones_like(ids, dtype=torch.bool)


def compute_image_states(
    tower: ImageTower, batch: Mapping[str, Tensor]
) -> Float[Tensor, "post token width"]:
    """Return the tokens of each post's image: `image_states`, `image_below` or `pixels`."""
    if "image_states" in batch:
        return batch["image_states"]
    if "image_below" in batch:
        return tower.above(batch["image_below"])
    return tower(batch["pixels"])


def compute_text_states(
    tower: TextTower, batch: Mapping[str, Tensor], name: str
) -> Float[Tensor, "post word width"]:
    """Return the state of each word of a text: `NAME_states`, `NAME_below` or `NAME_ids`."""
    if f"{name}_states" in batch:
        return batch[f"{name}_states"]
    mask = batch[f"{name}_mask"]
    if f"{name}_below" in batch:
        return tower.above(batch[f"{name}_below"], mask)
    return tower(batch[f"{name}_ids"], mask)


def compute_intention_states(
    tower: TextTower, batch: Mapping[str, Tensor]
) -> Float[Tensor, "post intention word width"]:
    """Return the state of each word of each intention, zeros where a post has fewer."""
    if "intention_states" in batch:
        return batch["intention_states"]
    below = "intention_below" in batch
    words = batch["intention_below" if below else "intention_ids"].flatten(0, 1)
    mask = batch["intention_mask"].flatten(0, 1)
    shape = (*batch["intention_mask"].shape, -1)
    run = tower.above if below else tower
    if torch.compiler.is_exporting():
        return run(words, mask).reshape(shape)
    here = mask.any(1)  # an absent intention costs nothing
    states = tower.blank(*mask.shape)
    if here.any():
        present = run(words[here], mask[here])
        states = states.to(present.dtype).index_put((here,), present)
    return states.reshape(shape)


def pool_states(
    states: Float[Tensor, "text word width"], present: Bool[Tensor, "text word"], pool: Pool
) -> Float[Tensor, "text width"]:
    """Return one state a text, by the convention of its encoder; zeros where no word is present."""
    if pool == "mean":
        return mean_pool(states, present)
    if pool == "first":
        places = torch.arange(present.shape[1], device=present.device)
        here = places == places.where(present, present.shape[1]).amin(1)[:, None]
    else:
        here = _find_last_word(present)
    return (states * (here & present)[..., None].to(states.dtype)).sum(1)


def trim_padding(
    states: Float[Tensor, "text place width"], present: Bool[Tensor, "text word"]
) -> Float[Tensor, "text word width"]:
    """Return the states of the words of texts that were padded to `place`, for pool `last`.

    An encoder that reads its padding may pool at its last place, whatever stands there, as
    SigLIP does (Zhai et al., ICCV 2023): that state stands at the last word of each text.
    """
    last = _find_last_word(present)[..., None]
    return torch.where(last, states[:, -1:], states[:, : present.shape[1]])


def mean_pool(
    states: Float[Tensor, "text word width"], present: Bool[Tensor, "text word"]
) -> Float[Tensor, "text width"]:
    """Return the mean state of the words that are present, zeros where none is."""
    weight = present[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _channels(values: _Triple) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _find_last_word(present: Tensor) -> Tensor:
    """Return where the last word of each text is, the first place where it has none."""
    places = torch.arange(present.shape[1], device=present.device)
    return places == (places * present).amax(1)[:, None]


def _readable(present: Tensor) -> Tensor:
    first = torch.arange(present.shape[1], device=present.device) == 0
    return present | first


def _settle(trunk: nn.Module, awake: list[nn.Module] | None, mode: bool) -> None:
    """Keep training mode to what learns, and BatchNorm out of it whatever learns.

    Its weights may learn and its statistics stay those of the checkpoint: batches are small, a
    post without an image is black, and no moving average of weights is of statistics too.
    """
    if awake is not None:
        trunk.eval()
        for module in (module for top in awake for module in top.modules()):
            module.training = mode
    for module in trunk.modules():
        if isinstance(module, _BatchNorm):
            module.training = False


def find_encoder_folder(name: str) -> Path | None:
    """Return the folder that `name` leads to on this machine, or none."""
    return next((path for path in list_encoder_folders(name) if path.is_dir()), None)


def list_encoder_folders(name: str) -> list[Path]:
    """Return the folders that are looked at for `name`, in order.

    `name` itself, then in each folder on MIKO_ENCODERS the whole name and its last part.
    """
    folders = filter(None, os.environ.get(_FOLDERS_VARIABLE, "").split(os.pathsep))
    names = dict.fromkeys((name, name.rstrip("/").rsplit("/", 1)[-1]))
    return [Path(name), *(Path(folder) / part for folder in folders for part in names)]


def load_encoder(name: str, make: Callable[[str], _Built], library: str) -> _Built:
    """Return `make(folder or name)`; raises `EncoderError` that says where it looked.

    The hub is asked, through the library's own client, only where no folder is found.
    """
    folder = find_encoder_folder(name)
    try:
        return make(str(folder) if folder else name)
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        if folder:
            reason = str(error).strip().split("\n")[0][:200]
            raise EncoderError(f"{folder}: {library} cannot load this encoder: {reason}") from error
        looked = ", ".join(map(str, list_encoder_folders(name)))
        advice = f"; {_FOLDERS_VARIABLE} may list folders of encoders"
        advice = "" if os.environ.get(_FOLDERS_VARIABLE) else advice
        raise EncoderError(
            f"no encoder called {name!r}: looked at {looked} and, through {library}, on the hub, "
            f"which is offline or does not have it{advice}"
        ) from error
