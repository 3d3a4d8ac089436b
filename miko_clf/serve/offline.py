"""Posts, or a whole file of them, to scores: the Python interface of a bundle, without torch."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from miko_clf.data import readers
from miko_clf.data.ocr import PictureReader
from miko_clf.data.post import Post
from miko_clf.data.readers import PostEntry, SkipReport
from miko_clf.errors import BundleError, MikoError, PostError
from miko_clf.hub import find_bundle
from miko_clf.manifest import write_atomically
from miko_clf.progress import DELAY, ProgressBar
from miko_clf.serve import postprocess
from miko_clf.serve.engine import Engine, PreparedPost, Provider
from miko_clf.serve.postprocess import PriorEstimate, Score

_PendingPost = tuple[PostEntry, Future[PreparedPost]]


class ScoringSummary(NamedTuple):
    """How many posts were scored and how many passed over, and the prior that was estimated.

    `reasons` say why posts were passed over, `remarks` what was assumed of those that were read,
    or lost: a line for each kind.
    """

    scored: int
    skipped: int
    prior: PriorEstimate | None = None
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def load(
    bundle: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    provider: Provider = "cpu",
    allow_cpu: bool = False,
    threads: int | None = None,
    prior: float | None = None,
    reader: PictureReader | None = None,
) -> "Scorer":
    """Return the scorer of an exported bundle: a folder, or `user/name` on the Hugging Face hub.

    `revision` is a branch, tag or commit of the hub, and `token` opens what is private there.
    `provider` is `cpu` or `cuda`, and `allow_cpu` takes the CPU where there is no CUDA. `threads`
    compute one batch, by default one a core. `prior` is the share of the positive class among the
    posts to come, by default the bundle's own. `reader`, as `data.ocr.open_picture_reader` gives
    it, reads the pictures of posts without text. Raises `BundleError` where the bundle is not to
    be had, was changed or does not fit this program, `DeviceError` where `provider` is not in use.
    """
    path = find_bundle(bundle, revision=revision, token=token)
    return Scorer(
        Engine.open(
            path,
            provider=provider,
            allow_cpu=allow_cpu,
            threads=threads,
            prior=prior,
            reader=reader,
        )
    )


class Scorer:
    """A bundle that scores posts; its methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each probability."""
        return self.engine.bundle.labels

    @property
    def arms(self) -> tuple[str, ...]:
        """What may stand for the author's intention: `with`, `student`, `without`."""
        return self.engine.arms

    def score(
        self, posts: Iterable[Post | Mapping[str, Any]], arm: str | None = None
    ) -> list[Score]:
        """Return the score of each post, in order.

        A post may be an object with the keys of a line of a posts file. There an image is encoded
        bytes or a path, which starts at the working directory if it is relative, and an `id` that
        is left out is the place of the post, from 0. Without an arm a post is read with its
        intentions where it has any, otherwise with the model's guess of them where it makes one.
        Raises `PostError` for a post that is none, or whose image cannot be read.
        """
        return self.engine.score([_as_post(post, place) for place, post in enumerate(posts)], arm)

    def score_file(
        self,
        posts: str | Path,
        out: str | Path,
        *,
        arm: str | None = None,
        skip_bad: bool = False,
        batch_size: int = 256,
        auto_prior: bool = False,
    ) -> ScoringSummary:
        """Write a score for each post of a .jsonl, .csv or .parquet file, in its order, as JSONL.

        A post that cannot be read raises `PostError` with its file and line or, with `skip_bad`,
        is named in `OUT.skipped.json`. On any error `out` stays as it was. `batch_size` posts are
        held in memory at a time, twice. With `auto_prior` the scores are corrected for the share
        of the positive class that they themselves speak for.
        """
        posts, out = Path(posts), Path(out)
        _check_out(out, posts)
        if batch_size < 1:
            raise MikoError(f"batch_size is {batch_size}; it must be at least 1")
        self.engine.check_arm(arm)
        if auto_prior:
            if self.engine.prior is not None:
                raise MikoError("scores are corrected for a prior already; load without one")
            postprocess.read_prior(self.engine.bundle)  # raises where there is none, before work
        report, remarks = SkipReport() if skip_bad else None, SkipReport()
        with write_atomically(out) as beside:
            num_scored = self._write_scores(posts, beside, arm, batch_size, report, remarks)
            if not num_scored:
                raise PostError(f"{posts}: holds {readers.explain_no_posts(report)}")
            estimate = _correct_file(beside, self.engine) if auto_prior else None
            if report is not None:
                report.write(out.with_name(f"{out.name}.skipped.json"))
        reasons = () if report is None else tuple(report.summarise())
        known = num_scored, len(report or ()), estimate
        return ScoringSummary(*known, reasons, tuple(remarks.summarise()))

    def _write_scores(
        self,
        posts: Path,
        out: Path,
        arm: str | None,
        batch_size: int,
        report: SkipReport | None,
        remarks: SkipReport,
    ) -> int:
        """Write a score a line, fill the reports, and return how many posts were scored."""
        num_seen, num_scored, start = count(), 0, time.monotonic()
        rows = (row for row, _ in zip(readers.read_rows(posts), num_seen, strict=False))
        entries = readers.build_entries(
            rows, lambda cells: readers.parse_post(cells, posts.parent), report
        )
        with out.open("w", encoding="utf-8") as file, ProgressBar("scoring", delay=DELAY) as bar:
            for batch in _prepare_batches(self.engine, entries, arm, batch_size):
                ready = []
                for entry, future in batch:
                    try:
                        ready.append(future.result())
                    except PostError as error:
                        readers.refuse_post(entry.where, str(error), report)
                        continue
                    for remark in (*entry.remarks, *ready[-1].remarks):
                        remarks.add(entry.where, remark)
                scores = self.engine.run(ready)
                file.writelines(score.model_dump_json() + "\n" for score in scores)
                num_scored += len(ready)
                rate = num_scored / (time.monotonic() - start)
                bar.update(num_scored, note=f"{rate:.0f} posts/s")
        assert next(num_seen) == num_scored + len(report or ()), (num_seen, num_scored, report)
        return num_scored


def _as_post(post: Post | Mapping[str, Any], place: int) -> Post:
    if isinstance(post, Post):
        return post
    cells = {key: str(cell) if isinstance(cell, Path) else cell for key, cell in post.items()}
    try:
        return readers.parse_post({"id": str(place), **cells}, Path())
    except PostError as error:
        raise PostError(f"posts[{place}]: {error}") from None


def _correct_file(path: Path, engine: Engine) -> PriorEstimate:
    """Correct a file of scores for the prior that they themselves speak for, and return it."""
    own, positive = postprocess.read_prior(engine.bundle)
    probability = postprocess.get_positive_probability
    known = (probability(score, positive) for score in _read_scores(path))
    estimate = postprocess.estimate_prior(known, own)
    prior = postprocess.PriorCorrection(engine.bundle, estimate.share)
    with write_atomically(path) as beside, beside.open("w", encoding="utf-8") as file:
        for score in _read_scores(path):
            file.write(prior.correct(score).model_dump_json() + "\n")
    return estimate


def _read_scores(path: Path) -> Iterator[Score]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield Score.model_validate_json(line)


def _check_out(out: Path, posts: Path) -> None:
    if out.is_dir():
        raise BundleError(f"cannot write {out}: it is a folder; name a file")
    for above in out.parents:
        if above.exists() and not above.is_dir():
            raise BundleError(f"cannot write {out}: {above} is not a folder")
    if out.exists() and posts.exists() and out.samefile(posts):
        raise BundleError(f"cannot write {out}: the posts are read from it; name another file")


def _prepare_batches(
    engine: Engine, entries: Iterator[PostEntry], arm: str | None, size: int
) -> Iterator[Sequence[_PendingPost]]:
    """Yield batches of posts that are being decoded, each while the next one is begun."""
    before: Sequence[_PendingPost] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while batch := [
                (entry, pool.submit(engine.prepare, entry.post, arm))
                for entry in islice(entries, size)
            ]:
                if before:
                    yield before
                before = batch
            if before:
                yield before
        finally:
            pool.shutdown(cancel_futures=True)
