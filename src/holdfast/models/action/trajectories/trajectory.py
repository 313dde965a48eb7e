"""Trajectories of one domain, looked at once: what is wrong is said before training, and not by a loss that is NaN."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import ActionSpace, Continuous, Domain

FEWEST_STEPS = 2
"""Shorter trajectories hold nothing that a policy with a memory could learn, and are left out."""

OUT_OF_BOUNDS = 0.001
"""Share of actions outside of the bounds from which on it is more than an expert that overshoots, and is warned of."""

ROUNDING = 1e-6
"""What float32 may lie outside of a bound by, relative to the width between bounds, and still be on it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Trajectory:
    """One episode, or a piece of one that reaches the end of what was recorded.

    Arguments:
        observations: s_0 to s_{T-1}, and s_T where the observation after the last action was kept.
        actions: a_0 to a_{T-1} as they were taken, in the environment's units; ids where actions are discrete.
        rewards: r_t, in answer to a_t; `None`: not known.
        terminated: the episode reached an end that belongs to the task.
        truncated: the episode was ended by a limit of time, which belongs to the task too.
        task: which of the domain's tasks.
        labels: actions to be learnt where they are not those taken: what an expert would have done in each of these
            states, while something else moved through them. `None`: what was taken is to be learnt.
        remaining: sum of the rewards after the last step. `None`: 0 if the episode ended, and not known if the record
            was cut off before the end.

    Errors:
        ArgumentError: numbers of steps that do not fit each other.
    """

    observations: Num[np.ndarray, "observations ..."]
    actions: Num[np.ndarray, "time ..."]
    rewards: Float[np.ndarray, " rewards"] | None
    terminated: bool = False
    truncated: bool = False
    task: str = ""
    labels: Num[np.ndarray, "labels ..."] | None = None
    remaining: float | None = None

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if len(self.observations) not in (steps, steps + 1):
            raise ArgumentError("observations", f"{steps} or {steps + 1}, for {steps} actions", len(self.observations))
        for name, values in (("rewards", self.rewards), ("labels", self.labels)):
            if values is not None and len(values) != steps:
                raise ArgumentError(name, f"{steps}, one for each action", len(values))

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.actions)

    @property
    def learnt(self) -> Num[np.ndarray, "time ..."]:
        """The actions to be learnt."""
        return self.actions if self.labels is None else self.labels

    @property
    def rest(self) -> float:
        """Sum of the rewards after the last step; NaN: not known."""
        if self.remaining is not None:
            return self.remaining
        return 0.0 if self.terminated or self.truncated else math.nan

    def returns_to_go(self) -> Float[np.ndarray, " time"]:
        """Sum of each reward and all after it, in float64; NaN where it is not known."""
        if self.rewards is None:
            return np.full(len(self), np.nan)
        return np.cumsum(self.rewards[::-1], dtype=np.float64)[::-1] + self.rest

    @property
    def total_return(self) -> float:
        """Sum of all rewards from the first step on; NaN: not known."""
        if self.rewards is None:
            return math.nan
        return math.fsum(self.rewards) + self.rest


@dataclass(frozen=True)
class Census:
    """What was counted in trajectories before they were used.

    Arguments:
        trajectories: all that there are.
        transitions: in those that are not left out.
        left_out: trajectories that are empty or have one step.
        bad: first place with a number that is NaN or infinite, or with an id that is no action; empty: none.
        not_finite: numbers that are NaN or infinite.
        out_of_bounds: numbers outside of the bounds, in actions and labels.
        action_numbers: all numbers in actions and labels.
    """

    trajectories: int
    transitions: int
    left_out: int
    bad: str
    not_finite: int
    out_of_bounds: int
    action_numbers: int

    @property
    def out_of_bounds_share(self) -> float:
        """Share of the numbers of actions that lie outside of the bounds."""
        return self.out_of_bounds / max(self.action_numbers, 1)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of one domain that fit it; `Trajectories.of` makes them.

    Arguments:
        domain: observations, actions and scale of rewards.
        items: at least two steps each, with finite numbers.
        census: what was counted when they were looked at.
    """

    domain: Domain
    items: tuple[Trajectory, ...]
    census: Census

    @classmethod
    def of(cls, domain: Domain, items: Iterable[Trajectory]) -> Trajectories:
        """Look at all trajectories once.

        Arguments:
            domain: what they are to fit.
            items: trajectories; those that are empty or have one step are left out and counted.

        Errors:
            ArgumentError: observations or actions of another shape, a number that is NaN or infinite, an id that is
                not among the actions, rewards known of some trajectories only, or no trajectory at all.
        """
        items = tuple(items)
        census = count(domain, items)
        if census.bad:
            raise ArgumentError(f"trajectories of domain {domain.name}", "finite numbers and valid actions", census.bad)
        kept = tuple(item for item in items if len(item) >= FEWEST_STEPS)
        if not kept:
            got = f"{len(items)} trajectories, all of them empty or of one step" if items else "none"
            raise ArgumentError(f"trajectories of domain {domain.name}", f"one of {FEWEST_STEPS} steps or more", got)
        rewarded = sum(item.rewards is not None for item in kept)
        if rewarded not in (0, len(kept)):
            raise ArgumentError(f"rewards of domain {domain.name}", "in all trajectories or in none", f"in {rewarded}")
        if len({item.observations.dtype == np.uint8 for item in kept}) > 1:
            argument = f"observations of domain {domain.name}"
            raise ArgumentError(argument, "bytes in all trajectories or in none", "bytes in some")
        if census.out_of_bounds_share > OUT_OF_BOUNDS:
            warnings.warn(
                f"domain {domain.name}: {census.out_of_bounds_share:.2%} of the numbers of its actions lie outside of "
                "the bounds, and are moved to them",
                stacklevel=2,
            )
        return cls(domain, kept, census)

    def __len__(self) -> int:
        """Number of trajectories."""
        return len(self.items)

    @property
    def transitions(self) -> int:
        """Number of steps in all trajectories."""
        return sum(map(len, self.items))

    @property
    def returns(self) -> Float[np.ndarray, " trajectory"]:
        """Return of each trajectory from its first step on; NaN: not known."""
        return np.array([item.total_return for item in self.items])

    def with_domain(self, domain: Domain) -> Trajectories:
        """The same trajectories in a domain of another name, scale, target or other bounds."""
        return Trajectories.of(domain, self.items)

    def with_target(self, quantile: float = 0.25) -> Trajectories:
        """With the target return that is a quantile of the returns of clean trajectories, in which every action taken
        is one to be learnt. The best return is no target: it takes a lucky start.

        Errors:
            ArgumentError: no clean trajectory with a known return.
        """
        returns = np.array([item.total_return for item in self.items if item.labels is None])
        returns = returns[np.isfinite(returns)]
        if not len(returns):
            expected = "a trajectory of known return whose actions taken are those to be learnt"
            raise ArgumentError(f"trajectories of domain {self.domain.name}", expected, "none")
        target = float(np.quantile(returns, quantile))
        return replace(self, domain=replace(self.domain, target_return=target))


def count(domain: Domain, items: Sequence[Trajectory]) -> Census:
    """Count what is there and what is wrong with it; nothing is refused but shapes.

    Errors:
        ArgumentError: observations or actions of another shape than the domain's.
    """
    left_out = transitions = not_finite = out_of_bounds = numbers = 0
    bad = ""
    for number, item in enumerate(items):
        if len(item) < FEWEST_STEPS:
            left_out += 1
            continue
        transitions += len(item)
        where = f"trajectory {number} of domain {domain.name}"
        _check_shapes(domain, item, where)
        chosen = {"action": item.actions, "label": item.labels}
        for name, values in {"observation": item.observations, "reward": item.rewards, **chosen}.items():
            if values is None:
                continue
            finite = np.isfinite(values)
            not_finite += int((~finite).sum())
            bad = bad or _first(name, values, ~finite, where)
        if math.isinf(item.rest):
            bad = bad or f"remaining {item.rest} of {where}"
        for name, values in chosen.items():
            if values is None:
                continue
            numbers += values.size
            outside = _outside(domain.action, values.reshape(len(item), -1))
            if isinstance(domain.action, Continuous):
                out_of_bounds += int(outside.sum())
            else:
                bad = bad or _first(name, values.reshape(outside.shape), outside, where)
    return Census(len(items), transitions, left_out, bad, not_finite, out_of_bounds, numbers)


def _outside(space: ActionSpace, actions: Num[np.ndarray, "time dims"]) -> Bool[np.ndarray, "time dims"]:
    """Which numbers are no action."""
    if isinstance(space, Continuous):
        low, high = np.array(space.low), np.array(space.high)
        slack = ROUNDING * (high - low)
        return np.asarray((actions < low - slack) | (actions > high + slack))
    return np.asarray((actions < 0) | (actions >= space.n) | (actions != np.floor(actions)))


def _first(name: str, values: Num[np.ndarray, "time ..."], wrong: Bool[np.ndarray, "time ..."], where: str) -> str:
    """The first of the wrong numbers and its place; empty: there is none."""
    if not wrong.any():
        return ""
    return f"{name} {values[wrong][0]} at step {int(np.argwhere(wrong)[0][0])} of {where}"


def _check_shapes(domain: Domain, item: Trajectory, where: str) -> None:
    shape = item.observations.shape[1:]
    if shape != domain.observation.shape:
        raise ArgumentError(f"observations of {where}", f"shape {domain.observation.shape}", f"shape {shape}")
    dims = domain.action.dims
    for name, values in (("actions", item.actions), ("labels", item.labels)):
        if values is not None and values.shape[1:] not in ((dims,), *(((),) if dims == 1 else ())):
            got = f"shape {values.shape[1:]}"
            raise ArgumentError(f"{name} of {where}", f"{dims} number{'s' * (dims > 1)} a step", got)


def channels_first(pictures: UInt8[np.ndarray, "time height width channels"]) -> UInt8[np.ndarray, "time ..."]:
    """Pictures with their channels before height and width, as models read them, whichever way they come.

    Errors:
        ArgumentError: neither end of the shape is a number of channels: 1, 3 or 4.
    """
    if pictures.shape[-1] in (1, 3, 4):
        return np.ascontiguousarray(np.moveaxis(pictures, -1, 1))
    if pictures.shape[1] in (1, 3, 4):
        return pictures
    raise ArgumentError("pictures", "1, 3 or 4 channels, first or last", f"shape {pictures.shape[1:]}")
