"""A process beside a check, which ends it where nothing else can, and says so where something else ended it."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys

WATCH = """
import os, select, signal, sys
pid, what, left = int(sys.argv[1]), "it", None
def say(words):
    os.write(2, f"holdfast: {words}; finished probes are kept, and the same command goes on from them\\n".encode())
while True:
    if not select.select([0], [], [], left)[0]:
        say(f"{what} did not let itself be stopped, and the process was ended")
        os.kill(pid, signal.SIGKILL)
        break
    told = os.read(0, 65536).decode(errors="replace")
    if not told:
        say(f"the process was ended, by what was checked or from outside, in the midst of {what}")
        break
    seconds, _, what = told.splitlines()[-1].partition(" ")
    if seconds == "done":
        break
    left = None if seconds == "inf" else float(seconds)
"""


class Watchdog:
    """Ends this process where it hangs longer than was expected, though it heeds no signal or never leaves C.

    A target may also end the process itself, as by `os._exit`: then the watchdog is who is left to say it.
    """

    def __enter__(self) -> Watchdog:
        # In a session of its own: what interrupts the check does not end its watchdog.
        command = [sys.executable, "-I", "-S", "-c", WATCH, str(os.getpid())]
        self._watch = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._tell("done")
        if self._watch.stdin is not None:
            with contextlib.suppress(OSError):
                self._watch.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._watch.wait(1)

    def expect(self, what: str, seconds: float = math.inf) -> None:
        """Name what runs next, and the time after which the process is ended.

        Arguments:
            what: for people.
            seconds: the time.
        """
        self._tell(f"{seconds} {what}")

    def _tell(self, words: str) -> None:
        if self._watch.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._watch.stdin.write(f"{words}\n".encode())
                self._watch.stdin.flush()
