"""How fast requests may start: a bucket of tokens, one for each request, that fills at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class TokenBucket:
    """Turns at a steady rate. Threads may share it.

    A turn is taken at once, for the time at which its token will be there; so turns keep their order, and who comes
    late because the program was busy does not slow down the rest.

    Arguments:
        per_minute: tokens a minute; `None`: any number.
        capacity: tokens that are kept while nobody asks: that many requests may start together.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self, per_minute: float | None, capacity: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 0.0 if per_minute is None else 60 / per_minute
        self._saved = (capacity - 1) * self._interval
        self._clock = clock
        self._next = -float("inf")
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take the next token, and say in how many seconds it is there."""
        if not self._interval:
            return 0.0
        with self._lock:
            now = self._clock()
            turn = max(now - self._saved, self._next)
            self._next = turn + self._interval
            return max(0.0, turn - now)
