from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from holdfast.lab import locate
from holdfast.lab.engines import Finished, LocalEngine, Task
from holdfast.lab.locate import FunctionRef, LocateError, find, installed, load, load_file, source_of
from holdfast.lab.study import Study

SOURCE = """
from dataclasses import dataclass
from holdfast.lab import Config, Study, Trial

@dataclass(frozen=True)
class Mine(Config):
    width: int = 3

def trials(config):
    return [Trial(seed, config) for seed in config.seed_range]

def run(trial):
    return {"x": trial.config.width * 2}

study = Study("mine", "Is it found?", {"quick": Mine()}, trials, run, [])
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def top(trial):
    return {"x": 1.0}


class Holder:
    def method(self, trial):
        return {}

    @staticmethod
    def static(trial):
        return {}

    def __call__(self, trial):
        return {}


# Studies in files.


def test_a_study_in_a_file(tmp_path):
    study = find(str(write(tmp_path / "mine.py", SOURCE)))
    assert isinstance(study, Study)
    assert study.name == "mine"


def test_a_file_is_loaded_once_whatever_path_leads_to_it(tmp_path, monkeypatch):
    path = write(tmp_path / "mine.py", SOURCE)
    monkeypatch.chdir(tmp_path)
    assert find("mine.py") is find(str(path)) is find("./mine.py")
    link = tmp_path / "link.py"
    link.symlink_to(path)
    assert find(str(link)) is find(str(path))


def test_parts_beside_the_file_are_found_also_by_a_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "located_part.py", SOURCE.partition("study =")[0])
    gathers = "from located_part import Mine, run, trials\nfrom holdfast.lab import Part, Study\n"
    gathers += "study = Study('mine', '?', {'quick': Mine()}, parts=[Part('one', trials, run)])\n"
    study = find(str(write(tmp_path / "gathers.py", gathers)))
    reference = FunctionRef.of(study.parts[0].run)
    assert reference == FunctionRef("located_part", None, "run")
    events = list(LocalEngine(1).map([Task("0", reference, next(study.trials(study.scales["quick"])))]))
    assert isinstance(events[-1], Finished)
    assert source_of(study) == str(tmp_path / "gathers.py")


def test_files_of_the_same_name_are_kept_apart(tmp_path):
    one = find(str(write(tmp_path / "a" / "mine.py", SOURCE)))
    two = find(str(write(tmp_path / "b" / "mine.py", SOURCE.replace("* 2", "* 3"))))
    assert one is not two
    first, second = one.parts[0].run, two.parts[0].run
    assert FunctionRef.of(first) != FunctionRef.of(second)
    assert FunctionRef.of(second).load() is second


def test_an_alias_is_not_a_second_study(tmp_path):
    path = write(tmp_path / "alias.py", SOURCE + "default = study\n")
    assert find(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE + 'other = Study("other", "?", {"quick": Mine()}, trials, run, [])\n', "expected one Study.*found 2"),
        ("x = 1\n", "expected one Study at the top level, found 0"),
        ("from holdfast.lab import Study\n", "found 0"),
        ("def broken(:\n", "does not load: SyntaxError"),
        ("import no_such_module_at_all\n", "does not load: ModuleNotFoundError: No module named"),
        ("raise ValueError('two\\nlines')\n", "does not load: ValueError: two lines"),
        (SOURCE.replace('"mine"', '"Bad Name"'), "does not load: ArgumentError: Study.name"),
    ],
)
def test_a_file_without_one_sound_study(tmp_path, text, message):
    path = write(tmp_path / "odd.py", text)
    with pytest.raises(LocateError, match=message) as caught:
        find(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_can_be_mended(tmp_path):
    path = write(tmp_path / "mended.py", "raise ValueError")
    with pytest.raises(LocateError):
        find(str(path))
    assert not [name for name in sys.modules if "mended" in name], "half a module must not stay"
    write(path, SOURCE)
    assert find(str(path)).name == "mine"


def test_no_such_file(tmp_path):
    with pytest.raises(LocateError, match="no such file"):
        find(str(tmp_path / "gone.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(LocateError, match="no such file"):
        find(str(tmp_path / "folder.py"))


def test_load_file_refuses_what_is_not_python(tmp_path):
    with pytest.raises(LocateError, match="not a Python file"):
        load_file(write(tmp_path / "notes.txt", "hello"))


# Installed studies.


@pytest.fixture
def points(monkeypatch, tmp_path):
    """Pretend that packages bring these entry points; modules are read from a folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def pretend(**values: str | list[str]) -> None:
        found = [
            EntryPoint(name.replace("__", "-"), value, locate.GROUP)
            for name, several in values.items()
            for value in ([several] if isinstance(several, str) else several)
        ]
        monkeypatch.setattr(locate, "entry_points", lambda group: found if group == locate.GROUP else [])

    yield pretend
    for name in [name for name in sys.modules if name.startswith("located_")]:
        del sys.modules[name]


def test_an_installed_study(points, tmp_path):
    write(tmp_path / "located_good.py", SOURCE)
    points(mine="located_good:study")
    assert list(installed()) == ["mine"]
    assert find("mine").question == "Is it found?"
    reference = FunctionRef.of(find("mine").parts[0].run)
    assert reference == FunctionRef("located_good", None, "run")
    assert reference.load() is find("mine").parts[0].run


def test_installed_studies_are_sorted(points):
    points(b="b:study", a="a:study", c="c:study")
    assert list(installed()) == ["a", "b", "c"]


def test_the_same_entry_point_twice_is_one_study(points):
    points(mine=["located_good:study", "located_good:study"])
    assert list(installed()) == ["mine"]


def test_two_packages_with_one_name(points):
    points(mine=["one:study", "two:study"])
    with pytest.raises(LocateError, match="two studies are named 'mine': one:study and two:study"):
        installed()


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        (
            "raise RuntimeError('no GPU')",
            "study",
            r"study 'mine' \(located_odd:study\) does not load: RuntimeError: no GPU",
        ),
        ("import no_such_module_at_all", "study", "does not load: ModuleNotFoundError"),
        (SOURCE, "lost", "does not load: AttributeError"),
        ("study = 3", "study", "expected a Study at located_odd:study, got int"),
        (SOURCE, "run", "expected a Study at located_odd:run, got function"),
        (SOURCE.replace('"mine"', '"yours"'), "study", "study 'yours' is registered under another name: 'mine'"),
    ],
)
def test_a_broken_entry_point(points, tmp_path, text, attribute, message):
    write(tmp_path / "located_odd.py", text)
    points(mine=f"located_odd:{attribute}")
    with pytest.raises(LocateError, match=message):
        find("mine")
    with pytest.raises(LocateError, match=message):
        load(installed()["mine"])


def test_a_package_that_is_gone(points):
    points(mine="located_nowhere:study")
    with pytest.raises(LocateError, match="does not load: ModuleNotFoundError"):
        find("mine")


def test_a_broken_study_does_not_hide_the_others(points, tmp_path):
    write(tmp_path / "located_good.py", SOURCE)
    points(mine="located_good:study", broken="located_nowhere:study")
    assert find("mine").name == "mine"


def test_an_unknown_name_lists_the_known_ones(points):
    points(sharpness="a:study", plasticity="b:study")
    with pytest.raises(LocateError, match=r"no study named 'sharpnes'\. Did you mean 'sharpness'") as caught:
        find("sharpnes")
    assert str(caught.value).endswith("Installed: plasticity, sharpness; one in a file goes by its path.")
    points()
    with pytest.raises(LocateError, match="Installed: none"):
        find("x")


def test_every_study_of_this_package_loads():
    for name, point in installed().items():
        if point.value.startswith("holdfast."):
            assert find(name).name == name
            for part in find(name).parts:
                assert FunctionRef.of(part.run).load() is part.run


# Functions.


def test_a_top_level_function():
    reference = FunctionRef.of(top)
    assert reference == FunctionRef(__name__, None, "top")
    assert reference.load() is top


def nested():
    def inner(trial):
        return {}

    return inner


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda trial: {}, id="lambda"),
        pytest.param(nested(), id="nested"),
        pytest.param(Holder.method, id="method"),
        pytest.param(Holder().method, id="bound"),
        pytest.param(Holder.static, id="static"),
        pytest.param(functools.partial(top), id="partial"),
        pytest.param(Holder(), id="callable object"),
    ],
)
def test_what_a_worker_could_not_import_is_refused(function):
    with pytest.raises(LocateError, match="expected a function at the top level of a module"):
        FunctionRef.of(function)


def test_a_decorated_function_is_found_by_its_name(tmp_path):
    text = SOURCE.replace(
        "def run(",
        "import functools\ndef noisy(f):\n    @functools.wraps(f)\n    def inner(trial):\n"
        "        return f(trial)\n    return inner\n\n@noisy\ndef run(",
    )
    study = find(str(write(tmp_path / "decorated.py", text)))
    run = study.parts[0].run
    assert FunctionRef.of(run).load() is run


def test_a_function_that_is_gone(tmp_path):
    find(str(path := write(tmp_path / "mine.py", SOURCE)))
    reference = FunctionRef.of(find(str(path)).parts[0].run)
    with pytest.raises(LocateError, match="has no function lost"):
        FunctionRef(reference.module, reference.file, "lost").load()
    with pytest.raises(LocateError, match="has no function study"):
        FunctionRef(reference.module, reference.file, "study").load()


def test_a_fresh_process_loads_the_function_and_then_its_trials(tmp_path):
    import pickle

    path = write(tmp_path / "mine.py", SOURCE)
    study = find(str(path))
    (trial, *_) = study.trials(study.scales["quick"])
    payload = tmp_path / "payload.pickle"
    payload.write_bytes(pickle.dumps((FunctionRef.of(study.parts[0].run), pickle.dumps(trial))))
    script = (
        "import pickle, sys\n"
        "reference, trial = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "function = reference.load()\n"
        "print(function(pickle.loads(trial)), reference.load() is function)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(payload)],
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout == "{'x': 6} True\n", answer.stderr
