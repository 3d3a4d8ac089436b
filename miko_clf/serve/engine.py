"""Posts to scores by the graph of a bundle, in ONNX Runtime on the provider asked for."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from pydantic import ValidationError

from miko_clf.bundle import PREPROCESS_FILE, Bundle, load_bundle
from miko_clf.data.ocr import PictureReader, fill_text, lacks_text
from miko_clf.data.post import RELATIONS, Intention, Post
from miko_clf.data.preprocess import Arrays, Preparation, digest_golden_image, stack_images
from miko_clf.data.tokenizer import TextTokenizer, encode_texts, pad_ids, read_tokenizer
from miko_clf.errors import BundleError, DeviceError, MikoError
from miko_clf.serve.postprocess import PriorCorrection, Score, lacks_threshold, make_decision

MAX_BATCH = 32
_BATCH_TOLERANCE = 1e-3  # of a probability, between a post alone and the same post in a batch
_ARMS = ("with", "student", "without")
Provider = Literal["cpu", "cuda"]
_CUDA_PROVIDER, _CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
# What a GPU is asked for. Shape arithmetic is left to the CPU, where ONNX Runtime prefers it,
# which is why `session.disable_cpu_ep_fallback` would refuse any graph of varying batch size.
_HEAVY_OPERATORS = {"Attention", "Conv", "Gemm", "LayerNormalization", "MatMul", "Softmax"}
_LOG_ERRORS = 3  # severity from which ONNX Runtime speaks
OCR_REMARK = (
    "the bundle learned from texts read by OCR, and the picture of a post without text was not "
    "read; add --ocr"
)


def open_session(
    graph: Path, provider: Provider, *, allow_cpu: bool = False, threads: int | None = None
) -> InferenceSession:
    """Return a session that computes on `provider`, or on the CPU where that is allowed instead.

    Raises `DeviceError` where the provider is not to be had, `BundleError` for a bad graph.
    """
    onnxruntime.set_default_logger_severity(_LOG_ERRORS)
    if provider == "cpu":
        return _create_session(graph, [_CPU_PROVIDER], threads)
    if _CUDA_PROVIDER in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
        session = _create_session(graph, [(_CUDA_PROVIDER, {"use_tf32": "0"})], threads)
        left = ", ".join(list_heavy_cpu_operators(session))
        if get_provider(session) != "cuda":
            reason = "its libraries or its device are missing"
        elif left:
            reason = f"it left {left} to the CPU"
        else:
            return session
    else:
        reason = "this onnxruntime has no CUDA provider; install miko-clf[gpu]"
    if allow_cpu:
        return _create_session(graph, [_CPU_PROVIDER], threads)
    offered = ", ".join(sorted(onnxruntime.get_available_providers()))
    raise DeviceError(
        f"cuda was asked for and is not in use: {reason} (available: {offered}); "
        "add --allow-cpu to take the CPU instead"
    )


def get_provider(session: InferenceSession) -> Provider:
    """Return the provider that a session computes on."""
    return "cuda" if session.get_providers()[0] == _CUDA_PROVIDER else "cpu"


def list_heavy_cpu_operators(session: InferenceSession) -> list[str]:
    """Return the kinds of heavy operators that a session computes on the CPU."""
    parts = session.get_provider_graph_assignment_info()
    left = [part.get_nodes() for part in parts if part.ep_name == _CPU_PROVIDER]
    return sorted(_HEAVY_OPERATORS & {node.op_type for nodes in left for node in nodes})


def _create_session(graph: Path, providers: list[Any], threads: int | None) -> InferenceSession:
    options = SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        return InferenceSession(graph, options, providers, enable_fallback=0)
    except Exception:  # the library raises a dozen types, and quotes the graph in them
        raise BundleError(f"{graph}: ONNX Runtime cannot load this graph") from None


class PreparedPost(NamedTuple):
    """A post as arrays of one row, in the arm that it will be scored in.

    `remarks` say what of its picture is lost, `reading` what a score says of a text read by OCR.
    """

    id: str
    arm: str
    arrays: Arrays
    truncated: bool
    remarks: tuple[str, ...] = ()
    reading: Mapping[str, Any] = {}

    @property
    def length(self) -> int:
        """Number of token places, by which posts are batched with their like."""
        return sum(array.size for name, array in self.arrays.items() if name.endswith("_ids"))


class Engine:
    """A bundle's graph in a session; `score`, `prepare` and `run` may be called from any thread.

    `provider` is the one in use; where there is a `prior` scores are corrected for it, and where
    there is a `reader` it reads the pictures of posts without text.
    """

    def __init__(self, opened: Bundle, session: InferenceSession, preparation: Preparation) -> None:
        self.bundle = opened
        self.prior: PriorCorrection | None = None
        self.reader: PictureReader | None = None
        self.session = session
        self.provider: Provider = get_provider(session)
        self.preparation = preparation
        self.arms = _list_arms(preparation)
        self._texts = preparation.model_copy(update={"image": None})
        self._words = read_tokenizer(opened.tokenizer, preparation)
        self._lock = threading.Lock()  # a tokenizer's limit is set, then used
        self._names = [graph_input.name for graph_input in session.get_inputs()]

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        provider: Provider = "cpu",
        allow_cpu: bool = False,
        threads: int | None = None,
        prior: float | None = None,
        reader: PictureReader | None = None,
    ) -> "Engine":
        """Return the engine of a bundle whose every file was found unchanged.

        `threads` compute one batch, by default one a core. `prior` is the share of the positive
        class among the posts to come, by default the bundle's own. `reader` reads the pictures of
        posts without text. Raises `BundleError` where the bundle does not fit this program,
        `DeviceError` where `provider` is not to be had.
        """
        opened = load_bundle(path)
        correction = None if prior is None else PriorCorrection(opened, prior)
        graph = opened.graph("model")
        _check_folder(opened)
        preparation = _read_preparation(opened)
        if reader is not None and "text" not in preparation.inputs:
            raise MikoError(f"{path}: reads no text, so there is no use in reading pictures (ocr)")
        session = open_session(graph, provider, allow_cpu=allow_cpu, threads=threads)
        engine = cls(opened, session, preparation)
        engine._check_graph()
        engine.prior, engine.reader = correction, reader
        return engine

    def score(self, posts: Sequence[Post], arm: str | None = None) -> list[Score]:
        """Return the score of each post, in order.

        Without an arm a post is read with its intentions where it has any, otherwise with the
        model's guess of them where it makes one. Raises `PostError` for an unreadable image.
        """
        return self.run([self.prepare(post, arm) for post in posts])

    @property
    def misses_texts(self) -> bool:
        """Whether the bundle learned from texts read by OCR, and nothing here reads them."""
        return self.reader is None and "ocr" in self.bundle.manifest

    def prepare(self, post: Post, arm: str | None = None, until: float = math.inf) -> PreparedPost:
        """Return the post as arrays; raises `PostError` for an image that cannot be read.

        Raises TimeoutError where its text is not read by `until` (seconds, monotonic).
        """
        self.check_arm(arm)
        remarks = [OCR_REMARK] if self.misses_texts and lacks_text(post) else []
        if self.reader is not None:
            post = fill_text(post, self.reader, until)
        if arm not in (None, "with"):
            post = post.model_copy(update={"intentions": ()})
        with self._lock:
            before = self._words.num_cut if self._words else 0
            arrays = collate_posts([post], self._texts, self._words)
            truncated = self._words is not None and self._words.num_cut > before
        if self.preparation.image is not None:
            arrays |= stack_images([post], self.preparation.image, remarks)
        if arm is None:
            told = "intention_mask" in arrays and bool(arrays["intention_mask"].any())
            arm = "with" if told else "student"
            arm = arm if arm in self.arms else self.arms[-1]
        if self.preparation.slots:
            arrays["student"] = np.array([arm == "student"])
        return PreparedPost(
            post.id, arm, arrays, truncated, tuple(remarks), _describe_reading(post)
        )

    def run(self, posts: Sequence[PreparedPost]) -> list[Score]:
        """Return the score of each post, in order; at most `MAX_BATCH` are computed at once."""
        order = sorted(range(len(posts)), key=lambda place: posts[place].length)
        scores: dict[int, Score] = {}
        for start in range(0, len(order), MAX_BATCH):
            places = order[start : start + MAX_BATCH]
            batch = [posts[place] for place in places]
            for place, post, row in zip(places, batch, self._probabilities(batch), strict=True):
                known = self.bundle.questions, self.bundle.calibrations
                fields = make_decision(row, *known, post.arm)
                known_of_text = {"truncated": post.truncated, **post.reading}
                score = Score(id=post.id, **fields, arm=post.arm, **known_of_text)
                scores[place] = self.prior.correct(score) if self.prior else score
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
        alone, batch = self._probabilities([ready]), self._probabilities([ready] * 8)
        if np.abs(batch - alone).max() > _BATCH_TOLERANCE:
            raise BundleError(
                f"{self.bundle.path}: the graph scores a post in a batch otherwise than "
                f"alone; export it again by: miko-clf export {self.bundle.path}"
            )

    def _probabilities(self, posts: Sequence[PreparedPost]) -> NDArray[np.float32]:
        arrays = _join_posts(posts, self.preparation.pad_id)
        feed = {name: arrays[name] for name in self._names}
        rows: NDArray[np.float32] = self.session.run(["probabilities"], feed)[0]
        if not np.isfinite(rows).all():
            raise FloatingPointError("the graph returned a probability that is not a number")
        return rows

    def _check_graph(self) -> None:
        """Raise BundleError unless inputs, outputs and thresholds are those this program knows."""
        path, known = self.bundle.path, self.prepare(Post(id="x", text="x")).arrays
        for name in self._names:
            if name not in known:
                raise BundleError(f"{path}: the graph reads {name!r:.40}, which no post becomes")
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        if shapes.get("probabilities", [0])[-1] != len(self.bundle.labels):
            raise BundleError(f"{path}: the graph gives no probability for each of the labels")
        for arm in self.arms:
            if lacks_threshold(self.bundle.questions, self.bundle.calibrations, arm):
                raise BundleError(f"{path}: calibration.json has no threshold for arm {arm!r}")


def _describe_reading(post: Post) -> dict[str, Any]:
    """Return what a score says of the text of a post, if it was read by OCR."""
    if post.text_source is None:
        return {}
    return post.model_dump(include={"text", "text_source", "text_confidence"})


def _join_posts(posts: Sequence[PreparedPost], pad_id: int) -> Arrays:
    """Return arrays of one row each as arrays of all rows, absent where a row ends early."""
    joined = {}
    for name in posts[0].arrays:
        rows = [post.arrays[name] for post in posts]
        shape = np.max([row.shape for row in rows], axis=0)[1:]
        fill = pad_id if name.endswith("_ids") else 0
        joined[name] = np.full((len(rows), *shape), fill, dtype=rows[0].dtype)
        for place, row in enumerate(rows):
            joined[name][place:][tuple(map(slice, row.shape))] = row
    return joined


def _list_arms(preparation: Preparation) -> tuple[str, ...]:
    if "intention" in preparation.inputs and not preparation.reads_intentions:
        return ("with",)
    offered = {"with": "intention" in preparation.inputs, "student": preparation.slots}
    return tuple(arm for arm in _ARMS if offered.get(arm, True))


def _read_preparation(opened: Bundle) -> Preparation:
    try:
        preparation = Preparation.model_validate(opened.preprocess)
    except ValidationError:
        raise BundleError(f"{opened.path / PREPROCESS_FILE}: not of this version") from None
    image = preparation.image
    if image is not None and preparation.golden != digest_golden_image(image):
        raise BundleError(
            f"{opened.path}: a picture comes out of this program otherwise than in training "
            "(golden digest); install the Pillow that the bundle's manifest names"
        )
    return preparation


def _check_folder(opened: Bundle) -> None:
    """Raise BundleError for a file beside the graphs that the manifest does not vouch for.

    A graph may keep its weights in another file. ONNX Runtime refuses one outside the folder.
    """
    for path in (opened.path / "onnx").rglob("*"):
        name = path.relative_to(opened.path).as_posix()
        if path.is_symlink() or (path.is_file() and name not in opened.manifest["files"]):
            raise BundleError(f"{opened.path}: file {name} is not one that the manifest lists")


def collate_posts(
    posts: Sequence[Post], preparation: Preparation, words: TextTokenizer | None
) -> Arrays:
    """Return every array that the inputs call for; `words` is null where none of them is a text.

    pixels uint8 (post, 3, height, width), image_present bool (post,); for each text NAME
    NAME_ids int64 and NAME_mask bool (post, token); intention_ids and intention_mask
    (post, intention, token), relation int64 (post, intention). What a post lacks is masked.
    Raises `PostError` where a rationale that saw the label would be read.
    """
    arrays: Arrays = {}
    if preparation.image is not None:
        arrays |= stack_images(posts, preparation.image)
    if words is None:
        return arrays
    for name, rows in encode_texts(posts, preparation, words).items():
        arrays[f"{name}_ids"], arrays[f"{name}_mask"] = pad_ids(rows, words.pad_id)
    if preparation.reads_intentions:
        arrays |= _encode_intentions(posts, preparation.intention_length, words)
    return arrays


def _encode_intentions(posts: Sequence[Post], max_length: int, words: TextTokenizer) -> Arrays:
    """Return intention_ids, intention_mask and relation; one absent one where none is given."""
    counts = [len(post.intentions) for post in posts]
    texts = [intention.text for post in posts for intention in post.intentions]
    rows = words.encode(texts, max_length)
    flat_ids, flat_mask = pad_ids(rows, words.pad_id)
    shape = (len(posts), max([1, *counts]))
    ids = np.full((*shape, flat_ids.shape[1]), words.pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    relation = np.zeros(shape, dtype=np.int64)
    start = 0
    for place, (post, count) in enumerate(zip(posts, counts, strict=True)):
        ids[place, :count] = flat_ids[start : start + count]
        mask[place, :count] = flat_mask[start : start + count]
        relation[place, :count] = [RELATIONS.index(each.relation) for each in post.intentions]
        start += count
    return {"intention_ids": ids, "intention_mask": mask, "relation": relation}
