from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from holdfast.lab import environment as module
from holdfast.lab.environment import PACKAGES, THREAD_VARIABLES, environment, git_commit


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
    assert set(found["packages"]) <= set(PACKAGES)
    assert json.loads(json.dumps(found)) == found


def test_packages_that_are_missing_are_left_out(monkeypatch):
    def only_numpy(name):
        if name != "numpy":
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(module, "version", only_numpy)
    assert environment()["packages"] == {"numpy": "1.2.3"}


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
