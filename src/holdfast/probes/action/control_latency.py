"""How long one step of control takes, against the number of steps before it: on one's own policy and machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.domain import Domain
from holdfast.models.action.model import ActionModel
from holdfast.probes.action.episode import Histories, Midway, NoRoom, Walker
from holdfast.probes.action.latency_report import ControlLatencyReport, Crossover, StepTimes
from holdfast.probes.action.rival import parameters_of, rival_of
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.rl.stepping import Policy

LENGTHS = (10, 30, 100, 300, 1000, 3000, 10_000)
"""Timesteps before the step that is timed."""

WALKED = (100, 300, 1000, 3000, 10_000)
"""The same for a policy that has to take them all: between two lengths there is room for all steps of the first."""

ROUNDS = 100
"""Steps at each length: the slowest of a hundred is about the 99th percentile."""

LEAST_ROUNDS = 7
"""Steps at each length however long they take: fewer have no interval worth its name."""

WARM_UP = 3
"""Rounds before the first one that counts."""

Tell = Callable[[str], None]
"""Told in words what is measured next."""


def probe_control_latency(
    policy: Any,
    *,
    domain: str | None = None,
    observation: Any = None,
    lengths: Sequence[int] | None = None,
    batches: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    budget_s: float = 60.0,
    compare: bool = True,
    tell: Tell = lambda text: None,
) -> ControlLatencyReport:
    """Time single decisions of a policy after episodes of several lengths, beside a network of the other kind.

    A step is everything from an observation to an action in the environment's units, all tokens of the timestep
    included. All lengths of the policy and of what it is compared with take a step each in every round, in an order
    that changes: what else the machine does falls on all alike.

    An action model is brought to a length without walking there: a state of constant size is one of any length, and
    as many keys and values as attention would keep are laid into memory. Another policy has to take all steps itself,
    so its lengths are timed one after the other, and of its state nothing is known. It is compared with nothing.

    Arguments:
        policy: an action model, `holdfast.rl.stepping.Policy`, or anything with `act(observation)`, or a function of
            an observation. Models are left as they are found. What else acts is reset, if it can be, and then walks.
        domain: of an action model that has several; `None`: the first, or the policy's.
        observation: what a policy that is no action model is shown; it decides how many episodes that is.
        lengths: decisions before the one that is timed; `None`: 10 to 10,000, or 100 to 10,000 where a policy walks.
        batches: episodes side by side, one measurement for each; `None`: the policy's number of slots, or 1.
        rounds: steps at each length, at least 7; fewer where they would take longer than the budget, or where a policy
            that walks would already be at the next length.
        budget_s: seconds for each batch, after which no round begins that need not.
        compare: whether a model is compared with a network of random weights and about as many parameters: a
            transformer that caches its keys and values, or, if the model's own state grows, an xLSTM.
        tell: told what is measured next.

    Returns:
        The report. A length whose state does not fit into memory, or that was not reached in time, is left out, and
        the report says so.

    Errors:
        ArgumentError: an argument does not fit, or no two lengths could be measured.

    Source: arXiv 2410.22391, section 4.4.
    """
    count_of("rounds", rounds, least=LEAST_ROUNDS)
    if not budget_s > 0:
        raise ArgumentError("budget_s", "a positive number of seconds", budget_s)
    model = policy.model if isinstance(policy, Policy) else policy
    walks = not isinstance(model, ActionModel)
    plan = _Plan(_ascending((WALKED if walks else LENGTHS) if lengths is None else lengths), rounds, budget_s, tell)
    if not isinstance(model, ActionModel):
        return _walked(policy, observation, batches, domain, plan)
    if observation is not None:
        raise ArgumentError("observation", "None for an action model, whose domains say what it sees", "one")
    chosen = policy.domain if isinstance(policy, Policy) and domain is None else _domain(model, domain)
    if batches is None:
        batches = (policy.config.slots,) if isinstance(policy, Policy) else (1,)
    sizes = [count_of("batches", batch, least=1) for batch in batches]
    if not sizes:
        raise ArgumentError("batches", "at least one number of episodes", "none")
    with random_state_kept(), evaluating(model):
        parts = [_of_model(model, chosen, batch, compare, plan) for batch in sizes]
    return ControlLatencyReport(
        policy=tuple(part.policy for part in parts),
        rival=tuple(part.rival for part in parts if part.rival is not None),
        crossovers=tuple(part.crossover for part in parts if part.crossover is not None),
        left_out=tuple(text for part in parts for text in part.left_out),
    )


@dataclass(frozen=True)
class _Plan:
    """How steps are timed; see `probe_control_latency`."""

    lengths: tuple[int, ...]
    rounds: int
    budget_s: float
    tell: Tell


@dataclass(frozen=True)
class _Part:
    """What was found for one batch."""

    policy: StepTimes
    rival: StepTimes | None
    crossover: Crossover | None
    left_out: tuple[str, ...]


def _ascending(lengths: Sequence[int]) -> tuple[int, ...]:
    ascending = tuple(sorted({count_of("lengths", length, least=1) for length in lengths}))
    if len(ascending) < 2:
        raise ArgumentError("lengths", "at least two different numbers", repr(tuple(lengths)))
    return ascending


def _domain(model: ActionModel, name: str | None) -> Domain:
    return model.config.domains[0] if name is None else model.config.domain(name)


def _of_model(model: ActionModel, domain: Domain, batch: int, compare: bool, plan: _Plan) -> _Part:
    """One batch of a model, beside a network of the other kind."""
    own, name = Histories(model, domain, batch), "this policy"
    kinds = {name: own}
    if compare:
        size = parameters_of(model.backbone)
        title, shape = rival_of(model.config.backbone, size, constant=own.constant)
        weight = next(model.parameters())
        rival = ActionModel(replace(model.config, backbone=shape)).to(weight.device, weight.dtype).eval()
        kinds[title] = Histories(rival, domain, batch)
    left_out: list[str] = []
    arms = {kind: _midway(kind, histories, plan, left_out) for kind, histories in kinds.items()}
    plan.tell(f"batch {batch}: {sum(map(len, arms.values()))} lengths of {' and '.join(kinds)}, in turn")
    together = {(kind, length): arm for kind, of_kind in arms.items() for length, arm in of_kind.items()}
    times = in_turn(together, rounds=plan.rounds, budget_s=plan.budget_s)
    columns = {kind: np.stack([times[kind, length] for length in of_kind], axis=1) for kind, of_kind in arms.items()}
    steps = {
        kind: StepTimes.of(
            kind,
            batch,
            tuple(arms[kind]),
            columns[kind],
            parameters=parameters_of(histories.model.backbone),
            state_bytes=tuple(arm.state_bytes for arm in arms[kind].values()),
            constant_state=histories.constant,
        )
        for kind, histories in kinds.items()
    }
    if not compare:
        return _Part(steps[name], None, None, tuple(left_out))
    one, other = (name, title) if own.constant else (title, name)
    crossover = Crossover.of(steps[one], steps[other], columns[one], columns[other])
    return _Part(steps[name], steps[title], crossover, tuple(left_out))


def _midway(kind: str, histories: Histories, plan: _Plan, left_out: list[str]) -> dict[int, Midway]:
    """All lengths of one model that fit into memory, the others told.

    Errors:
        ArgumentError: fewer than two do.
    """
    arms: dict[int, Midway] = {}
    for length in plan.lengths:
        try:
            arms[length] = Midway(histories, length)
        except NoRoom as error:
            left_out.append(f"{kind}, batch {histories.batch}, {length:,} timesteps: {error}")
    if len(arms) < 2:
        raise ArgumentError("lengths", "two lengths whose states fit into memory", left_out[-1])
    return arms


def in_turn(arms: Mapping[Any, Any], *, rounds: int, budget_s: float) -> dict[Any, Float[np.ndarray, " rounds"]]:
    """Milliseconds of each arm by round; each takes a step in every round, in an order that is drawn anew.

    Arguments:
        arms: each has `step()`, which returns milliseconds.
        rounds: that are timed, at most.
        budget_s: after this long no round begins that is not one of the least number.
    """
    names, order = list(arms), np.random.default_rng(0)
    times: dict[Any, list[float]] = {name: [] for name in names}
    begun = time.monotonic()
    for turn in range(-WARM_UP, rounds):
        if turn >= LEAST_ROUNDS and time.monotonic() - begun > budget_s:
            break
        for place in order.permutation(len(names)):
            taken = arms[names[place]].step()
            if turn >= 0:
                times[names[place]].append(taken)
    return {name: np.array(values) for name, values in times.items()}


def _walked(
    policy: Any, observation: Any, batches: Sequence[int] | None, domain: str | None, plan: _Plan
) -> ControlLatencyReport:
    for name, value in (("domain", domain), ("batches", batches)):
        if value is not None:
            raise ArgumentError(name, "None for a policy that is no action model: its observation says all", value)
    if observation is None:
        raise ArgumentError("observation", "what the policy is to be shown at every step", "None")
    rounds = min(plan.rounds, *(after - before for before, after in pairwise(plan.lengths)))
    if rounds < LEAST_ROUNDS:
        expected = f"lengths that are {LEAST_ROUNDS} timesteps apart, since the policy has to walk from one to the next"
        raise ArgumentError("lengths", expected, repr(plan.lengths))
    walker, times, left_out = Walker(policy, observation), dict[int, Any](), list[str]()
    plan.tell("walking, since only action models can be brought to a length")
    begun = time.monotonic()
    for length in plan.lengths:
        while walker.steps < length and time.monotonic() - begun < plan.budget_s:
            walker.step()
        if walker.steps < length:
            left_out.append(f"{length:,} timesteps: not reached within {plan.budget_s:g} s")
        else:
            times[length] = np.array([walker.step() for _ in range(rounds)])
    if len(times) < 2:
        raise ArgumentError("lengths", f"two that are reached within {plan.budget_s:g} s", "; ".join(left_out))
    return ControlLatencyReport(
        policy=(StepTimes.of("this policy", None, tuple(times), np.stack(list(times.values()), axis=1)),),
        rival=(),
        crossovers=(),
        left_out=(*left_out, "the state and the crossover: nothing is known of such a policy but its steps"),
    )
