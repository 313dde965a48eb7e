"""Deep Q-learning on Atari games with one update a step: what part `atari` trains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from holdfast.lab.seeds import generator_for, rng_for
from holdfast.studies.plasticity.streams import BATCHES, WEIGHTS

SIDE, STACK = 84, 4


class Transitions(NamedTuple):
    """What is learnt from in one update."""

    before: UInt8[Tensor, "n stack side side"]
    actions: Int[Tensor, " n"]
    rewards: Float[Tensor, " n"]
    ended: Float[Tensor, " n"]
    after: UInt8[Tensor, "n stack side side"]


class Replay:
    """The last frames of play, each once; stacks of four are put together when they are asked for.

    Arguments:
        capacity: frames that are kept.
        seed: of what is drawn.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity, self.count = capacity, 0
        self.frames = np.zeros((capacity, SIDE, SIDE), np.uint8)
        self.actions = np.zeros(capacity, np.int64)
        self.rewards = np.zeros(capacity, np.float32)
        self.ended = np.zeros(capacity, np.float32)
        self.starts = np.zeros(capacity, np.int64)
        """Number of the first frame of the same episode."""
        self.rng = rng_for(seed, BATCHES)

    def add(self, frame: UInt8[np.ndarray, "side side"], action: int, reward: float, ended: bool, start: int) -> None:
        """Keep what was seen, what was done about it, and what came of that.

        Arguments:
            frame: the newest one of the stack.
            action: that was taken.
            reward: for it.
            ended: whether it ended the episode.
            start: `count` when the episode began.
        """
        place = self.count % self.capacity
        self.frames[place], self.actions[place], self.rewards[place] = frame, action, reward
        self.ended[place], self.starts[place] = ended, start
        self.count += 1

    def sample(self, size: int) -> Transitions:
        """Draw transitions, all that are whole alike."""
        # The oldest frames would have stacks that are overwritten, the newest has no successor yet.
        oldest = max(0, self.count - self.capacity) + (STACK if self.count > self.capacity else 0)
        chosen = self.rng.integers(oldest, self.count - 1, size)
        places = chosen % self.capacity
        return Transitions(
            self._stacks(chosen, self.starts[places]),
            torch.from_numpy(self.actions[places]),
            torch.from_numpy(self.rewards[places]),
            torch.from_numpy(self.ended[places]),
            # Where the episode ended the next frame is another one's, and its value is not looked at.
            self._stacks(chosen + 1, self.starts[places]),
        )

    def _stacks(
        self, numbers: Int[np.ndarray, " n"], starts: Int[np.ndarray, " n"]
    ) -> UInt8[Tensor, "n stack side side"]:
        """Stacks that end with a frame; before an episode's first there is that one again."""
        every = numbers[:, None] - np.arange(STACK - 1, -1, -1)
        return torch.from_numpy(self.frames[np.maximum(every, starts[:, None]) % self.capacity])


def q_network(actions: int, seed: int) -> nn.Sequential:
    """The network of Mnih et al. (2015): action values from stacks of four frames."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator_for(seed, WEIGHTS))))
        return nn.Sequential(
            nn.Conv2d(STACK, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 512),
            nn.ReLU(),
            nn.Linear(512, actions),
        )


def scaled(stacks: UInt8[Tensor, "n stack side side"], device: str) -> Float[Tensor, "n stack side side"]:
    """From 0 to 1, on the device."""
    return stacks.to(device).float() / 255


def loss_of(network: nn.Module, slow: nn.Module, batch: Transitions, discount: float, device: str) -> Float[Tensor, ""]:
    """Huber loss of the values of what was done, to targets from the slow network."""
    with torch.no_grad():
        best = slow(scaled(batch.after, device)).max(1).values
        target = batch.rewards.to(device) + discount * (1 - batch.ended.to(device)) * best
    values = network(scaled(batch.before, device)).gather(1, batch.actions.to(device)[:, None]).squeeze(1)
    return functional.smooth_l1_loss(values, target)
