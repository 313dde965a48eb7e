"""How policies are trained: AdamW on windows of one task a step, and what a killed run goes on from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab import progress
from holdfast.lab.seeds import generator_for
from holdfast.studies.action.streams import WEIGHTS

if TYPE_CHECKING:
    import torch

    from holdfast.lab import Record
    from holdfast.models.action.batch import Batch
    from holdfast.models.action.config import ActionConfig
    from holdfast.models.action.model import ActionModel


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a policy is trained.

    Arguments:
        device: where, such as "cpu" or "cuda"; on CUDA in bfloat16, with weights in float32.
        steps: optimiser steps (AdamW).
        batch: windows a step.
        learning_rate: greatest learning rate; it rises linearly, then falls along a cosine to zero.
        warmup: steps in which it rises.
        weight_decay: of matrices.
        curve_every: steps between two points of the learning curve.
        checkpoint_every: steps between two checkpoints.
    """

    device: str = "cpu"
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.01
    curve_every: int = 50
    checkpoint_every: int = 5000

    @property
    def gpu(self) -> float:
        """Share of a GPU that a trial asks for."""
        return 1.0 if self.device.startswith("cuda") else 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done))


def seeded(config: ActionConfig, seed: int) -> ActionModel:
    """A policy with the initial weights of a seed."""
    import torch

    from holdfast.models.action.model import ActionModel

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator_for(seed, WEIGHTS))))
        return ActionModel(config)


def train(model: ActionModel, recipe: Recipe, batches: Callable[[int], Batch], share: float = 1.0) -> list[Record]:
    """Train a policy, from the trial's last checkpoint on if there is one.

    Arguments:
        model: with its initial weights.
        recipe: how.
        batches: the windows of a step, the same ones whenever it is asked.
        share: of the trial's work that training is.

    Returns:
        The learning curve: `loss` in nats an action by `step`, a mean over the steps since the point before.
    """
    import torch

    model.to(recipe.device).train()
    optimizer = _optimizer(model, recipe)
    start, curve = _resume(model, optimizer, recipe.device)
    losses: list[torch.Tensor] = []
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        cuda = recipe.device.startswith("cuda")
        with torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=cuda):
            loss = model.loss(batches(step).to(recipe.device)).mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        done = step + 1
        keeps = done % recipe.checkpoint_every == 0 and done < recipe.steps
        if done % recipe.curve_every == 0 or done == recipe.steps or keeps:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            curve.append({"step": done, "loss": mean})
            progress.report(share * done / recipe.steps, loss=mean)
        if keeps:
            _keep({"step": done, "curve": curve, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return curve


def held_out_loss(model: ActionModel, batches: Any) -> dict[str, float]:
    """Mean cross-entropy of the actions in nats, by the name of the domain.

    Arguments:
        model: a policy.
        batches: windows that it was not trained on.
    """
    import torch

    device = next(model.parameters()).device
    totals: dict[str, list[tuple[float, int]]] = {}
    model.eval()
    with torch.no_grad():
        for batch in batches:
            loss = model.loss(batch.to(device))
            totals.setdefault(batch.domain.name, []).append((loss.mean.item(), int(loss.elements)))
    return {
        name: math.fsum(mean * count for mean, count in parts) / sum(count for _, count in parts)
        for name, parts in totals.items()
    }


def _optimizer(model: ActionModel, recipe: Recipe) -> torch.optim.AdamW:
    import torch

    matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    others = [tensor for tensor in model.parameters() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def _resume(model: ActionModel, optimizer: torch.optim.Optimizer, device: str) -> tuple[int, list[Record]]:
    """Where to begin, and the learning curve until there."""
    import torch

    kept = progress.last_checkpoint()
    if kept is None:
        return 0, []
    state: dict[str, Any] = torch.load(kept, weights_only=True, map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), list(state["curve"])


def _keep(state: dict[str, Any]) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save(state, path)
        progress.checkpoint(path)
