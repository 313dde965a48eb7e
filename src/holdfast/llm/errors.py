"""What can go wrong with an endpoint."""

from __future__ import annotations

from holdfast.errors import HoldfastError


class EndpointError(HoldfastError):
    """The endpoint did not answer, or refused to.

    Arguments:
        problem: what happened, in the provider's words where it gave any, without keys and passwords.
        passing: a later attempt may succeed.
        retry_after_s: seconds after which the server asks to be tried again.
        status: of HTTP; `None`: there was no answer.
    """

    def __init__(
        self, problem: str, passing: bool = False, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(problem, passing, retry_after_s, status)
        self.problem, self.passing, self.retry_after_s, self.status = problem, passing, retry_after_s, status

    def __str__(self) -> str:
        return self.problem


class BudgetSpent(HoldfastError):
    """No further request is allowed: `max_requests` or `max_cost` is spent.

    Arguments:
        limit: name of the limit.
        allowed: its value.
        spent: what was spent.
    """

    def __init__(self, limit: str, allowed: float, spent: float) -> None:
        super().__init__(limit, allowed, spent)
        self.limit, self.allowed, self.spent = limit, allowed, spent

    def __str__(self) -> str:
        spent = f"{self.limit}: {self.allowed:g} are allowed, {self.spent:g} are spent"
        return f"{spent}; answers so far are kept, and not asked for again"
