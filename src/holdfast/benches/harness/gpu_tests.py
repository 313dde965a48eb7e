"""The tests that use a GPU: those with the marker `gpu`, dealt out to several processes.

Most of their time is compilation, which several processes share, and a kernel that breaks the device breaks it for its
own process only. Only pytest itself is needed: the settings and plugins of the project stay out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.benches.harness.errand import Errand, die_with_parent
from holdfast.benches.harness.machine import commit, machine, versions

MARK = re.compile(r"\bmark\.gpu\b")

MOST_PROCESSES = 14

REPORTING_S = 10.0
"""Left of the time for the report."""

MARKERS = "gpu: runs on a CUDA device where there is one\nslow: takes more than a few seconds"


def files_with_gpu_tests(root: Path) -> list[Path]:
    """Files below `root/tests` in which the marker stands: no other one is so much as imported."""
    files = sorted((root / "tests").rglob("test_*.py"))
    return [path for path in files if MARK.search(path.read_text(encoding="utf-8"))]


def run_tests(errand: Errand) -> dict[str, Any]:
    """Run the errand's files in several processes, which are stopped in time, and add up what they report.

    Returns:
        Numbers of tests, a headline, files that need what is not installed, and failures by name.
    """
    deadline = time.monotonic() + max(errand.limit_s - REPORTING_S, errand.limit_s / 2)
    count = max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) - 2)) if errand.device == "cuda" else 1
    shares = []
    for number in range(count):
        report = Path(errand.report).with_suffix(f".share{number}")
        log = report.with_suffix(f".log{number}")
        command = [sys.executable, "-m", __name__, str(report), str(number), str(count), errand.root, *errand.tests]
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=errand.root, stdout=file, stderr=subprocess.STDOUT)
        shares.append((process, report, log))
    passed, skipped = 0, 0
    missing: list[str] = []
    failures: list[str] = []
    for number, (process, report, log) in enumerate(shares):
        ended = _wait(process, deadline)
        text = log.read_text(encoding="utf-8", errors="replace")
        tally = json.loads(report.read_text(encoding="utf-8")) if report.exists() else vars(Tally(report, 0, 1))
        passed += tally["passed"]
        skipped += tally["skipped"]
        missing += [line for line in tally["missing"] if line not in missing]
        failures += [line for line in tally["failures"] if line not in failures]
        if ended != "done" or not tally["finished"]:
            last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
            failures.append(f"process {number} {ended} in {tally['running'] or 'no test'}: {last}"[:300])
        if tally["failures"]:
            print(text[-4000:], file=sys.stderr)
        errand.tell({"process": number, "passed": tally["passed"], "failed": len(tally["failures"])})
    headline = f"{passed} passed, {len(failures)} failed, {skipped} skipped"
    if missing:
        headline += f"; not run: {'; '.join(missing)}"
    document = {"headline": headline, "passed": passed, "skipped": skipped, "missing": missing, "failures": failures}
    return document | {"machine": machine(), "versions": versions(), "commit": commit()}


def _wait(process: subprocess.Popen[bytes], deadline: float) -> str:
    """How a process ended: `done`, killed by a signal, or stopped."""
    try:
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "had no time left"
    return "done" if status >= 0 else f"was killed by {signal.Signals(-status).name}"


class Tally:
    """A plugin of pytest: keeps every `count`-th test from `number` on, and counts outcomes."""

    def __init__(self, path: Path, number: int, count: int) -> None:
        self.path, self.number, self.count = path, number, count
        self.passed = 0
        self.skipped = 0
        self.missing: list[str] = []
        self.failures: list[str] = []
        self.running = ""
        self.finished = False

    def write(self) -> None:
        """Keep what is known so far: the next test may be the end of the process."""
        names = ("passed", "skipped", "missing", "failures", "running", "finished")
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps({name: getattr(self, name) for name in names}), encoding="utf-8")
        new.rename(self.path)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Remember which test is running."""
        self.running = nodeid
        self.write()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Take this process's share."""
        wanted = [item for item in items if item.get_closest_marker("gpu")]
        items[:] = wanted[self.number :: self.count]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test, or the failure of what is around it."""
        if report.failed:
            self.failures.append(f"{report.nodeid}: {_reason(report)}")
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: Any) -> None:
        """Tell a file that needs a package from one that is broken."""
        if not report.failed:
            return
        absent = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", report.longreprtext)
        if absent and absent[1].partition(".")[0] not in ("holdfast", "tests"):
            self.missing.append(f"{report.nodeid} needs {absent[1]}")
        else:
            self.failures.append(f"{report.nodeid}: {_reason(report)}")


def _reason(report: Any) -> str:
    """The line of a failure that says most: the first one that pytest marks with E."""
    lines = str(report.longreprtext).strip().splitlines()
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked or lines[-1:] or ["no reason was given"])[0][:300]


def main(words: list[str]) -> int:
    """Run one share of the tests: report, number and count of processes, root, files."""
    import pytest

    die_with_parent()
    report, number, count, root, *files = words
    tally = Tally(Path(report), int(number), int(count))
    options = ["-c", os.devnull, f"--rootdir={root}", "-o", f"markers={MARKERS}", "-p", "no:cacheprovider"]
    status = int(pytest.main([*options, "-v", "--tb=short", "--continue-on-collection-errors", *files], [tally]))
    if status not in (0, 1, 2, 5):  # passed, failed, files that cannot be imported, none
        tally.failures.append(f"pytest ended with status {status}")
    tally.finished = True
    tally.write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
