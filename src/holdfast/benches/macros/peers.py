"""Tianshou's Rainbow on the same network, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.rl.rainbow.networks import RainbowNetwork
from holdfast.rl.rainbow.settings import RainbowSettings


class Distributions(nn.Module):
    """A network as Tianshou wants it: probabilities and a state.

    Arguments:
        network: of ours, whose noisy layers have been replaced.
    """

    def __init__(self, network: RainbowNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Probabilities of all atoms of all actions."""
        seen = torch.as_tensor(obs, device=self.network.support.device)
        return self.network(seen).softmax(-1), state


def tianshou_update(settings: RainbowSettings, number: int, transitions: int) -> Callable[[], object] | None:
    """One update of Tianshou's, on random boards of MinAtar's size, on a CPU; `None` where it is not installed.

    Its noisy layers have two factors too, its returns are of three steps with one discount.

    Arguments:
        settings: of the agent that it is compared with.
        number: of actions.
        transitions: that are in the replay.
    """
    if find_spec("tianshou") is None:
        return None
    import gymnasium
    from tianshou.algorithm.modelfree.c51 import C51Policy
    from tianshou.algorithm.modelfree.rainbow import RainbowDQN
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, PrioritizedReplayBuffer
    from tianshou.utils.net.discrete import NoisyLinear
    from tianshou.utils.torch_utils import policy_within_training_step

    network = RainbowNetwork("minatar", (10, 10, 4), number, hidden=settings.hidden, atoms=settings.atoms)
    for stream in (network.value, network.advantage):
        for place in (0, 2):
            layer: Any = stream[place]
            stream[place] = NoisyLinear(layer.inputs, layer.outputs, settings.sigma)
    space = gymnasium.spaces.Discrete(number)
    algorithm = RainbowDQN(
        policy=C51Policy(model=Distributions(network), action_space=space, num_atoms=settings.atoms),
        optim=AdamOptimizerFactory(lr=settings.lr, eps=settings.adam_eps),
        gamma=settings.discount,
        n_step_return_horizon=settings.n_step,
        target_update_freq=settings.target_every // settings.train_every,
    )
    rng = np.random.default_rng(0)
    buffer = PrioritizedReplayBuffer(
        max(settings.capacity, transitions), alpha=settings.priority, beta=0.5, ignore_obs_next=True
    )
    for _ in range(transitions):
        step = Batch(
            obs=rng.random((10, 10, 4)) < 0.1,
            act=int(rng.integers(number)),
            rew=float(rng.random() < 0.1),
            terminated=bool(rng.random() < 0.02),
            truncated=False,
            obs_next=np.zeros((10, 10, 4), bool),
            info={},
        )
        buffer.add(step)

    def update() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with policy_within_training_step(algorithm.policy):
                return algorithm.update(buffer, settings.batch)

    return update
