"""Policies in the middle of an episode of a given length, and policies that have to walk there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.models.action.batch import Batch
from holdfast.models.action.domain import Continuous, Domain, Image
from holdfast.models.action.model import ActionModel
from holdfast.probes.fast_forward import again, fast_forward, is_constant, kept_bytes, with_room
from holdfast.probes.memory import free_memory
from holdfast.rl.episodes import Episodes
from holdfast.rl.stepping import Policy, PolicyConfig

SHORT = 8
"""Timesteps of the history that is read in any case, twice: from what a state has become, it is told how it grows."""

PIECE = 128
"""Timesteps that are read at once where a state grows in a way that only reading tells."""

MEMORY = 0.4
"""Share of the free memory that a state may take."""


class NoRoom(HoldfastError):
    """The state of a length does not fit into memory."""


class Histories:
    """States of one model after any number of timesteps, for a number of episodes side by side.

    Arguments:
        model: not training.
        domain: that all are of.
        batch: episodes.
    """

    def __init__(self, model: ActionModel, domain: Domain, batch: int) -> None:
        self.model, self.domain, self.batch = model, domain, batch
        self.early = self._read(None, SHORT)
        self.late = self._read(self.early, SHORT)

    @property
    def constant(self) -> bool:
        """Whether the state has the same size after any number of timesteps."""
        return is_constant(self.early, self.late)

    def after(self, timesteps: int) -> Any:
        """The state after so many whole timesteps.

        Errors:
            NoRoom: it does not fit into memory.
        """
        order = self.model.tokens.order(self.domain.action.dims)
        self._check_room(timesteps)
        if timesteps <= 2 * SHORT:
            return self._read(None, timesteps) if timesteps else self.model.init_state(self.batch)
        state = fast_forward(self.early, self.late, timesteps * order.length)
        if state is None:
            state, done = self.late, 2 * SHORT
            while done < timesteps:
                state, done = self._read(state, min(PIECE, timesteps - done)), min(done + PIECE, timesteps)
        return with_room(state, 2 * order.length)

    def _check_room(self, timesteps: int) -> None:
        grown = (kept_bytes(self.late) - kept_bytes(self.early)) / SHORT
        needed = kept_bytes(self.late) + grown * max(0, timesteps - 2 * SHORT)
        free = free_memory(next(self.model.parameters()).device)
        if free is not None and needed > MEMORY * free:
            raise NoRoom(f"the state would take {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free")

    def _read(self, state: Any, timesteps: int) -> Any:
        with torch.no_grad():
            return self.model(_batch(self.model, self.domain, self.batch, timesteps), state)[1]


class Midway(Policy):
    """A policy whose episodes, all of them, are in the middle: every step that is timed is the same one.

    Arguments:
        histories: of the model.
        timestep: number of decisions before the one that is timed.
    """

    def __init__(self, histories: Histories, timestep: int) -> None:
        domain = histories.domain
        target = 1.0 if domain.target_return is None else domain.target_return
        super().__init__(
            histories.model,
            PolicyConfig(domain=domain.name, slots=histories.batch, autoreset="next_step", target_return=target),
        )
        generator = np.random.default_rng(0)
        self._seen = some_observation(domain, histories.batch, generator)
        self._given = generator.normal(size=histories.batch)
        order = self.model.tokens.order(domain.action.dims)
        self._state = histories.after(timestep - 1)
        self._episodes = replace(
            Episodes.before_the_first(histories.batch, domain.action.dims),
            over=np.zeros(histories.batch, dtype=bool),
            returns_to_go=self._target,
            tokens=np.full(histories.batch, (timestep - 1) * order.length),
        )
        self.act(self._seen)  # the decision before, whose action and reward the one that is timed reads
        self._before = with_room(self._state, order.length), self._episodes

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept of all episodes."""
        return kept_bytes(self._before[0])

    def step(self) -> float:
        """Decide once more; the milliseconds that it took, from observations to actions."""
        self._state, self._episodes = again(self._before[0]), self._before[1]
        return milliseconds(lambda: self.act(self._seen, self._given), self._device)


class Walker:
    """A policy of which nothing is known but that it acts: what it does at a length is known once it has got there.

    Arguments:
        policy: has `act(observation)`, and perhaps `reset()`, or is a function of an observation.
        observation: what it is shown, at every step.
    """

    def __init__(self, policy: Any, observation: Any) -> None:
        act = getattr(policy, "act", policy)
        if not callable(act):
            raise ArgumentError("policy", "an action model, or anything with act(observation)", type(policy).__name__)
        self._act, self._observation, self.steps = act, observation, 0
        reset = getattr(policy, "reset", None)
        if callable(reset):
            reset()

    def step(self) -> float:
        """Decide once; the milliseconds that it took."""
        self.steps += 1
        return milliseconds(lambda: self._act(self._observation), None)


def milliseconds(call: Callable[[], object], device: torch.device | None) -> float:
    """Of the wall clock, until an accelerator that is in use has finished."""
    on_gpu = torch.cuda.is_initialized() if device is None else device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - begun)


def some_observation(domain: Domain, batch: int, generator: np.random.Generator) -> Num[np.ndarray, "batch ..."]:
    """Random observations: what a step costs does not depend on them."""
    shape = (batch, *domain.observation.shape)
    if isinstance(domain.observation, Image):
        return generator.integers(256, size=shape, dtype=np.uint8)
    return generator.normal(size=shape).astype(np.float32)


def _batch(model: ActionModel, domain: Domain, batch: int, timesteps: int) -> Batch:
    """Whole windows of random numbers."""
    device, generator = next(model.parameters()).device, np.random.default_rng(timesteps)
    observations = some_observation(domain, batch * timesteps, generator)
    shape = (batch, timesteps)

    def numbers() -> Tensor:
        return torch.from_numpy(generator.normal(size=shape).astype(np.float32))

    space = domain.action
    # Any action will do: the lower bound, or the first id.
    action = space.low if isinstance(space, Continuous) else (0.0,)
    made = Batch(
        domain=domain,
        observation=torch.from_numpy(observations).unflatten(0, shape),
        action=torch.tensor(action).expand(*shape, len(action)),
        valid=torch.ones(shape, dtype=torch.bool),
        returns_to_go=numbers(),
        reward=numbers(),
    )
    return made.to(device)
