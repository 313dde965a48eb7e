"""Rainbow (Hessel et al. 2018): double, dueling, distributional, noisy, n-step, prioritised; and MASP on top.

    y = Π (R + D Z(s', argmax_a Q(s', a; θ); θ⁻)),   L = mean_i w_i H(y_i, Z(s_i, a_i; θ)) + η mean_i ‖q_i - Σ q_i‖²

D is the discount of each transition itself, so that decisions may last any number of primitive steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.rl.macros import Macros
from holdfast.rl.rainbow.networks import RainbowNetwork
from holdfast.rl.rainbow.projection import project
from holdfast.rl.rainbow.replay import Batch, Replay
from holdfast.rl.rainbow.settings import RainbowSettings
from holdfast.rl.similarity import (
    InnerStep,
    MetaStep,
    SimilarityMatrix,
    check_strength,
    masp_penalty,
    meta_step,
    preconditioner,
)


class LossError(HoldfastError):
    """A loss is no finite number."""


@dataclass(frozen=True)
class Update:
    """What an update saw.

    Arguments:
        loss: the weighted cross-entropy, without the penalty.
        penalty: the penalty, without η; `None` where there is none.
        meta: what a step on the similarity saw; `None` where none was due.
    """

    loss: Float[Tensor, ""]
    penalty: Float[Tensor, ""] | None = None
    meta: MetaStep | None = None


class Rainbow:
    """An agent that learns from a replay.

    Arguments:
        observation: shape of an observation.
        actions: what it can do, primitives and macros, in their order.
        settings: how it learns.
        seed: of the first weights, of noise and random decisions, each its own stream.
        device: where it computes.
        similarity: of these actions, for the penalty; by default one as the settings say.
    """

    def __init__(
        self,
        observation: tuple[int, ...],
        actions: Macros,
        settings: RainbowSettings,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        similarity: SimilarityMatrix | None = None,
    ) -> None:
        self.settings, self.actions, self.device = settings, actions, torch.device(device)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(_stream(seed, 0))
            network = RainbowNetwork(
                settings.body,
                observation,
                len(actions),
                hidden=settings.hidden,
                atoms=settings.atoms,
                value_min=settings.value_min,
                value_max=settings.value_max,
                sigma=settings.sigma,
            )
        self.network = network.to(self.device)
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.noise = torch.Generator(self.device).manual_seed(_stream(seed, 2))
        self.rng = np.random.default_rng([seed, 3])
        """Draws random decisions."""
        self.second = np.random.default_rng([seed, 4])
        """Draws the batches that the similarity is judged by."""
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.lr, eps=settings.adam_eps, fused=True)
        self.updates = 0
        masp = settings.masp
        self.similarity: SimilarityMatrix | None = None
        self.meta_optimizer: torch.optim.Optimizer | None = None
        self._sigma: Tensor | None = None
        if check_strength(masp.eta, lr=settings.lr) > 0:
            if similarity is None:
                similarity = SimilarityMatrix(actions, kind=masp.kind, start=masp.start, seed=seed)
            difference = actions.difference(similarity.actions)
            if difference:
                raise ArgumentError("similarity", "one of the agent's actions in their order", difference)
            self.similarity = similarity.to(self.device)
            if masp.meta:
                self.meta_optimizer = torch.optim.Adam(self.similarity.parameters(), lr=masp.meta_lr, fused=True)

    @torch.no_grad()
    def act(self, observations: Shaped[np.ndarray, "slots ..."], epsilon: float = 0.0) -> Int[np.ndarray, " slots"]:
        """Decide: the highest value under noise that is drawn anew, or anything in a share of the cases.

        Arguments:
            observations: of all slots.
            epsilon: that share.
        """
        self.network.resample(self.noise)
        greedy = self.greedy(observations)
        if epsilon == 0:
            return greedy
        drawn = self.rng.integers(len(self.actions), size=len(greedy))
        return np.where(self.rng.random(len(greedy)) < epsilon, drawn, greedy)

    @torch.no_grad()
    def greedy(self, observations: Shaped[np.ndarray, "slots ..."]) -> Int[np.ndarray, " slots"]:
        """The actions with the highest values under the noise that there is.

        Arguments:
            observations: of all slots.
        """
        seen = torch.from_numpy(observations).to(self.device)
        return np.asarray(self.network.values(seen).argmax(1).cpu().numpy())

    def update(self, replay: Replay, importance: float) -> Update:
        """One step on a batch, and on the similarity where one is due.

        Arguments:
            replay: to draw from; gets the new priorities.
            importance: exponent of the importance weights.

        Errors:
            LossError: a loss is no finite number.
        """
        batch = replay.sample(self.settings.batch, importance, self.device)
        self.network.resample(self.noise)
        self.target.resample(self.noise)
        masp = self.settings.masp
        due = self.meta_optimizer is not None and (self.updates + 1) % masp.meta_every == 0
        before = self._parameters(copies=True) if due else {}
        losses, logits = self._losses(batch, self._target(batch), self.network(batch.observations))
        loss = total = (batch.weights * losses).mean()
        penalty, q = None, None
        if self.similarity is not None:
            q = self.network.expected(logits)
            if self._sigma is None:  # it changes when it is learned, and not in between
                self._sigma = self.similarity.matrix().detach()
            penalty = masp_penalty(q, self._sigma)
            total = loss + masp.eta * penalty
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        errors = losses.detach().cpu().numpy()
        if not np.isfinite(errors).all():
            reason = "a smaller learning rate" if torch.isfinite(batch.observations).all() else "an observation is not"
            raise LossError(f"the loss is no finite number after {self.updates} updates: {reason}")
        # A cross-entropy can be 0, and a transition of priority 0 would never be drawn again.
        replay.update(batch.numbers, errors + 1e-6)
        self.updates += 1
        meta = self._learn_similarity(replay, batch, before, q) if due and q is not None else None
        return Update(loss.detach(), None if penalty is None else penalty.detach(), meta)

    def copy_target(self) -> None:
        """Make the network that targets are from what the other one is now."""
        self.target.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def _target(self, batch: Batch) -> Float[Tensor, "batch atoms"]:
        """Where the distributions are to go: double Q-learning's choice, valued by the target network."""
        best = self.network.values(batch.successors).argmax(1)
        chosen = _of(self.target(batch.successors), best).softmax(-1)
        return project(chosen, batch.returns, batch.discounts, self.network.support)

    def _losses(
        self, batch: Batch, target: Float[Tensor, "batch atoms"], logits: Float[Tensor, "batch actions atoms"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch actions atoms"]]:
        """Cross-entropies of what was done, and the logits."""
        return -(target * _of(logits, batch.actions).log_softmax(-1)).sum(-1), logits

    def _parameters(self, *, copies: bool = False) -> dict[str, Tensor]:
        named = self.network.named_parameters()
        return {name: value.detach().clone() if copies else value.detach() for name, value in named}

    def _learn_similarity(
        self, replay: Replay, batch: Batch, before: dict[str, Tensor], q: Float[Tensor, "batch actions"]
    ) -> MetaStep:
        """One step on the similarity, through the step that was just made, with the noise of that step."""
        assert self.similarity is not None
        assert self.meta_optimizer is not None
        other = replay.sample_uniformly(self.settings.batch, self.second, self.device)
        target = self._target(other)

        def outer(parameters: dict[str, Tensor]) -> Float[Tensor, ""]:
            logits = torch.func.functional_call(self.network, parameters, (other.observations,))
            return self._losses(other, target, logits)[0].mean()

        def values(parameters: dict[str, Tensor]) -> Float[Tensor, "batch actions"]:
            logits = torch.func.functional_call(self.network, parameters, (batch.observations,))
            return self.network.expected(logits)

        inner = InnerStep(
            values=values,
            before=before,
            after=self._parameters(),
            lr=preconditioner(self.optimizer, self.network),
            eta=self.settings.masp.eta,
            q=q.detach(),
        )
        seen = meta_step(
            outer,
            inner,
            similarity=self.similarity,
            optimizer=self.meta_optimizer,
            method=self.settings.masp.method,
        )
        self._sigma = seen.matrix
        return seen

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values; noise and random states too."""
        return {
            "actions": self.actions.to_json(),
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise.get_state(),
            "rng": self.rng.bit_generator.state,
            "second": self.second.bit_generator.state,
            "updates": self.updates,
            "similarity": None if self.similarity is None else self.similarity.state_dict(),
            "meta_optimizer": None if self.meta_optimizer is None else self.meta_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned.

        Errors:
            ArgumentError: it is of other actions, or in another order.
        """
        difference = self.actions.difference(Macros.from_json(state["actions"]))
        if difference:
            raise ArgumentError("state", "an agent with the same actions in the same order", difference)
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.noise.set_state(state["noise"].cpu())
        self.rng.bit_generator.state, self.second.bit_generator.state = state["rng"], state["second"]
        self.updates = state["updates"]
        if self.similarity is not None:
            self.similarity.load_state_dict(state["similarity"])
            self._sigma = None
        if self.meta_optimizer is not None:
            self.meta_optimizer.load_state_dict(state["meta_optimizer"])


def _of(logits: Float[Tensor, "batch actions atoms"], actions: Int[Tensor, " batch"]) -> Float[Tensor, "batch atoms"]:
    """Of one action each."""
    return logits[torch.arange(len(actions), device=logits.device), actions]


def _stream(seed: int, purpose: int) -> int:
    """A seed for one purpose."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> 1)
