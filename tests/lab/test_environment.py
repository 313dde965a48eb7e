from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions, version

import numpy  # noqa: F401  # a package that is loaded
import pytest

from holdfast.lab import environment as module
from holdfast.lab.environment import THREAD_VARIABLES, environment, git_commit, merged, versions_of


@pytest.fixture(autouse=True)
def fresh():
    caches = (module._packages, module._cpu, module.git_commit)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_what_stands_in_it():
    found = environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] == os.cpu_count()
    assert found["cpu"]
    assert found["platform"]
    assert found["packages"]["numpy"] == version("numpy")
    assert "scipy" not in found["packages"] or "scipy" in sys.modules
    assert json.loads(json.dumps(found)) == found


def test_versions_are_those_of_the_distributions_that_modules_come_from():
    """Also of those that are called otherwise: `yaml` comes from PyYAML."""
    modules = {"numpy", "yaml", "_yaml", "pytest", "_pytest", "no_such_module", "json"}
    expected = {name for module in modules for name in packages_distributions().get(module, [])}
    versions = versions_of(modules)
    assert {name.replace("_", "-") for name in versions} == {name.lower().replace("_", "-") for name in expected}
    assert versions["numpy"] == version("numpy")
    assert versions["pyyaml"] == version("PyYAML")


def test_a_distribution_is_found_by_the_list_of_its_files(tmp_path, monkeypatch):
    described = tmp_path / "odd_name-1.5+local.dist-info"
    described.mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "other.py").touch()
    (described / "RECORD").write_text("mine/__init__.py,,\nothers/x.py,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone")])
    assert versions_of({"mine"}) == {"odd_name": "1.5+local"}
    assert versions_of({"other"}) == {}
    (described / "top_level.txt").write_text("other\n")
    assert versions_of({"other"}) == {"odd_name": "1.5+local"}


def test_what_is_loaded_later_is_found_later(tmp_path, monkeypatch):
    (tmp_path / "lately-2.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert "lately" not in environment()["packages"]
    monkeypatch.setitem(sys.modules, "lately", json)
    assert environment()["packages"]["lately"] == "2.0"


def test_environments_that_contradict_each_other_in_nothing_are_one():
    plain = {"python": "3.12", "packages": {"numpy": "2.1"}, "gpu": []}
    torch = {"python": "3.12", "packages": {"numpy": "2.1", "torch": "2.8"}, "gpu": ["H100"], "cuda": "12.8"}
    mixed = {"python": "3.12", "packages": {"numpy": "1.26"}, "gpu": []}
    assert merged([plain, torch, plain]) == [torch]
    assert repr(merged([torch, plain])) == repr(merged([plain, torch]))
    assert merged([plain, mixed, torch]) == [torch, mixed]
    assert merged([]) == []


def test_threads(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert environment()["threads"] == {"OMP_NUM_THREADS": "1"}


class Torch:
    """As much of torch as is asked."""

    class cuda:
        available = True

        @classmethod
        def is_available(cls):
            return cls.available

        @staticmethod
        def device_count():
            return 2

        @staticmethod
        def get_device_name(i):
            return f"GPU {i}"

    class version:
        cuda = "12.8"

    @staticmethod
    def get_num_threads():
        return 3


@pytest.mark.parametrize("available", [True, False])
def test_torch_is_asked_only_once_it_is_loaded(monkeypatch, available):
    monkeypatch.setitem(sys.modules, "torch", Torch)
    monkeypatch.setattr(Torch.cuda, "available", available)
    found = environment()
    assert found["threads"]["torch"] == 3
    assert found["gpu"] == (["GPU 0", "GPU 1"] if available else [])
    assert found.get("cuda") == ("12.8" if available else None)


def test_it_loads_no_torch():
    script = (
        "import sys; from holdfast.lab.environment import environment; environment(); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == "False\n"


def test_a_processor_without_a_name_in_proc(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise FileNotFoundError(self)

    monkeypatch.setattr(module.Path, "read_text", refuse)
    assert isinstance(environment()["cpu"], str)


# The commit.


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one commit, and a function to run git in it."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "somebody@example.org")

    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    return tmp_path, git


def test_a_clean_checkout(checkout):
    folder, git = checkout
    assert git_commit(folder / "sub") == git("rev-parse", "HEAD")


def test_a_tag_does_not_hide_the_commit(checkout):
    folder, git = checkout
    git("tag", "-a", "v1.0", "-m", "release")
    assert git_commit(folder) == git("rev-parse", "HEAD")


def test_a_changed_file_is_dirty_and_a_new_one_is_not(checkout):
    folder, git = checkout
    (folder / "new.txt").write_text("results\n")
    assert git_commit(folder) == git("rev-parse", "HEAD")
    git_commit.cache_clear()
    (folder / "sub" / "file.py").write_text("x = 2\n")
    assert git_commit(folder) == git("rev-parse", "HEAD") + "-dirty"


def test_outside_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "gone") is None


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


def test_git_that_hangs(tmp_path, monkeypatch):
    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(module.subprocess, "run", hang)
    assert git_commit(tmp_path) is None
