"""Which trials `holdfast run` computes, and what it says of those that fail."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from holdfast.cli.studies import Run
from holdfast.lab.engines.engine import RETRIES
from tests.command_line import ask
from tests.lab.conftest import TOY

PARTS = """
from pathlib import Path

from holdfast.lab import Claim, Config, Part, Study, Trial, mean_of


def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]


def run(trial):
    if trial.labels["part"] == "decay" and trial.seed == 1 and Path(trial.labels["part"]).exists():
        print("about to fail")
        raise ValueError("no\\tsuch luck")
    return {"size": 1.0 + trial.seed / 10}


def part(name):
    test = lambda results: mean_of(results.by_seed("size", part=name), threshold=0.5)
    return Part(name, trials, run, [Claim(f"{name}s", f"It {name}s.", test)])


study = Study("NAME", "?", {"quick": Config(seeds=3), "laptop": Config(seeds=4)}, parts=[part("grow"), part("decay")])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two studies of the same two parts."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PARTS.replace("NAME", name), encoding="utf-8")
    return tmp_path


def summary(out: str) -> dict[str, object]:
    [study] = json.loads(out)["studies"]
    return {verdict["claim"]: (verdict["status"], verdict["reason"]) for verdict in study["verdicts"]} | {
        name: study[name] for name in ("computed", "reused", "left_out", "command")
    }


def test_only_one_part_and_the_report_afterwards(folder: Path) -> None:
    needs = "needs part decay, which --only leaves out: holdfast run one.py --scale quick"
    status, out, err = ask("run", "one.py", "--only", "grow", "--json", cwd=folder)
    assert status == 0, err
    expected = {
        "grows": ("supported", ""),
        "decays": ("inconclusive", needs),
        "computed": 3,
        "reused": 0,
        "left_out": 3,
        "command": "holdfast run one.py --scale quick --only grow",
    }
    assert summary(out) == expected
    status, out, _ = ask("report", "one.py", "--json", cwd=folder)
    assert (status, summary(out)) == (0, expected | {"computed": 0, "reused": 3})
    out = ask("report", "one.py", cwd=folder)[1]
    assert "one (quick): 0 trials computed, 3 reused, 3 left out by --only" in out
    words = needs.split("leaves out: ")[1].removeprefix("holdfast ")
    assert ask(*shlex.split(words), cwd=folder)[0] == 0
    out = ask("report", "one.py", "--json", cwd=folder)[1]
    assert summary(out)["decays"] == ("supported", "")
    assert summary(out)["command"] == "holdfast run one.py --scale quick"


def test_parts_of_several_studies(folder: Path) -> None:
    def computed(*words: str) -> dict[tuple[str, str], int]:
        rows = json.loads(ask("run", "one.py", "two.py", *words, "--dry-run", "--json", cwd=folder)[1])["trials"]
        keys = [(row["study"], row["labels"]["part"]) for row in rows if row["compute"]]
        return {key: keys.count(key) for key in keys}

    assert computed("--only", "grow") == {("one", "grow"): 3, ("two", "grow"): 3}
    assert computed("--only", "two/grow") == {("two", "grow"): 3}
    both = {("one", "decay"): 3, ("two", "grow"): 3}
    assert computed("--only", "two/grow", "one/decay") == both
    assert computed("--only", "two/grow", "--only", "one/decay") == both


def test_a_forecast_of_some_parts(folder: Path) -> None:
    out = ask("run", "one.py", "--only", "decay", "--seeds", "1", "--dry-run", cwd=folder)[1]
    assert out.splitlines() == [
        "one part=grow seed 0  left out",
        "one part=decay seed 0  computed: not computed yet",
        "1 of 2 trials would be computed",
    ]
    assert not (folder / "results").exists()


def test_what_failed_is_listed_with_its_log_and_tried_again(folder: Path) -> None:
    (folder / "decay").touch()
    status, out, err = ask("run", "one.py", "--store", "my results", cwd=folder)
    assert status == 1
    lines = out.splitlines()
    at = lines.index("failed: one part=decay seed 1: ValueError: no such luck")
    assert lines[at - 1] == "one (quick): 5 trials computed, 0 reused, 1 failed"
    log = lines[at + 1].removeprefix("  log: ")
    assert re.fullmatch(r"my results/failed/one/[0-9a-f]{24}/log\.txt", log)
    assert "about to fail" in (folder / log).read_text(encoding="utf-8")
    assert f"one part=decay seed 1 failed: ValueError: no such luck (log: {log})" in err
    again = "holdfast run one.py --scale quick --store 'my results' --failed"
    assert lines[at + 2] == f"to try only this again:  {again}"
    assert log in ask("report", "one.py", "--store", "my results", cwd=folder)[1]
    (folder / "decay").unlink()
    status, out, _ = ask(*shlex.split(again)[1:], cwd=folder)
    assert status == 0
    assert "one (quick): 1 trial computed, 5 reused\n" in out
    assert "failed" not in out


def test_only_some_of_many_failed_trials_are_listed(tmp_path: Path) -> None:
    text = PARTS.replace("NAME", "many").replace("trial.seed == 1 and Path", "trial.seed < 12 or Path")
    (tmp_path / "many.py").write_text(text, encoding="utf-8")
    status, out, _ = ask("run", "many.py", "--seeds", "13", "--only", "decay", cwd=tmp_path)
    assert status == 1
    assert len(re.findall("^failed: many part=decay seed", out, re.MULTILINE)) == 10
    assert "and 2 more, with their logs in results/failed/many\n" in out
    assert "to try only these again:  holdfast run many.py --scale quick --only decay --failed --seeds 13" in out


def test_failed_leaves_what_was_never_tried_and_says_so(folder: Path) -> None:
    assert ask("run", "one.py", "--seeds", "1", cwd=folder)[0] == 0
    status, out, _ = ask("run", "one.py", "--failed", cwd=folder)
    assert status == 0
    assert "one (quick): 0 trials computed, 2 reused, 4 not computed yet" in out


def test_afresh(folder: Path) -> None:
    assert ask("run", "one.py", "--seeds", "1", cwd=folder)[0] == 0
    out = ask("run", "one.py", "--seeds", "1", "--fresh", "--only", "grow", "--dry-run", cwd=folder)[1]
    assert out.splitlines()[:2] == [
        "one part=grow seed 0  computed: its result is to be computed anew",
        "one part=decay seed 0  reused",
    ]
    out = ask("run", "one.py", "--seeds", "1", "--fresh", cwd=folder)[1]
    assert "one (quick): 2 trials computed, 0 reused" in out


def test_a_hint_names_the_study_as_it_was_typed(folder: Path) -> None:
    text = (folder / "one.py").read_text(encoding="utf-8").replace('s.", test)', 's.", test, scale="laptop")')
    (folder / "one.py").write_text(text, encoding="utf-8")
    here = folder / "here"
    here.mkdir()
    for word in ("../one.py", str(folder / "one.py")):
        out = ask("run", word, "--seeds", "1", "--store", "s", cwd=here, env={"COLUMNS": "400"})[1]
        assert f"need holdfast run {word} --scale laptop --store s" in out
    published = ask("run", "../one.py", "--seeds", "1", "--store", "s", "--json", cwd=here)[1]
    assert summary(published)["command"] == "holdfast run ../one.py --scale quick --seeds 1"
    published = ask("run", folder / "one.py", "--seeds", "1", "--store", "s", "--json", cwd=here)[1]
    assert summary(published)["command"] == "holdfast run one.py --scale quick --seeds 1"
    assert str(folder) not in published


def test_how_often_a_trial_is_tried_again_is_said_as_it_is() -> None:
    assert Run.retries == RETRIES


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--fresh", "--failed"), "--fresh: expected either this or failed, which computes no other trial, got both"),
        (("--fresh", "--failed", "--dry-run"), "--fresh: expected either this or failed"),
        (("--timeout", "0"), "--timeout: expected a positive number of seconds, got 0"),
        (("--timeout", "nan"), "--timeout: expected a positive number of seconds, got nan"),
        (("--timeout", "inf"), "--timeout: expected a positive number of seconds, got inf"),
        (("--timeout", "soon"), "--timeout: expected FLOAT, got 'soon'"),
        (("--retries", "-1"), "--retries: expected at least 0, got -1"),
        (("--only", "rot"), "--only: expected PART or STUDY/PART (toy: main), got rot"),
        (("--only", "sharpness/main"), "--only: expected PART or STUDY/PART (toy: main), got sharpness/main"),
        (("--only",), "--only: expected names of parts, got none"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    status, _, err = ask("run", TOY, *words, cwd=tmp_path)
    assert status == 2
    assert err.startswith(f"holdfast: error: {expected}")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()
