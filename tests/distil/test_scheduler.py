"""The run: every post ends, every question is paid for once, and stopping loses nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.data.post import Post
from miko_clf.distil.jobs import Asker, JobPlan, JobRunner
from miko_clf.distil.kb.store import JobOutcome, KnowledgeBase, PostRow
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.scheduler import RunTally, Scheduler
from miko_clf.errors import DistilError, PostError
from tests.support.filled_kb import make_reply, make_rows, make_scheduler, make_up_answer

PLAN = JobPlan("intentions", "m")


class Server:
    """Answers, and counts what it is asked by question."""

    def __init__(self, says: Callable[[Request], Response] = make_up_answer) -> None:
        self.says = says
        self.asked: Counter[bytes] = Counter()
        self.under_way = self.most = 0

    async def send(self, request: Request) -> Response:
        self.asked[request.key] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        return self.says(request)

    async def close(self) -> None:
        pass


def post(text: str, name: str | None = None) -> Post:
    return Post(id=name or text, text=text)


def schedule(store: KnowledgeBase, server: Any, plan: JobPlan = PLAN, width: int = 8) -> Scheduler:
    return make_scheduler(store, server, JobRunner(plan), width=width)


def run(path: Path, server: Any, posts: list[Post], plan: JobPlan = PLAN) -> RunTally:
    with KnowledgeBase(path) as store:
        return asyncio.run(schedule(store, server, plan).run(make_rows(posts)))


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


def test_posts_that_say_the_same_are_asked_about_once(kb: Path):
    server = Server()
    tally = run(kb, server, [post("the same words", f"p{n}") for n in range(20)])
    assert tally.posts == {"ok": 20}
    assert server.asked.total() == 1
    with KnowledgeBase(kb) as store:
        assert store.db.execute("SELECT COUNT(DISTINCT post) FROM uses").fetchone() == (20,)


def test_what_is_answered_is_not_asked_again_in_a_later_run(kb: Path):
    posts, server = [post(f"post {n}") for n in range(30)], Server()
    run(kb, server, posts)
    tally = run(kb, server, [*posts, post("a new one")])
    assert tally.posts == {"ok": 31}
    assert (tally.paid, tally.reused) == (1, 30)
    assert set(server.asked.values()) == {1}


def test_an_answer_that_a_kill_left_unread_is_read_in_the_next_run(kb: Path):
    server = Server()

    async def killed_after_the_commit() -> None:
        with KnowledgeBase(kb) as store:
            scheduler = make_scheduler(store, server, DyingRunner(PLAN))
            with pytest.raises(DistilError):
                await scheduler.run(make_rows([post("one")]))
            assert store.db.execute("SELECT status FROM calls").fetchall() == [(None,)]

    asyncio.run(killed_after_the_commit())
    tally = run(kb, server, [post("one")])
    assert tally.posts == {"ok": 1}
    assert server.asked.total() == 1
    with KnowledgeBase(kb) as store:
        assert store.db.execute("SELECT status FROM calls").fetchall() == [("ok",)]


def test_what_failed_is_asked_again_by_the_next_run_and_not_by_this_one(kb: Path):
    server = Server(lambda call: make_reply("", status="failed", reason="500"))
    twins = [post("the same", "a"), post("the same", "b")]
    with KnowledgeBase(kb) as store:
        tally = asyncio.run(schedule(store, server, width=1).run(make_rows(twins)))
    assert tally.posts == {"failed": 2}
    assert server.asked.total() == 1
    server.says = make_up_answer
    assert run(kb, server, twins).posts == {"ok": 2}
    assert server.asked.total() == 2


@pytest.mark.parametrize("status", ["refused", "invalid"])
def test_what_was_refused_or_useless_stays_so(kb: Path, status: str):
    raw = "I'm sorry, but I can't assist with that." if status == "refused" else "no JSON"
    server = Server(lambda call: make_reply(raw))
    assert run(kb, server, [post("one")]).posts == {status: 1}
    asked = server.asked.total()
    assert run(kb, server, [post("one")]).posts == {status: 1}
    assert server.asked.total() == asked == (1 if status == "refused" else 2)


def test_stopping_begins_nothing_and_keeps_what_is_under_way(kb: Path):
    server = Server()

    async def stopped() -> RunTally:
        with KnowledgeBase(kb) as store:
            scheduler = schedule(store, server)
            server.says = lambda request: _stop(scheduler, request)
            return await scheduler.run(make_rows([post(f"post {n}") for n in range(300)]))

    tally = asyncio.run(stopped())
    assert 1 <= tally.done <= 8
    with KnowledgeBase(kb) as store:
        assert store.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (server.asked.total(),)
        assert store.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)
    assert run(kb, Server(), [post(f"post {n}") for n in range(300)]).done == 300


def test_an_error_ends_the_run_once_all_that_is_under_way_is_kept(kb: Path):
    answers = iter([make_reply("{}")] * 3)

    def says(call: Request) -> Response:
        if (found := next(answers, None)) is None:
            raise DistilError("no key")
        return found

    with pytest.raises(DistilError, match="no key"):
        run(kb, Server(says), [post(f"post {n}") for n in range(50)])
    with KnowledgeBase(kb) as store:
        assert store.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (3,)
        assert store.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)


def test_an_error_in_the_posts_ends_the_run_once_all_before_it_are_kept(kb: Path):
    def broken() -> Iterator[tuple[Post, PostRow]]:
        yield from make_rows([post(f"post {n}") for n in range(70)])
        raise PostError("posts.jsonl:71: not JSON")

    server = Server()

    async def stop_at_the_error() -> None:
        with KnowledgeBase(kb) as store:
            await schedule(store, server).run(broken())

    with pytest.raises(PostError, match=":71"):
        asyncio.run(stop_at_the_error())
    with KnowledgeBase(kb) as store:
        kept = store.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == (server.asked.total(),)


def test_at_a_full_disk_nothing_is_begun(kb: Path, monkeypatch: pytest.MonkeyPatch):
    server = Server()
    monkeypatch.setattr(KnowledgeBase, "full", property(lambda _: server.asked.total() >= 5))

    async def fill_the_disk() -> tuple[RunTally, str]:
        with KnowledgeBase(kb) as store:
            scheduler = schedule(store, server, width=2)
            tally = await scheduler.run(make_rows([post(f"post {n}") for n in range(50)]))
            return tally, scheduler.stopping

    tally, why = asyncio.run(fill_the_disk())
    assert why == "the disk is full"
    assert tally.done == server.asked.total() <= 6


def test_the_reasons_of_a_long_run_take_no_more_than_so_much_memory():
    tally = RunTally()
    for n in range(5000):
        tally.explain(f"failed: {n}.png is not readable")
    assert len(tally.reasons) == 1001
    assert tally.reasons.total() == 5000


@settings(max_examples=12, deadline=None)
@given(
    texts=some.lists(some.integers(0, 12), min_size=1, max_size=25),
    kills=some.lists(some.integers(1, 12), max_size=3),
    bad=some.sets(some.integers(0, 12), max_size=4),
)
def test_over_any_kills_a_question_is_asked_once_and_once_more_where_a_kill_cut_it_off(
    texts: list[int],
    kills: list[int],
    bad: set[int],
    tmp_path_factory: pytest.TempPathFactory,
):
    kb = tmp_path_factory.mktemp("run") / "kb.sqlite"
    posts = [post(f"text {text}", f"p{n}") for n, text in enumerate(texts)]
    server = Server(
        lambda asked: (_refuse if _read_number(asked) in bad else make_up_answer)(asked)
    )
    for calls in kills:
        _kill(kb, server, posts, calls)
    tally = run(kb, server, posts)
    refused = sum(text in bad for text in texts)
    assert tally.posts == Counter({"ok": len(texts) - refused, "refused": refused}) - Counter()
    with KnowledgeBase(kb) as store:
        lost = (store.get_fact("lost") or {"calls": 0})["calls"]
        (kept,) = store.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == len(set(texts)) == len(server.asked)
    assert server.asked.total() <= kept + lost


class DyingRunner(JobRunner):
    """Asks everything, and dies before the end is kept."""

    async def run(self, post: Post, asker: Asker) -> JobOutcome:
        await super().run(post, asker)
        raise DistilError("killed between the commit of the answer and that of the end")


class DyingServer(Server):
    """Ends everything without a word to anyone at one request more than so many."""

    def __init__(self, server: Server, left: int) -> None:
        self.server, self.left = server, left

    async def send(self, request: Request) -> Response:
        self.left -= 1
        if self.left < 0:
            for task in asyncio.all_tasks():
                task.cancel()
        return await self.server.send(request)


def _read_number(request: Request) -> int:
    return int(request.turns[1].text.split("<post>text ")[1].split("<")[0])


def _refuse(request: Request) -> Response:
    return make_reply("I won't.", status="refused", reason="refusal")


def _stop(scheduler: Scheduler, request: Request) -> Response:
    scheduler.stopping = "stopped"
    return make_up_answer(request)


def _kill(kb: Path, server: Server, posts: list[Post], calls: int) -> None:
    """Run until one more call is under way than are answered; then end without a word to anyone."""

    async def run_until_killed() -> None:
        with KnowledgeBase(kb) as store:
            await schedule(store, DyingServer(server, calls), width=3).run(make_rows(posts))

    with suppress(asyncio.CancelledError):
        asyncio.run(run_until_killed())
