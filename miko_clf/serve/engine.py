"""Posts to scores by the graph of a bundle."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from pydantic import ValidationError

from miko_clf import bundle
from miko_clf.bundle import PREPROCESS, Bundle
from miko_clf.data.collate import Arrays, Preparation, collate, images, read_words
from miko_clf.data.pixels import golden_digest
from miko_clf.data.post import Intention, Post
from miko_clf.errors import BundleError, MikoError
from miko_clf.serve.decision import Score, decide, lacking
from miko_clf.serve.prior import Prior
from miko_clf.serve.session import Provider, open_session, provider_of

MAX_BATCH = 32
TOLERANCE = 1e-3  # of a probability, between a post alone and the same post in a batch
_ARMS = ("with", "student", "without")


class Ready(NamedTuple):
    """A post as arrays of one row, in the arm that it will be scored in."""

    id: str
    arm: str
    arrays: Arrays
    truncated: bool

    @property
    def length(self) -> int:
        """Number of token places, by which posts are batched with their like."""
        return sum(array.size for name, array in self.arrays.items() if name.endswith("_ids"))


class Engine:
    """A bundle's graph in a session; `score`, `prepare` and `run` may be called from any thread.

    `provider` is the one in use; where there is a `prior` scores are corrected for it.
    """

    def __init__(self, opened: Bundle, session: InferenceSession, preparation: Preparation) -> None:
        self.bundle = opened
        self.prior: Prior | None = None
        self.session = session
        self.provider: Provider = provider_of(session)
        self.preparation = preparation
        self.arms = _arms(preparation)
        self._texts = preparation.model_copy(update={"image": None})
        self._words = read_words(opened.tokenizer, preparation)
        self._lock = threading.Lock()  # a tokenizer's limit is set, then used
        self._names = [each.name for each in session.get_inputs()]

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        provider: Provider = "cpu",
        allow_cpu: bool = False,
        threads: int | None = None,
        prior: float | None = None,
    ) -> "Engine":
        """Return the engine of a bundle whose every file was found unchanged.

        `threads` compute one batch, by default one a core. `prior` is the share of the positive
        class among the posts to come, by default the bundle's own. Raises `BundleError` where the
        bundle does not fit this program, `DeviceError` where `provider` is not to be had.
        """
        opened = bundle.read(path)
        moved = None if prior is None else Prior(opened, prior)
        graph = opened.graph("model")
        _check_folder(opened)
        preparation = _preparation(opened)
        session = open_session(graph, provider, allow_cpu=allow_cpu, threads=threads)
        engine = cls(opened, session, preparation)
        engine._check_graph()
        engine.prior = moved
        return engine

    def score(self, posts: Sequence[Post], arm: str | None = None) -> list[Score]:
        """Return the score of each post, in order.

        Without an arm a post is read with its intentions where it has any, otherwise with the
        model's guess of them where it makes one. Raises `PostError` for an unreadable image.
        """
        return self.run([self.prepare(post, arm) for post in posts])

    def prepare(self, post: Post, arm: str | None = None) -> Ready:
        """Return the post as arrays; raises `PostError` for an image that cannot be read."""
        self.check_arm(arm)
        if arm not in (None, "with"):
            post = post.model_copy(update={"intentions": ()})
        with self._lock:
            before = self._words.num_cut if self._words else 0
            arrays = collate([post], self._texts, self._words)
            truncated = self._words is not None and self._words.num_cut > before
        if self.preparation.image is not None:
            arrays |= images([post], self.preparation.image)
        given = "intention_mask" in arrays and bool(arrays["intention_mask"].any())
        chosen = arm or self._usual(given)
        if self.preparation.slots:
            arrays["student"] = np.array([chosen == "student"])
        return Ready(post.id, chosen, arrays, truncated)

    def run(self, posts: Sequence[Ready]) -> list[Score]:
        """Return the score of each post, in order; at most `MAX_BATCH` are computed at once."""
        order = sorted(range(len(posts)), key=lambda place: posts[place].length)
        scores: dict[int, Score] = {}
        for start in range(0, len(order), MAX_BATCH):
            places = order[start : start + MAX_BATCH]
            batch = [posts[place] for place in places]
            rows = self._probabilities(_join(batch, self.preparation.pad_id))
            for place, post, row in zip(places, batch, rows, strict=True):
                scores[place] = self._decide(post, row)
        return [scores[place] for place in range(len(posts))]

    def check_arm(self, arm: str | None) -> None:
        """Raise `MikoError` for an arm that the bundle does not have."""
        if arm is not None and arm not in self.arms:
            raise MikoError(f"this bundle has no arm {arm!r:.40}; it has {', '.join(self.arms)}")

    def warm_up(self) -> None:
        """Score a fixed post alone and eight times over; raises `BundleError` if they differ."""
        post = Post(
            id="warm-up",
            text="all is well",
            intentions=(Intention(relation="xIntent", text="to be heard"),),
        )
        ready = self.prepare(post)
        alone, batch = (
            self._probabilities(_join([ready] * count, self.preparation.pad_id)) for count in (1, 8)
        )
        if np.abs(batch - alone).max() > TOLERANCE:
            raise BundleError(
                f"{self.bundle.path}: the graph scores a post in a batch otherwise than "
                f"alone; export it again by: miko-clf export {self.bundle.path}"
            )

    def _usual(self, given: bool) -> str:
        wanted = "with" if given else "student"
        return wanted if wanted in self.arms else self.arms[-1]

    def _probabilities(self, arrays: Arrays) -> NDArray[np.float32]:
        feed = {name: arrays[name] for name in self._names}
        rows: NDArray[np.float32] = self.session.run(["probabilities"], feed)[0]
        if not np.isfinite(rows).all():
            raise FloatingPointError("the graph returned a probability that is not a number")
        return rows

    def _decide(self, post: Ready, row: NDArray[np.float32]) -> Score:
        found = decide(row, self.bundle.questions, self.bundle.calibrations, post.arm)
        score = Score(id=post.id, **found, arm=post.arm, truncated=post.truncated)
        return self.prior.correct(score) if self.prior else score

    def _check_graph(self) -> None:
        """Raise BundleError unless inputs, outputs and thresholds are those this program knows."""
        path, known = self.bundle.path, self.prepare(Post(id="x", text="x")).arrays
        for name in self._names:
            if name not in known:
                raise BundleError(f"{path}: the graph reads {name!r:.40}, which no post becomes")
        given = {each.name: each.shape for each in self.session.get_outputs()}
        if given.get("probabilities", [0])[-1] != len(self.bundle.labels):
            raise BundleError(f"{path}: the graph gives no probability for each of the labels")
        for arm in self.arms:
            if lacking(self.bundle.questions, self.bundle.calibrations, arm):
                raise BundleError(f"{path}: calibration.json has no threshold for arm {arm!r}")


def _join(posts: Sequence[Ready], pad_id: int) -> Arrays:
    """Return arrays of one row each as arrays of all rows, absent where a row ends early."""
    return {
        name: _stack([post.arrays[name] for post in posts], pad_id if name.endswith("_ids") else 0)
        for name in posts[0].arrays
    }


def _stack(rows: Sequence[NDArray], fill: int) -> NDArray:
    shape = tuple(max(sizes) for sizes in zip(*(row.shape[1:] for row in rows), strict=True))
    stacked = np.full((len(rows), *shape), fill, dtype=rows[0].dtype)
    for place, row in enumerate(rows):
        corner = (slice(place, place + 1), *(slice(size) for size in row.shape[1:]))
        stacked[corner] = row
    return stacked


def _arms(preparation: Preparation) -> tuple[str, ...]:
    if "intention" in preparation.inputs and not preparation.reads_intentions:
        return ("with",)
    here = {"with": "intention" in preparation.inputs, "student": preparation.slots}
    return tuple(arm for arm in _ARMS if here.get(arm, True))


def _preparation(opened: Bundle) -> Preparation:
    try:
        found = Preparation.model_validate(opened.preprocess)
    except ValidationError:
        raise BundleError(f"{opened.path / PREPROCESS}: not of this version") from None
    if found.image is not None and found.golden != golden_digest(found.image):
        raise BundleError(
            f"{opened.path}: a picture comes out of this program otherwise than in training "
            "(golden digest); install the Pillow that the bundle's manifest names"
        )
    return found


def _check_folder(opened: Bundle) -> None:
    """Raise BundleError for a file beside the graphs that the manifest does not vouch for.

    A graph may keep its weights in another file. ONNX Runtime refuses one outside the folder.
    """
    for path in (opened.path / "onnx").rglob("*"):
        name = path.relative_to(opened.path).as_posix()
        if path.is_symlink() or (path.is_file() and name not in opened.manifest["files"]):
            raise BundleError(f"{opened.path}: file {name} is not one that the manifest lists")
