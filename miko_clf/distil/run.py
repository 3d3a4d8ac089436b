"""A whole run: look at the posts, probe the server, say what it will cost, ask."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from miko_clf.data.labels import flat
from miko_clf.data.post import Post
from miko_clf.data.read import SkipReport
from miko_clf.distil.bar import shown
from miko_clf.distil.call import Call, Reply
from miko_clf.distil.dialect import Dialect
from miko_clf.distil.estimate import estimate, head
from miko_clf.distil.gather import Gathering, Pay, Paying, Tally, Way
from miko_clf.distil.money import Ledger, Price
from miko_clf.distil.probe import Finding, models, probe
from miko_clf.distil.shelf import Outcome, Shelf
from miko_clf.distil.source import LEARNED, Source, placed, source
from miko_clf.distil.tasks import Ask, Plan, walk
from miko_clf.distil.teacher import Teacher
from miko_clf.errors import DistilError, PostError

_FRESH = 24 * 3600.0  # seconds for which a finding of the probe holds


class Sender(Protocol):
    """Whatever answers calls: a server, or a student of one on this machine."""

    async def send(self, call: Call) -> Reply:
        """Return what came of a call."""

    async def close(self) -> None:
        """Let what was held go."""


@dataclass(frozen=True)
class Terms:
    """On what terms a run is made, whatever it asks.

    `budget` is in dollars over all runs of the knowledge base. `width` posts are under way at a
    time. `splits` are read of a data folder (by default all; for rationales those one learns
    from), `limit` is the number of posts read.
    """

    prices: Mapping[str, Price] = field(default_factory=dict)
    budget: float | None = None
    width: int = 64
    splits: tuple[str, ...] = ()
    limit: int | None = None
    probe: bool = True
    dry: bool = False


def gather(
    posts: Path,
    kb: Path,
    plan: Plan,
    sender: Sender,
    terms: Terms | None = None,
    *,
    report: SkipReport | None = None,
) -> Tally:
    """Ask about every post of a file or data folder what the plan says, and keep it in `kb`.

    What the knowledge base holds already is not asked again, so a run that was stopped or killed
    goes on when it is given again. Raises `SpentError` at the budget, `KeyboardInterrupt` where
    it was stopped, and a `MikoError` for whatever a person can mend.
    """
    terms = terms or Terms()
    read, plan = reading_of(posts, plan, terms, report)
    return asyncio.run(_gather(read(), kb, plan, sender, terms, report))


def reading_of(
    posts: Path, plan: Plan, terms: Terms, report: SkipReport | None
) -> tuple[Callable[[], Source], Plan]:
    """Return what reads the posts of a plan, from the start each time, and the plan in full."""
    splits = terms.splits or (LEARNED if plan.task == "rationale" else ())
    read = partial(source, posts, splits, report)
    if plan.task == "debate" and not plan.labels:
        plan = replace(plan, labels=_labels(read()))
    return read, plan


async def _gather(
    found: Source, kb: Path, plan: Plan, sender: Sender, terms: Terms, report: SkipReport | None
) -> Tally:
    try:
        with Shelf(kb) as shelf:
            ledger, posts = await prepare(found, shelf, plan, sender, terms)
            if terms.dry:
                return Tally()
            return await attend(
                shelf,
                placed(shelf, posts, report),
                way_of(plan),
                sender,
                ledger,
                width=terms.width,
                total=total_of(found, terms),
                title=plan.task,
            )
    finally:
        await sender.close()


async def prepare(
    found: Source,
    shelf: Shelf,
    plan: Plan,
    sender: Sender | None,
    terms: Terms,
    *,
    batch: bool = False,
    again: bool = False,
) -> tuple[Ledger, Iterator[Any]]:
    """Probe the server, say what the posts will take, and return the ledger and the posts.

    Where that was done (`again`), only return them.
    """
    ledger = Ledger(
        terms.prices, plan.models, budget=terms.budget, spent=shelf.spent(), batch=batch
    )
    pairs, posts = head(_limited(found.found, terms.limit))
    if again:
        return ledger, posts
    first = [post for _, post in pairs]
    if terms.probe and isinstance(sender, Teacher):
        await acquaint(sender, plan, shelf, ledger, first)
    total = total_of(found, terms)
    say((await estimate(first, way_of(plan), ledger, plan.models, total)).line())
    return ledger, posts


async def attend(
    shelf: Shelf,
    posts: Iterator[Any],
    way: Way,
    sender: Sender | None,
    ledger: Ledger,
    *,
    width: int,
    total: int | None,
    title: str,
    pay: Pay | None = None,
    tally: Tally | None = None,
) -> Tally:
    """Take posts their way with a bar, and stop in good order when asked to.

    The first Ctrl-C begins nothing more and waits for what is under way, the second gives it up.
    `pay` stands in for sending, as the batch route does.
    """
    tally = tally or Tally()
    if pay is None:
        assert sender is not None
        pay = paying = Paying(shelf, sender.send, ledger, tally)
        if isinstance(sender, Teacher):
            sender.lost = paying.again
    # A few more posts than calls, for some of them always wait for their commits. No more than a
    # few: at a kill each that was about to be sent counts as if it had been billed.
    gathering = Gathering(shelf, pay, way, tally, width=width + width // 4)
    gate = sender.gate if isinstance(sender, Teacher) else None
    on = "the same command goes on from here"
    try:
        with _stoppable(gathering):
            async with shown(title, total, tally, ledger, gate):
                await gathering.run(posts)
    except asyncio.CancelledError:
        raise KeyboardInterrupt(f"given up with calls under way; {on}") from None
    if shelf.full:
        raise DistilError(f"{shelf.path}: the disk is full; free some space, {on}")
    if gathering.stopping:
        raise KeyboardInterrupt(f"{gathering.stopping}; {on}")
    return tally


async def acquaint(
    teacher: Teacher, plan: Plan, shelf: Shelf, ledger: Ledger, posts: Sequence[Post]
) -> None:
    """Probe each model that is to be asked, unless that was done lately, and say what was found."""
    pictured = plan.pictures and any(post.image is not None for post in posts)
    listed = await models(teacher)
    for model in plan.models:
        sees = pictured and (plan.vision is None or model == plan.vision)
        name = f"probe {teacher.server} {model} {'sees' if sees else 'reads'}"
        known = shelf.fact(name)
        if known and time.time() - known["at"] < _FRESH:
            finding = Finding(**{**known["found"], "dialect": Dialect(**known["found"]["dialect"])})
            teacher.dialects[model] = finding.dialect
        else:
            if listed and model not in listed:
                say(f"{model}: the server does not list it; it lists {', '.join(listed[:8])}")
            finding = await probe(teacher, model, pictures=sees, usage=ledger.budget is not None)
            facts = {**finding._asdict(), "dialect": asdict(finding.dialect)}
            await shelf.state(name, {"at": time.time(), "found": facts})
        if finding.picture_tokens:
            ledger.picture = max(finding.picture_tokens, 1)
        for line in finding.lines():
            say(line)
    if listed is None:
        say(f"{teacher.server}: does not list its models")


def way_of(plan: Plan) -> Way:
    """Return the way of a plan's task."""

    async def way(post: Post, ask: Ask) -> Outcome:
        return await walk(post, plan, ask)

    return way


def total_of(found: Source, terms: Terms) -> int | None:
    """Return how many posts there are to read, None where that is not known."""
    known = [count for count in (found.total, terms.limit) if count is not None]
    return min(known, default=None)


def _limited(posts: Iterator[Any], limit: int | None) -> Iterator[Any]:
    for number, post in enumerate(posts):
        if limit is not None and number >= limit:
            return
        yield post


def _labels(found: Source) -> tuple[str, ...]:
    """Return the labels that posts carry: the sides of a debate."""
    names: set[str] = set()
    for _, post in found.found:
        names.update(flat(post.label))
    if len(names) < 2:
        raise PostError(
            f"{found.path}: a debate needs two sides and the posts have "
            f"{'no labels' if not names else 'one label'}; name them by --labels A,B"
        )
    return tuple(sorted(names))


@contextmanager
def _stoppable(gathering: Gathering) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def stop() -> None:
        if gathering.stopping:
            assert main is not None
            main.cancel()
            return
        gathering.stopping = "stopped"
        say("stopping: what is under way is awaited and kept; once more gives it up")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def say(line: str) -> None:
    """Tell a person one thing, on stderr."""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
