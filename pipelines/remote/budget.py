"""What asking costs: an estimate before the first request, and a limit that is never passed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.errors import BadInput
from pipelines.remote.cache import Cache, Spent
from pipelines.remote.spec import Budget

_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 4


def tokens_of(*texts: str) -> int:
    """Tokens that the texts will be charged as, rather too many: tokenizers differ, and most cut later."""
    return sum(math.ceil(len(text.encode()) / _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE for text in texts)


@dataclass(frozen=True)
class Estimate:
    """What answering some requests costs at most, were every answer as long as allowed."""

    requests: int
    kept: int
    """Of those asked for: answered before, and free."""
    prompt_tokens: int
    most_answer_tokens: int
    most_cost: float
    currency: str

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.requests + other.requests,
            self.kept + other.kept,
            self.prompt_tokens + other.prompt_tokens,
            self.most_answer_tokens + other.most_answer_tokens,
            self.most_cost + other.most_cost,
            self.currency or other.currency,
        )

    def words(self) -> str:
        asked = f"{self.requests:,} requests to make ({self.kept:,} more were answered before)"
        tokens = (
            f"about {self.prompt_tokens:,} prompt tokens and at most {self.most_answer_tokens:,} of answers"
        )
        cost = f": at most {self.most_cost:,.2f} {self.currency}" if self.most_cost else ""
        return f"{asked}, {tokens}{cost}"


NOTHING = Estimate(0, 0, 0, 0, 0.0, "")
"""What work costs that asks no server."""


class Purse:
    """Lets requests through while the budget lasts, counting those under way at their worst."""

    def __init__(self, budget: Budget, cache: Cache, account: str) -> None:
        self._budget, self._cache, self._account = budget, cache, account
        self._spent = cache.spent(account)
        self._promised = Spent()

    def promise(self, worst: Spent) -> None:
        """Set aside what a request costs at worst.

        Raises:
            BadInput: it could pass the budget.
        """
        total = _sum(_sum(self._spent, self._promised), worst)
        limit = self._passed(total)
        if limit:
            raise BadInput(
                f"the budget is used up: {limit}. Every answer so far is kept, and nothing is asked twice",
                where=f"budget of {self._account}",
                remedy="raise the budget and run the same command again: it goes on where it stopped",
            )
        self._promised = _sum(self._promised, worst)

    def settle(self, worst: Spent, used: Spent) -> None:
        """Put what was used in the place of what was set aside."""
        self._promised = Spent(*(a - b for a, b in zip(self._promised, worst, strict=True)))
        self._spent = _sum(self._spent, used)
        self._cache.spend(self._account, used)

    def _passed(self, total: Spent) -> str:
        budget, tokens = self._budget, total.prompt_tokens + total.answer_tokens
        cost = budget.cost(total.prompt_tokens, total.answer_tokens)
        spent = self._spent
        if budget.most_requests is not None and total.requests > budget.most_requests:
            return f"{spent.requests:,} of {budget.most_requests:,} requests are made"
        if budget.most_tokens is not None and tokens > budget.most_tokens:
            used = spent.prompt_tokens + spent.answer_tokens
            return f"{used:,} of {budget.most_tokens:,} tokens are used, and the next request may need more than is left"
        if budget.most_cost is not None and cost > budget.most_cost:
            used_cost = budget.cost(spent.prompt_tokens, spent.answer_tokens)
            return (
                f"{used_cost:,.4f} of {budget.most_cost:,.4f} {budget.currency} are spent, and the next "
                "request may cost more than is left"
            )
        return ""


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(*(a + b for a, b in zip(one, other, strict=True)))
