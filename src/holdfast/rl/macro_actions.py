"""Macro-actions in any environment of Gymnasium with discrete actions; the learner is told the semi-Markov discount.

A macro of k primitives is carried out without asking the agent again, and ends early where the episode ends. With the
rewards r_0 … r_{j-1} of the j ≤ k primitive steps that were made:

    R = Σ_{u<j} γ^u r_u        D = γ^j        target  y = R + D · [not terminated] · max_b Q(s', b)

n-step targets over decisions add up in the same way, R_0 + D_0 R_1 + D_0 D_1 R_2 + … Truncation bootstraps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from gymnasium.wrappers import Autoreset
from jaxtyping import Bool, Float64, Int64

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.rl.macros import Macros

Store = Literal["macro", "macro+primitive"]

Interrupt = Callable[[Any, int, int], bool]
"""Of the observation, the action and the primitive steps made of it: whether to end it there."""

WRAPPED = "macros"
"""Where the metadata of environments, and of vectors of them, say that macro-actions are inside: the list's JSON."""


class EpisodeOver(HoldfastError):
    """A macro would run across a reset, or begin before the first."""


class InvalidReward(HoldfastError, ValueError):
    """An environment gave a reward that is no finite number."""


class MacroActions(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An environment whose actions are those of a list: primitives, then macros.

    A step returns the last observation, the discounted reward of its primitive steps, how the last of them ended, and
    its info with one more entry, `info["macro"]`:

        index     the action
        planned   primitives that it has
        executed  primitive steps that were made, j
        discount  γ^j, whether terminated or not
        rewards   of each primitive step, not discounted: float64 of the longest action's length, 0 after step j

    What counts or changes primitive steps belongs below: clipped rewards, frame skip, loss of lives as an end, the time
    limit, `RecordEpisodeStatistics`. Above, it would count decisions and see discounted rewards. Budgets and schedules
    of a comparison go by `executed`.

    Where the environment tells legal actions, `info["action_mask"]`, the mask becomes one of all actions: a macro is
    legal if its first primitive is. It ends before a primitive that is not.

    Arguments:
        env: with actions 0 … p-1.
        macros: the list, of the same number of primitives.
        gamma: discount of a primitive step, in (0, 1].
        store: `macro+primitive` adds `observations` to `info["macro"]`: those after each primitive step, the last one
            repeated up to the longest action's length, so that a learner can store each primitive step too.
        interrupt: asked between the steps of a macro; true ends it. What the learner can decide by: whether the value
            of another action exceeds that of going on by a margin. It sees the environment's own observations.

    Errors:
        ArgumentError: a vector of environments, where the wrapper has to be inside each; actions that are no ids from 0
            on, or another number of them; a bare list in the place of `Macros`; a macro that is longer than the time
            limit; macros of macros; an environment that begins anew by itself (`Autoreset` belongs above).
    """

    def __init__(
        self,
        env: Any,
        macros: Macros,
        *,
        gamma: float,
        store: Store = "macro",
        interrupt: Interrupt | None = None,
    ) -> None:
        if isinstance(env, VectorEnv) or hasattr(env, "num_envs"):
            words = "one environment: put the wrapper inside each one of a vector (see macro_vector_env)"
            raise ArgumentError("env", words, type(env).__name__)
        if store not in ("macro", "macro+primitive"):
            raise ArgumentError("store", "macro or macro+primitive", store)
        if not 0 < gamma <= 1:
            raise ArgumentError("gamma", "a number above 0, at most 1", gamma)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete) or space.start != 0:
            raise ArgumentError("env", "actions that are ids from 0 on", repr(space))
        if not isinstance(macros, Macros):
            raise ArgumentError("macros", f"Macros, such as Macros.of({space.n}, [(0, 0)])", type(macros).__name__)
        if space.n != macros.primitives:
            raise ArgumentError("macros", f"those of {space.n} primitive actions", f"those of {macros.primitives}")
        if store != "macro" and not isinstance(env.observation_space, gymnasium.spaces.Box):
            raise ArgumentError("store", "macro, as observations are no arrays", f"{store} of {env.observation_space}")
        _refuse_below(env)
        limit = None if env.spec is None else env.spec.max_episode_steps
        if limit is not None and macros.longest > limit:
            raise ArgumentError("macros", f"at most {limit} primitives each, the time limit", macros.longest)
        RecordConstructorArgs.__init__(self, macros=macros, gamma=gamma, store=store, interrupt=interrupt)
        gymnasium.Wrapper.__init__(self, env)
        self.macros, self.gamma = macros, float(gamma)
        self.action_space = gymnasium.spaces.Discrete(len(macros))
        self.metadata = {**env.metadata, WRAPPED: macros.to_json()}
        self._store, self._interrupt = store, interrupt
        self._running = False
        self._mask: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._running = True
        return observation, self._with_mask(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out an action of the list.

        Errors:
            ArgumentError: there is no such action.
            EpisodeOver: there was no reset since the last episode ended.
            InvalidReward: a reward is no finite number.
        """
        index = self._index(action)
        if not self._running:
            raise EpisodeOver(f"action {index}: the episode is over, and no reset has begun another")
        planned = self.macros[index]
        rewards = np.zeros(self.macros.longest)
        seen: list[Any] = []
        observation, terminated, truncated, info, executed = None, False, False, dict[str, Any](), 0
        for executed, primitive in enumerate(planned, 1):
            observation, reward, terminated, truncated, info = self.env.step(primitive)
            rewards[executed - 1] = reward
            if not math.isfinite(rewards[executed - 1]):
                where = f"step {executed} of action {index} = {planned}"
                raise InvalidReward(f"reward of {where}: expected a finite number, got {reward}")
            if self._store != "macro":
                seen.append(np.array(observation))
            info = self._with_mask(info)
            self._running = not (terminated or truncated)
            if not self._running or (executed < len(planned) and self._ends(observation, index, executed)):
                break
        macro: dict[str, Any] = {
            "index": index,
            "planned": len(planned),
            "executed": executed,
            "discount": self.gamma**executed,
            "rewards": rewards,
        }
        if seen:
            macro["observations"] = np.stack(seen + seen[-1:] * (self.macros.longest - executed))
        discounted = float(rewards[:executed] @ self.gamma ** np.arange(executed))
        return observation, discounted, bool(terminated), bool(truncated), info | {"macro": macro}

    def _ends(self, observation: Any, index: int, executed: int) -> bool:
        """Whether a macro ends before its next primitive."""
        if self._mask is not None and not self._mask[self.macros[index][executed]]:
            return True
        return self._interrupt is not None and bool(self._interrupt(observation, index, executed))

    def _index(self, action: Any) -> int:
        if not self.action_space.contains(action):
            raise ArgumentError("action", f"an action from 0 to {len(self.macros) - 1}", repr(action))
        return int(action)

    def _with_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        """The info with a mask of all actions, where it has one of primitives."""
        mask = info.get("action_mask")
        self._mask = None if mask is None else np.asarray(mask)
        if self._mask is None:
            return dict(info)
        if self._mask.shape != (self.macros.primitives,):
            wanted = f"a mask of {self.macros.primitives} actions"
            raise ArgumentError('info["action_mask"]', wanted, f"shape {self._mask.shape}")
        return info | {"action_mask": self._mask[[macro[0] for macro in self.macros]]}


def macro_vector_env(
    env_fns: Sequence[Callable[[], Any]] | VectorEnv[Any, Any, Any],
    macros: Macros,
    *,
    gamma: float,
    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    asynchronous: bool = False,
    store: Store = "macro",
    **options: Any,
) -> VectorEnv[Any, Any, Any]:
    """Environments side by side, macro-actions inside each one: what begins anew, begins above the macros.

    A step waits for the longest macro. `decisions` reads what it returns.

    Arguments:
        env_fns: make the environments.
        macros: the list of each.
        gamma: as in `MacroActions`.
        autoreset_mode: of Gymnasium, any of them.
        asynchronous: each in a process of its own.
        store: as in `MacroActions`.
        options: of `AsyncVectorEnv` or `SyncVectorEnv`.

    Errors:
        ArgumentError: a vector environment, into which nothing can be put, or functions that make such; what
            `MacroActions` refuses.
    """
    if isinstance(env_fns, VectorEnv) or not isinstance(env_fns, Sequence) or not all(map(callable, env_fns)):
        words = "functions that each make one environment: into a vector of them no wrapper can be put"
        raise ArgumentError("env_fns", words, type(env_fns).__name__)
    if not env_fns:
        raise ArgumentError("env_fns", "at least one function", "none")
    wrapped = [partial(_made, make, macros, gamma, store) for make in env_fns]
    kind: Any = AsyncVectorEnv if asynchronous else SyncVectorEnv
    envs: VectorEnv[Any, Any, Any] = kind(wrapped, autoreset_mode=autoreset_mode, **options)
    return envs


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What environments side by side answered to one decision each; without meaning where none was made.

    Arguments:
        made: whether the environment carried out an action. It did not where it began an episode instead, with the step
            after an end: nothing is to be stored there.
        reward: discounted sum of the primitive steps.
        discount: γ^executed.
        executed: primitive steps; 0 where no decision was made.
        terminated: whether the episode ended, so that nothing follows.
        truncated: whether it was cut off, so that what would have followed is estimated.
        observation: after the last primitive step: of an episode that is over the final one.
        mask: legal actions there, where the environments tell them.
    """

    made: Bool[np.ndarray, " envs"]
    reward: Float64[np.ndarray, " envs"]
    discount: Float64[np.ndarray, " envs"]
    executed: Int64[np.ndarray, " envs"]
    terminated: Bool[np.ndarray, " envs"]
    truncated: Bool[np.ndarray, " envs"]
    observation: Any
    mask: np.ndarray | None = None


def decisions(envs: VectorEnv[Any, Any, Any], answer: tuple[Any, Any, Any, Any, dict[str, Any]]) -> Decisions:
    """Read what a step of environments side by side returned, in whichever mode they begin anew.

    Arguments:
        envs: with `MacroActions` inside each.
        answer: of their `step`.

    Errors:
        ArgumentError: there are no macro-actions inside.
    """
    if WRAPPED not in envs.metadata:
        raise ArgumentError("envs", "MacroActions inside each environment (see macro_vector_env)", repr(envs))
    observation, reward, terminated, truncated, info = answer
    final = info.get("final_info", {})
    made = np.zeros(envs.num_envs, bool)
    discount, executed = np.ones(envs.num_envs), np.zeros(envs.num_envs, np.int64)
    masks = info.get("action_mask")
    mask = None if masks is None else np.array(masks)
    for part in (info, final):
        if "macro" in part:
            here = part["_macro"]
            made |= here
            discount[here] = part["macro"]["discount"][here]
            executed[here] = part["macro"]["executed"][here]
    if mask is not None and "action_mask" in final:
        mask[final["_action_mask"]] = final["action_mask"][final["_action_mask"]]
    if "final_obs" in info:
        rows = list(iterate(envs.observation_space, observation))
        for slot in np.flatnonzero(info["_final_obs"]):
            rows[slot] = info["final_obs"][slot]
        space = envs.single_observation_space
        empty: Any = create_empty_array(space, envs.num_envs)
        observation = concatenate(space, rows, empty)
    return Decisions(
        made=made,
        reward=np.asarray(reward, np.float64),
        discount=discount,
        executed=executed,
        terminated=np.asarray(terminated),
        truncated=np.asarray(truncated),
        observation=observation,
        mask=mask,
    )


def _made(make: Callable[[], Any], macros: Macros, gamma: float, store: Store) -> MacroActions:
    return MacroActions(make(), macros, gamma=gamma, store=store)


def _refuse_below(env: Any) -> None:
    """What may not be below macro-actions.

    Errors:
        ArgumentError: it is there.
    """
    layer = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, Autoreset):
            raise ArgumentError("env", "Autoreset above the macro-actions: none may run across a reset", str(env))
        if isinstance(layer, MacroActions):
            raise ArgumentError("env", "one list of macro-actions", str(env))
        layer = layer.env
