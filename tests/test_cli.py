"""The command line: quick, helpful, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.probes import PROBES
from holdfast.lab import files
from tests.command_line import ask
from tests.lab.conftest import TOY, holdfast

MODEL = """
import math, torch
def logits_of(n):
    generator = torch.Generator().manual_seed(n)
    return -20 * torch.rand(8, n, generator=generator)
def scored(n):
    return logits_of(n)
scored.correct = lambda n, weights: weights[:, 0] > 1 / n
def broken(n):
    raise ValueError("no such size")
number = 3
"""


def spawn(*words: object, cwd: Path, **options: object) -> tuple[int, str, str]:
    """Carry out a command in a process of its own."""
    process = holdfast(*words, cwd=cwd, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_help_and_list_load_nothing_that_takes_long(tmp_path: Path, words: list[str]) -> None:
    """They answer in a fraction of a second, for what is slow to load is not loaded."""
    code = (
        "import sys; from holdfast.cli import main\n"
        f"try: main({words})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "slow = ('torch', 'numpy', 'scipy', 'matplotlib', 'jinja2', 'ray', 'transformers', 'hypothesis')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_list_shows_question_claims_scales_and_cost(tmp_path: Path) -> None:
    status, out, _ = ask("list", "--json", cwd=tmp_path)
    assert status == 0
    [sharpness] = [study for study in json.loads(out) if study["name"] == "sharpness"]
    assert sharpness["question"].endswith("?")
    assert sharpness["claims"]
    assert {"quick", "laptop", "gpu"} <= set(sharpness["scales"])
    assert all(sharpness["scales"].values())
    status, out, _ = ask("list", cwd=tmp_path)
    assert status == 0
    assert "sharpness" in out


def test_every_command_has_help(tmp_path: Path) -> None:
    for words in ((), ("list",), ("run",), ("report",), ("probe",), ("probe", "sharpness")):
        status, out, err = ask(*words, "--help", cwd=tmp_path)
        assert status == 0, words
        assert "usage: holdfast" in out
        assert not err
    assert ask(cwd=tmp_path)[0] == 0
    assert ask("--version", cwd=tmp_path)[1].startswith("holdfast ")


def test_settings_of_a_study_are_flags_with_help_and_the_scales_own_defaults(tmp_path: Path) -> None:
    status, out, _ = ask("run", TOY, "--help", cwd=tmp_path)
    assert status == 0
    assert "--config.sleep-s" in out
    assert "how long a trial takes" in " ".join(out.split())
    assert "(default: 5)" in out
    assert "(default: 8)" in ask("run", TOY, "--scale", "laptop", "--help", cwd=tmp_path)[1]


def test_run_and_report(tmp_path: Path) -> None:
    status, out, err = ask("run", TOY, "--config.sleep-s", "0.01", cwd=tmp_path)
    assert status == 0, err
    assert "supported" in out
    assert "10 trials computed, 0 reused" in out
    assert "toy: 10/10 trials, 5/5 seeds" in err
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert f"holdfast run {TOY.name} --scale quick --config.sleep-s 0.01" in re.sub(r"<[^>]*>", "", page)
    status, out, _ = ask("report", TOY, "--output", "other.html", "--json", cwd=tmp_path)
    assert status == 0
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page
    [study] = json.loads(out)["studies"]
    assert (study["study"], study["scale"], study["reused"]) == ("toy", "quick", 10)
    assert study["verdicts"][0]["status"] == "supported"


STUDY_THAT_TELLS = """
from holdfast.lab import Config, Study, Trial
open("ran", "a").close()
def trials(config): return [Trial(seed, config) for seed in config.seed_range]
def run(trial):
    if trial.seed == 0:
        raise ValueError(f"no such file: {__file__!r}")
    return {"x": 1.0}
study = Study("tells", "?", {"quick": Config(seeds=2)}, trials, run)
"""


def test_a_report_loads_only_files_that_the_user_names(tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(STUDY_THAT_TELLS, encoding="utf-8")
    assert ask("run", "tells.py", cwd=tmp_path)[0] == 1
    (tmp_path / "ran").unlink()
    store = tmp_path / "results"
    shutil.copy(tmp_path / "tells.py", store)
    recorded = files.unseal((store / "runs.json").read_bytes())
    line = "tells was run from a file; name it: holdfast report tells.py"
    for source in ("tells.py", str(store / "tells.py"), "results/tells.py", str(tmp_path / "tells.py")):
        recorded["runs"]["tells"]["source"] = source
        (store / "runs.json").write_bytes(files.seal(recorded))
        status, _, err = ask("report", cwd=tmp_path)
        assert status == 2
        assert source != "tells.py" or err == f"holdfast: error: {line}\n"
        assert not (tmp_path / "ran").exists()
        recorded["runs"]["tells.py"] = {"scale": "quick", "overrides": {}}
        (store / "runs.json").write_bytes(files.seal(recorded))
        assert ask("report", cwd=tmp_path)[0] == 2
        assert not (tmp_path / "ran").exists()
        del recorded["runs"]["tells.py"]
    assert ask("run", "tells.py", cwd=tmp_path)[0] == 1
    status, out, err = ask("report", "tells.py", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert "tells (quick): 0 trials computed, 1 reused, 1 failed" in out
    assert ask("report", "tells", cwd=tmp_path)[0] == 2
    # A later run of another study shows that one, and says how to show both.
    status, out, err = ask("run", TOY, "--seeds", "1", cwd=tmp_path)
    assert status == 0
    assert "not in the report: tells was run from a file; name it:  holdfast report tells.py toy_study.py" in out
    status, out, err = ask("report", "tells.py", TOY, cwd=tmp_path)
    assert (status, err) == (0, "")
    assert "toy (quick)" in out
    assert "tells (quick)" in out


def test_what_is_published_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "my folder").mkdir()
    study = tmp_path / "my folder" / "tells.py"
    study.write_text(STUDY_THAT_TELLS, encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()
    status, out, _ = ask("run", study, "--store", tmp_path / "store", "--json", cwd=here)
    assert status == 1
    page = (tmp_path / "store" / "report.html").read_text(encoding="utf-8")
    runs = (tmp_path / "store" / "runs.json").read_text(encoding="utf-8")
    for published in (out, page, runs):
        assert "my folder" not in published
        assert str(tmp_path) not in published
    summary = json.loads(out)
    assert summary["report"] == "report.html"
    assert summary["studies"][0]["command"] == "holdfast run tells.py --scale quick"
    assert summary["studies"][0]["failed"][0]["reason"] == "ValueError: no such file: '…/tells.py'"
    assert "Traceback" in page


@pytest.mark.parametrize("odd", ["runs.json", "toy", "report.html", ".locks", ".writing"])
def test_odd_files_in_a_store_are_one_clear_line(tmp_path: Path, odd: str) -> None:
    store = tmp_path / "results"
    store.mkdir()
    if odd in ("runs.json", "report.html"):
        (store / odd).mkdir()
    else:
        (store / odd).write_text("odd", encoding="utf-8")
    status, _, err = ask("run", TOY, "--seeds", "1", cwd=tmp_path)
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    if odd == "runs.json":
        assert status == 0
        assert "runs.json is not trusted (runs.json is no plain file" in err
    else:
        assert status == 2
        assert last.startswith("holdfast: error: ")


def test_json_on_standard_output_is_nothing_but_json(tmp_path: Path) -> None:
    status, out, _ = ask("run", TOY, "--json", "--seeds", "3", cwd=tmp_path)
    assert status == 0
    summary = json.loads(out)
    assert summary["studies"][0]["computed"] == 6
    assert summary["studies"][0]["verdicts"][0]["n"] == 3


def test_a_failed_trial_exits_with_1(tmp_path: Path) -> None:
    status, out, err = ask("run", TOY, "--config.misbehave", "raise", cwd=tmp_path)
    assert status == 1
    assert "1 failed" in out
    assert "toy arm=new seed 1 failed: ValueError: the toy raised (log: results/failed/toy/" in err
    assert "Traceback" not in err
    page = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "about to misbehave" in page


def test_one_seed_is_inconclusive_with_the_reason(tmp_path: Path) -> None:
    status, out, _ = ask("run", TOY, "--seeds", "1", cwd=tmp_path)
    assert status == 0
    assert "better  inconclusive  1.26" in out
    assert "better: 1 seed, at least 3 needed" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("frobnicate",), "frobnicate"),
        (("run",), "STUDY: expected names of studies, or --all"),
        (("run", "--all", "sharpness"), "STUDY"),
        (("run", "sharpnes"), "no study named 'sharpnes'. Did you mean 'sharpness'?"),
        (("run", "missing.py"), "STUDY: expected a .py file or the name of a study, got missing.py"),
        (("run", "empty.py"), "expected one Study at the top level, found 0"),
        (("run", "syntax.py"), "syntax.py does not load: SyntaxError"),
        (("run", "nested.py"), "a function at the top level of a module"),
        (("run", TOY, "--bogus"), "--bogus"),
        (("run", TOY, "--scale", "huge"), "--scale"),
        (("run", TOY, "--scale", "gpu"), "--scale: expected a scale that toy has (quick, laptop), got gpu"),
        (("run", TOY, "--seeds", "many"), "--seeds: expected INT, got 'many'"),
        (("run", TOY, "--seeds", "0"), "--seeds: expected at least 1, got 0"),
        (("probe", "confidence", "--model", "m", "--price", "1"), "--price: expected FLOAT FLOAT, got '1'"),
        (("run", TOY, "--workers", "0"), "--workers: expected at least 1, got 0"),
        (("run", TOY, "--config.sleep-s", "long"), "--config.sleep-s"),
        (("run", TOY, "--config.nope", "1"), "--config.nope"),
        (("run", TOY, "--address", "x:1"), "--address: expected to be used with --engine ray"),
        (("run", TOY, "--store", "syntax.py"), "--store: expected a folder"),
        (("run", TOY, "--store", "/proc/none"), "--store: cannot write to /proc/none"),
        (("report",), "--store: expected a folder with results, got results, which is not there"),
        (("report", "--store", "."), "--store: no runs in ."),
        (("probe", "nonsense"), f"no probe named 'nonsense'. There are: {', '.join(PROBES)}"),
        (("probe", "sharpness"), "Missing"),
        (
            ("probe", "sharpness", "./nowhere"),
            "TARGET: expected file.py:name, module:name, or a transformers model",
        ),
        (("probe", "sharpness", "gone.py:f"), "gone.py, which is not there"),
        (("probe", "sharpness", "model.py:gone"), "expected a function gone in model.py"),
        (("probe", "sharpness", "model.py:number"), "expected a function number in model.py"),
        (("probe", "sharpness", "model.py:broken"), "ValueError: no such size"),
        (("probe", "sharpness", "model.py:logits_of", "--lengths", "0"), "--lengths"),
        (("probe", "sharpness", "model.py:logits_of", "--plot", "x.nonsense"), "--plot"),
        (
            ("probe", "sharpness", "model.py:logits_of", "--compare", "no"),
            "--compare: expected some of plain, adaptive",
        ),
        (("probe", "sharpness", "model.py:logits_of", "--compare", "hard:1"), "expected hard without a number"),
        (("probe", "sharpness", "model.py:logits_of", "--compare", "yarn"), "yarn:NUMBER, a number for extension"),
        (("probe", "sharpness", "model.py:logits_of", "--compare", "log-n:1.5"), "a whole number for train_length"),
        (("probe", "sharpness", "model.py:logits_of", "--compare", "entmax:1"), "entmax:NUMBER with a number above 1"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(TOY), "TOY") if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, words: tuple[object, ...], expected: str) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "syntax.py").write_text("def (\n", encoding="utf-8")
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "nested.py").write_text(
        "from holdfast.lab import *\n"
        "study = Study('nested', '?', {'quick': Config()}, lambda c: [Trial(0, c)], lambda t: {'x': 1.0}, [])\n",
        encoding="utf-8",
    )
    status, _, err = ask(*words, cwd=tmp_path)
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("holdfast: error: ")
    assert expected in err
    assert "Traceback" not in err


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    """The limit on file sizes stands in for the end of the disk: the same error, from the real system call."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    status, _, err = spawn("run", TOY, cwd=tmp_path, preexec_fn=limit)
    assert status == 2
    assert "--store: cannot write to results: File too large" in err
    assert "Traceback" not in err


def test_a_damaged_store_is_a_warning_and_is_mended(tmp_path: Path) -> None:
    assert ask("run", TOY, cwd=tmp_path)[0] == 0
    victim = next((tmp_path / "results" / "toy").iterdir())
    (victim / "metrics.json").write_text("{}", encoding="utf-8")
    status, out, err = ask("run", TOY, cwd=tmp_path)
    assert status == 0
    assert "1 trial computed, 9 reused" in out
    assert "holdfast: warning:" in err
    assert "set-aside" in err


def test_output_may_be_cut_short(tmp_path: Path) -> None:
    answer = subprocess.run(
        f"{sys.executable} -m holdfast run --help | head -1",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.startswith("usage:")
    assert not answer.stderr


def test_a_study_of_another_package_is_listed_and_runs(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "elsewhere").mkdir(parents=True)
    (site / "elsewhere" / "__init__.py").touch()
    text = TOY.read_text(encoding="utf-8").replace('name="toy"', 'name="elsewhere"')
    (site / "elsewhere" / "mine.py").write_text(text, encoding="utf-8")
    info = site / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[holdfast.studies]\nelsewhere = elsewhere.mine:study\nbroken = elsewhere.gone:study\n", encoding="utf-8"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    status, out, err = spawn("list", cwd=tmp_path, env=env)
    assert status == 0
    assert "elsewhere" in out
    assert "sharpness" in out
    assert "holdfast: warning: study 'broken' (elsewhere.gone:study) does not load" in err
    status, out, err = spawn("run", "elsewhere", cwd=tmp_path, env=env)
    assert status == 0, err
    assert "elsewhere (quick): 10 trials computed" in out
    # The report of a later run leaves out what is no longer installed, and says so.
    status, out, err = ask("run", TOY, cwd=tmp_path)
    assert status == 0
    assert "elsewhere is left out of the report" in err


def test_probe_sharpness_gives_table_json_and_picture(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    words = ("probe", "sharpness", "model.py:logits_of", "--lengths", "16", "64", "256")
    status, out, err = ask(*words, "--plot", "out.png", cwd=tmp_path)
    assert status == 0, err
    assert "256" in out
    assert "normaliser" not in out
    assert (tmp_path / "out.png").stat().st_size > 5000
    status, out, _ = ask(*words, "--json", cwd=tmp_path)
    assert status == 0
    assert json.loads(out)["remedies"] == json.loads(out)["answers"] == []


def test_probe_sharpness_compares_normalisers_and_splits_errors(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    words = ("probe", "sharpness", "model.py:scored", "--lengths", "16", "64")
    compared = ("plain", "adaptive", "log-n:16", "log-n:8", "ssmax:0.43", "ssmax", "yarn:4", "llama4:8", "hard")
    status, out, err = ask(*words, "--compare", *compared, "--json", "--plot", "out.svg", cwd=tmp_path)
    assert status == 0, err
    found = json.loads(out)
    assert [each["normaliser"] for each in found["remedies"]] == [*compared, *compared]
    entropy = {each["normaliser"]: each["entropy"] for each in found["remedies"] if each["size"] == 64}
    assert entropy["plain"] == pytest.approx(found["entries"][1]["entropy"], rel=1e-5)
    assert entropy["plain"] > entropy["log-n:16"] > entropy["log-n:8"] > entropy["hard"]
    assert entropy["ssmax"] == entropy["ssmax:0.43"]
    for each in found["answers"]:
        assert each["error"] == each["ordering_error"] + each["dispersion_error"]
        assert each["accuracy"]["plain"] == pytest.approx(1 - each["error"])
    assert all(name in (tmp_path / "out.svg").read_text(encoding="utf-8") for name in compared)
    status, out, _ = ask(*words, "--compare", *compared, cwd=tmp_path)
    assert status == 0
    assert "error of the softmax, by cause and n" in out
    assert max(map(len, out.splitlines()[1:])) <= 100


def test_probe_sharpness_guards_a_function(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    words = ("probe", "sharpness", "model.py:logits_of", "--lengths", "4", "256")
    share = json.loads(ask(*words, "--json", cwd=tmp_path)[1])["entries"][-1]["entropy_share"]
    assert ask(*words, "--fail-above", str(share + 0.01), cwd=tmp_path)[0] == 0
    status, out, err = ask(*words, "--fail-above", str(share - 0.01), cwd=tmp_path)
    assert status == 1
    assert "256" in out
    assert "1 head has a mean H / ln n above" in err
    assert f"at n = 256, the worst head 0: {share:.3f}" in err
