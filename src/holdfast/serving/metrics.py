"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.errors import require
from holdfast.serving.protocol import REASONS

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
"""Bounds of the histogram of latencies: control rates from 2 kHz to 1 Hz."""

ROWS = (1, 2, 3, 4, 6, 8, 12, 16)


class Metrics:
    """Counters and histograms of one server.

    Arguments:
        sessions: how many there are.

    Errors:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, sessions: Callable[[], int]) -> None:
        library = require("prometheus_client", "serving")
        self._registry = registry = library.CollectorRegistry()
        self._text = library.generate_latest
        self.content_type: str = library.CONTENT_TYPE_LATEST

        def name(last: str) -> str:
            return f"holdfast_action_{last}"

        self.steps = library.Counter(name("steps"), "Steps that were answered.", registry=registry)
        self.misses = library.Counter(
            name("deadline_misses"), "Steps answered by the fallback action.", registry=registry
        )
        self.failures = library.Counter(
            name("failures"), "Steps that the model could not read, and sessions it ended.", registry=registry
        )
        self.seconds = library.Histogram(
            name("step_seconds"), "From the arrival of a step to its answer.", buckets=SECONDS, registry=registry
        )
        self.rows = library.Histogram(
            name("batch_rows"), "Sessions that the model stepped together.", buckets=ROWS, registry=registry
        )
        self._refusals = library.Counter(name("refusals"), "Requests that were refused.", ["reason"], registry=registry)
        for reason in REASONS:
            self._refusals.labels(reason)
        self.opened = library.Counter(name("sessions_opened"), "Sessions that were begun.", registry=registry)
        library.Gauge(name("sessions"), "Sessions that are open.", registry=registry).set_function(sessions)
        self.evicted = library.Counter(
            name("sessions_evicted"), "Sessions given up since nobody stepped them.", registry=registry
        )
        library.ProcessCollector(registry=registry)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(reason).inc()

    def summary(self) -> str:
        """The most of it, in a line."""
        counts = {
            metric.name: sample.value
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and not sample.labels
        }
        steps, misses, opened = (
            int(counts[f"holdfast_action_{last}"]) for last in ("steps", "deadline_misses", "sessions_opened")
        )
        return f"{steps} steps of {opened} sessions, {misses} of them late"

    def text(self) -> bytes:
        """All of it."""
        text: bytes = self._text(self._registry)
        return text
