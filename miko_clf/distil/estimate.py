"""What a run will take, before it takes anything: a few posts are walked through in pretence."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from miko_clf.data.post import Post
from miko_clf.distil.answer import wire_schema
from miko_clf.distil.call import Call, Usage
from miko_clf.distil.gather import Way
from miko_clf.distil.money import Ledger
from miko_clf.distil.shelf import Row

SAMPLE = 50  # posts that are walked through
_WORDS = {"description": 60, "rationale": 80}  # of an answer's texts; others are short
_FEW = 9


class Estimate(NamedTuple):
    """What so many posts are expected to take, were none of it on the shelf. `usd` is None where
    a model has no price."""

    posts: int | None
    calls: float
    prompt: float
    completion: float
    usd: float | None

    def line(self) -> str:
        """Return the estimate in a line."""
        what = "a post takes" if self.posts is None else f"{self.posts:,} posts take"
        cost = "cost unknown (no price given)" if self.usd is None else f"${self.usd:,.2f}"
        return (
            f"about: {what} {self.calls:,.0f} calls, {self.prompt:,.0f} prompt and "
            f"{self.completion:,.0f} completion tokens, {cost}"
        )


async def estimate(
    posts: Sequence[Post], way: Way, ledger: Ledger, models: Sequence[str], total: int | None
) -> Estimate:
    """Return what `total` posts like these (one post, if None) are expected to take."""
    seen: list[tuple[Call, Usage]] = []

    async def pretend(call: Call) -> Row:
        raw = json.dumps(_filler(wire_schema(call.answer), ""))
        asked = ledger.expected(call)
        seen.append((call, asked._replace(completion=len(raw) // 4)))
        return Row(call.key, None, "", raw, "stop", call.model)

    for post in posts[:SAMPLE]:
        await way(post, pretend)
    scale = (total or 1) / max(1, len(posts[:SAMPLE]))
    usd = sum(ledger.price(call.model, usage) for call, usage in seen) * scale
    known = all(model in ledger.prices for model in models)
    return Estimate(
        total,
        len(seen) * scale,
        sum(usage.prompt for _, usage in seen) * scale,
        sum(usage.completion for _, usage in seen) * scale,
        usd if known else None,
    )


def head(posts: Iterator[Any]) -> tuple[list[Any], Iterator[Any]]:
    """Return the first posts, and all of them."""
    first = list(itertools.islice(posts, SAMPLE))
    return first, itertools.chain(first, posts)


def _filler(schema: Mapping[str, Any], name: str) -> Any:
    """Return a value of the schema, of the length that answers have."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"properties": fields}:
            return {key: _filler(field, key) for key, field in fields.items()}
        case {"items": items}:
            return [_filler(items, name)] * 4
        case {"type": "boolean"}:
            return True
    return " ".join(["words"] * _WORDS.get(name, _FEW))
