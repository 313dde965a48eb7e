"""What the command line does where packages are missing: it names them first, and the rest runs."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from holdfast.benches import BENCHES
from holdfast.benches.registry import Bench
from holdfast.cli import studies
from holdfast.lab.locate import find
from tests.command_line import ask

ROOT = Path(__file__).parent.parent

STUDY = """
from holdfast.lab import Claim, Config, Part, Study, Trial, mean_of


def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]


def run(trial):
    return {"size": 1.0 + trial.seed / 10}


def part(name, **needs):
    test = lambda results: mean_of(results.by_seed("size", part=name), threshold=0.5)
    return Part(name, trials, run, [Claim(f"{name}s", f"It {name}s.", test)], needs=needs)


PARTS = [part("grow", json="holdfast[rl]"), part("fly", no_wings="holdfast[rl]"), part("dive", no_fins="fins>=2")]
study = Study("NAME", "?", {"quick": Config(seeds=3)}, parts=[p for p in PARTS if p.name in "WANTED".split()])
"""
TO_INSTALL = "pip install 'fins>=2' 'holdfast[rl]'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study of which a part can be computed, and one of which nothing can."""
    for name, wanted in (("some", "grow fly dive"), ("none", "fly")):
        text = STUDY.replace("NAME", name).replace("WANTED", wanted)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_rest_runs_and_what_is_left_out_is_named_first(folder: Path) -> None:
    status, out, err = ask("run", "some.py", cwd=folder)
    assert status == 0
    told = ["left out, for packages are missing:", "  some: fly needs no_wings; dive needs no_fins"]
    assert err.splitlines()[:3] == [*told, f"to run these too:  {TO_INSTALL}"]
    assert "some (quick): 3 trials computed, 0 reused, 6 left out, for packages are missing\n" in out
    assert f"left out, for packages are missing: some (fly, dive)\nto run these too:  {TO_INSTALL}\n" in out
    assert "part fly: no_wings is not installed: install with  pip install 'holdfast[rl]'" in out
    assert "--only" not in out
    out = ask("run", "some.py", "--json", cwd=folder)[1]
    summary = json.loads(out)
    assert summary["skipped"] == {"some": {"fly": {"no_wings": "holdfast[rl]"}, "dive": {"no_fins": "fins>=2"}}}
    verdicts = {verdict["claim"]: verdict["status"] for verdict in summary["studies"][0]["verdicts"]}
    assert verdicts == {"grows": "supported", "flys": "inconclusive", "dives": "inconclusive"}
    # The report that is written later, and the forecast, say the same.
    assert "6 left out, for packages are missing" in ask("report", "some.py", cwd=folder)[1]
    page = (folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "6 trials are left out: no_wings, no_fins are not installed" in re.sub(r"\s+", " ", page)
    out = ask("run", "some.py", "--dry-run", cwd=folder)[1]
    assert "some part=dive seed 1  left out: no_fins is not installed: install with  pip install 'fins>=2'\n" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("none.py",), "none: no_wings is not installed: install with pip install 'holdfast[rl]'"),
        (("some.py", "none.py"), "none: no_wings is not"),
        (
            ("some.py", "--only", "dive"),
            "part dive of some: no_fins is not installed: install with pip install 'fins>=2'",
        ),
    ],
)
def test_what_was_asked_for_by_name_is_refused(folder: Path, words: tuple[str, ...], named: str) -> None:
    status, _, err = ask("run", *words, cwd=folder)
    assert status == 2
    assert err.startswith(f"holdfast: error: {named}")
    assert len(err.splitlines()) == 1
    assert not (folder / "results").exists()


def test_all_studies_but_those_that_cannot_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "installed_studies", lambda: [find("some.py"), find("none.py")])
    status, out, err = ask("run", "--all", cwd=folder)
    assert status == 0
    assert "  none: fly needs no_wings\n" in err
    assert "none (quick)" not in out
    assert "left out, for packages are missing: some (fly, dive); none (fly)" in out
    monkeypatch.setattr(studies, "installed_studies", lambda: [find("none.py")])
    status, _, err = ask("run", "--all", cwd=folder)
    assert (status, err.splitlines()[0][:40]) == (2, "holdfast: error: no study can be run: no")


def test_what_studies_and_benches_need_is_brought_by_the_extra_that_they_name() -> None:
    """A wrong name here would send a user to install what does not help."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needs = {(bench.name, module): wanted for bench in BENCHES.values() for module, wanted in bench.needs.items()}
    for study in studies.installed_studies():
        for part in study.parts:
            for config in study.scales.values():
                found = part.needs(config) if callable(part.needs) else part.needs
                needs |= {(f"{study.name}/{part.name}", module): wanted for module, wanted in found.items()}
    asked = find("confidence")
    config = asked.scales["quick"]
    both = type(config)(models=type(config.models)(models=("a", "http://b#c")))
    [models] = [part for part in asked.parts if part.name == "models"]
    assert set(models.needs(both)) == {"aiohttp", "tenacity", "transformers"}
    needs |= {("confidence/models", module): wanted for module, wanted in models.needs(both).items()}
    distributions = packages_distributions()
    for (place, module), wanted in needs.items():
        lines = project["dependencies"] if "[" not in wanted else extras[wanted.partition("[")[2].rstrip("]")]
        brought = {re.split(r"[\[<>=; ]", line)[0].lower().replace("_", "-") for line in lines}
        known = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert known & brought, f"{place}: {wanted} does not bring {module}"


@pytest.mark.parametrize("words", [("train", "action"), ("train", "action", "--help")])
def test_a_model_that_cannot_be_trained_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    status, out, err = ask(*words, cwd=tmp_path)
    expected = "holdfast: error: accelerate is not installed: install it with pip install 'holdfast[hf]'\n"
    assert (status, out, err) == (2, "", expected)


def test_a_bench_that_cannot_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"no_wings": "holdfast[llm]", "no_fins": "holdfast[serving]"}
    monkeypatch.setitem(BENCHES, "fly", Bench("fly", "", "nowhere", 1, needs=needs))
    status, _, err = ask("bench", "fly", cwd=tmp_path)
    assert status == 2
    assert "fly: no_wings, no_fins are not installed: install with pip install 'holdfast[llm,serving]'" in err
