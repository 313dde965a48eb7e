"""`holdfast serve`: a model behind an address that other programs ask."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from holdfast.cli.parsing import INTERRUPTED, OK, Device, choose, device_named
from holdfast.errors import ArgumentError, require

if TYPE_CHECKING:
    from holdfast.models.action.model import ActionModel
    from holdfast.serving.stepper import PolicyStepper

TRIED = 30
"""Steps that are timed before the server begins."""


@dataclass(frozen=True, kw_only=True)
class ServeAction:
    """Serve an action model to control loops, with sessions, deadlines and metrics.

    Loops ask it with holdfast.serving.Client, or by HTTP; it answers at /v1/sessions, /health and /metrics. Ctrl-C ends
    it.
    """

    model: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MODEL")] = None
    """File of the model, as save_model and holdfast train action write it; the policy that the package ships unless
    given."""
    host: str = "127.0.0.1"
    """Address to listen at. Where other machines can reach it, requests must bring a token."""
    port: int = 8700
    """Port to listen at; 0: a free one."""
    deadline_ms: float | None = None
    """Milliseconds from the arrival of a step to its answer. Where the model's action is not there by then, the answer
    is the fallback action, and says so. Without a deadline the model's action is waited for."""
    fallback: str = "hold"
    """hold: the last action once more; zero: 0, or what is nearest to it within the bounds, or the id 0; or an action
    as numbers with commas between them, as in --fallback=-1,0."""
    max_sessions: int = 64
    """Control loops at a time."""
    ttl: float = 60.0
    """Seconds after which a session that nobody steps is given up."""
    token_env: str = "HOLDFAST_TOKEN"
    """Environment variable with the token that requests must bring; where it is not set, they need none on this
    machine."""
    threads: int = 1
    """Threads that a step is computed with. Small models are fastest on one."""
    device: Device = "cpu"
    """Where the model runs: cpu, cuda, cuda:1, … or auto."""


def serve(words: Sequence[str]) -> int:
    """Parse the words after `holdfast serve` and carry them out."""
    return choose("serve", "kind", "Serve a model to other programs. Kinds", KINDS, words)


def _action(options: ServeAction) -> int:
    """Carry out `holdfast serve action`."""
    for module in ("starlette", "uvicorn", "prometheus_client"):
        require(module, "serving")
    from holdfast.serving.fallback import Fallback
    from holdfast.serving.run import check_token, listening
    from holdfast.serving.run import serve as serve_until_told
    from holdfast.serving.server import Server, ServerConfig

    try:
        token = check_token(options.host, os.environ.get(options.token_env, ""), options.token_env)
        config = ServerConfig(
            deadline_s=None if options.deadline_ms is None else options.deadline_ms / 1e3,
            fallback=Fallback(options.fallback),
            max_sessions=options.max_sessions,
            ttl_s=options.ttl,
            token=token,
        )
        with listening(options.host, options.port) as (listener, address):
            stepper = _stepper(options)
            server = Server(stepper, config)
            print(
                f"serving {options.model or 'the shipped policy'} at {address}" + (", with a token" if token else ""),
                flush=True,
            )
            print(f"domains: {', '.join(stepper.domains)}", flush=True)
            print(_pace(stepper, options.deadline_ms), flush=True)
            # A signal is raised again once all is closed.
            with contextlib.suppress(KeyboardInterrupt):
                serve_until_told(server, listener)
            print(f"ended; {server.metrics.summary()}", flush=True)
    except KeyboardInterrupt:
        print("holdfast: interrupted before it served", file=sys.stderr)
        return INTERRUPTED
    except ArgumentError as error:
        argument = "--deadline-ms" if error.argument == "deadline_s" else error.argument
        raise ArgumentError(argument, error.expected, error.got) from error
    return OK


def _stepper(options: ServeAction) -> PolicyStepper:
    """The model, as it is stepped.

    Errors:
        ArgumentError: there is no such device, or no positive number of threads.
        CheckpointError: the file cannot be used.
    """
    import torch

    from holdfast.errors import count_of
    from holdfast.models.action.checkpoint import SHIPPED, load_model
    from holdfast.serving.stepper import PolicyStepper

    torch.set_num_threads(count_of("threads", options.threads, least=1))
    if options.model is not None and not options.model.is_file():
        raise ArgumentError("MODEL", "the file of an action model", f"{options.model}, which is no file")
    model: ActionModel = load_model(options.model or SHIPPED)
    return PolicyStepper(model.to(device_named(options.device)))


def _pace(stepper: PolicyStepper, deadline_ms: float | None) -> str:
    """How fast a session can be stepped here and now."""
    import numpy as np

    from holdfast.serving.stepper import Step

    slowest = 0.0
    for domain in stepper.domains.values():
        memory, times = stepper.begin(domain.name, 0.0), []
        seen = np.zeros(domain.observation.shape, np.uint8 if len(domain.observation.shape) > 1 else np.float32)
        for _ in range(TRIED):
            step = Step(domain=domain.name, memory=memory, observation=seen, reward=0.0, done=False)
            started = time.perf_counter()
            (outcome,) = stepper.act([step])
            times.append(time.perf_counter() - started)
            if isinstance(outcome, Exception):
                raise outcome
            memory = outcome[1]
        slowest = max(slowest, sorted(times)[-TRIED // 10])
    text = f"a step takes the model {slowest * 1e3:.1f} ms: expect up to {0.8 / slowest:.0f} Hz of one loop"
    if deadline_ms is not None and slowest * 1e3 > deadline_ms:
        print(f"holdfast: warning: most steps will miss the deadline of {deadline_ms:g} ms", file=sys.stderr)
    return text


KINDS = {"action": (ServeAction, _action)}
"""What can be served: the options, and what does so."""
