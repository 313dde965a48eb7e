"""`holdfast probe control-latency` and `holdfast probe copycat`: on a policy, and on data that policies learn from."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from holdfast.cli.parsing import OK, Device, ExplainedOptions, OptionalTarget, device_named, function_at, refuse_given
from holdfast.errors import ArgumentError, HoldfastError, count_of

if TYPE_CHECKING:
    from holdfast.models.action.trajectories import Trajectories

LEAST_ROUNDS = 7
"""Those of the probe, which is loaded when the options are known to be sound."""


@dataclass(frozen=True)
class ControlLatencyProbe(ExplainedOptions):
    """Time one step of control of your own policy against the length of the episode."""

    target: OptionalTarget = None
    """An action model's file; or a function that makes a policy, as file.py:name or module:name: it returns anything
    with act(observation), and the observation that it is to be shown. The policy that the package ships unless
    given."""
    domain: str | None = None
    """For an action model with several domains: which; the first unless given."""
    lengths: tuple[int, ...] | None = None
    """Timesteps before the step; 10 30 100 300 1000 3000 10000 unless given, for a function from 100 on."""
    batches: tuple[int, ...] | None = None
    """For an action model: episodes side by side, each a measurement; 1 unless given."""
    rounds: int = 100
    """Steps at each length; fewer where the budget ends before."""
    budget: float = 60.0
    """Seconds for each batch."""
    device: Device = "cpu"
    """Where an action model runs: cpu, cuda, cuda:1, … or auto."""
    compare: bool = True
    """Time a network of about as many parameters too: a transformer with a cache, or an xLSTM if yours is one."""


@dataclass(frozen=True)
class CopycatProbe(ExplainedOptions):
    """Measure whether your data lead a policy to copy its last action."""

    target: OptionalTarget = None
    """Trajectories: a folder of LeRobot, one of hdf5 or npz files with a domain, or the name of a Minari dataset. 20
    episodes of the pendulum's analytic expert, collected there and then, unless given."""
    policy: Path | None = None
    """An action model's file, to see how often it repeats itself in an environment."""
    environment: str | None = None
    """With --policy: the environment's id in Gymnasium."""
    episodes: int = 20
    """Of the policy; rounded up to a multiple of --slots."""
    slots: int = 10
    """Environments side by side."""
    bins: int = 32
    """That the small networks divide each number of an action in."""
    history: int = 4
    """Observations that they see, the current one included."""
    seed: int = 0
    """Of the parts that are held out, the networks and the environments."""


def run_control_latency(options: ControlLatencyProbe) -> int:
    """Probe an action model, or a policy that a function makes, which has a colon in its name."""
    count_of("--rounds", options.rounds, least=LEAST_ROUNDS)
    target = options.target
    strange = target is not None and ":" in target
    if strange:
        refuse_given(options, ("domain", "batches", "device"), "an action model", str(target))
    policy, observation = _strange_policy(str(target)) if strange else (_model(target, options.device), None)
    from holdfast.probes.action import probe_control_latency

    report = probe_control_latency(
        policy,
        domain=options.domain,
        observation=observation,
        lengths=options.lengths,
        batches=options.batches,
        rounds=options.rounds,
        budget_s=options.budget,
        compare=options.compare,
        tell=lambda text: print(text, file=sys.stderr),
    )
    options.show(report)
    return OK


def run_copycat(options: CopycatProbe) -> int:
    """Probe the data, and a policy where there is one."""
    if (options.policy is None) != (options.environment is None):
        raise ArgumentError("--environment", "--policy and --environment, or none of both", "one of them")
    if options.policy is None:
        refuse_given(options, ("episodes", "slots"), "a --policy", "none")
    for name, least in (("episodes", 1), ("slots", 1), ("bins", 2), ("history", 1), ("seed", 0)):
        count_of(f"--{name}", getattr(options, name), least=least)
    from holdfast.models.action.trajectories import read_trajectories
    from holdfast.probes.action import probe_copycat

    data = _demonstrations(options.seed) if options.target is None else read_trajectories(options.target, "TARGET")

    policy = environments = None
    if options.policy is not None:
        policy, environments = _acting(options, data)
    try:
        report = probe_copycat(
            data,
            policy,
            environments=environments,
            episodes=-(-options.episodes // options.slots) * options.slots,
            bins=options.bins,
            history=options.history,
            seed=options.seed,
            progress=True,
        )
    finally:
        if environments is not None:
            environments.close()
    options.show(report)
    return OK


def _model(target: str | None, device: str) -> Any:
    """An action model from its file, which has to be there, or the one that the package ships."""
    from holdfast.models.action.checkpoint import SHIPPED, load_model

    place = device_named(device)
    if target is not None and not Path(target).is_file():
        raise ArgumentError("TARGET", "the file of an action model, or file.py:name", f"{target}, which is no file")
    return load_model(SHIPPED if target is None else Path(target), place)


def _strange_policy(target: str) -> tuple[Any, Any]:
    """What a function of the user's makes."""
    make = function_at(target)
    expected = "a function without arguments that returns a policy and an observation"
    try:
        made = make()
    except (HoldfastError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ArgumentError("TARGET", expected, f"{type(error).__name__}: {error}") from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise ArgumentError("TARGET", expected, f"one that returns {type(made).__name__}")
    return made


def _demonstrations(seed: int) -> Trajectories:
    """Of the pendulum's expert."""
    from holdfast.rl.classic_control import TASKS

    return TASKS["pendulum"].trajectories(20, seed=seed)


def _acting(options: CopycatProbe, data: Trajectories) -> tuple[Any, Any]:
    """The policy, and the environments that it acts in."""
    from holdfast.errors import require
    from holdfast.rl.stepping import Policy, PolicyConfig

    vector, gymnasium = require("gymnasium.vector", "rl"), require("gymnasium", "rl")
    model = _model(str(options.policy), "cpu")
    mode: Literal["next_step"] = "next_step"
    policy = Policy(
        model,
        PolicyConfig(
            domain=data.domain.name, slots=options.slots, autoreset=mode, target_return=data.domain.target_return
        ),
    )
    try:
        environments = vector.SyncVectorEnv([lambda: gymnasium.make(options.environment)] * options.slots)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ArgumentError("--environment", "the id of one of Gymnasium's environments", first) from error
    return policy, environments
