"""What was asked of an endpoint and what it cost, and where the budget ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from holdfast.llm.completion import tokens_of
from holdfast.llm.errors import BudgetSpent


@dataclass(frozen=True)
class Usage:
    """What was asked of an endpoint so far.

    Arguments:
        requests: HTTP requests that were sent, failed ones included.
        retries: those of them that repeat one that failed.
        repairs: those of them that send a malformed answer back.
        answers: questions that the model answered.
        cached: questions that were answered by what was kept.
        prompt_tokens: tokens that went in, as the server counts them.
        completion_tokens: tokens that came out.
        cost: price of these tokens; `None` if no price was given.
    """

    requests: int = 0
    retries: int = 0
    repairs: int = 0
    answers: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


class Account:
    """Counts requests and their cost, and lets none start that the budget has no room for. Threads may share it.

    Arguments:
        max_requests: most requests; `None`: any number.
        max_cost: cost at which no further request starts; `None`: any.
        price: of a million prompt tokens and of a million completion tokens; `None`: costs are not counted.
    """

    def __init__(self, max_requests: int | None, max_cost: float | None, price: tuple[float, float] | None) -> None:
        self.usage = Usage(cost=None if price is None else 0.0)
        self._max_requests, self._max_cost, self._price = max_requests, max_cost, price
        self._lock = threading.Lock()

    def start(self, *, retry: bool, repair: bool) -> None:
        """Count a request.

        Errors:
            BudgetSpent: there is no room for it.
        """
        with self._lock:
            usage = self.usage
            if self._max_requests is not None and usage.requests >= self._max_requests:
                raise BudgetSpent("max_requests", self._max_requests, usage.requests)
            if self._max_cost is not None and (usage.cost or 0.0) >= self._max_cost:
                raise BudgetSpent("max_cost", self._max_cost, usage.cost or 0.0)
            self.usage = replace(
                usage,
                requests=usage.requests + 1,
                retries=usage.retries + retry,
                repairs=usage.repairs + repair,
            )

    def charge(self, answer: Any) -> bool:
        """Count the tokens that a parsed body reports, whatever else it says; whether it reports any."""
        tokens = tokens_of(answer)
        if tokens is None:
            return False
        prompt, completion = tokens
        with self._lock:
            cost = None
            if self._price is not None:
                cost = (self.usage.cost or 0.0) + (prompt * self._price[0] + completion * self._price[1]) / 1e6
            self.usage = replace(
                self.usage,
                prompt_tokens=self.usage.prompt_tokens + prompt,
                completion_tokens=self.usage.completion_tokens + completion,
                cost=cost,
            )
        return True

    def count(self, *, answers: int = 0, cached: int = 0) -> None:
        """Count answers, which only those who ask can tell from requests."""
        with self._lock:
            usage = self.usage
            self.usage = replace(usage, answers=usage.answers + answers, cached=usage.cached + cached)
