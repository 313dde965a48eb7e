"""Datasets of Minari, the standard of offline reinforcement learning, through its own package.

They lie where the variable MINARI_DATASETS_PATH says, or in `~/.minari/datasets`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from holdfast.errors import ArgumentError, require
from holdfast.models.action.domain import ActionSpace, Continuous, Discrete, Domain, Image, Observation, Vector
from holdfast.models.action.trajectories.domain_file import from_document, to_document
from holdfast.models.action.trajectories.trajectory import Trajectories, Trajectory, channels_first

DOMAIN = "holdfast_domain"
"""Entry of a dataset's metadata."""

LABELS = "holdfast_labels"
"""Entry of an episode's infos."""


def read_minari(
    dataset_id: str,
    domain: Domain | None = None,
    *,
    observation_keys: Sequence[str] | None = None,
    download: bool = False,
) -> Trajectories:
    """All episodes of a dataset.

    Arguments:
        dataset_id: such as `D4RL/pen/human-v2`.
        domain: what they are of; `None`: what was written with them, or else what the spaces of the dataset say, named
            as the dataset, with a reward scale of 1 and no target return.
        observation_keys: which entries of observations that are dictionaries make up the vector, in this order;
            `None`: all, in the order of their names.
        download: whether a dataset that is not here is fetched.

    Errors:
        ArgumentError: no such dataset, or spaces that are no bounded vectors, pictures or ids from 0 on.
        MissingExtraError: minari or h5py is not installed.
    """
    minari = require("minari", "action")
    require("h5py", "action")
    try:
        dataset = minari.load_dataset(dataset_id, download=download)
    except FileNotFoundError as error:
        expected = f"a dataset of Minari that is on this machine (minari download {dataset_id} fetches one)"
        raise ArgumentError("dataset_id", expected, dataset_id) from error
    except ValueError as error:
        raise ArgumentError("dataset_id", "a dataset of Minari", f"{dataset_id} ({error})") from error
    metadata = dataset.storage.metadata
    if domain is None and DOMAIN in metadata:
        domain = from_document(metadata[DOMAIN], f"the metadata of {dataset_id}")
    elif domain is None:
        width = _vector(dataset[0].observations, observation_keys).shape[1:] if len(dataset) else ()
        observation: Observation = Vector(width[0]) if len(width) == 1 else Image(*width)
        domain = Domain(name=dataset_id, observation=observation, action=_actions(dataset.action_space))
    episodes = dataset.iterate_episodes()
    extras = dataset.storage.get_episode_metadata(dataset.episode_indices)
    items = [_trajectory(episode, extra, observation_keys) for episode, extra in zip(episodes, extras, strict=True)]
    return Trajectories.of(domain, items)


def write_minari(data: Trajectories, dataset_id: str, **metadata: Any) -> None:
    """Write trajectories as a dataset.

    Arguments:
        data: with the observation after the last action, and rewards.
        dataset_id: as Minari wants it, such as `holdfast/pendulum-v0`.
        metadata: what else `minari.create_dataset_from_buffers` takes: `author`, `description`, `env` and so on.

    Errors:
        ArgumentError: the dataset exists, trajectories lack the last observation or rewards, or the variable
            MINARI_DATASETS_PATH is a relative path.
        MissingExtraError: minari or h5py is not installed.
    """
    minari = require("minari", "action")
    require("h5py", "action")
    place = os.environ.get("MINARI_DATASETS_PATH", "")
    if place and not Path(place).is_absolute():  # Minari would write half of a dataset there
        raise ArgumentError("MINARI_DATASETS_PATH", "an absolute path", place)
    buffers = [_buffer(item) for item in data.items]
    try:
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=_observation_space(data),
            action_space=_action_space(data.domain.action),
            jpeg_encoding=False,
            **metadata,
        )
    except ValueError as error:
        raise ArgumentError("dataset_id", "a new dataset of Minari", f"{dataset_id} ({error})") from error
    dataset.storage.update_metadata({DOMAIN: to_document(data.domain)})
    extras = [
        {"task": item.task, **({} if item.remaining is None else {"remaining": item.remaining})} for item in data.items
    ]
    dataset.storage.update_episode_metadata(extras)


def _trajectory(episode: Any, extra: Mapping[str, Any], keys: Sequence[str] | None) -> Trajectory:
    rewards = np.asarray(episode.rewards)
    actions = np.asarray(episode.actions)
    infos = episode.infos or {}
    return Trajectory(
        observations=_vector(episode.observations, keys),
        actions=actions,
        rewards=rewards if np.issubdtype(rewards.dtype, np.floating) else rewards.astype(np.float32),
        terminated=bool(np.any(episode.terminations[-1:])),
        truncated=bool(np.any(episode.truncations[-1:])),
        task=str(extra.get("task", "")),
        labels=np.asarray(infos[LABELS])[: len(actions)] if LABELS in infos else None,
        remaining=float(extra["remaining"]) if "remaining" in extra else None,
    )


def _vector(observations: Any, keys: Sequence[str] | None) -> Num[np.ndarray, "time ..."]:
    """Observations as the domain has them: entries of a dictionary one after the other, channels first."""
    if isinstance(observations, Mapping):
        chosen = sorted(observations) if keys is None else list(keys)
        missing = [key for key in chosen if key not in observations]
        if missing or not chosen:
            raise ArgumentError("observation_keys", f"some of {', '.join(sorted(observations))}", ", ".join(missing))
        return np.concatenate([_vector(observations[key], None) for key in chosen], axis=1)
    if keys is not None:
        raise ArgumentError("observation_keys", "None, for observations are no dictionary", repr(keys))
    values = np.asarray(observations)
    if values.ndim == 4 and values.dtype == np.uint8:
        return channels_first(values)
    if values.ndim != 2:
        raise ArgumentError("observations", "vectors, or pictures of bytes", f"{values.dtype} of {values.shape[1:]}")
    return values.astype(np.float32)


def _actions(space: Any) -> ActionSpace:
    spaces = require("gymnasium.spaces", "action")
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return Continuous(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise ArgumentError("actions of the dataset", "bounded vectors, or ids from 0 on", repr(space))


def _buffer(item: Trajectory) -> Any:
    steps = len(item)
    if len(item.observations) != steps + 1 or item.rewards is None:
        got = "neither" if item.rewards is None else f"{len(item.observations)} observations of {steps} steps"
        raise ArgumentError("data", "trajectories with rewards and the observation after the last action", got)
    pictures = item.observations.ndim == 4
    last = np.arange(steps) == steps - 1
    return require("minari.data_collector", "action").EpisodeBuffer(
        observations=np.moveaxis(item.observations, 1, -1) if pictures else item.observations,
        actions=item.actions,
        rewards=item.rewards,
        terminations=last & item.terminated,
        truncations=last & item.truncated,
        infos={} if item.labels is None else {LABELS: item.labels},
    )


def _observation_space(data: Trajectories) -> Any:
    spaces = require("gymnasium.spaces", "action")
    shape = data.domain.observation.shape
    if isinstance(data.domain.observation, Vector):
        return spaces.Box(-math.inf, math.inf, shape, data.items[0].observations.dtype.type)
    return spaces.Box(0, 255, (*shape[1:], shape[0]), np.uint8)


def _action_space(space: ActionSpace) -> Any:
    spaces = require("gymnasium.spaces", "action")
    if isinstance(space, Discrete):
        return spaces.Discrete(space.n)
    return spaces.Box(np.array(space.low, np.float32), np.array(space.high, np.float32), dtype=np.float32)
