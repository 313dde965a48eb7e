"""Which failures may pass, and how long to wait before the next attempt."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from holdfast.llm.completion import words_of
from holdfast.llm.errors import EndpointError
from holdfast.llm.settings import PATHS
from holdfast.llm.transport import Reply

if TYPE_CHECKING:
    import tenacity

PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later attempt may not meet."""


def refusal_of(reply: Reply, url: str, hide: Callable[[str], str]) -> EndpointError:
    """What a reply with another status than 2xx says, and whether another attempt may help.

    Arguments:
        reply: the reply.
        url: where it comes from, as it may be shown.
        hide: makes secrets in a text unreadable.
    """
    # A quota that is used up has the status of too many requests, and no wait mends it.
    passing = (reply.status in PASSING or reply.status >= 500) and "insufficient_quota" not in reply.text
    problem = f"{url} answered {reply.status}: {words_of(hide(reply.text))}"
    if reply.status == 404:
        problem += _other_base(url)
    return EndpointError(problem, passing, retry_after(reply.headers), reply.status)


def _other_base(url: str) -> str:
    """A hint where an address lacks what most servers have before the path of the protocol; empty: it does not."""
    parts = urlsplit(url)
    bare = parts.netloc and parts.path in PATHS.values()
    return f" (most servers answer below /v1: try {parts.scheme}://{parts.netloc}/v1)" if bare else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: it gives a number, or a date.

    A date is one of the server's clock, which the answer shows too (`Date`): that of this machine may go wrong.
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        then, now = _time_of(value), _time_of(headers.get("date", ""))
        if then is None:
            return None
        seconds = then - (time.time() if now is None else now)
    return max(0.0, seconds) if seconds < float("inf") else None


def _time_of(date: str) -> float | None:
    """Seconds since 1970 of a date in HTTP, which is in Greenwich time whether it says so or not."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def retrying(
    *,
    attempts: int,
    first_wait_s: float,
    longest_wait_s: float,
    deadline_s: float | None,
    sleep: Callable[[float], Awaitable[None]],
    on_retry: Callable[[EndpointError], None],
) -> tenacity.AsyncRetrying:
    """Repeats an attempt as long as its error is one that may pass.

    Arguments:
        attempts: how often at most.
        first_wait_s: upper bound of the random wait before the second attempt; it doubles each time.
        longest_wait_s: the most that any such wait comes to. A server that asks for more is taken to be closed.
        deadline_s: no attempt starts later than this after the first; `None`: no limit.
        sleep: waits.
        on_retry: called with the error of every attempt that is followed by another.
    """
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=first_wait_s, max=longest_wait_s)

    def pause(state: tenacity.RetryCallState) -> float:
        told = _raised(state).retry_after_s
        # All who were told to come back at one time would come together.
        return backoff(state) if told is None else told + min(backoff(state), first_wait_s)

    def stop(state: tenacity.RetryCallState) -> bool:
        late = deadline_s is not None and (state.seconds_since_start or 0.0) + state.upcoming_sleep >= deadline_s
        too_long = (_raised(state).retry_after_s or 0) > longest_wait_s
        return late or too_long or state.attempt_number >= attempts

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, EndpointError) and error.passing),
        wait=pause,
        stop=stop,
        sleep=sleep,
        before_sleep=lambda state: on_retry(_raised(state)),
        reraise=True,
    )


def _raised(state: tenacity.RetryCallState) -> EndpointError:
    error = None if state.outcome is None else state.outcome.exception()
    assert isinstance(error, EndpointError)
    return error
