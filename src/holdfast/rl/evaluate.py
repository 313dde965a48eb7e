"""Whole episodes of a policy in a vector of environments, and its score between random actions and an expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Num

from holdfast.errors import ArgumentError, count_of, require

if TYPE_CHECKING:
    import gymnasium


@runtime_checkable
class Acting(Protocol):
    """A policy for several environments, each in a slot of its own, such as `holdfast.rl.stepping.Policy`."""

    def reset(self) -> None:
        """Forget all episodes: the next observations begin new ones."""

    def act(
        self,
        observation: Any,
        reward: Float[np.ndarray, " slot"] | None,
        done: Bool[np.ndarray, " slot"] | None,
    ) -> Any:
        """The action of each slot.

        Arguments:
            observation: what each environment shows now.
            reward: what it gave in answer to the last action; `None` before there was one.
            done: where the episode ended with that answer. What the observation is there, the last one or the first
                of the next episode, depends on how the environments begin anew.
        """


@dataclass(frozen=True)
class Evaluation:
    """Returns of whole episodes.

    Arguments:
        returns: sum of the rewards of each episode.
        lengths: steps of each episode.
        successes: whether each episode reported a success; `None`: the environment reports none.
        random_return: mean return of random actions; NaN: not known.
        expert_return: mean return of an expert; NaN: not known.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None = None
    random_return: float = math.nan
    expert_return: float = math.nan

    @property
    def mean_return(self) -> float:
        """Mean over episodes."""
        return math.fsum(self.returns) / len(self.returns)

    @property
    def success_rate(self) -> float:
        """Share of episodes with a success; NaN: the environment reports none."""
        return math.nan if self.successes is None else sum(self.successes) / len(self.successes)

    @property
    def scores(self) -> tuple[float, ...]:
        """Each return on a scale where random actions have 0 and the expert 1."""
        return tuple((value - self.random_return) / (self.expert_return - self.random_return) for value in self.returns)

    @property
    def score(self) -> float:
        """Mean score; NaN: there is no scale."""
        return math.fsum(self.scores) / len(self.scores)

    @property
    def score_interval(self) -> tuple[float, float]:
        """95 % interval of the mean score over episodes, from Student's t. It says nothing about other seeds of the
        training. NaN where there is one episode, or all returns are equal and tell no spread."""
        from scipy import stats

        scores = np.array(self.scores)
        error = scores.std(ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
        if not error > 0:
            return math.nan, math.nan
        half = float(stats.t.ppf(0.975, len(scores) - 1) * error)
        return self.score - half, self.score + half


def evaluate(
    policy: Acting,
    environments: gymnasium.vector.VectorEnv[Any, Any, Any],
    episodes: int,
    *,
    seed: int,
    random_return: float = math.nan,
    expert_return: float = math.nan,
) -> Evaluation:
    """Let a policy act until each slot has had its share of the episodes.

    Every slot has the same number of episodes: the first N that end anywhere would be the short ones. Slots that have
    had theirs go on, uncounted. All three ways in which vectors of environments begin anew are understood.

    Arguments:
        policy: is reset, and then acts in all environments at once.
        environments: a vector of Gymnasium's.
        episodes: in all; a multiple of the number of slots.
        seed: of the environments.
        random_return: mean return of random actions.
        expert_return: mean return of an expert.

    Errors:
        ArgumentError: the episodes do not divide among the slots, the scale has no length, the policy is made for
            environments that begin anew in another way, or its actions are not one a slot.
        MissingExtraError: gymnasium is not installed.
    """
    slots = environments.num_envs
    count_of("episodes", episodes, least=1)
    if episodes % slots:
        raise ArgumentError("episodes", f"a multiple of the {slots} environments", episodes)
    if random_return == expert_return:
        raise ArgumentError("expert_return", "another one than random_return", expert_return)
    mode = _autoreset(environments)
    _check_mode(policy, mode)
    quota = episodes // slots
    returns: list[list[float]] = [[] for _ in range(slots)]
    lengths: list[list[int]] = [[] for _ in range(slots)]
    successes: list[list[bool]] = [[] for _ in range(slots)]
    total, length, success = np.zeros(slots), np.zeros(slots, int), np.zeros(slots, bool)
    reports_success = False
    policy.reset()
    observation, _ = environments.reset(seed=seed)
    reward: Float[np.ndarray, " slot"] | None = None
    done: Bool[np.ndarray, " slot"] | None = None
    while any(len(slot) < quota for slot in returns):
        # A step that does nothing but begin the next episode belongs to none.
        idle = np.zeros(slots, bool) if done is None or mode != "NextStep" else done
        actions = _fitted(policy.act(observation, reward, done), environments)
        observation, reward, terminated, truncated, info = environments.step(actions)
        reward, done = np.asarray(reward, np.float64), np.asarray(terminated | truncated)
        total += np.where(idle, 0, reward)
        length += ~idle
        reported = _successes(info, slots)
        if reported is not None:
            reports_success = True
            success |= reported & ~idle
        for slot in np.flatnonzero(done):
            if len(returns[slot]) < quota:
                returns[slot].append(float(total[slot]))
                lengths[slot].append(int(length[slot]))
                successes[slot].append(bool(success[slot]))
            total[slot], length[slot], success[slot] = 0, 0, False
        if mode == "Disabled" and done.any():
            observation, _ = environments.reset(options={"reset_mask": done.copy()})
    return Evaluation(
        returns=tuple(value for slot in returns for value in slot),
        lengths=tuple(value for slot in lengths for value in slot),
        successes=tuple(value for slot in successes for value in slot) if reports_success else None,
        random_return=random_return,
        expert_return=expert_return,
    )


def _autoreset(environments: gymnasium.vector.VectorEnv[Any, Any, Any]) -> str:
    """When the environments begin anew: NextStep, SameStep, or Disabled where they are told to."""
    modes = require("gymnasium.vector", "rl").AutoresetMode
    mode: Any = environments.metadata.get("autoreset_mode")
    if mode not in list(modes):
        raise ArgumentError("environments", "an autoreset_mode of Gymnasium in their metadata", repr(mode))
    return str(mode.value)


def _check_mode(policy: Acting, mode: str) -> None:
    """A policy that takes the last observation of an episode for the first of the next would act on nothing.

    Errors:
        ArgumentError: the policy says how environments begin anew, and these do not.
    """
    expected = "next_step" if mode == "NextStep" else "same_step"
    understood = getattr(getattr(policy, "config", None), "autoreset", expected)
    if understood != expected:
        raise ArgumentError("policy", f"autoreset={expected!r}, for these environments", repr(understood))


def _fitted(actions: Any, environments: gymnasium.vector.VectorEnv[Any, Any, Any]) -> Num[np.ndarray, "slot ..."]:
    """Actions in the shape and type that the environments take; ids may have a dimension of their own."""
    space: Any = environments.single_action_space
    chosen = np.asarray(actions.cpu() if hasattr(actions, "cpu") else actions)
    wanted = (environments.num_envs, *space.shape)
    if chosen.shape == (*wanted, 1):
        chosen = chosen[..., 0]
    if chosen.shape != wanted:
        raise ArgumentError("policy", f"actions of shape {wanted}", f"shape {chosen.shape}")
    return chosen.astype(space.dtype)


def _successes(info: dict[str, Any], slots: int) -> Bool[np.ndarray, " slot"] | None:
    """Where the step that was done was a success; in some modes that of a last step is told apart."""
    known = [part["success"] for part in (info, info.get("final_info", {})) if "success" in part]
    if not known:
        return None
    return np.asarray(np.any([np.asarray(values).astype(bool).reshape(slots) for values in known], axis=0))
