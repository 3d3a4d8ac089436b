"""A whole run: read the posts, probe the server, say what it will cost, ask."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post
from miko_clf.data.readers import (
    TABLE_SUFFIXES,
    SkipReport,
    check_post_file,
    parse_post,
    read_rows,
    refuse_post,
)
from miko_clf.distil.budget import BudgetLedger, TokenPrice
from miko_clf.distil.client import RequestGate, Sender, ServerDialect, TeacherClient
from miko_clf.distil.jobs import AskRequest, JobPlan, run_job
from miko_clf.distil.kb.store import JobOutcome, KnowledgeBase, PostRow, make_post_row
from miko_clf.distil.probe import ProbeResult, list_models, probe_model
from miko_clf.distil.scheduler import (
    PaidSender,
    PayRequest,
    RunPost,
    RunTally,
    Scheduler,
    estimate_cost,
    peek_posts,
)
from miko_clf.errors import DistilError, PostError
from miko_clf.progress import ProgressBar, print_notice

# A rationale that knows the label is made for the posts one learns from, and for no others.
_LEARNED_SPLITS = ("train", "val")


class PostStream(NamedTuple):
    """Posts with where each stands, and how many there are at most (None if unknown)."""

    path: Path
    found: Iterator[tuple[str, Post]]
    total: int | None


def open_post_stream(
    path: Path, splits: Sequence[str] = (), report: SkipReport | None = None
) -> PostStream:
    """Return the posts of a file, or of the named splits (all, if none) of a data folder.

    A file is read as it is needed, so its length is no matter. Raises `PostError`.
    """
    if path.is_dir():
        data = open_folder(path, report=report)
        chosen = [split for split in data.splits if not splits or split in splits]
        if not chosen:
            raise PostError(f"{path}: has {', '.join(data.splits)}, none of {', '.join(splits)}")
        posts = [(f"{path} {split}", post) for split in chosen for post in data.read(split)]
        return PostStream(path, iter(posts), len(posts))
    check_post_file(path)
    return PostStream(path, _of_file(path, splits, report), _count(path))


def place_posts(
    shelf: KnowledgeBase, posts: Iterator[tuple[str, Post]], report: SkipReport | None
) -> Iterator[tuple[Post, PostRow]]:
    """Yield posts with what the shelf is to keep of them; an id that comes twice is refused."""
    fresh: dict[str, str] = {}  # what is read and may not be committed yet
    for where, post in posts:
        known = shelf.post(post.id)
        first = fresh.get(post.id) or (known.place if known and known.run == shelf.run else None)
        if first is not None:
            refuse_post(where, f"id {post.id!r} was already used at {first}", report)
            continue
        if len(fresh) > 4096:
            fresh.pop(next(iter(fresh)))
        fresh[post.id] = where
        yield post, make_post_row(post, where, shelf.run)


def _of_file(
    path: Path, splits: Sequence[str], report: SkipReport | None
) -> Iterator[tuple[str, Post]]:
    for row in read_rows(path):
        try:
            if row.fault:
                raise PostError(row.fault)
            if splits and row.cells.get("split", splits[0]) not in splits:
                continue
            post = parse_post(row.cells, path.parent)
            if isinstance(post.image, Path) and not post.image.is_file():
                raise PostError(f"image {str(post.image)!r} does not exist")
        except PostError as error:
            refuse_post(row.where, str(error), report)
            continue
        yield row.where, post


def _count(path: Path) -> int | None:
    """Return the rows of a file where that is cheap to know."""
    assert path.suffix.lower() in TABLE_SUFFIXES
    if path.suffix.lower() == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    if path.suffix.lower() == ".csv":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or 1


_EVERY = 0.25  # seconds between two looks
_EVERY_LINE = 60.0  # seconds between two lines where no terminal is looking


@asynccontextmanager
async def show_run(
    title: str, total: int | None, tally: RunTally, ledger: BudgetLedger, gate: RequestGate | None
) -> AsyncIterator[None]:
    """Show how a run goes on stderr: a bar on a terminal, a line a minute elsewhere."""
    watch = _show_bar if sys.stderr.isatty() else _print_lines
    task = asyncio.create_task(watch(title, total, tally, ledger, gate))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def describe_run(tally: RunTally, ledger: BudgetLedger, gate: RequestGate | None) -> str:
    """Return how a run stands, in a few words."""
    parts = [f"{count:,} {status}" for status, count in sorted(tally.posts.items())]
    if ledger.prices or ledger.budget is not None:
        cap = f"/{ledger.budget:,.2f}" if ledger.budget is not None else ""
        parts.append(f"${ledger.spent:,.4f}{cap}")
    if tally.prompt:
        parts.append(f"{tally.cached / tally.prompt:.0%} cached")
    if gate is not None:
        parts.append(f"{gate.under_way} of {gate.limit:.0f} under way")
    return " · ".join(parts)


async def _show_bar(
    title: str, total: int | None, tally: RunTally, ledger: BudgetLedger, gate: RequestGate | None
) -> None:
    with ProgressBar(title, total) as bar:
        while True:
            bar.update(tally.done, note=describe_run(tally, ledger, gate))
            await asyncio.sleep(_EVERY)


async def _print_lines(
    title: str, total: int | None, tally: RunTally, ledger: BudgetLedger, gate: RequestGate | None
) -> None:
    of = f" of {total:,}" if total else ""
    while True:
        await asyncio.sleep(_EVERY_LINE)
        print(
            f"{title}: {tally.done:,}{of} posts · {describe_run(tally, ledger, gate)}",
            file=sys.stderr,
        )


_FRESH = 24 * 3600.0  # seconds for which a finding of the probe holds


@dataclass(frozen=True)
class RunTerms:
    """On what terms a run is made, whatever it asks.

    `budget` is in dollars over all runs of the knowledge base. `width` posts are under way at a
    time. `splits` are read of a data folder (by default all; for rationales those one learns
    from), `limit` is the number of posts read.
    """

    prices: Mapping[str, TokenPrice] = field(default_factory=dict)
    budget: float | None = None
    width: int = 64
    splits: tuple[str, ...] = ()
    limit: int | None = None
    probe: bool = True
    dry: bool = False


def distil_posts(
    posts: Path,
    kb: Path,
    plan: JobPlan,
    sender: Sender,
    terms: RunTerms | None = None,
    *,
    report: SkipReport | None = None,
) -> RunTally:
    """Ask about every post of a file or data folder what the plan says, and keep it in `kb`.

    What the knowledge base holds already is not asked again, so a run that was stopped or killed
    goes on when it is given again. Raises `SpentError` at the budget, `KeyboardInterrupt` where
    it was stopped, and a `MikoError` for whatever a person can mend.
    """
    terms = terms or RunTerms()
    read, plan = prepare_reading(posts, plan, terms, report)
    return asyncio.run(_distil_posts(read(), kb, plan, sender, terms, report))


def prepare_reading(
    posts: Path, plan: JobPlan, terms: RunTerms, report: SkipReport | None
) -> tuple[Callable[[], PostStream], JobPlan]:
    """Return what reads the posts of a plan, from the start each time, and the plan in full."""
    splits = terms.splits or (_LEARNED_SPLITS if plan.task == "rationale" else ())
    read = partial(open_post_stream, posts, splits, report)
    if plan.task == "debate" and not plan.labels:
        plan = replace(plan, labels=_collect_labels(read()))
    return read, plan


async def _distil_posts(
    found: PostStream,
    kb: Path,
    plan: JobPlan,
    sender: Sender,
    terms: RunTerms,
    report: SkipReport | None,
) -> RunTally:
    try:
        with KnowledgeBase(kb) as shelf:
            ledger, posts = await prepare_run(found, shelf, plan, sender, terms)
            if terms.dry:
                return RunTally()
            return await run_scheduler(
                shelf,
                place_posts(shelf, posts, report),
                make_runner(plan),
                sender,
                ledger,
                width=terms.width,
                total=find_total(found, terms),
                title=plan.task,
            )
    finally:
        await sender.close()


async def prepare_run(
    found: PostStream,
    shelf: KnowledgeBase,
    plan: JobPlan,
    sender: Sender | None,
    terms: RunTerms,
    *,
    batch: bool = False,
    again: bool = False,
) -> tuple[BudgetLedger, Iterator[Any]]:
    """Probe the server, say what the posts will take, and return the ledger and the posts.

    Where that was done (`again`), only return them.
    """
    ledger = BudgetLedger(
        terms.prices, plan.models, budget=terms.budget, spent=shelf.spent(), batch=batch
    )
    pairs, posts = peek_posts(_limit_posts(found.found, terms.limit))
    if again:
        return ledger, posts
    first = [post for _, post in pairs]
    if terms.probe and isinstance(sender, TeacherClient):
        await probe_models(sender, plan, shelf, ledger, first)
    total = find_total(found, terms)
    print_notice((await estimate_cost(first, make_runner(plan), ledger, plan.models, total)).line())
    return ledger, posts


async def run_scheduler(
    shelf: KnowledgeBase,
    posts: Iterator[Any],
    way: RunPost,
    sender: Sender | None,
    ledger: BudgetLedger,
    *,
    width: int,
    total: int | None,
    title: str,
    pay: PayRequest | None = None,
    tally: RunTally | None = None,
) -> RunTally:
    """Take posts their way with a bar, and stop in good order when asked to.

    The first Ctrl-C begins nothing more and waits for what is under way, the second gives it up.
    `pay` stands in for sending, as the batch route does.
    """
    tally = tally or RunTally()
    if pay is None:
        assert sender is not None
        pay = paying = PaidSender(shelf, sender.send, ledger, tally)
        if isinstance(sender, TeacherClient):
            sender.lost = paying.again
    # A few more posts than calls, for some of them always wait for their commits. No more than a
    # few: at a kill each that was about to be sent counts as if it had been billed.
    gathering = Scheduler(shelf, pay, way, tally, width=width + width // 4)
    gate = sender.gate if isinstance(sender, TeacherClient) else None
    on = "the same command goes on from here"
    try:
        with _stop_on_signals(gathering):
            async with show_run(title, total, tally, ledger, gate):
                await gathering.run(posts)
    except asyncio.CancelledError:
        raise KeyboardInterrupt(f"given up with calls under way; {on}") from None
    if shelf.full:
        raise DistilError(f"{shelf.path}: the disk is full; free some space, {on}")
    if gathering.stopping:
        raise KeyboardInterrupt(f"{gathering.stopping}; {on}")
    return tally


async def probe_models(
    teacher: TeacherClient,
    plan: JobPlan,
    shelf: KnowledgeBase,
    ledger: BudgetLedger,
    posts: Sequence[Post],
) -> None:
    """Probe each model that is to be asked, unless that was done lately, and say what was found."""
    pictured = plan.pictures and any(post.image is not None for post in posts)
    listed = await list_models(teacher)
    for model in plan.models:
        sees = pictured and (plan.vision is None or model == plan.vision)
        name = f"probe {teacher.server} {model} {'sees' if sees else 'reads'}"
        known = shelf.fact(name)
        if known and time.time() - known["at"] < _FRESH:
            finding = ProbeResult(
                **{**known["found"], "dialect": ServerDialect(**known["found"]["dialect"])}
            )
            teacher.dialects[model] = finding.dialect
        else:
            if listed and model not in listed:
                print_notice(
                    f"{model}: the server does not list it; it lists {', '.join(listed[:8])}"
                )
            finding = await probe_model(
                teacher, model, pictures=sees, usage=ledger.budget is not None
            )
            facts = {**finding._asdict(), "dialect": asdict(finding.dialect)}
            await shelf.state(name, {"at": time.time(), "found": facts})
        if finding.picture_tokens:
            ledger.picture = max(finding.picture_tokens, 1)
        for line in finding.lines():
            print_notice(line)
    if listed is None:
        print_notice(f"{teacher.server}: does not list its models")


def make_runner(plan: JobPlan) -> RunPost:
    """Return the way of a plan's task."""

    async def way(post: Post, ask: AskRequest) -> JobOutcome:
        return await run_job(post, plan, ask)

    return way


def find_total(found: PostStream, terms: RunTerms) -> int | None:
    """Return how many posts there are to read, None where that is not known."""
    known = [count for count in (found.total, terms.limit) if count is not None]
    return min(known, default=None)


def _limit_posts(posts: Iterator[Any], limit: int | None) -> Iterator[Any]:
    for number, post in enumerate(posts):
        if limit is not None and number >= limit:
            return
        yield post


def _collect_labels(found: PostStream) -> tuple[str, ...]:
    """Return the labels that posts carry: the sides of a debate."""
    names: set[str] = set()
    for _, post in found.found:
        names.update(flatten_label(post.label))
    if len(names) < 2:
        raise PostError(
            f"{found.path}: a debate needs two sides and the posts have "
            f"{'no labels' if not names else 'one label'}; name them by --labels A,B"
        )
    return tuple(sorted(names))


@contextmanager
def _stop_on_signals(gathering: Scheduler) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def stop() -> None:
        if gathering.stopping:
            assert main is not None
            main.cancel()
            return
        gathering.stopping = "stopped"
        print_notice("stopping: what is under way is awaited and kept; once more gives it up")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
