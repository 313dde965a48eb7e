"""Windows of trajectories as batches: one domain a batch, all domains equally often, the last transition too.

Batch number i is drawn from (seed, i) alone: a run that goes on sees what it would have seen, and processes share the
numbers.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Num

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.batch import Batch
from holdfast.models.action.domain import Continuous, Domain
from holdfast.models.action.trajectories.trajectory import Trajectories, Trajectory


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How batches are drawn.

    Arguments:
        context: timesteps of a window.
        held_out: share of each domain's trajectories that is for validation, at least one where there are two.
        validation_windows: most windows of a domain that a look at the validation data takes, spread evenly over
            them; `None`: all.
        returns: whether batches hold returns-to-go; without, a policy learns to imitate all trajectories alike.
        seed: of the division and of all windows.

    Errors:
        ArgumentError: a number out of its range.
    """

    context: int = 50
    held_out: float = 0.025
    validation_windows: int | None = None
    returns: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        count_of("context", self.context, least=1)
        count_of("seed", self.seed)
        if not 0 <= self.held_out < 1:
            raise ArgumentError("held_out", "a share of at least 0, less than 1", self.held_out)
        if self.validation_windows is not None:
            count_of("validation_windows", self.validation_windows, least=1)


@dataclass(frozen=True, eq=False)
class _Division:
    """The trajectories of one domain, divided, with their returns-to-go."""

    domain: Domain
    train: tuple[Trajectory, ...]
    held_out: tuple[Trajectory, ...]
    labelled: bool  # whether actions were taken that are not those to be learnt
    returns_to_go: Mapping[int, Float[np.ndarray, " time"]]  # by id() of a trajectory
    ends: Num[np.ndarray, " trajectory"]  # sums of the lengths for training up to each


class TrajectorySource:
    """A source of batches for training, and of all validation windows.

    Arguments:
        data: trajectories, one entry a domain.
        sampling: how batches are drawn.

    Errors:
        ArgumentError: no domain, two of one name, or one whose returns-to-go are wanted and not known.
    """

    def __init__(self, data: Sequence[Trajectories], sampling: Sampling | None = None) -> None:
        self.sampling = Sampling() if sampling is None else sampling
        if not data:
            raise ArgumentError("data", "trajectories of at least one domain", "none")
        names = [part.domain.name for part in data]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ArgumentError("data", "one entry a domain", f"two of {', '.join(twice)}")
        self._data = tuple(data)
        self._divisions = tuple(self._divided(part) for part in data)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """All domains, by name."""
        return {part.domain.name: part.domain for part in self._data}

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of the sampling and of all trajectories."""
        digest = hashlib.sha256(repr(self.sampling).encode())
        for part in self._data:
            digest.update(repr(part.domain).encode())
            for item in part.items:
                digest.update(repr((item.task, item.terminated, item.truncated, item.remaining)).encode())
                for values in (item.observations, item.actions, item.rewards, item.labels):
                    if values is None:
                        digest.update(b"none")
                        continue
                    digest.update(f"{values.dtype.str}{values.shape}".encode())
                    digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def batch(self, number: int, size: int) -> Batch:
        """A batch for training: its domain is the next in turn.

        A trajectory is drawn with a weight that is its length. Its window is drawn from all that overlap it, and moved
        inside it: every transition, the first and the last too, is at least as likely as one in the middle, and
        only trajectories that are shorter than a window are padded, on the right.

        Arguments:
            number: which; the same one is the same batch.
            size: windows.
        """
        count_of("number", number)
        count_of("size", size, least=1)
        part = self._divisions[number % len(self._divisions)]
        rng = np.random.default_rng([self.sampling.seed, number])
        chosen = np.searchsorted(part.ends, rng.integers(part.ends[-1], size=size), side="right")
        windows = []
        for item in (part.train[index] for index in chosen):
            start = int(rng.integers(1 - self.sampling.context, len(item)))
            windows.append((item, min(max(start, 0), max(len(item) - self.sampling.context, 0))))
        return self._assembled(part, windows)

    def validation(self, size: int) -> Iterator[Batch]:
        """Every window of the validation data once, or an even choice of them; the last batch of a domain is smaller.

        Arguments:
            size: windows a batch, at most.
        """
        count_of("size", size, least=1)
        context, most = self.sampling.context, self.sampling.validation_windows
        for part in self._divisions:
            windows = [(item, start) for item in part.held_out for start in range(0, len(item), context)]
            if most is not None and most < len(windows):
                windows = [windows[index * len(windows) // most] for index in range(most)]
            for first in range(0, len(windows), size):
                yield self._assembled(part, windows[first : first + size])

    def _divided(self, data: Trajectories) -> _Division:
        items, domain, share = data.items, data.domain, self.sampling.held_out
        returns = {}
        if self.sampling.returns:
            returns = {id(item): item.returns_to_go() for item in items}
            unknown = sum(not np.isfinite(values).all() for values in returns.values())
            if unknown:
                expected = "known in every trajectory (or returns=False: then all are imitated alike)"
                got = f"{unknown} of {len(items)} without rewards, or cut off before their end"
                raise ArgumentError(f"returns of domain {domain.name}", expected, got)
        held = 0 if share == 0 or len(items) < 2 else min(max(1, round(share * len(items))), len(items) - 1)
        order = np.random.default_rng([self.sampling.seed, zlib.crc32(domain.name.encode())]).permutation(len(items))
        train = tuple(items[index] for index in sorted(order[held:]))
        held_out = tuple(items[index] for index in sorted(order[:held]))
        labelled = any(item.labels is not None for item in items)
        return _Division(domain, train, held_out, labelled, returns, np.cumsum([len(item) for item in train]))

    def _assembled(self, part: _Division, windows: Sequence[tuple[Trajectory, int]]) -> Batch:
        domain, context = part.domain, self.sampling.context
        first = part.train[0]
        observation_type = np.uint8 if first.observations.dtype == np.uint8 else np.float32
        shape = (len(windows), context)
        observation = np.zeros((*shape, *domain.observation.shape), observation_type)
        action = np.zeros(
            (*shape, domain.action.dims), np.float32 if isinstance(domain.action, Continuous) else np.int64
        )
        taken = np.zeros_like(action) if part.labelled else None
        valid = np.zeros(shape, bool)
        reward = None if first.rewards is None else np.zeros(shape, np.float32)
        returns = np.zeros(shape, np.float32) if self.sampling.returns else None
        for row, (item, start) in enumerate(windows):
            stop = min(start + context, len(item))
            steps, place = slice(start, stop), slice(0, stop - start)
            observation[row, place] = item.observations[steps]
            action[row, place] = _within(domain, item.learnt[steps])
            valid[row, place] = True
            if taken is not None:
                taken[row, place] = _within(domain, item.actions[steps])
            if reward is not None and item.rewards is not None:
                reward[row, place] = item.rewards[steps]
            if returns is not None:
                returns[row, place] = part.returns_to_go[id(item)][steps]
        return Batch(
            domain=domain,
            observation=torch.from_numpy(observation),
            action=torch.from_numpy(action),
            valid=torch.from_numpy(valid),
            returns_to_go=None if returns is None else torch.from_numpy(returns),
            reward=None if reward is None else torch.from_numpy(reward),
            taken=None if taken is None else torch.from_numpy(taken),
        )


def _within(domain: Domain, actions: Num[np.ndarray, "time ..."]) -> Num[np.ndarray, "time dims"]:
    """One row a step; vectors are moved to the bounds."""
    rows = actions.reshape(len(actions), -1)
    return np.clip(rows, domain.action.low, domain.action.high) if isinstance(domain.action, Continuous) else rows
