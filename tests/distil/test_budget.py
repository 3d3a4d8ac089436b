"""Money: what a call costs at most, what it cost, and a budget that is kept."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from miko_clf.data.post import Post
from miko_clf.distil.budget import (
    PICTURE_TOKENS,
    BudgetError,
    BudgetLedger,
    TokenPrice,
    read_prices,
)
from miko_clf.distil.client import LossBook, Sender
from miko_clf.distil.jobs import JobPlan, JobRunner
from miko_clf.distil.kb.store import CallRow, KnowledgeBase
from miko_clf.distil.request import ChatTurn, Request, RequestPicture, Sampling, load_prompt
from miko_clf.distil.response import Response, TokenUsage
from miko_clf.distil.scheduler import RunTally
from miko_clf.distil.schemas import DescriptionAnswer
from miko_clf.errors import DistilError
from tests.support.filled_kb import MadeUpSender, make_rows, make_scheduler, make_up_answer

PRICES = {"m": TokenPrice(input=1.0, cached=0.1, output=4.0)}
ROOM = 50  # tokens of an answer


def call(text: str = "a question", picture: RequestPicture | None = None) -> Request:
    turns = (ChatTurn("system", "Answer in JSON."), ChatTurn("user", text, picture))
    return Request(
        "description", "m", load_prompt("describe"), turns, DescriptionAnswer, Sampling(ROOM)
    )


def ledger(budget: float | None = None, spent: float = 0.0) -> BudgetLedger:
    return BudgetLedger(PRICES, ("m",), budget=budget, spent=spent)


def test_cached_tokens_are_cheaper_and_the_batch_route_is_half():
    usage = TokenUsage(1_000_000, 400_000, 500_000)
    price = PRICES["m"]
    assert price.of(usage) == pytest.approx(0.6 + 0.04 + 2.0)
    assert price.of(usage, batch=True) == pytest.approx(1.32)
    assert TokenPrice(input=1.0, output=4.0).of(usage) == pytest.approx(3.0)


def test_a_budget_without_a_price_is_refused_with_the_nearest_name():
    with pytest.raises(DistilError, match="'mm' has no price; did you mean 'm'"):
        BudgetLedger(PRICES, ("m", "mm"), budget=1.0)
    assert BudgetLedger(PRICES, ("mm",)).price("mm", TokenUsage(9, 0, 9)) == 0.0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("m: {input: -1, output: 2}", "m.input|input: Input should be greater"),
        ("m: {input: 1, output: 2, outptu: 3}", "a price has input, cached, output, batch"),
        ("[1, 2]", "model names with their prices"),
        ("{", "is not YAML"),
    ],
)
def test_a_file_of_prices_that_is_none_is_an_error_with_its_name(
    tmp_path: Path, text: str, part: str
):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(DistilError, match=part) as raised:
        read_prices(path)
    assert str(path) in str(raised.value)
    path.unlink()
    with pytest.raises(DistilError, match="cannot be read"):
        read_prices(path)


def test_prices_are_read(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("m: {input: 0.1, cached: 0.01, output: 0.5}\n")
    assert read_prices(path) == {"m": TokenPrice(input=0.1, cached=0.01, output=0.5)}


@given(some.text(alphabet=some.characters(exclude_categories=["Cs"]), max_size=300))
def test_what_is_set_aside_grows_with_the_bytes_of_a_text_in_any_script(text: str):
    with_text = ledger().expect(call(text)).prompt
    assert with_text - ledger().expect(call("")).prompt >= len(text.encode()) // 3 - 1


def test_a_picture_takes_what_the_probe_has_seen():
    one, seen = ledger(), RequestPicture("0" * 64, b"")
    plain = one.expect(call()).prompt
    assert one.expect(call(picture=seen)).prompt == plain + PICTURE_TOKENS
    one.picture = 77
    assert one.expect(call(picture=seen)).prompt == plain + 77


def test_a_reservation_is_refused_at_the_budget_and_let_go_once_settled():
    price = ledger().price("m", ledger().expect(call()))
    one = ledger(budget=2.5 * price)
    held = [one.reserve(call()), one.reserve(call())]
    with pytest.raises(BudgetError, match="budget"):
        one.reserve(call())
    assert one.settle(held.pop(), "m", TokenUsage()) == 0.0
    one.reserve(call())
    assert one.reserved == pytest.approx(2 * price)


def test_a_lost_answer_counts_as_much_as_was_set_aside():
    one = ledger()
    held = one.reserve(call())
    assert one.settle(held, "m", TokenUsage(10, 0, 5), lost=2) == pytest.approx(2 * held + 3e-5)
    assert one.spent == pytest.approx(2 * held + 3e-5)
    assert one.reserved == 0.0


def run(
    path: Path, sender: Sender, budget: float, num_posts: int
) -> tuple[RunTally, BudgetLedger, bool]:
    """Return what a run with a budget did, its books, and whether it ended at the budget."""
    runner = JobRunner(JobPlan("intentions", "m"))

    async def main() -> tuple[RunTally, BudgetLedger, bool]:
        with KnowledgeBase(path) as store:
            books = ledger(budget, store.sum_cost())
            scheduler = make_scheduler(store, sender, runner, ledger=books)
            if isinstance(sender, Losing):
                sender.books = scheduler.payer
            posts = (Post(id=str(n), text=f"post {n}") for n in range(num_posts))
            try:
                await scheduler.run(make_rows(posts))
            except BudgetError:
                return scheduler.tally, books, True
            return scheduler.tally, books, False

    return asyncio.run(main())


class Losing:
    """A server that bills, loses some answers, and is asked again for those."""

    def __init__(self, lose: list[bool]) -> None:
        self.lose = iter(lose)
        self.billed = 0.0
        self.books: LossBook | None = None

    async def send(self, call: Request) -> Response:
        lost, most = 0, ledger().expect(call)
        while True:
            self.billed += PRICES["m"].of(most)
            await asyncio.sleep(0)
            if not next(self.lose, False):
                return make_up_answer(call)._replace(usage=most, lost=lost)
            lost += 1
            assert self.books is not None
            await self.books.count_lost(call)

    async def close(self) -> None:
        pass


def test_the_budget_is_used_up_to_less_than_one_reservation(tmp_path: Path):
    most = _of_a_post()

    cheap = MadeUpSender(lambda asked: make_up_answer(asked)._replace(usage=TokenUsage(100, 0, 10)))
    tally, books, ended = run(tmp_path / "kb.sqlite", cheap, budget=1.5 * most, num_posts=200)
    assert ended
    assert 0.5 * most <= books.spent <= 1.5 * most
    assert books.reserved == pytest.approx(0.0)
    assert tally.done == tally.paid


def test_a_higher_budget_goes_on_from_there(tmp_path: Path):
    path, most = tmp_path / "kb.sqlite", _of_a_post()
    first, _, ended = run(path, Losing([]), budget=3.5 * most, num_posts=9)
    assert (first.done, ended) == (3, True)
    again, _, ended = run(path, Losing([]), budget=3.5 * most, num_posts=9)
    assert (again.done, again.paid, ended) == (3, 0, True)
    second, books, ended = run(path, Losing([]), budget=9.5 * most, num_posts=9)
    assert (second.done, second.paid, ended) == (9, 6, False)
    assert books.spent == pytest.approx(9 * most)


@settings(max_examples=20, deadline=None)
@given(lose=some.lists(some.booleans(), max_size=40), room=some.floats(0.5, 20))
def test_whatever_is_lost_no_more_is_billed_than_the_budget(
    lose: list[bool], room: float, tmp_path_factory: pytest.TempPathFactory
):
    path, server = tmp_path_factory.mktemp("run") / "kb.sqlite", Losing(lose)
    budget = room * _of_a_post()
    for _ in range(2):
        _, books, _ = run(path, server, budget, num_posts=12)
        assert server.billed <= budget + 1e-12
        assert server.billed == pytest.approx(books.spent)
    with KnowledgeBase(path) as store:
        assert store.sum_cost() == pytest.approx(books.spent)


def _of_a_post() -> float:
    """Return what is set aside for the one call of a post."""
    prices: list[float] = []

    class Refusing:
        async def ask(self, request: Request) -> CallRow:
            prices.append(ledger().price("m", ledger().expect(request)))
            return CallRow(request.key, "refused", "", "", "", request.model)

    asyncio.run(JobRunner(JobPlan("intentions", "m")).run(Post(id="0", text="post 0"), Refusing()))
    return prices[0]
