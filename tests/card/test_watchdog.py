"""What ends a check that nothing inside it can end, and says so where something else ended it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

START = """
import os, signal, time
from holdfast.card.watchdog import Watchdog
with Watchdog() as watch:
    watch.expect("the probe x", {seconds})
    {then}
"""


@pytest.mark.parametrize(
    ("seconds", "then", "status", "said"),
    [
        (0.2, "signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(100)", -signal.SIGKILL, "did not let itself"),
        (100, "os._exit(3)", 3, "in the midst of the probe x; finished probes are kept"),
        (100, "os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "in the midst of the probe x"),
        (100, "pass", 0, ""),
        (100, "raise SystemExit(4)", 4, ""),
        (0.2, "watch.expect('the page'); time.sleep(0.6)", 0, ""),
    ],
)
def test_the_end_of_a_process_is_said(seconds, then, status, said):
    code = START.format(seconds=seconds, then=then)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.returncode == status
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(said)
