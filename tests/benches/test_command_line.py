"""`holdfast bench`: what it prints and writes, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.benches import BENCHES
from holdfast.cli import main

DEVICE = ["--device", "cpu"]
TOY = [*DEVICE, "--lengths", "8", "12", "--heads", "4", "--kv-heads", "2", "--head-dims", "16", "--rounds", "2"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]):
    """Run the command line here: exit status, standard output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["bench", *words])
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


def test_sharpness_reports_every_arm_and_writes_the_machine(ask):
    status, out, err = ask("sharpness-prefill", *TOY, "--json", "--output", "x.json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report == json.loads(Path("x.json").read_text())
    assert report["bench"] == "sharpness-prefill"
    assert report["settings"]["rounds"] == 2
    assert report["versions"]["torch"]
    assert report["machine"]["cpu"]
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory_gib"] > 0
    assert report["commit"]
    assert report["failures"] == []
    rows = report["rows"]
    arms = [(row["keys"], row["causal"], row["arm"]) for row in rows]
    assert arms == [
        (n, causal, arm) for n in (8, 12) for causal in (True, False) for arm in ("sdpa", "off", "adaptive")
    ]
    for row in rows:
        assert row["ms"] > 0
        assert row["low"] <= row["to_sdpa"] <= row["high"]
        assert row["arm"] == "sdpa" or row["error"] < 1e-3
    assert all(row["to_off"] == 1 for row in rows if row["arm"] == "off")
    assert report["ratio"] == next(row["to_sdpa"] for row in rows if row["arm"] == "adaptive")


def test_padding_hides_the_same_keys_from_all_arms(ask):
    status, out, _ = ask("sharpness-prefill", *DEVICE, "--lengths", "80", "--padding", "5", "--rounds", "1", "--json")
    assert status == 0
    assert {row["arm"] for row in json.loads(out)["rows"]} == {"sdpa", "off", "adaptive"}


def test_table_and_list(ask):
    status, out, _ = ask("sharpness-decode", *TOY)
    assert status == 0
    lines = out.splitlines()
    header = next(number for number, line in enumerate(lines) if " arm " in f" {line} " and "ms" in line.split())
    assert len(lines) == header + 1 + 6, "no line of a table this narrow is folded"
    assert all(len(line) <= 100 for line in lines[1:])
    status, out, _ = ask()
    assert status == 0
    assert all(name in out and bench.line in out for name, bench in BENCHES.items())
    status, out, _ = ask("lists-glue", "--help")
    assert status == 0
    assert "--lengths" in out
    assert "--output" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), f"no bench named 'nonsense'. There are: {', '.join(BENCHES)}"),
        (("sharpness-prefill", "--heads", "0"), "heads: expected at least 1, got 0"),
        (
            ("sharpness-decode", "--heads", "4", "--kv-heads", "3"),
            "--kv-heads: expected a number that divides heads = 4",
        ),
        (("sharpness-prefill", "--rounds", "many"), "--rounds"),
        (("sharpness-prefill", *TOY, "--output", "gone/x.json"), "--output: expected a file to write"),
        (("lists-glue", "--lengths", "0"), "--lengths: expected a whole number of at least 1, got 0"),
        (("lab-overhead", "--trials", "0"), "trials: expected a whole number of at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(ask, words, message):
    status, out, err = ask(*words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
