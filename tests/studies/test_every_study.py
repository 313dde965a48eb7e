"""What every study of this package keeps."""

from __future__ import annotations

import ast
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast.studies
from holdfast.lab import Results, Status, Study
from holdfast.lab.locate import FunctionRef, installed, load
from holdfast.lab.study import Part
from tests.studies.tools import judged

ROOT = Path(holdfast.studies.__path__[0])
POINTS = {name: point for name, point in installed().items() if point.module.startswith("holdfast.studies.")}
STUDIES: dict[str, Study[Any]] = {name: load(point) for name, point in POINTS.items()}
PARTS = [(name, part) for name, study in STUDIES.items() for part in study.parts]
SCALES = [(name, scale) for name, study in STUDIES.items() for scale in study.scales]

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "hypothesis")

each_study = pytest.mark.parametrize("name", STUDIES)
each_scale = pytest.mark.parametrize(("name", "scale"), SCALES)
each_part = pytest.mark.parametrize(("name", "part"), PARTS, ids=[f"{name}-{part.name}" for name, part in PARTS])

WORKER = """
import json, os, pickle, sys
import holdfast.lab.engines.local
from holdfast.lab.locate import FunctionRef

def load(function, payload):
    if payload is None:
        __import__(function)
    else:
        function.load()
        pickle.loads(payload)

for name, function, payload in pickle.load(sys.stdin.buffer):
    assert not [module for module in sys.modules if module.startswith("holdfast.studies")]
    if os.fork() == 0:
        load(function, payload)
        print(json.dumps([name, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""
"""Each item in a process of its own, a fork of one that has loaded what a worker loads before its first trial."""


def package_of(name: str) -> str:
    return POINTS[name].module.rpartition(".")[0]


def room_of(name: str, module: str) -> str:
    """File or folder of the study that a module is or lies in; empty where it is none of the study."""
    base = package_of(name) + "."
    return module.removeprefix(base).partition(".")[0] if module.startswith(base) else ""


def rooms_not_of(name: str, part: Part[Any]) -> set[str]:
    """Rooms of the study's other parts, and the file that gathers them."""
    others = {room_of(name, other.run.__module__) for other in STUDIES[name].parts if other is not part}
    return others | {room_of(name, POINTS[name].module)}


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Modules that a worker of each part has loaded when its first trial begins, and those of a driver."""
    items: list[tuple[str, Any, bytes | None]] = [(name, POINTS[name].module, None) for name in STUDIES]
    for name, part in PARTS:
        study = STUDIES[name]
        config = next(config for config in study.scales.values() if any(part.labelled_trials(config)))
        trial = next(part.labelled_trials(config))
        items.append((f"{name}-{part.name}", FunctionRef.of(part.run), pickle.dumps(trial)))
    answer = subprocess.run(
        [sys.executable, "-c", WORKER], input=pickle.dumps(items), capture_output=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr.decode()
    return dict(json.loads(line) for line in answer.stdout.decode().splitlines())


def test_the_installed_studies_are_those_of_the_tree() -> None:
    found = {
        ".".join(("holdfast.studies", *path.relative_to(ROOT).with_suffix("").parts)) for path in ROOT.rglob("study.py")
    }
    assert found == {point.module for point in POINTS.values()}
    assert {"lists", "sharpness"} <= STUDIES.keys()
    assert all(len(study.parts) > 1 for study in STUDIES.values())


@each_study
def test_importing_a_study_loads_nothing_heavy(name: str, loaded: dict[str, list[str]]) -> None:
    assert POINTS[name].module in loaded[name]
    assert not set(HEAVY) & set(loaded[name])


@each_part
def test_a_worker_loads_no_other_part(name: str, part: Part[Any], loaded: dict[str, list[str]]) -> None:
    modules = loaded[f"{name}-{part.name}"]
    assert part.run.__module__ in modules
    strangers = {room_of(name, module) for module in modules} & rooms_not_of(name, part)
    assert not strangers, "imported at the top of a file, or by a trial whose config is not of the part's own file"


@each_part
def test_no_part_imports_another_one_while_it_runs(name: str, part: Part[Any]) -> None:
    """Also not inside functions. Types for readers may name the study's configuration."""
    room = ROOT.joinpath(*package_of(name).split(".")[2:], room_of(name, part.run.__module__))
    files = sorted(room.rglob("*.py")) if room.is_dir() else [room.with_suffix(".py")]
    imported = {module for file in files for module in imports(file)}
    assert "holdfast.lab" in imported, "the reader of imports finds nothing"
    assert not {room_of(name, module) for module in imported} & rooms_not_of(name, part)


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, or may: `from a import b` gives `a` and `a.b`."""
    queue: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            queue += node.orelse
            continue
        queue += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


@each_scale
def test_verdicts_come_from_seeds_that_no_setting_was_chosen_on(name: str, scale: str) -> None:
    assert STUDIES[name].scales[scale].first_seed in (100, 200), "0 to 9 are for settings, those after 100 come first"


@each_scale
def test_trials_can_be_sent_to_a_worker(name: str, scale: str) -> None:
    study = STUDIES[name]
    trials = list(study.trials(study.scales[scale]))
    assert pickle.loads(pickle.dumps(trials)) == trials


@each_study
def test_headline_claims_are_few_and_said_in_plain_words(name: str) -> None:
    headlines = [claim for claim in STUDIES[name].claims if claim.headline]
    assert 1 <= len(headlines) <= 6
    assert len({claim.plain for claim in headlines}) == len(headlines)
    for claim in headlines:
        assert re.fullmatch(r"(?!it |that |nor |they )\w[^.]*[^. ]", claim.plain), "a clause that stands by itself"
        assert not re.search(r"[^\w\s,:()'/-]|[^\x00-\x7f]|_", claim.plain), "no symbols"
        assert len(claim.plain) <= 110, "short"


@each_study
def test_claims_about_what_was_not_run_are_inconclusive(name: str) -> None:
    study = STUDIES[name]
    for config in study.scales.values():
        for verdict in judged(study, Results(config, [])).values():
            assert verdict.status is Status.INCONCLUSIVE
            assert verdict.reason


@each_study
def test_figures_of_nothing(name: str) -> None:
    from matplotlib.figure import Figure

    study = STUDIES[name]
    nothing = Results(study.scales["quick"], [])
    for figure in study.figures:
        assert all(isinstance(row, dict) for row in figure.draw(nothing, Figure().subplots()))
