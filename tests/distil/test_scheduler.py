"""The run: every post ends, every question is paid for once, and stopping loses nothing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.data.post import Post
from miko_clf.distil.budget import BudgetLedger
from miko_clf.distil.jobs import AskRequest, JobPlan, run_job
from miko_clf.distil.kb.store import JobOutcome, KnowledgeBase, PostRow, make_post_row
from miko_clf.distil.request import Request
from miko_clf.distil.response import Response
from miko_clf.distil.scheduler import PaidSender, RunTally, Scheduler
from miko_clf.errors import DistilError, PostError
from tests.support.filled_kb import make_reply, make_up_answer

PLAN = JobPlan("intentions", "m")
Send = Callable[[Request], Awaitable[Response]]


class Server:
    """Answers, and counts what it is asked by question."""

    def __init__(self, says: Callable[[Request], Response] = make_up_answer) -> None:
        self.says = says
        self.asked: Counter[bytes] = Counter()
        self.under_way = self.most = 0

    async def __call__(self, call: Request) -> Response:
        self.asked[call.key] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        return self.says(call)


def post(text: str, name: str | None = None) -> Post:
    return Post(id=name or text, text=text)


def gathering(shelf: KnowledgeBase, send: Send, plan: JobPlan = PLAN, width: int = 8) -> Scheduler:
    async def way(post: Post, ask: AskRequest) -> JobOutcome:
        return await run_job(post, plan, ask)

    tally = RunTally()
    pay = PaidSender(shelf, send, BudgetLedger({}, plan.models), tally)
    return Scheduler(shelf, pay, way, tally, width=width)


def rows(posts: list[Post]) -> Iterator[tuple[Post, PostRow]]:
    return ((each, make_post_row(each, f"posts.jsonl:{n}", 1)) for n, each in enumerate(posts, 1))


def gathered(path: Path, send: Send, posts: list[Post], plan: JobPlan = PLAN) -> RunTally:
    with KnowledgeBase(path) as shelf:
        return asyncio.run(gathering(shelf, send, plan).run(rows(posts)))


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


def test_posts_that_say_the_same_are_asked_about_once(kb: Path):
    server = Server()
    tally = gathered(kb, server, [post("the same words", f"p{n}") for n in range(20)])
    assert tally.posts == {"ok": 20}
    assert server.asked.total() == 1
    with KnowledgeBase(kb) as shelf:
        assert shelf.db.execute("SELECT COUNT(DISTINCT post) FROM uses").fetchone() == (20,)


def test_what_is_answered_is_not_asked_again_in_a_later_run(kb: Path):
    posts, server = [post(f"post {n}") for n in range(30)], Server()
    gathered(kb, server, posts)
    tally = gathered(kb, server, [*posts, post("a new one")])
    assert tally.posts == {"ok": 31}
    assert (tally.paid, tally.reused) == (1, 30)
    assert set(server.asked.values()) == {1}


def test_an_answer_that_a_kill_left_unread_is_read_in_the_next_run(kb: Path):
    server = Server()

    async def killed_after_the_commit() -> None:
        with KnowledgeBase(kb) as shelf:
            run = gathering(shelf, server)

            async def way(post: Post, ask: AskRequest) -> JobOutcome:
                await run_job(post, PLAN, ask)
                raise DistilError("killed between the commit of the answer and that of the end")

            run.way = way
            with pytest.raises(DistilError):
                await run.run(rows([post("one")]))
            assert shelf.db.execute("SELECT status FROM calls").fetchall() == [(None,)]

    asyncio.run(killed_after_the_commit())
    tally = gathered(kb, server, [post("one")])
    assert tally.posts == {"ok": 1}
    assert server.asked.total() == 1
    with KnowledgeBase(kb) as shelf:
        assert shelf.db.execute("SELECT status FROM calls").fetchall() == [("ok",)]


def test_what_failed_is_asked_again_by_the_next_run_and_not_by_this_one(kb: Path):
    server = Server(lambda call: make_reply("", status="failed", reason="500"))
    twins = [post("the same", "a"), post("the same", "b")]
    with KnowledgeBase(kb) as shelf:
        tally = asyncio.run(gathering(shelf, server, width=1).run(rows(twins)))
    assert tally.posts == {"failed": 2}
    assert server.asked.total() == 1
    server.says = make_up_answer
    assert gathered(kb, server, twins).posts == {"ok": 2}
    assert server.asked.total() == 2


@pytest.mark.parametrize("status", ["refused", "invalid"])
def test_what_was_refused_or_useless_stays_so(kb: Path, status: str):
    raw = "I'm sorry, but I can't assist with that." if status == "refused" else "no JSON"
    server = Server(lambda call: make_reply(raw))
    assert gathered(kb, server, [post("one")]).posts == {status: 1}
    asked = server.asked.total()
    assert gathered(kb, server, [post("one")]).posts == {status: 1}
    assert server.asked.total() == asked == (1 if status == "refused" else 2)


def test_stopping_begins_nothing_and_keeps_what_is_under_way(kb: Path):
    server = Server()

    async def stopped() -> RunTally:
        with KnowledgeBase(kb) as shelf:
            run = gathering(shelf, server)
            server.says = lambda call: _stop(run, call)
            return await run.run(rows([post(f"post {n}") for n in range(300)]))

    tally = asyncio.run(stopped())
    assert 1 <= tally.done <= 8
    with KnowledgeBase(kb) as shelf:
        assert shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (server.asked.total(),)
        assert shelf.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)
    assert gathered(kb, Server(), [post(f"post {n}") for n in range(300)]).done == 300


def test_an_error_ends_the_run_once_all_that_is_under_way_is_kept(kb: Path):
    answers = iter([make_reply("{}")] * 3)

    def says(call: Request) -> Response:
        if (found := next(answers, None)) is None:
            raise DistilError("no key")
        return found

    with pytest.raises(DistilError, match="no key"):
        gathered(kb, Server(says), [post(f"post {n}") for n in range(50)])
    with KnowledgeBase(kb) as shelf:
        assert shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (3,)
        assert shelf.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)


def test_an_error_in_the_posts_ends_the_run_once_all_before_it_are_kept(kb: Path):
    def broken() -> Iterator[tuple[Post, PostRow]]:
        yield from rows([post(f"post {n}") for n in range(70)])
        raise PostError("posts.jsonl:71: not JSON")

    server = Server()

    async def run() -> None:
        with KnowledgeBase(kb) as shelf:
            await gathering(shelf, server).run(broken())

    with pytest.raises(PostError, match=":71"):
        asyncio.run(run())
    with KnowledgeBase(kb) as shelf:
        kept = shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == (server.asked.total(),)


def test_at_a_full_disk_nothing_is_begun(kb: Path, monkeypatch: pytest.MonkeyPatch):
    server = Server()
    monkeypatch.setattr(KnowledgeBase, "full", property(lambda _: server.asked.total() >= 5))

    async def run() -> tuple[RunTally, str]:
        with KnowledgeBase(kb) as shelf:
            found = gathering(shelf, server, width=2)
            return await found.run(rows([post(f"post {n}") for n in range(50)])), found.stopping

    tally, why = asyncio.run(run())
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
    server = Server(lambda call: _refused(call) if _of(call) in bad else make_up_answer(call))
    for calls in kills:
        _killed(kb, server, posts, calls)
    tally = gathered(kb, server, posts)
    refused = sum(text in bad for text in texts)
    assert tally.posts == Counter({"ok": len(texts) - refused, "refused": refused}) - Counter()
    with KnowledgeBase(kb) as shelf:
        lost = (shelf.fact("lost") or {"calls": 0})["calls"]
        (kept,) = shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == len(set(texts)) == len(server.asked)
    assert server.asked.total() <= kept + lost


def _of(call: Request) -> int:
    return int(call.turns[1].text.split("<post>text ")[1].split("<")[0])


def _refused(call: Request) -> Response:
    return make_reply("I won't.", status="refused", reason="refusal")


def _stop(run: Scheduler, call: Request) -> Response:
    run.stopping = "stopped"
    return make_up_answer(call)


def _killed(kb: Path, server: Server, posts: list[Post], calls: int) -> None:
    """Run until one more call is under way than are answered; then end without a word to anyone."""
    left = calls

    async def dying(call: Request) -> Response:
        nonlocal left
        left -= 1
        if left < 0:
            for task in asyncio.all_tasks():
                task.cancel()
        return await server(call)

    async def run() -> None:
        with KnowledgeBase(kb) as shelf:
            await gathering(shelf, dying, width=3).run(rows(posts))

    with suppress(asyncio.CancelledError):
        asyncio.run(run())
