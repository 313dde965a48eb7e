"""How a running trial tells the driver how far it is. Without a driver that listens, telling costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Listener = Callable[[float, Mapping[str, float]], None]

_listener: Listener | None = None


def report(fraction: float, **metrics: float) -> None:
    """Say from inside `run` how much of the trial is done.

    Arguments:
        fraction: share of the trial that is done, 0 to 1.
        metrics: current values to show, for example `loss=0.3`.
    """
    if _listener is not None:
        _listener(fraction, metrics)


def listen(listener: Listener | None) -> None:
    """Send reports of this process to `listener`; `None` stops it. The engine calls this in its workers."""
    global _listener
    _listener = listener
