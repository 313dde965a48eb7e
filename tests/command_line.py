"""The command line as a user meets it, in this process: a start of Python costs more than most commands do."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO
from unittest import mock

from holdfast.cli import main


class Output(io.StringIO):
    """Text that a command writes; like a pipe it can take any letter."""

    encoding = "utf-8"


def run(*words: object, cwd: Path, out: TextIO, err: TextIO, env: Mapping[str, str] | None = None) -> int:
    """Carry out a command with its output in two streams (or one for both), and leave no trace in this process.

    Returns:
        The exit status.
    """
    modules, path, terminated = set(sys.modules), list(sys.path), signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(mock.patch.dict(os.environ, env or {}))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        status: object = None
        try:
            main(list(map(str, words)))
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.signal(signal.SIGTERM, terminated)
            sys.path[:] = path
            for name in set(sys.modules) - modules:  # a user's file may be written anew before the next command
                file = getattr(sys.modules[name], "__file__", None)
                if file is not None and Path(file).is_relative_to(cwd):
                    del sys.modules[name]
    assert isinstance(status, int), "the command line always exits with a number"
    return status


def ask(*words: object, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Carry out a command.

    Returns:
        The exit status, and what it wrote to standard output and standard error.
    """
    out, err = Output(), Output()
    return run(*words, cwd=cwd, out=out, err=err, env=env), out.getvalue(), err.getvalue()
