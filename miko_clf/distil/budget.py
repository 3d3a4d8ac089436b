"""What requests cost: prices, reservations, and a budget that is never passed unknowingly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from miko_clf.distil.request import Request
from miko_clf.distil.response import TokenUsage
from miko_clf.distil.schemas import AnswerSchema, make_wire_schema
from miko_clf.errors import DistilError, suggest_nearest

_BYTES = 3.0  # of UTF-8 a token: low, so that an estimate errs upwards in any script
PICTURE_TOKENS = 800  # tokens a picture, until the probe has seen what the server counts


class BudgetError(DistilError):
    """The budget leaves no room for another call."""

    code = 3


class TokenPrice(BaseModel):
    """Dollars for a million tokens; `batch` is the factor of the batch route."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    output: float = Field(ge=0)
    batch: float = Field(default=0.5, gt=0, le=1)

    def of(self, usage: TokenUsage, *, batch: bool = False) -> float:
        """Return the dollars that these tokens cost."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt - usage.cached
        dollars = fresh * self.input + usage.cached * cached + usage.completion * self.output
        return dollars / 1e6 * (self.batch if batch else 1.0)


def read_prices(path: Path) -> dict[str, TokenPrice]:
    """Return the prices in a YAML file, `model: {input: 0.1, cached: 0.01, output: 0.5}`."""
    try:
        prices = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(prices, dict):
            raise DistilError(f"{path}: model names with their prices are expected")
        return {str(name): TokenPrice.model_validate(price) for name, price in prices.items()}
    except OSError as error:
        raise DistilError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise DistilError(f"{path}: is not YAML") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        fields = ", ".join(TokenPrice.model_fields)
        raise DistilError(f"{path}: {where}: {first['msg']}; a price has {fields}") from None


@dataclass
class BudgetLedger:
    """Dollars spent and set aside, against a budget.

    `spent` starts with what the knowledge base has cost before, so that a budget holds over
    every run. Raises `DistilError` where a budget is given and a model has no price.
    """

    prices: Mapping[str, TokenPrice]
    models: tuple[str, ...]
    budget: float | None = None
    spent: float = 0.0
    batch: bool = False
    reserved: float = 0.0
    picture: int = PICTURE_TOKENS

    def __post_init__(self) -> None:
        for model in self.models:
            if self.budget is not None and model not in self.prices:
                lack = f"model {model!r} has no price{suggest_nearest(model, self.prices)}"
                raise DistilError(f"a budget is given and {lack}; name a file of prices")

    def expect(self, request: Request) -> TokenUsage:
        """Return the tokens that a request takes at most, by its length."""
        size = sum(len(turn.text.encode()) for turn in request.turns)
        size += _measure_schema(request.answer)
        pictures = sum(turn.picture is not None for turn in request.turns)
        prompt = int(size / _BYTES) + pictures * self.picture
        return TokenUsage(prompt, 0, request.sampling.max_tokens)

    def reserve(self, request: Request) -> float:
        """Set aside what a request may cost, and return it; raises `BudgetError` at the budget."""
        usd = self.price(request.model, self.expect(request))
        self.hold(usd)
        return usd

    def hold(self, usd: float) -> None:
        """Set so many dollars aside; raises `BudgetError` where the budget has no room for them."""
        if self.budget is not None and self.spent + self.reserved + usd > self.budget:
            raise BudgetError(
                f"the budget of ${self.budget:,.2f} is reached: ${self.spent:,.4f} are spent; "
                "a higher --budget-usd goes on from here"
            )
        self.reserved += usd

    def lose(self, request: Request) -> float:
        """Count as spent what was set aside for a lost answer, and return that."""
        usd = self.price(request.model, self.expect(request))
        self.reserved -= usd
        self.spent += usd
        return usd

    def settle(self, reserved: float, model: str, usage: TokenUsage, *, lost: int = 0) -> float:
        """Release a reservation, count what the request cost, and return that.

        A lost answer may have been billed, and counts as much as was set aside for it.
        """
        self.reserved -= reserved
        usd = self.price(model, usage) + lost * reserved
        self.spent += usd
        return usd

    def price(self, model: str, usage: TokenUsage) -> float:
        """Return the dollars that tokens of a model cost, 0 where it has no price."""
        price = self.prices.get(model)
        return price.of(usage, batch=self.batch) if price else 0.0


@lru_cache(maxsize=256)
def _measure_schema(answer: type[AnswerSchema]) -> int:
    return len(json.dumps(make_wire_schema(answer)))
