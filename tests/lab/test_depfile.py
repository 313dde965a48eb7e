"""A stored result is taken again only if nothing that its worker used has changed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.lab.depfile import Depfile, Files, digest_of_file
from holdfast.lab.locate import FunctionRef

WORKER = """
import json, os, sys
from types import SimpleNamespace
import holdfast.lab.engines.local
from holdfast.lab import loading
from holdfast.lab.locate import FunctionRef

def compute(number, module, file, whole):
    sys.path.append(os.path.dirname(file) if file else os.getcwd())
    recorder = error = None
    try:
        recorder = loading.recorder_of("part", FunctionRef(module, file, "run"), whole)
        value = recorder.load()(SimpleNamespace(seed=0, labels={"arm": "a"}))
        missed = recorder.missed()
    except Exception as caught:
        missed, value, error = recorder.missed(caught), None, repr(caught)
    print(json.dumps([number, value, error, missed, recorder.depfile().to_json()]), flush=True)

for number, folder, module, file, whole in json.load(sys.stdin):
    if os.fork() == 0:
        os.chdir(folder)
        compute(number, module, file, whole)
        os._exit(0)
    os.wait()
"""
"""Each case in a process of its own, a fork of one that has loaded what a worker loads."""

HEAD = "import os, sys\nfrom holdfast.lab import Claim, Config, Figure, Study, Trial, mean_of\n"
TAIL = """
GREY = "#777777"
SIZES = (1, 2)
def band(axes, colour=GREY): axes.plot([1], color=colour)
def draw(results, axes):
    "What to see."
    band(axes)
    return []
def trials(config): return [Trial(s, config) for s in config.seed_range]
def above(x):
    def test(results): return mean_of(results.by_seed("v"), threshold=x)
    return test
CLAIMS = [Claim(f"c{x}", "text", above(x)) for x in SIZES]
study = Study("case", "What?", {"quick": Config()}, trials, run, CLAIMS, [Figure("f", "caption", draw)])
if __name__ == "__main__":
    print(study)
"""


@dataclass
class Case:
    """Files of a study, whose `run` is in `s.py` or in a package's `study.py`, and one change to them."""

    files: dict[str, str]
    path: str
    old: str
    new: str
    whole: bool = False
    """Whether the file of `run` has to be executed whole."""


def single(body: str, old: str, new: str, whole: bool = False, **files: str) -> Case:
    beside = {f"{name}.py": text for name, text in files.items()}
    path = next((name for name, text in beside.items() if old in text), "s.py")
    return Case({"s.py": HEAD + body + TAIL, **beside}, path, old, new, whole)


def package(body: str, path: str, old: str, new: str, **files: str) -> Case:
    inside = {f"pk/{name}.py": text for name, text in files.items()}
    return Case({"pk/__init__.py": "", **inside, "pk/study.py": HEAD + body + TAIL}, path, old, new)


RUN = "def run(trial): return {'v': K}\n"
MATTERS = {
    "a constant": single("K = 1\n" + RUN, "K = 1", "K = 2"),
    "a default": single("def h(x=1): return x\ndef run(trial): return {'v': h()}\n", "x=1", "x=2"),
    "dispatch by a dict": single("def a(): return 1\nT = {'a': a}\ndef run(trial): return T['a']()\n", "n 1", "n 2"),
    "a decorator": single(
        "def d(f):\n    def run(t): return f(t) + 1\n    return run\n@d\ndef run(trial): return 1\n", "+ 1", "+ 2"
    ),
    "a subclass": single(
        "class B: pass\nclass M(B):\n    x = 1\ndef run(trial): return B.__subclasses__()[0].x\n", "x = 1", "x = 2"
    ),
    "a registry": single(
        "R = {}\ndef register(f): R['a'] = f\n@register\ndef a(): return 1\ndef run(trial): return R['a']()\n",
        "return 1",
        "return 2",
    ),
    "globals": single("def arm_a(): return 1\ndef run(trial): return globals()['arm_' + 'a']()\n", "n 1", "n 2"),
    "an attribute of the module by a made-up name": single(
        "def arm_a(): return 1\ndef run(trial): return getattr(sys.modules[__name__], 'arm_' + 'a')()\n",
        "return 1",
        "return 2",
        whole=True,
    ),
    "with a default where it was left out": single(
        "def arm_a(): return 1\ndef run(trial): return bool(getattr(sys.modules[__name__], 'arm_' + 'a', 0))\n",
        "return 1",
        "return 2",
        whole=True,
    ),
    "names listed elsewhere": single(
        "import helper\ndef arm_a(): return 1\ndef run(trial): return helper.arms(sys.modules[__name__])\n",
        "return 1",
        "return 2",
        whole=True,
        helper="def arms(m): return sum(getattr(m, name)() for name in dir(m) if name.startswith('arm_'))\n",
    ),
    "globals of a frame": single(
        "SIZE_1 = 1\ndef run(trial): return sys._getframe().f_globals['SIZE_' + '1']\n", "SIZE_1 = 1", "SIZE_1 = 2"
    ),
    "a name as text": single("def run(trial): return getattr(sys.modules[__name__], 'GREY')\n", "#777777", "#777778"),
    "an effect of a call": single("K = 0\ndef init():\n    global K\n    K = 1\ninit()\n" + RUN, "K = 1", "K = 2"),
    "an effect of a call with a result": single(
        "K = 0\ndef init():\n    global K\n    K = 1\nDONE = init()\n" + RUN, "K = 1", "K = 2"
    ),
    "an effect of a loop": single("K = []\nfor i in range(1): K.append(i + 1)\n" + RUN, "i + 1", "i + 2"),
    "a variable set at import": single(
        "os.environ['CASE'] = '1'\ndef run(trial): return os.environ['CASE']\n", "= '1'", "= '2'"
    ),
    "a docstring that runs": single("def f():\n    'ab'\ndef run(trial): return f.__doc__\n", "'ab'", "'abc'"),
    "a file beside": single("import helper\ndef run(trial): return helper.K\n", "K = 1", "K = 2", helper="K = 1\n"),
    "a constant of a figure": single("def run(trial): return len(GREY)\n", "#777777", "#7777777"),
    "data": Case(
        {"s.py": HEAD + "def run(trial): return open('d/d.txt').read()\n" + TAIL, "d/d.txt": "1"}, "d/d.txt", "1", "2"
    ),
    "the file itself, read as text": single("def run(trial): return len(open(__file__).read())\n", "# end", "# END"),
    "a module that was not there": Case(
        {"s.py": HEAD + "try:\n    from fast import K\nexcept ImportError:\n    K = 1\n" + RUN + TAIL},
        "fast.py",
        "",
        "K = 2",
    ),
    "a file that was not there": Case(
        {"s.py": HEAD + "try:\n    K = open('k.txt').read()\nexcept OSError:\n    K = 1\n" + RUN + TAIL},
        "k.txt",
        "",
        "2",
    ),
    "a module in the way of another": Case(
        {"s.py": HEAD + "def run(trial):\n    import psutil\n    return 1\n" + TAIL}, "psutil.py", "", "K = 2"
    ),
    "what is loaded by its path": Case(
        {
            "s.py": HEAD
            + "import runpy\ndef run(trial): return runpy.run_path(os.path.dirname(__file__) + '/lib/x.py')['K']\n"
            + TAIL,
            "lib/x.py": "K = 1\n",
        },
        "lib/x.py",
        "1",
        "2",
    ),
    "what is found by a path that run adds": Case(
        {
            "s.py": HEAD
            + "def run(trial):\n    sys.path.append(os.path.dirname(__file__) + '/lib')\n    import x\n    return x.K\n"
            + TAIL,
            "lib/x.py": "K = 1\n",
        },
        "lib/x.py",
        "1",
        "2",
    ),
    "what is declared": Case(
        {
            "s.py": HEAD
            + "from holdfast.lab import depends_on\ndef run(trial): depends_on(os.path.dirname(__file__) + '/d')\n"
            + TAIL,
            "d/a.bin": "1",
        },
        "d/a.bin",
        "1",
        "2",
    ),
    "two steps away": package(
        "from pk.h import K\n" + RUN, "pk/g.py", "K = 1", "K = 2", h="from .g import K\n", g="K = 1\n"
    ),
    "a package's own file": Case(
        {
            "pk/__init__.py": "import pk.h\npk.h.K = 1\n",
            "pk/h.py": "K = 0\n",
            "pk/study.py": HEAD + "from pk.h import K\n" + RUN + TAIL,
        },
        "pk/__init__.py",
        "K = 1",
        "K = 2",
    ),
    "an import for its effect": package(
        "import pk.arm\nfrom pk.reg import K\n" + RUN,
        "pk/arm.py",
        "= 1",
        "= 2",
        reg="K = {}\n",
        arm="from .reg import K\nK['a'] = 1\n",
    ),
    "an import of everything": package("from pk.h import *\n" + RUN, "pk/h.py", "K = 1", "K = 2", h="K = 1\n"),
    "an import by text": package(
        "import importlib\ndef run(trial): return importlib.import_module('pk.h').K\n",
        "pk/h.py",
        "K = 1",
        "K = 2",
        h="K = 1\n",
    ),
}
PLAIN = "K = 1  # one\n" + RUN
NO_MATTER = {
    "a comment": single(PLAIN, "# one", "# two"),
    "formatting": single(PLAIN, "K = 1", "K =  1"),
    "a colour": single(PLAIN, "#777777", "#777778"),
    "a helper of a figure": single(PLAIN, "plot([1]", "plot([2]"),
    "a docstring of a figure": single(PLAIN, "What to see", "Look"),
    "a caption": single(PLAIN, "caption", "title"),
    "the question": single(PLAIN, "What?", "Why?"),
    "a claim": single(PLAIN, "threshold=x", "threshold=x + 1"),
    "a claim's table": single(PLAIN, "(1, 2)", "(1, 3)"),
    "what claims import of the lab": single(PLAIN, "mean_of\n", "mean_of, exact\n"),
    "a function that nothing names": single(PLAIN + "def spare(): return 1\n", "return 1", "return 2"),
    "what runs as a script only": single(PLAIN, "print(study)", "print(0, study)"),
    "claims in a file of their own": package(
        "from pk.c import MORE\nK = 1\n" + RUN + "both = Study(claims=MORE)\n",
        "pk/c.py",
        "text",
        "other",
        c="from holdfast.lab import Claim\nMORE = [Claim('a', 'text', len)]\n",
    ),
    "a file that nothing imports": package("K = 1\n" + RUN, "pk/b.py", "1", "2", b="K = 1\n"),
    "a file that a trial makes": Case(
        {
            "s.py": HEAD
            + "def run(trial):\n    open('out.txt', 'w').write('1')\n    return open('out.txt').read()\n"
            + TAIL
        },
        "out.txt",
        "1",
        "2",
    ),
    "a warning that shows a line": single(
        "import warnings\nK = 1\ndef run(trial):\n    warnings.warn('here')\n", "# end", "# END"
    ),
}
CASES = {**MATTERS, **NO_MATTER}


def text_of(case: Case) -> dict[str, str]:
    return {name: f"{text}# end\n" if name.endswith(".py") else text for name, text in case.files.items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, FunctionRef, list[Any]]]:
    """For each case its folder, its function, and what its worker answered, the last time it was asked."""
    root = tmp_path_factory.mktemp("cases").resolve()
    places = {}
    for i, (name, case) in enumerate(CASES.items()):
        for path, text in text_of(case).items():
            target = root / str(i) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        file = None if "pk/study.py" in case.files else str(root / str(i) / "s.py")
        places[name] = root / str(i), FunctionRef("pk.study" if file is None else f"_case_{i}", file, "run")
    answers = ask([(name, folder, run, ()) for name, (folder, run) in places.items()])
    again = [(name, *places[name], answer[3]) for name, answer in answers.items() if answer[3]]
    assert {name for name, *_ in again} == {name for name, case in CASES.items() if case.whole}
    answers |= ask(again)
    return {name: (*places[name], answer) for name, answer in answers.items()}


def ask(items: list[tuple[str, Path, FunctionRef, Any]]) -> dict[str, list[Any]]:
    asked = json.dumps([[name, str(folder), run.module, run.file, whole] for name, folder, run, whole in items])
    done = subprocess.run([sys.executable, "-c", WORKER], input=asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {answer[0]: answer for answer in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    importlib.invalidate_caches()


def test_a_change_is_noticed_exactly_where_it_can_reach_the_result(
    case: str, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run, (_, _, error, missed, document) = recorded[case]
    assert error is None
    assert not set(missed) - {""}
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.chdir(folder)
    depfile, change = Depfile.from_json(json.loads(json.dumps(document))), CASES[case]
    assert Files().changed(depfile, run) is None
    target = folder / change.path
    before = target.read_text() if target.exists() else ""
    assert change.old in before
    target.write_text(before.replace(change.old, change.new) if change.old else change.new)
    noticed = Files().changed(depfile, run)
    assert (noticed is not None) == (case in MATTERS)
    if noticed and not change.path.startswith("d/"):
        assert Path(change.path).name in noticed or Path(change.path).stem in noticed


@pytest.mark.parametrize("how", ["file", "folder"])
def test_what_a_link_leads_to_counts(how: str, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "x.txt").write_text("1")
    target, link = ("far/x.txt", "near/x.txt") if how == "file" else ("far", "near/far")
    (tmp_path / link).symlink_to(tmp_path / target)
    name = link if how == "file" else f"{link}/x.txt"
    path = tmp_path / "near" / "s.py"
    path.write_text(f"def run(trial): return int(open({str(tmp_path / name)!r}).read())\n")
    run = FunctionRef("_linked", str(path), "run")
    depfile = Depfile.from_json(ask([("linked", tmp_path, run, ())])["linked"][4])
    assert Files().changed(depfile, run) is None
    (tmp_path / "far" / "x.txt").write_text("2")
    assert "x.txt has changed since" in str(Files().changed(depfile, run))


def test_a_file_named_from_the_working_folder_is_that_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(text)
    path = tmp_path / "s.py"
    path.write_text("def run(trial): return int(open('x.txt').read())\n")
    run = FunctionRef("_relative", str(path), "run")
    depfile = Depfile.from_json(ask([("relative", tmp_path / "a", run, ())])["relative"][4])
    for name, same in (("a", True), ("b", False)):
        monkeypatch.chdir(tmp_path / name)
        assert (Files().changed(depfile, run) is None) == same


def test_a_folder_is_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "far").mkdir()
    digests = [digest_of_file(tmp_path / "d")]
    (tmp_path / "d" / "empty").mkdir()
    digests.append(digest_of_file(tmp_path / "d"))
    (tmp_path / "d" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "d")
    digests.append(digest_of_file(tmp_path / "d"))
    (tmp_path / "far" / "x").write_text("1")
    digests.append(digest_of_file(tmp_path / "d"))
    assert len(set(digests)) == 4


def test_a_study_that_is_moved_and_renamed_is_the_same(
    recorded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, (*_, document) = recorded["a file beside"]
    for name, text in text_of(CASES["a file beside"]).items():
        (tmp_path / name.replace("s.py", "renamed.py")).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    moved = FunctionRef("_elsewhere", str((tmp_path / "renamed.py").resolve()), "run")
    assert Files().changed(Depfile.from_json(document), moved) is None
    (tmp_path / "helper.py").write_text("K = 3\n")
    assert Files().changed(Depfile.from_json(document), moved) == "helper.py has changed since"
