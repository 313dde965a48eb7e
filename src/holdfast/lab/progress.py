"""How a running trial tells the driver how far it is, and keeps what a later attempt can go on from.

Without a driver that listens, telling and keeping cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.lab.checkpoints import Checkpoints

Listener = Callable[[float, Mapping[str, float]], None]

_listener: Listener | None = None
_checkpoints: Checkpoints | None = None


def report(fraction: float, **metrics: float) -> None:
    """Say from inside `run` how much of the trial is done.

    Arguments:
        fraction: share of the trial that is done, 0 to 1.
        metrics: current values to show, for example `loss=0.3`.
    """
    if _listener is not None:
        _listener(fraction, metrics)


def checkpoint(path: str | os.PathLike[str]) -> None:
    """Keep from inside `run` what a later attempt at this trial can go on from, should this one be killed.

    The file or folder is moved into a folder of the trial's own, whole or not at all, and takes the place of the one
    before. It is kept until the trial has a result, and discarded where code or data that it came from have changed.
    Outside a worker nothing happens, and the file stays where it is.

    Arguments:
        path: the file or folder that the trial has just written, where no other trial writes.

    Errors:
        FileNotFoundError: there is none.
    """
    if _checkpoints is not None:
        _checkpoints.keep(Path(path))


def last_checkpoint() -> Path | None:
    """What an earlier attempt at this trial has kept last, to be read from inside `run`; `None` where there is none.

    Restore random states from it, too: they are those of the trial's beginning.
    """
    return None if _checkpoints is None else _checkpoints.last()


def listen(listener: Listener | None, checkpoints: Checkpoints | None = None) -> None:
    """Send reports of this process to `listener`; `None` stops it. The engine calls this in its workers."""
    global _listener, _checkpoints
    _listener, _checkpoints = listener, checkpoints
