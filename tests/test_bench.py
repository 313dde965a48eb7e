"""The benches: what they report, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import command_line

TOY = (
    "--device",
    "cpu",
    "--lengths",
    "8",
    "12",
    "--heads",
    "4",
    "--kv-heads",
    "2",
    "--head-dim",
    "16",
    "--repeats",
    "2",
)


def ask(*words: object, cwd: Path) -> tuple[int, str, str]:
    return command_line.ask("bench", *words, cwd=cwd)


def test_sharpness_reports_every_arm_and_writes_the_machine(tmp_path: Path) -> None:
    status, out, err = ask("sharpness", *TOY, "--json", "--output", "x.json", cwd=tmp_path)
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report == json.loads((tmp_path / "x.json").read_text())
    assert report["settings"]["repeats"] == 2
    assert report["environment"]["packages"]["torch"]
    assert "commit" in report
    arms = [(each["case"], each["length"], each["arm"]) for each in report["timings"]]
    cases = ("prefill", "prefill, causal", "decode")
    assert arms == [(c, n, arm) for n in (8, 12) for c in cases for arm in ("sdpa", "off", "adaptive")]
    for each in report["timings"]:
        assert each["milliseconds"] > 0
        assert each["peak_bytes"] is None
    assert all(each["to_off"] == 1 for each in report["timings"] if each["arm"] == "off")


def test_table_and_help(tmp_path: Path) -> None:
    status, out, _ = ask("sharpness", *TOY, cwd=tmp_path)
    assert status == 0
    assert len(out.splitlines()) == 1 + 18
    status, out, _ = ask(cwd=tmp_path)
    assert status == 0
    assert "sharpness" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "no bench named 'nonsense'; there are: sharpness"),
        (("sharpness", "--heads", "0"), "heads: expected at least 1, got 0"),
        (("sharpness", "--heads", "4", "--kv-heads", "3"), "kv_heads: expected a number that divides heads = 4"),
        (("sharpness", "--repeats", "many"), "--repeats"),
        (("sharpness", *TOY, "--output", "gone/x.json"), "--output: expected a file to write"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    status, out, err = ask(*words, cwd=tmp_path)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
