"""The command that serves an action model: its mistakes, and what becomes of sessions when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from holdfast.models.action.checkpoint import save_model
from holdfast.serving import Client, UnknownSession, Unreachable
from holdfast.serving.run import listening
from tests.command_line import ask
from tests.models.action.tiny import ARM, BACKBONES, MAZE, model

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "policy.safetensors"
    save_model(model(BACKBONES["xlstm"], domains=(ARM,)), path)
    return path


def test_kinds_and_help(tmp_path: Path) -> None:
    status, out, err = ask("serve", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert "action" in out
    status, out, _ = ask("serve", "action", "--help", cwd=tmp_path)
    assert status == 0
    assert all(flag in out for flag in ("MODEL", "--host", "--deadline-ms", "--max-sessions", "--ttl", "--fallback"))


def test_mistakes_are_one_line(policy: Path, tmp_path: Path) -> None:
    whole = policy.read_bytes()
    (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
    save_model(model(BACKBONES["xlstm"], domains=(ARM, MAZE)), tmp_path / "both")
    with listening("127.0.0.1", 0) as (listener, _):
        taken = listener.getsockname()[1]
        mistakes: list[tuple[tuple[Any, ...], str]] = [
            ((tmp_path / "none", "--port", 0), "none, which is no file"),
            ((tmp_path / "short", "--port", 0), "short: file truncated at"),
            (
                (policy, "--host", "0.0.0.0"),
                "--host: expected 127.0.0.1 or localhost where requests need no token, got",
            ),
            ((policy, "--host", "no.such.host.invalid", "--token-env", "GOOD"), "--host: expected an address"),
            ((policy, "--token-env", "SHORT"), "SHORT: expected at least 16 ASCII characters without spaces"),
            ((policy, "--port", taken), f"--port: expected one that is free here, got {taken}"),
            ((policy, "--port", 70000), "--port: expected a number up to 65535, got 70000"),
            ((policy, "--deadline-ms", 0), "--deadline-ms: expected a positive number, got 0.0"),
            ((policy, "--ttl", -1), "--ttl: expected a positive number, got -1.0"),
            ((policy, "--max-sessions", 0), "--max-sessions: expected a whole number of at least 1, got 0"),
            ((policy, "--fallback", "stop"), "--fallback: expected hold, zero, or finite numbers with commas"),
            ((policy, "--port", 0, "--fallback", "1"), "--fallback: expected 2 numbers from"),
            ((tmp_path / "both", "--port", 0, "--fallback", "0,0"), "as domain maze has, got 0,0"),
            ((policy, "--port", 0, "--threads", 0), "--threads: expected a whole number of at least 1, got 0"),
            (
                (policy, "--port", 0, "--device", "abacus"),
                "--device: expected a device of PyTorch, such as cpu or cuda, or auto, got abacus",
            ),
        ]
        for words, message in mistakes:
            env = {"SHORT": "secret", "GOOD": TOKEN, "HOLDFAST_TOKEN": ""}
            status, out, err = ask("serve", "action", *words, cwd=tmp_path, env=env)
            assert (status, out, err.count("\n")) == (2, "", 1), words
            assert message in err
            assert "secret" not in err
            assert TOKEN not in err


@contextmanager
def served(*words: object, token: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it says."""
    command = [sys.executable, "-m", "holdfast", "serve", "action", *map(str, words)]
    env = {**os.environ, "HOLDFAST_TOKEN": token}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[2].startswith("a step takes the model"), (lines, process.stderr and process.stderr.read())
        assert token == "" or token not in "".join(lines)
        yield process, lines[0].split(" at ")[1].split(",")[0].strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_sessions_end_with_the_server_and_no_action_is_made_up(policy: Path) -> None:
    with served(policy, "--port", 0, "--deadline-ms", 1e6) as (first, address):
        client = Client(address, target_return=3.0)
        assert client.deadline_ms == 1e6
        for step in range(3):
            assert client.act([0.1] * 5, 0.0 if step else None).step == step
        first.send_signal(signal.SIGKILL)
        first.wait(60)
    with pytest.raises(Unreachable):
        client.act([0.2] * 5, 0.0)
    port = address.rpartition(":")[2]
    with served(policy, "--port", port, token=TOKEN) as (second, again):
        assert again == address
        client._headers["Authorization"] = f"Bearer {TOKEN}"
        with pytest.raises(UnknownSession, match="unknown session"):
            client.act([0.2] * 5, 0.0)
        client.close()
        with Client(address, token=TOKEN) as new:
            new.act([0.1] * 5)
            second.send_signal(signal.SIGINT)
            assert second.wait(60) == 0
        out, err = second.communicate()
        assert out == "ended; 1 steps of 1 sessions, 0 of them late\n"
        assert err == ""
