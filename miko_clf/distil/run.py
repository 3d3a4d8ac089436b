"""A whole run: read the posts, probe the server, say what it will cost, ask."""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from miko_clf.data import readers
from miko_clf.data.dataset import open_folder
from miko_clf.data.labels import flatten_label
from miko_clf.data.post import Post
from miko_clf.data.readers import SkipReport
from miko_clf.distil.budget import BudgetLedger, TokenPrice
from miko_clf.distil.client import Sender, ServerDialect, TeacherClient
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import KnowledgeBase, PlacedPosts, make_post_row
from miko_clf.distil.probe import ProbeResult, list_models, probe_model
from miko_clf.distil.scheduler import (
    ESTIMATE_POSTS,
    PaidSender,
    Payer,
    RunTally,
    Scheduler,
    estimate_cost,
)
from miko_clf.errors import DistilError, PostError
from miko_clf.progress import ProgressBar, print_notice

_LEARNED_SPLITS = ("train", "val")  # a rationale that knows the label is made for these alone
_FRESH = 24 * 3600.0  # seconds for which a result of the probe holds
_EVERY = 0.25  # seconds between two looks
_EVERY_LINE = 60.0  # seconds between two lines where no terminal is looking


@dataclass(frozen=True)
class RunTerms:
    """On what terms a run is made, whatever it asks.

    `budget` is in dollars over all runs of the knowledge base. `width` requests are under way at
    a time. `splits` are read of a data folder (by default all; for rationales those one learns
    from), `limit` is the number of posts read.
    """

    prices: Mapping[str, TokenPrice] = field(default_factory=dict)
    budget: float | None = None
    width: int = 64
    splits: tuple[str, ...] = ()
    limit: int | None = None
    probe: bool = True
    dry: bool = False


class PostStream(NamedTuple):
    """Posts with where each stands, and how many there are at most (None if unknown)."""

    posts: Iterator[tuple[str, Post]]
    total: int | None

    def cut(self, limit: int | None) -> "PostStream":
        """Return the stream with no more than so many posts."""
        counts = [count for count in (self.total, limit) if count is not None]
        return PostStream(itertools.islice(self.posts, limit), min(counts, default=None))

    def peek(self) -> tuple[list[Post], "PostStream"]:
        """Return the first posts, those of an estimate, and the stream with them."""
        first = list(itertools.islice(self.posts, ESTIMATE_POSTS))
        posts = itertools.chain(first, self.posts)
        return [post for _, post in first], PostStream(posts, self.total)


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
    goes on when it is given again. Raises `BudgetError` at the budget, `KeyboardInterrupt` where
    it was stopped, and a `MikoError` for whatever a person can mend.
    """
    terms = terms or RunTerms()
    plan = complete_plan(posts, plan, terms, report)
    return asyncio.run(_distil_posts(posts, kb, plan, sender, terms, report))


async def _distil_posts(
    posts: Path, kb: Path, plan: JobPlan, sender: Sender, terms: RunTerms, report: SkipReport | None
) -> RunTally:
    try:
        with KnowledgeBase(kb) as store:
            stream = read_plan_posts(posts, plan, terms, report).cut(terms.limit)
            first, stream = stream.peek()
            run = DistilRun(store, JobRunner(plan), sender, terms)
            await run.prepare(first, stream.total)
            if terms.dry:
                return RunTally()
            return await run.send(place_posts(store, stream.posts, report), stream.total)
    finally:
        await sender.close()


def complete_plan(path: Path, plan: JobPlan, terms: RunTerms, report: SkipReport | None) -> JobPlan:
    """Return a plan with the sides of its debate: the labels that the posts carry, if need be."""
    if plan.job != "debate" or plan.labels:
        return plan
    names: set[str] = set()
    for _, post in read_plan_posts(path, plan, terms, report).posts:
        names.update(flatten_label(post.label))
    if len(names) < 2:
        raise PostError(
            f"{path}: a debate needs two sides and the posts have "
            f"{'no labels' if not names else 'one label'}; name them by --labels A,B"
        )
    return replace(plan, labels=tuple(sorted(names)))


@dataclass
class DistilRun:
    """A run over an open knowledge base: what asks, whom it asks, and on what terms."""

    store: KnowledgeBase
    runner: JobRunner
    sender: Sender | None
    terms: RunTerms
    batch: bool = False

    def __post_init__(self) -> None:
        prices, budget, spent = self.terms.prices, self.terms.budget, self.store.sum_cost()
        models = self.runner.plan.models
        self.ledger = BudgetLedger(prices, models, budget=budget, spent=spent, batch=self.batch)

    async def prepare(self, posts: Sequence[Post], total: int | None) -> None:
        """Probe the server, and say what `total` posts such as these will take."""
        if self.terms.probe and isinstance(self.sender, TeacherClient):
            await self._probe_models(self.sender, posts)
        print_notice(await estimate_cost(posts, self.runner, self.ledger, total))

    async def _probe_models(self, client: TeacherClient, posts: Sequence[Post]) -> None:
        """Probe each model that is to be asked, unless that was done lately; say what it does."""
        plan, ledger = self.runner.plan, self.ledger
        pictured = plan.pictures and any(post.image is not None for post in posts)
        listed = await list_models(client)
        for model in plan.models:
            sees = pictured and (plan.vision is None or model == plan.vision)
            name = f"probe {client.server} {model} {'sees' if sees else 'reads'}"
            known = self.store.get_fact(name)
            if known and time.time() - known["at"] < _FRESH:
                dialect = ServerDialect(**known["found"]["dialect"])
                result = ProbeResult(**{**known["found"], "dialect": dialect})
                client.dialects[model] = dialect
            else:
                if listed and model not in listed:
                    names = ", ".join(listed[:8])
                    print_notice(f"{model}: the server does not list it; it lists {names}")
                needs_usage = ledger.budget is not None
                result = await probe_model(client, model, pictures=sees, usage=needs_usage)
                facts = {**result._asdict(), "dialect": asdict(result.dialect)}
                await self.store.put_fact(name, {"at": time.time(), "found": facts})
            if result.picture_tokens:
                ledger.picture = max(result.picture_tokens, 1)
            for line in result.lines():
                print_notice(line)
        if listed is None:
            print_notice(f"{client.server}: does not list its models")

    async def send(self, posts: PlacedPosts, total: int | None) -> RunTally:
        """Take posts through their job, each request sent within the budget."""
        assert self.sender is not None
        tally = RunTally()
        payer = PaidSender(self.store, self.sender, self.ledger, tally)
        return await self.schedule(posts, total, payer, tally)

    async def schedule(
        self, posts: PlacedPosts, total: int | None, payer: Payer, tally: RunTally
    ) -> RunTally:
        """Take posts through their job with a bar, and stop in good order when asked to.

        The first Ctrl-C begins nothing more and waits for what is under way, the second gives up.
        """
        # A few more posts than requests, for some of them always wait for their commits. No more
        # than a few: at a kill each about to be sent counts as if it had been billed.
        width = self.terms.width + self.terms.width // 4
        scheduler = Scheduler(self.store, payer, self.runner, tally, width=width)
        hint = "the same command goes on from here"
        try:
            with _stop_on_signals(scheduler):
                async with self._show(tally, total):
                    await scheduler.run(posts)
        except asyncio.CancelledError:
            raise KeyboardInterrupt(f"given up with calls under way; {hint}") from None
        if self.store.full:
            raise DistilError(f"{self.store.path}: the disk is full; free some space, {hint}")
        if scheduler.stopping:
            raise KeyboardInterrupt(f"{scheduler.stopping}; {hint}")
        return tally

    @asynccontextmanager
    async def _show(self, tally: RunTally, total: int | None) -> AsyncIterator[None]:
        """Show how the run goes on stderr: a bar on a terminal, a line a minute elsewhere."""
        title, of = self.runner.plan.job, f" of {total:,}" if total else ""

        async def show() -> None:
            with ProgressBar(title, total) as bar:
                while True:
                    await asyncio.sleep(_EVERY if bar.on_terminal else _EVERY_LINE)
                    note = self._describe(tally)
                    bar.update(tally.done, note=note)
                    if not bar.on_terminal:
                        bar.print(f"{title}: {tally.done:,}{of} posts · {note}")

        task = asyncio.create_task(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _describe(self, tally: RunTally) -> str:
        parts = [f"{count:,} {status}" for status, count in sorted(tally.posts.items())]
        ledger = self.ledger
        if ledger.prices or ledger.budget is not None:
            cap = f"/{ledger.budget:,.2f}" if ledger.budget is not None else ""
            parts.append(f"${ledger.spent:,.4f}{cap}")
        if tally.prompt:
            parts.append(f"{tally.cached / tally.prompt:.0%} cached")
        if isinstance(self.sender, TeacherClient):
            gate = self.sender.gate
            parts.append(f"{gate.under_way} of {gate.limit:.0f} under way")
        return " · ".join(parts)


@contextmanager
def _stop_on_signals(scheduler: Scheduler) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def stop() -> None:
        if scheduler.stopping:
            assert main is not None
            main.cancel()
            return
        scheduler.stopping = "stopped"
        print_notice("stopping: what is under way is awaited and kept; once more gives it up")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def read_plan_posts(
    posts: Path, plan: JobPlan, terms: RunTerms, report: SkipReport | None
) -> PostStream:
    """Return the posts that a plan asks about, from the start; raises `PostError`."""
    splits = terms.splits or (_LEARNED_SPLITS if plan.job == "rationale" else ())
    return open_post_stream(posts, splits, report)


def open_post_stream(
    path: Path, splits: Sequence[str] = (), report: SkipReport | None = None
) -> PostStream:
    """Return the posts of a file, or of the named splits (all, if none) of a data folder.

    A file is read as it is needed, so its length is no matter. Raises `PostError`.
    """
    if not path.is_dir():
        readers.check_post_file(path)
        return PostStream(_read_file(path, splits, report), _count_rows(path))
    data = open_folder(path, report=report)
    chosen = [split for split in data.splits if not splits or split in splits]
    if not chosen:
        raise PostError(f"{path}: has {', '.join(data.splits)}, none of {', '.join(splits)}")
    posts = [(f"{path} {split}", post) for split in chosen for post in data.read(split)]
    return PostStream(iter(posts), len(posts))


def place_posts(
    store: KnowledgeBase, posts: Iterator[tuple[str, Post]], report: SkipReport | None
) -> PlacedPosts:
    """Yield posts with the rows that are kept of them; an id that comes twice is refused."""
    fresh: dict[str, str] = {}  # what is read and may not be committed yet
    for place, post in posts:
        known = store.get_post(post.id)
        first = fresh.get(post.id) or (known.place if known and known.run == store.run else None)
        if first is not None:
            readers.refuse_post(place, f"id {post.id!r} was already used at {first}", report)
            continue
        if len(fresh) > 4096:
            fresh.pop(next(iter(fresh)))
        fresh[post.id] = place
        yield post, make_post_row(post, place, store.run)


def _read_file(
    path: Path, splits: Sequence[str], report: SkipReport | None
) -> Iterator[tuple[str, Post]]:
    for row in readers.read_rows(path):
        try:
            if row.fault:
                raise PostError(row.fault)
            if splits and row.cells.get("split", splits[0]) not in splits:
                continue
            post = readers.parse_post(row.cells, path.parent)
            if isinstance(post.image, Path) and not post.image.is_file():
                raise PostError(f"image {str(post.image)!r} does not exist")
        except PostError as error:
            readers.refuse_post(row.where, str(error), report)
            continue
        yield row.where, post


def _count_rows(path: Path) -> int | None:
    """Return the rows of a file where that is cheap to know."""
    assert path.suffix.lower() in readers.TABLE_SUFFIXES
    if path.suffix.lower() == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    if path.suffix.lower() == ".csv":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or 1
