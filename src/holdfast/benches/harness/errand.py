"""What a child process is asked to do, and what every child process sees to first."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.benches.harness.lines import append_line
from holdfast.benches.registry import Device

PARENT_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux."""


@dataclass(frozen=True)
class Errand:
    """What one process is to do.

    Arguments:
        run: identifier of the whole run.
        piece: name in the table.
        device: where.
        toy: at sizes that prove only that everything runs.
        lines: the run's file of JSON lines.
        report: file for the report.
        limit_s: seconds after which the process is stopped.
        root: folder of the checkout.
        bench: the bench, by its fields; `None`: see `tests` and, without those, tell what the machine is.
        tests: files of tests.
    """

    run: str
    piece: str
    device: Device
    toy: bool
    lines: str
    report: str
    limit_s: float
    root: str
    bench: dict[str, Any] | None = None
    tests: tuple[str, ...] = ()

    @classmethod
    def of(cls, word: str) -> Errand:
        """The errand that `word` gave."""
        return cls(**json.loads(word))

    @property
    def word(self) -> str:
        """As a word of a command line."""
        return json.dumps(asdict(self))

    def tell(self, row: Mapping[str, Any]) -> None:
        """Keep a row, and show it."""
        append_line(Path(self.lines), {"kind": "row", "run": self.run, "piece": self.piece, "row": dict(row)})
        values = " ".join(f"{name}={_short(value)}" for name, value in row.items() if value is not None)
        print(f"    {values}", flush=True)


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone; on Linux only."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
