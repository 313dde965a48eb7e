"""How every model of this study is trained: AdamW, a warm-up and a cosine, and what a killed run goes on from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab import progress

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from torch import Tensor, nn

    from holdfast.lab import Record

IGNORED = -100
"""Stands for a target that nobody asks for."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Arguments:
        device: where, such as "cpu" or "cuda"; on CUDA in bfloat16, with weights in float32.
        steps: optimiser steps (AdamW).
        batch: sequences a step.
        micro_batch: sequences that are computed at once; their gradients are added up. 0: all of the step's.
        learning_rate: greatest learning rate.
        last_rate: learning rate at the end of the cosine.
        warmup: steps in which the rate rises.
        betas: decay of AdamW's averages.
        weight_decay: decoupled weight decay.
        decay_all: of all parameters, as in the published recipe, or of matrices alone.
        clip: largest norm of the gradient.
        curve_every: steps between two points of the learning curve.
        checkpoint_every: steps between two checkpoints.
        recompute: whether blocks are computed again in the backward pass, which saves memory.
        compiled: whether the model goes through `torch.compile`.
    """

    device: str = "cpu"
    steps: int = 300
    batch: int = 32
    micro_batch: int = 0
    learning_rate: float = 3e-3
    last_rate: float = 0.0
    warmup: int = 30
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    decay_all: bool = False
    clip: float = 1.0
    curve_every: int = 20
    checkpoint_every: int = 500
    recompute: bool = False
    compiled: bool = False

    @property
    def gpu(self) -> float:
        """Share of a GPU that a trial asks for."""
        return 1.0 if self.device.startswith("cuda") else 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.last_rate + (self.learning_rate - self.last_rate) * (0.5 + 0.5 * math.cos(math.pi * done))


Batches = Callable[[int], "tuple[Int[Tensor, 'batch ...'], Int[Tensor, 'batch time']]"]
"""Maps a step to its inputs and targets, the same ones whenever it is asked: so a run can go on at any step."""


def precision(device: str) -> torch.autocast:
    """In which models compute on a device."""
    import torch

    cuda = device.startswith("cuda")
    return torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=cuda)


def loss_of(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy in nats, of the targets that are asked for."""
    import torch

    flat = logits.float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def train(model: nn.Module, recipe: Recipe, batches: Batches, share: float = 1.0) -> list[Record]:
    """Train a model, from the trial's last checkpoint on if there is one.

    Arguments:
        model: with its initial weights; maps inputs to logits (batch, time, classes).
        recipe: how.
        batches: what it reads.
        share: of the trial's work that training is.

    Returns:
        The learning curve: `loss` in nats by `step`, a mean over the steps since the point before.
    """
    import torch

    optimizer = _optimizer(model, recipe)
    start, curve = _resume(model, optimizer, recipe.device)
    compiled = torch.compile(model) if recipe.compiled else model
    total, count = torch.zeros((), device=recipe.device), 0
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.zero_grad()
        total += _backward(compiled, recipe, *batches(step))
        count += 1
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        done = step + 1
        keeps = done % recipe.checkpoint_every == 0 and done < recipe.steps
        if done % recipe.curve_every == 0 or done == recipe.steps or keeps:
            curve.append({"step": done, "loss": total.item() / count})
            total.zero_()
            count = 0
            progress.report(share * done / recipe.steps, loss=float(curve[-1]["loss"] or 0.0))
        if keeps:
            _keep({"step": done, "curve": curve, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return curve


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    import torch

    decayed = [tensor for tensor in model.parameters() if recipe.decay_all or tensor.ndim > 1]
    others = [tensor for tensor in model.parameters() if not (recipe.decay_all or tensor.ndim > 1)]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=recipe.betas, fused=True)


def _backward(model: Callable[..., Tensor], recipe: Recipe, inputs: Tensor, targets: Tensor) -> Tensor:
    """Add the gradient of the batch's mean loss, a few sequences at a time; the loss."""
    import torch

    asked = (targets != IGNORED).sum().item()
    total = torch.zeros((), device=recipe.device)
    size = recipe.micro_batch or len(inputs)
    for some, wanted in zip(inputs.split(size), targets.split(size), strict=True):
        with precision(recipe.device):
            logits = model(some.to(recipe.device))
        loss = loss_of(logits, wanted.to(recipe.device), "sum") / asked
        loss.backward()
        total += loss.detach()
    return total


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> tuple[int, list[Record]]:
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
