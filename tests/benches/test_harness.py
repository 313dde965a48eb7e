"""Clocks, ratios, reports and lines."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from holdfast.benches.harness import machine
from holdfast.benches.harness.lines import append_line
from holdfast.benches.harness.report import Report, table
from holdfast.benches.harness.timing import Arm, Ratio, interleaved, peak_on_cpu, ratio


def test_arms_take_turns_and_the_warm_up_is_not_timed():
    calls = []
    arms = {name: Arm(lambda name=name: calls.append(name)) for name in "ab"}

    def clock(call):
        call()
        return float(len(calls))

    times = interleaved(arms, clock, rounds=2, warmup=1)
    assert calls == list("ababab")
    assert times == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_budget_leaves_the_least_rounds():
    times = interleaved({"a": Arm(lambda: None)}, lambda call: 1.0, rounds=50, warmup=4, budget_s=-1.0, least=3)
    assert len(times["a"]) == 3
    assert len(interleaved({"a": Arm(lambda: None)}, lambda call: 1.0, rounds=2, budget_s=-1.0)["a"]) == 2


def test_ratios_are_taken_within_a_round():
    assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == Ratio(2.0, 2.0, 2.5)
    assert ratio([3.0], [2.0]) == Ratio(1.5, 1.5, 1.5)


def test_the_peak_of_a_large_call_is_seen():
    peak = peak_on_cpu(Arm(lambda: bytearray(b"x" * (64 << 20))))
    if peak is None:
        pytest.skip("this system does not tell")
    assert peak > 32 << 20


def test_reports_hold_no_nan():
    report = Report({"a": (1, 2)}, ({"x": math.nan, "y": 1.0}, {"x": 2.0}), "so", math.inf, ("case: why",))
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["rows"] == [{"x": None, "y": 1.0}, {"x": 2.0}]
    assert document["ratio"] is None
    assert str(report).endswith("failed: case: why")
    assert table([{"a": 1, "b": "x"}, {"a": 10}]) == [" a  b", " 1  x", "10"]


def test_a_wide_table_is_folded():
    rows = [
        {"arm": arm, "n": n, "heads": 4, "ms": n / 3, "low": 0.1 * n, "peak": 2 * n} for arm in "xy" for n in (1, 20)
    ]
    lines = table(rows, 17)
    assert all(len(line) <= 17 for line in lines)
    assert lines[:3] == ["in all rows:", "heads 4", "arm   n      ms"]
    assert [line.split() for line in lines if line.startswith("arm")] == [
        ["arm", "n", "ms"],
        ["arm", "n", "low"],
        ["arm", "n", "peak"],
    ]
    assert sum(line.split()[:2] == ["y", "20"] for line in lines) == 3, "each block says what its rows are about"
    assert table(rows[:1], 100)[0].split() == ["arm", "n", "heads", "ms", "low", "peak"]


def test_a_line_after_a_torn_one_is_whole(tmp_path):
    path = tmp_path / "x.jsonl"
    append_line(path, {"a": math.nan})
    path.write_bytes(path.read_bytes() + b'{"torn": ')
    append_line(path, {"b": 2})
    assert path.read_text() == '{"a": null}\n{"torn": \n{"b": 2}\n'


def test_the_commit_is_named_without_git(monkeypatch):
    monkeypatch.setenv(machine.COMMIT, "abc")
    assert machine.commit() == "abc"
    monkeypatch.delenv(machine.COMMIT)

    def gone(*args, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", gone)
    assert machine.commit() == "unknown"


def test_a_shuffled_order_is_another_one_in_each_round():
    def order(shuffled):
        called: list[str] = []
        arms = {name: Arm(lambda name=name: called.append(name)) for name in "abcd"}
        times = interleaved(arms, lambda call: float(call() is None), rounds=9, warmup=1, shuffled=shuffled)
        assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abcd", 9)
        return [tuple(called[start : start + 4]) for start in range(0, len(called), 4)]

    assert set(order(False)) == {tuple("abcd")}
    assert len(set(order(True))) > 3
    assert all(sorted(turn) == list("abcd") for turn in order(True))
    assert order(True) == order(True)
