"""A toy study, and the command line as a user runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast.lab.locate import find
from holdfast.lab.study import Study
from tests.command_line import ask

TOY = Path(__file__).parent / "toy_study.py"


def changed(study: Study[Any], **changes: Any) -> Study[Any]:
    """A study of one part with some things of that part changed."""
    (part,) = study.parts
    return replace(study, parts=[replace(part, **changes)])


@pytest.fixture
def toy() -> Study[Any]:
    return find(str(TOY))


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was computed so far, one `seed arm` a begun trial."""
    path = tmp_path / "ledger.txt"
    monkeypatch.setenv("TOY_LEDGER", str(path))

    def read() -> list[str]:
        if not path.exists():
            return []
        return [line.rsplit(" ", 1)[0] for line in path.read_text(encoding="utf-8").splitlines()]

    return read


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command line in this process, in the test's own folder: exit status, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        return ask(*words, cwd=tmp_path)

    return call


def holdfast(*words: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own: for tests that kill or interrupt it."""
    prepare = options.pop("preexec_fn", None)

    def before() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs ignore, and what they start
        if prepare is not None:
            prepare()

    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | options.pop("env", {}),
        preexec_fn=before,
        **options,
    )


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """Worker processes of a driver (of this process by default), and their supervisors."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "engines.supervise" in " ".join(child.cmdline()):
                found.append(child)
    return found


def with_word(word: str) -> list[psutil.Process]:
    """Processes of this machine that have a word in their command line."""
    return [process for process in psutil.process_iter(["cmdline"]) if word in (process.info["cmdline"] or [])]
