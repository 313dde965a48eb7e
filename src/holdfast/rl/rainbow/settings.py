"""Settings of Rainbow, all counted in primitive steps: an action of the environment below any macro.

`ATARI` are those of Hessel et al. (2018, table 1), as CleanRL has them; `MINATAR` and `CLASSIC` are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.errors import ArgumentError, count_of
from holdfast.rl.rainbow.networks import Body


@dataclass(frozen=True, kw_only=True)
class MASP:
    """The similarity penalty, and how the similarity is learned.

    Arguments:
        eta: η, strength of the penalty; 0: none.
        kind: of the similarity, `sinkhorn` or `raw`.
        start: mean diagonal at first; `None`: the default of the kind.
        meta: whether the similarity is learned; otherwise it stays as it started.
        meta_every: updates of the agent for one of the similarity.
        meta_lr: learning rate of Adam on its parameters.
        method: how the gradient of a step on it is computed, see `meta_step`.
    """

    eta: float = 0.0
    kind: Literal["raw", "sinkhorn"] = "sinkhorn"
    start: float | None = None
    meta: bool = False
    meta_every: int = 10
    meta_lr: float = 0.003
    method: Literal["auto", "jvp", "double_backward"] = "auto"

    def __post_init__(self) -> None:
        count_of("meta_every", self.meta_every, least=1)
        if not 0 <= self.eta < float("inf"):
            raise ArgumentError("eta", "0 or a positive finite number", self.eta)
        if not 0 < self.meta_lr < float("inf"):
            raise ArgumentError("meta_lr", "a positive number", self.meta_lr)
        if self.meta and self.eta == 0:
            raise ArgumentError("meta", "a penalty to learn through: eta above 0", "eta = 0")


@dataclass(frozen=True, kw_only=True)
class RainbowSettings:
    """An agent.

    Arguments:
        body: what reads the observation.
        hidden: width of the hidden layers.
        atoms: of a distribution of returns.
        value_min: the first atom.
        value_max: the last one.
        sigma: of the noisy layers at first.
        lr: learning rate of Adam.
        adam_eps: ε of Adam.
        discount: γ, of a primitive step.
        n_step: decisions whose rewards are added up before bootstrapping.
        batch: transitions of an update.
        capacity: observations that are kept.
        priority: exponent of priorities.
        importance: exponent of importance weights at first; it rises to 1 at the end of the budget.
        learning_starts: primitive steps before the first update.
        train_every: primitive steps for one update.
        target_every: primitive steps between two copies of the network that targets are from.
        epsilon_start: share of random decisions at first, on top of the noise.
        epsilon_end: and in the end.
        epsilon_steps: primitive steps in which it falls linearly from the one to the other.
        masp: penalty and similarity.

    Errors:
        ArgumentError: a setting is out of range.
    """

    body: Body = "nature"
    hidden: int = 512
    atoms: int = 51
    value_min: float = -10.0
    value_max: float = 10.0
    sigma: float = 0.5
    lr: float = 6.25e-5
    adam_eps: float = 1.5e-4
    discount: float = 0.99
    n_step: int = 3
    batch: int = 32
    capacity: int = 1_000_000
    priority: float = 0.5
    importance: float = 0.4
    learning_starts: int = 80_000
    train_every: int = 4
    target_every: int = 8_000
    epsilon_start: float = 0.0
    epsilon_end: float = 0.0
    epsilon_steps: int = 1
    masp: MASP = MASP()

    def __post_init__(self) -> None:
        least = {"atoms": 2, "learning_starts": 0}
        names = ("hidden", "atoms", "n_step", "batch", "capacity", "learning_starts", "train_every", "target_every")
        for name in (*names, "epsilon_steps"):
            count_of(name, getattr(self, name), least.get(name, 1))
        for name in ("discount", "priority", "importance", "epsilon_start", "epsilon_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(name, "a number from 0 to 1", getattr(self, name))
        for name in ("lr", "adam_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(name, "a positive number", getattr(self, name))
        if not 0 <= self.sigma < float("inf"):
            raise ArgumentError("sigma", "0 or a positive number", self.sigma)
        if not self.value_min < self.value_max:
            raise ArgumentError("value_max", f"a number above value_min = {self.value_min:g}", self.value_max)

    def epsilon(self, step: int) -> float:
        """Share of random decisions after some primitive steps."""
        share = min(1.0, step / self.epsilon_steps)
        return self.epsilon_start + share * (self.epsilon_end - self.epsilon_start)

    def importance_at(self, step: int, budget: int) -> float:
        """Exponent of the importance weights after some of the primitive steps of a budget."""
        return self.importance + (1 - self.importance) * min(1.0, step / budget)

    def updates_due(self, step: int) -> int:
        """Updates that are to be made by a primitive step, all told, whatever decisions have led there."""
        return max(0, step - self.learning_starts) // self.train_every


ATARI = RainbowSettings()
"""Of games on pictures: ALE and retro."""

MINATAR = RainbowSettings(
    body="minatar", hidden=128, lr=2.5e-4, capacity=100_000, learning_starts=5_000, target_every=1_000
)
"""Of MinAtar's five games."""

CLASSIC = RainbowSettings(
    body="mlp",
    hidden=64,
    value_min=0.0,
    value_max=100.0,
    lr=1e-3,
    capacity=20_000,
    learning_starts=500,
    train_every=1,
    target_every=200,
)
"""Of small environments whose observation is a vector, with returns as those of CartPole."""
