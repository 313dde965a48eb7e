"""A run that nobody watches: whatever its pieces do, the file holds what was finished and the table comes last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from holdfast.benches import Bench
from holdfast.benches.__main__ import main
from holdfast.benches.harness import unattended
from holdfast.benches.harness.child import main as child
from holdfast.benches.harness.errand import Errand
from holdfast.benches.harness.gpu_tests import files_with_gpu_tests
from holdfast.benches.harness.unattended import Ending, Piece, Run, pieces, run_unattended

ROOT = Path(__file__).parents[2]

BENCH = """
import os, time
from dataclasses import dataclass
from holdfast.benches.harness.report import Report

@dataclass(frozen=True)
class Options:
    size: int = 10

TOY = Options(1)

def run(options, tell):
    tell({"size": options.size})
    %s
    return Report({}, ({"size": options.size},), "all is well", 1.5, %s)
"""

FAULTS = {
    "raises": "raise ValueError('no such luck')",
    "hangs": "os.system('sleep 600 &'); time.sleep(600)",
    "dies": "os.kill(os.getpid(), 9)",
    "leaves": "os._exit(0)",
    "imports": "import no_such_package",
    "fine": "pass",
}


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A registry of benches that go wrong in every way, and one that does not."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    for name, fault in FAULTS.items():
        (tmp_path / f"toy_{name}.py").write_text(BENCH % (fault, "()"))
    (tmp_path / "toy_wrong.py").write_text(BENCH % ("pass", "('case 3: the result is wrong',)"))
    values = {name: 10 - place for place, name in enumerate([*FAULTS, "wrong"])}
    return {name: Bench(name, "", f"toy_{name}", value, limit_s=30.0) for name, value in values.items()}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def no_machine(monkeypatch):
    """Skip the process that describes the machine, which imports torch."""
    do = unattended._do
    document = {"machine": {"cpu": "a cpu", "gpu": []}, "versions": {"python": "3"}, "commit": "c"}
    answer = Ending("machine", "ok", report=document)
    monkeypatch.setattr(unattended, "_do", lambda run, p, folder: answer if p.name == "machine" else do(run, p, folder))


def test_every_way_to_fail_costs_one_line(toys, tmp_path, monkeypatch, capfd):
    no_machine(monkeypatch)
    path = tmp_path / "gpu.jsonl"
    toys["hangs"] = Bench("hangs", "", "toy_hangs", 9, limit_s=1.5)
    toys["needs"] = Bench("needs", "", "toy_fine", 1, needs={"no_such_package": "none"})
    toys["elsewhere"] = Bench("elsewhere", "", "toy_fine", 1, devices=("cuda",))
    run = Run("cpu", True, 300.0, path, tmp_path)
    started = time.monotonic()
    assert run_unattended(run, pieces(toys, "cpu", ROOT, tests=False)) == 1
    assert time.monotonic() - started < 120, "the bench that hangs was not stopped"
    lines = lines_of(path)
    assert [line["kind"] for line in lines[:2]] == ["start", "row"]
    assert lines[-1]["wrong"] == ["raises", "hangs", "dies", "leaves", "imports", "wrong"]
    endings = {line["piece"]: line for line in lines if line["kind"] == "piece"}
    assert {name: line["status"] for name, line in endings.items()} == {
        "raises": "failed",
        "hangs": "timeout",
        "dies": "killed",
        "leaves": "failed",
        "imports": "failed",
        "fine": "ok",
        "wrong": "failed",
        "needs": "skipped",
    }
    assert "no such luck" in endings["raises"]["says"]
    assert "SIGKILL" in endings["dies"]["says"]
    assert "no_such_package" in endings["imports"]["says"]
    assert "no_such_package" in endings["needs"]["says"]
    assert "case 3: the result is wrong" in endings["wrong"]["says"]
    assert endings["fine"]["ratio"] == 1.5
    assert {"machine", "versions", "commit", "settings"} <= set(endings["fine"]["report"])
    rows = [line["piece"] for line in lines if line["kind"] == "row"]
    assert rows == [*FAULTS, "wrong"], "a row is kept whatever follows it"
    assert all(line["run"] == run.name for line in lines)
    out = capfd.readouterr().out
    shown = out.split("piece ")[-1]
    assert [line.split()[0] for line in shown.splitlines()[1:]] == [*FAULTS, "wrong", "needs"]
    left = subprocess.run(["pgrep", "-f", "sleep 600"], capture_output=True, text=True, check=False).stdout.split()
    ours = [pid for pid in left if Path(f"/proc/{pid}/cwd").resolve() == tmp_path]
    assert ours == [], "what a stopped bench has started goes with it"


def test_what_no_longer_fits_is_said(tmp_path, monkeypatch, capsys):
    no_machine(monkeypatch)
    path = tmp_path / "gpu.jsonl"
    piece = Piece("late", 1, 60.0, bench={"name": "late"})
    assert run_unattended(Run("cpu", True, 1.0, path, tmp_path), [piece]) == 0
    assert [line.get("status") for line in lines_of(path)] == [None, "skipped", None]
    assert "no time left of 1 s" in capsys.readouterr().out


def test_time_is_shared_out_in_proportion():
    first, second, third = Piece("a", 3, 60.0), Piece("b", 2, 30.0), Piece("c", 1, 30.0)
    assert unattended.share(first, [second, third], 60.0) == 30.0
    assert unattended.share(second, [third], 50.0) == 25.0, "what the first left over goes to both"
    assert unattended.share(second, [Piece("d", 1, 30.0, missing=("x",))], 50.0) == 50.0


def test_a_bench_that_is_stopped_keeps_its_rows_and_leaves_time_for_the_next(toys, tmp_path, monkeypatch):
    no_machine(monkeypatch)
    chosen = pieces({name: toys[name] for name in ("hangs", "fine")}, "cpu", ROOT, tests=False)
    path = tmp_path / "gpu.jsonl"
    assert run_unattended(Run("cpu", False, 20.0, path, tmp_path), chosen) == 1
    endings = {line["piece"]: line for line in lines_of(path) if line["kind"] == "piece"}
    assert endings["hangs"]["says"].endswith("1 rows kept")
    assert endings["fine"]["status"] == "ok"


def test_a_signal_ends_the_run_in_good_order(toys, tmp_path, monkeypatch, capfd):
    no_machine(monkeypatch)
    path = tmp_path / "gpu.jsonl"
    chosen = [piece for piece in pieces(toys, "cpu", ROOT, tests=False) if piece.name in ("hangs", "fine")]

    def say(run: Run, text: str) -> None:
        print(text)
        if "hangs, at most" in text:  # the piece is started next
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(Run, "say", say)
    assert run_unattended(Run("cpu", True, 300.0, path, tmp_path), chosen) == 130
    endings = {line["piece"]: line["status"] for line in lines_of(path) if line["kind"] == "piece"}
    assert endings == {"hangs": "interrupted", "fine": "skipped"}
    assert lines_of(path)[-1]["interrupted"]
    assert "fine   skipped" in capfd.readouterr().out


def test_nothing_begins_where_nothing_can_be_measured(tmp_path, monkeypatch, capsys):
    path = tmp_path / "gpu.jsonl"
    answer = Ending("machine", "ok", report={"problem": "there is no CUDA device"})
    monkeypatch.setattr(unattended, "_do", lambda run, piece, folder: answer)
    assert run_unattended(Run("cuda", False, 300.0, path, tmp_path), [Piece("x", 1, 1.0)]) == 2
    assert capsys.readouterr().out.startswith("holdfast.benches: error: there is no CUDA device")


def test_a_child_says_what_is_missing(tmp_path, monkeypatch):
    def ask():
        errand = Errand("r", "machine", "cpu", True, str(tmp_path / "l"), str(tmp_path / "r"), 10.0, str(tmp_path))
        assert child([errand.word]) == 0
        return json.loads((tmp_path / "r").read_text())

    assert "problem" not in ask()
    monkeypatch.setitem(sys.modules, "jaxtyping", None)
    assert "jaxtyping" in ask()["problem"]
    assert "make gpu-packages" in ask()["problem"]


def test_the_tests_of_kernels_are_among_those_for_a_gpu():
    names = {path.name for path in files_with_gpu_tests(ROOT)}
    assert "test_kernels.py" in names or "test_host.py" in names
    assert Path(__file__).name not in names


def test_gpu_tests_are_counted_and_one_that_kills_its_process_is_named(tmp_path):
    (tmp_path / "tests").mkdir()
    mark = "pytest.mark." + "gpu"
    source = f"""import os, pytest

@{mark}
@pytest.mark.parametrize("x", [1, 2])
def test_x(x):
    assert x == 1

def test_unmarked():
    raise AssertionError

@{mark}
def test_z():
    os.kill(os.getpid(), 9)
"""
    (tmp_path / "tests" / "test_a.py").write_text(source)
    (tmp_path / "tests" / "test_b.py").write_text(f"import no_such_package, pytest\nx = {mark}\n")
    files = files_with_gpu_tests(tmp_path)
    assert [path.name for path in files] == ["test_a.py", "test_b.py"]
    lines = tmp_path / "lines"
    errand = Errand(
        "r", "t", "cpu", True, str(lines), str(tmp_path / "r.json"), 60.0, str(tmp_path), tests=tuple(map(str, files))
    )
    assert child([errand.word]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] == 1
    assert [name.split("::")[-1].split(":")[0] for name in report["failures"][:1]] == ["test_x[2]"]
    assert "was killed by SIGKILL in tests/test_a.py::test_z" in report["failures"][1]
    assert report["missing"] == ["tests/test_b.py needs no_such_package"]


def test_mistakes_on_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["nonsense"])
    assert stop.value.code == 2
    assert "no bench named 'nonsense'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["--output", str(tmp_path / "file" / "x.jsonl")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_bench_travels_to_its_process_by_its_fields(toys):
    bench = next(iter(toys.values()))
    assert Bench(**json.loads(json.dumps(asdict(bench)))).module == bench.module
