"""The run: every post ends, every question is paid for once, and stopping loses nothing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ask import made_up, reply
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.data.post import Post
from miko_clf.distil.call import Call, Reply
from miko_clf.distil.gather import Gathering, Paying, Tally
from miko_clf.distil.money import Ledger
from miko_clf.distil.shelf import Outcome, PostRow, Shelf
from miko_clf.distil.source import post_row
from miko_clf.distil.tasks import Ask, Plan, walk
from miko_clf.errors import DistilError, PostError

PLAN = Plan("intentions", "m")
Send = Callable[[Call], Awaitable[Reply]]


class Server:
    """Answers, and counts what it is asked by question."""

    def __init__(self, says: Callable[[Call], Reply] = made_up) -> None:
        self.says = says
        self.asked: Counter[bytes] = Counter()
        self.under_way = self.most = 0

    async def __call__(self, call: Call) -> Reply:
        self.asked[call.key] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        return self.says(call)


def post(text: str, name: str | None = None) -> Post:
    return Post(id=name or text, text=text)


def gathering(shelf: Shelf, send: Send, plan: Plan = PLAN, width: int = 8) -> Gathering:
    async def way(post: Post, ask: Ask) -> Outcome:
        return await walk(post, plan, ask)

    tally = Tally()
    pay = Paying(shelf, send, Ledger({}, plan.models), tally)
    return Gathering(shelf, pay, way, tally, width=width)


def rows(posts: list[Post]) -> Iterator[tuple[Post, PostRow]]:
    return ((each, post_row(each, f"posts.jsonl:{n}", 1)) for n, each in enumerate(posts, 1))


def gathered(path: Path, send: Send, posts: list[Post], plan: Plan = PLAN) -> Tally:
    with Shelf(path) as shelf:
        return asyncio.run(gathering(shelf, send, plan).run(rows(posts)))


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.sqlite"


def test_posts_that_say_the_same_are_asked_about_once(kb: Path):
    server = Server()
    tally = gathered(kb, server, [post("the same words", f"p{n}") for n in range(20)])
    assert tally.posts == {"ok": 20}
    assert server.asked.total() == 1
    with Shelf(kb) as shelf:
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
        with Shelf(kb) as shelf:
            run = gathering(shelf, server)

            async def way(post: Post, ask: Ask) -> Outcome:
                await walk(post, PLAN, ask)
                raise DistilError("killed between the commit of the answer and that of the end")

            run.way = way
            with pytest.raises(DistilError):
                await run.run(rows([post("one")]))
            assert shelf.db.execute("SELECT status FROM calls").fetchall() == [(None,)]

    asyncio.run(killed_after_the_commit())
    tally = gathered(kb, server, [post("one")])
    assert tally.posts == {"ok": 1}
    assert server.asked.total() == 1
    with Shelf(kb) as shelf:
        assert shelf.db.execute("SELECT status FROM calls").fetchall() == [("ok",)]


def test_what_failed_is_asked_again_by_the_next_run_and_not_by_this_one(kb: Path):
    server = Server(lambda call: reply("", status="failed", reason="500"))
    twins = [post("the same", "a"), post("the same", "b")]
    with Shelf(kb) as shelf:
        tally = asyncio.run(gathering(shelf, server, width=1).run(rows(twins)))
    assert tally.posts == {"failed": 2}
    assert server.asked.total() == 1
    server.says = made_up
    assert gathered(kb, server, twins).posts == {"ok": 2}
    assert server.asked.total() == 2


@pytest.mark.parametrize("status", ["refused", "invalid"])
def test_what_was_refused_or_useless_stays_so(kb: Path, status: str):
    raw = "I'm sorry, but I can't assist with that." if status == "refused" else "no JSON"
    server = Server(lambda call: reply(raw))
    assert gathered(kb, server, [post("one")]).posts == {status: 1}
    asked = server.asked.total()
    assert gathered(kb, server, [post("one")]).posts == {status: 1}
    assert server.asked.total() == asked == (1 if status == "refused" else 2)


def test_stopping_begins_nothing_and_keeps_what_is_under_way(kb: Path):
    server = Server()

    async def stopped() -> Tally:
        with Shelf(kb) as shelf:
            run = gathering(shelf, server)
            server.says = lambda call: _stop(run, call)
            return await run.run(rows([post(f"post {n}") for n in range(300)]))

    tally = asyncio.run(stopped())
    assert 1 <= tally.done <= 8
    with Shelf(kb) as shelf:
        assert shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (server.asked.total(),)
        assert shelf.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)
    assert gathered(kb, Server(), [post(f"post {n}") for n in range(300)]).done == 300


def test_an_error_ends_the_run_once_all_that_is_under_way_is_kept(kb: Path):
    answers = iter([reply("{}")] * 3)

    def says(call: Call) -> Reply:
        if (found := next(answers, None)) is None:
            raise DistilError("no key")
        return found

    with pytest.raises(DistilError, match="no key"):
        gathered(kb, Server(says), [post(f"post {n}") for n in range(50)])
    with Shelf(kb) as shelf:
        assert shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone() == (3,)
        assert shelf.db.execute("SELECT COUNT(*) FROM flights").fetchone() == (0,)


def test_an_error_in_the_posts_ends_the_run_once_all_before_it_are_kept(kb: Path):
    def broken() -> Iterator[tuple[Post, PostRow]]:
        yield from rows([post(f"post {n}") for n in range(70)])
        raise PostError("posts.jsonl:71: not JSON")

    server = Server()

    async def run() -> None:
        with Shelf(kb) as shelf:
            await gathering(shelf, server).run(broken())

    with pytest.raises(PostError, match=":71"):
        asyncio.run(run())
    with Shelf(kb) as shelf:
        kept = shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == (server.asked.total(),)


def test_at_a_full_disk_nothing_is_begun(kb: Path, monkeypatch: pytest.MonkeyPatch):
    server = Server()
    monkeypatch.setattr(Shelf, "full", property(lambda _: server.asked.total() >= 5))

    async def run() -> tuple[Tally, str]:
        with Shelf(kb) as shelf:
            found = gathering(shelf, server, width=2)
            return await found.run(rows([post(f"post {n}") for n in range(50)])), found.stopping

    tally, why = asyncio.run(run())
    assert why == "the disk is full"
    assert tally.done == server.asked.total() <= 6


def test_the_reasons_of_a_long_run_take_no_more_than_so_much_memory():
    tally = Tally()
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
    server = Server(lambda call: _refused(call) if _of(call) in bad else made_up(call))
    for calls in kills:
        _killed(kb, server, posts, calls)
    tally = gathered(kb, server, posts)
    refused = sum(text in bad for text in texts)
    assert tally.posts == Counter({"ok": len(texts) - refused, "refused": refused}) - Counter()
    with Shelf(kb) as shelf:
        lost = (shelf.fact("lost") or {"calls": 0})["calls"]
        (kept,) = shelf.db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert kept == len(set(texts)) == len(server.asked)
    assert server.asked.total() <= kept + lost


def _of(call: Call) -> int:
    return int(call.turns[1].text.split("<post>text ")[1].split("<")[0])


def _refused(call: Call) -> Reply:
    return reply("I won't.", status="refused", reason="refusal")


def _stop(run: Gathering, call: Call) -> Reply:
    run.stopping = "stopped"
    return made_up(call)


def _killed(kb: Path, server: Server, posts: list[Post], calls: int) -> None:
    """Run until one more call is under way than are answered; then end without a word to anyone."""
    left = calls

    async def dying(call: Call) -> Reply:
        nonlocal left
        left -= 1
        if left < 0:
            for task in asyncio.all_tasks():
                task.cancel()
        return await server(call)

    async def run() -> None:
        with Shelf(kb) as shelf:
            await gathering(shelf, dying, width=3).run(rows(posts))

    with suppress(asyncio.CancelledError):
        asyncio.run(run())
