"""A file of posts to a file of scores, whole or not at all."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from miko_clf import manifest
from miko_clf.data.readers import (
    PostEntry,
    SkipReport,
    TableRow,
    build_entries,
    parse_post,
    read_rows,
    refuse_post,
)
from miko_clf.errors import BundleError, MikoError, PostError
from miko_clf.serve.engine import Engine, PreparedPost, Provider
from miko_clf.serve.postprocess import (
    PriorCorrection,
    PriorEstimate,
    Score,
    estimate_prior,
    get_positive_probability,
    read_prior,
)

_PROGRESS_DELAY = 2.0  # seconds before progress is shown

_PendingPost = tuple[PostEntry, Future[PreparedPost]]


class ScoringSummary(NamedTuple):
    """How many posts were scored and how many passed over, and the prior that was estimated."""

    scored: int
    skipped: int
    prior: PriorEstimate | None = None


class _CountedRows:
    """Rows on their way, counted."""

    def __init__(self, table: Iterable[TableRow]) -> None:
        self.table = table
        self.seen = 0

    def __iter__(self) -> Iterator[TableRow]:
        for row in self.table:
            self.seen += 1
            yield row


def score_file(
    bundle: Path,
    posts: Path,
    out: Path,
    *,
    arm: str | None = None,
    provider: Provider = "cpu",
    allow_cpu: bool = False,
    skip_bad: bool = False,
    batch_size: int = 256,
    prior: float | Literal["auto"] | None = None,
) -> ScoringSummary:
    """Write a score for each post of a .jsonl, .csv or .parquet file, in its order, as JSONL.

    A post that cannot be read raises `PostError` with its file and line or, with `skip_bad`, is
    named in `OUT.skipped.json`. On any error `out` stays as it was. `batch_size` posts are held
    in memory at a time, twice. Scores are corrected for a `prior`, the share of the positive class
    among these posts; `auto` estimates it from their own scores.
    """
    _check_out(out, posts)
    if batch_size < 1:
        raise MikoError(f"batch_size is {batch_size}; it must be at least 1")
    report = SkipReport() if skip_bad else None
    with manifest.write_atomically(out) as beside:
        with beside.open("w", encoding="utf-8") as file:
            known = None if prior == "auto" else prior
            engine = Engine.open(bundle, provider=provider, allow_cpu=allow_cpu, prior=known)
            engine.check_arm(arm)
            if prior == "auto":
                read_prior(engine.bundle)  # raises where there is none, before any work
            table = _CountedRows(read_rows(posts))
            found = build_entries(table, lambda cells: parse_post(cells, posts.parent), report)
            scored = 0
            with _ScoringProgress() as pace:
                for batch in _prepare_batches(engine, found, arm, batch_size):
                    ready = _collect_ready(batch, report)
                    file.writelines(one.model_dump_json() + "\n" for one in engine.run(ready))
                    scored += len(ready)
                    pace.reached(scored)
        skipped = 0 if report is None else len(report)
        if table.seen != scored + skipped:
            raise AssertionError(f"{table.seen} posts in, {scored} scored and {skipped} skipped")
        estimate = _correct_file(beside, engine) if prior == "auto" and scored else None
        if report is not None:
            report.write(out.with_name(f"{out.name}.skipped.json"))
    return ScoringSummary(scored, skipped, estimate)


class _ScoringProgress:
    """Posts scored and posts a second on stderr, where that is a terminal and it takes a while."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.started = time.monotonic()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("scored"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} posts/s"),
            console=self.console,
            transient=True,
        )
        self.task = self.progress.add_task("scored", total=None, rate=0.0)
        self.shown = False

    def __enter__(self) -> "_ScoringProgress":
        return self

    def __exit__(self, *failure: object) -> None:
        if self.shown:
            self.progress.stop()

    def reached(self, scored: int) -> None:
        """Show how many posts were scored."""
        spent = time.monotonic() - self.started
        if not self.shown and self.console.is_terminal and spent > _PROGRESS_DELAY:
            self.progress.start()
            self.shown = True
        self.progress.update(self.task, completed=scored, rate=scored / spent)


def _correct_file(path: Path, engine: Engine) -> PriorEstimate:
    """Correct a file of scores for the prior that they themselves speak for, and return it."""
    own, positive = read_prior(engine.bundle)
    found = estimate_prior(
        (get_positive_probability(one, positive) for one in _read_scores(path)), own
    )
    prior = PriorCorrection(engine.bundle, found.share)
    with manifest.write_atomically(path) as beside, beside.open("w", encoding="utf-8") as file:
        for one in _read_scores(path):
            file.write(prior.correct(one).model_dump_json() + "\n")
    return found


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
    engine: Engine, found: Iterator[PostEntry], arm: str | None, size: int
) -> Iterator[Sequence[_PendingPost]]:
    """Yield batches of posts that are being decoded, each while the next one is begun."""
    before: Sequence[_PendingPost] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while batch := [
                (entry, pool.submit(engine.prepare, entry.post, arm))
                for entry in islice(found, size)
            ]:
                if before:
                    yield before
                before = batch
            if before:
                yield before
        finally:
            pool.shutdown(cancel_futures=True)


def _collect_ready(batch: Sequence[_PendingPost], report: SkipReport | None) -> list[PreparedPost]:
    ready = []
    for entry, future in batch:
        try:
            ready.append(future.result())
        except PostError as error:
            refuse_post(entry.where, str(error), report)
    return ready
