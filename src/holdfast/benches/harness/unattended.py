"""A run that nobody watches: every piece in a process of its own, results on the disk as they come, a table at the end.

A piece that raises, hangs, is killed or misses a package is one line of the table; all others go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from holdfast.benches.harness.errand import Errand
from holdfast.benches.harness.gpu_tests import files_with_gpu_tests
from holdfast.benches.harness.lines import append_line
from holdfast.benches.harness.report import Row, table
from holdfast.benches.registry import Bench, Device

OK, FAILED, CANNOT_START, INTERRUPTED = 0, 1, 2, 130

Status = Literal["ok", "failed", "timeout", "killed", "interrupted", "skipped"]

DESCRIBE_LIMIT_S = 120.0
"""For the first import of torch, from a cold disk."""

TESTS_LIMIT_S = 130.0
TESTS_VALUE = 110
"""Among the values of benches, which are worth nothing where the tests fail."""

LEAST_S = 5.0
"""A piece is not begun when less is left."""

TAIL = 3000
"""Characters of what a piece that went wrong printed last."""


class Interrupted(Exception):
    """Somebody wants the run to end."""


@dataclass(frozen=True)
class Piece:
    """One process of the run.

    Arguments:
        name: in the table.
        value: pieces of a high value go first.
        limit_s: seconds that it asks for; once it runs, those after which it is stopped.
        missing: modules that it needs and that are not installed.
        bench: the bench, by its fields.
        tests: files of tests.
    """

    name: str
    value: int
    limit_s: float
    missing: tuple[str, ...] = ()
    bench: dict[str, Any] | None = None
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ending:
    """How a piece ended.

    Arguments:
        piece: its name.
        status: `"ok"`, or what became of it.
        seconds: that it took.
        ratio: the one number that it reports.
        says: the headline of its report, or the reason why there is none.
        report: all of it.
        tail: what it printed last, where it did not end well.
    """

    piece: str
    status: Status
    seconds: float = 0.0
    ratio: float | None = None
    says: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    tail: str = ""


@dataclass(frozen=True)
class Run:
    """An unattended run.

    Arguments:
        device: where.
        toy: at sizes that prove only that everything runs.
        budget_s: seconds for all of it.
        lines: file of JSON lines to append to.
        root: folder of the checkout.
        name: identifier, in every line.
    """

    device: Device
    toy: bool
    budget_s: float
    lines: Path
    root: Path
    name: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}")

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(text, flush=True)

    def write(self, kind: str, document: Mapping[str, Any]) -> None:
        """Append a line to the file."""
        now = time.strftime("%FT%TZ", time.gmtime())
        append_line(self.lines, {"kind": kind, "run": self.name, "time": now, **document})


def pieces(benches: Mapping[str, Bench], device: Device, root: Path, *, tests: bool) -> list[Piece]:
    """What is to be run on a device, the most valuable first.

    Arguments:
        benches: of these, those that serve the device.
        device: where.
        root: folder of the checkout.
        tests: the GPU tests too, where the checkout has them.
    """
    chosen = [
        Piece(bench.name, bench.value, bench.limit_s, tuple(bench.missing), bench=asdict(bench))
        for bench in benches.values()
        if device in bench.devices
    ]
    files = files_with_gpu_tests(root) if tests else []
    if files:
        chosen.append(Piece("gpu-tests", TESTS_VALUE, TESTS_LIMIT_S, tests=tuple(map(str, files))))
    return sorted(chosen, key=lambda piece: -piece.value)


def run_unattended(run: Run, chosen: Sequence[Piece]) -> int:
    """Run all pieces within the budget.

    Arguments:
        run: the settings.
        chosen: the pieces, in order.

    Returns:
        Exit status: 0 if nothing went wrong, 1 if something did, 2 if nothing can be measured here, 130 if interrupted.
    """
    started = time.monotonic()
    endings: list[Ending] = []
    interrupted = False
    with tempfile.TemporaryDirectory() as folder, _signals():
        try:
            machine = _do(run, Piece("machine", 0, min(DESCRIBE_LIMIT_S, run.budget_s)), Path(folder))
            problem = machine.says if machine.status != "ok" else machine.report.get("problem", "")
            run.write(
                "start",
                {"device": run.device, "toy": run.toy, "budget_s": run.budget_s, "pieces": [p.name for p in chosen]}
                | machine.report,
            )
            if problem:
                run.say(f"holdfast.benches: error: {problem}")
                if machine.tail:
                    run.say(machine.tail)
                return CANNOT_START
            run.say(_heading(run, machine.report))
            for place, piece in enumerate(chosen):
                endings.append(_within(run, piece, chosen[place + 1 :], started, Path(folder)))
                _tell(run, endings[-1])
        except Interrupted:
            interrupted = True
        if interrupted:
            cut: Status = "interrupted"
            for piece in chosen[len(endings) :]:
                endings.append(Ending(piece.name, cut, says="the run was interrupted"))
                run.write("piece", _document(endings[-1]))
                cut = "skipped"
        seconds = time.monotonic() - started
        wrong = [ending.piece for ending in endings if ending.status not in ("ok", "skipped")]
        run.write("end", {"seconds": round(seconds, 1), "wrong": wrong, "interrupted": interrupted})
        run.say(f"\n{len(endings)} pieces in {seconds:.0f} s, {len(wrong)} went wrong; {run.lines}\n")
        rows: list[Row] = [
            {"piece": e.piece, "status": e.status, "seconds": round(e.seconds, 1), "ratio": e.ratio, "says": e.says}
            for e in endings
        ]
        run.say("\n".join(table(rows)))
    return INTERRUPTED if interrupted else FAILED if wrong else OK


def share(piece: Piece, later: Sequence[Piece], left_s: float) -> float:
    """Seconds that a piece may take: of what is left, as large a part as it has of all that is still asked for.

    What one leaves over goes to all after it.

    Arguments:
        piece: the next one.
        later: what is to be run after it.
        left_s: seconds that are left for all of them.
    """
    asked = piece.limit_s + sum(other.limit_s for other in later if not other.missing)
    return left_s * piece.limit_s / asked


def _within(run: Run, piece: Piece, later: Sequence[Piece], started: float, folder: Path) -> Ending:
    """Run a piece if it can be run and there is time."""
    if piece.missing:
        return Ending(piece.name, "skipped", says=f"needs {', '.join(piece.missing)}, not installed here")
    left = run.budget_s - (time.monotonic() - started)
    if left < min(LEAST_S, piece.limit_s):
        return Ending(piece.name, "skipped", says=f"no time left of {run.budget_s:g} s")
    limit = min(piece.limit_s, left) if run.toy else share(piece, later, left)
    run.say(f"[{time.monotonic() - started:4.0f} s] {piece.name}, at most {limit:.0f} s")
    return _do(run, replace(piece, limit_s=limit), folder)


def _do(run: Run, piece: Piece, folder: Path) -> Ending:
    """Run a piece in a process group of its own and leave nothing of it behind."""
    report = folder / f"{piece.name}.json"
    errand = Errand(
        run=run.name,
        piece=piece.name,
        device=run.device,
        toy=run.toy,
        lines=str(run.lines),
        report=str(report),
        limit_s=piece.limit_s,
        root=str(run.root),
        bench=piece.bench,
        tests=piece.tests,
    )
    command = [sys.executable, "-m", "holdfast.benches.harness.child", errand.word]
    started = time.monotonic()
    with (folder / f"{piece.name}.log").open("w+b") as log:
        environment = _environment(run.device)
        process = subprocess.Popen(
            command, cwd=run.root, env=environment, stdin=subprocess.DEVNULL, stderr=log, process_group=0
        )
        try:
            status = process.wait(piece.limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill_group(process)
        seconds = time.monotonic() - started
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4 * TAIL))
        tail = log.read().decode(errors="replace")[-TAIL:]
    ending = Ending(piece.name, "ok", round(seconds, 2))
    if status is None:
        says = f"stopped after {piece.limit_s:.0f} s, {_rows(run, piece)} rows kept"
        return replace(ending, status="timeout", says=says, tail=tail)
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return replace(ending, status="killed", says=f"killed by {name}{hint}", tail=tail)
    try:
        document = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "it said nothing")
        return replace(ending, status="failed", says=f"status {status}: {last}"[:300], tail=tail)
    failures = document.get("failures") or []
    says = document.get("headline", "")
    if failures:
        says = f"{says}; {len(failures)} failed, the first: {failures[0]}"
    return replace(
        ending,
        status="failed" if failures else "ok",
        ratio=document.get("ratio"),
        says=says,
        report=document,
        tail=tail if failures else "",
    )


def _rows(run: Run, piece: Piece) -> int:
    """Rows of a piece in the run's file."""
    try:
        lines = run.lines.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    mark = f'"kind": "row", "run": "{run.name}", "piece": {json.dumps(piece.name)}'
    return sum(mark in line for line in lines)


def _environment(device: Device) -> dict[str, str]:
    """Of a child: this package is found in a checkout too, and kernels run in the interpreter where there is no GPU."""
    source = str(Path(__file__).parents[3])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    extra = {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        extra["TRITON_INTERPRET"] = "1"
    return os.environ | extra


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps even a killed process
        process.wait(10)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run in good order; the second one finds that already under way."""

    def stop(number: int, frame: FrameType | None) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise Interrupted

    before: dict[signal.Signals, Any] = {}
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # signals can be set in the main thread only
            before[name] = signal.signal(name, stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _tell(run: Run, ending: Ending) -> None:
    run.write("piece", _document(ending))
    run.say(f"    {ending.status} after {ending.seconds:.0f} s: {ending.says}")
    if ending.tail:
        run.say("    | " + "\n    | ".join(ending.tail.splitlines()[-15:]))


def _document(ending: Ending) -> dict[str, Any]:
    return {name: value for name, value in asdict(ending).items() if value not in ("", {})}


def _heading(run: Run, document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpu"])
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{gpus or machine['cpu']}; {packages}; commit {document['commit']}; {run.budget_s:g} s"
