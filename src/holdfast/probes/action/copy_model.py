"""The smallest policies that can answer the question: what does knowing the last action add to seeing the state?

Two networks that are alike read the last observations; one of them reads the last action too, once as a number and once
as a bias towards the actions near it, so that copying is as easy to learn as it can be. What it gains by that is not
hidden by how much data it takes to learn a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

HIDDEN = 64
"""Width of the networks' one hidden layer."""

BATCH = 256
STEPS = 1500
PATIENCE = 8
LOOK = 25
"""Steps from one look at the validation data to the next; after so many without a gain, training ends."""
LOOKS = STEPS // LOOK + 1

RATE = 1e-3
BIAS_RATE = 0.05
"""Of the bias, which has few numbers: it is to learn a copy before the network learns its data by heart."""

DECAY = 0.1
"""Of the network's weights: there may be few data."""


@dataclass(frozen=True)
class Steps:
    """Decisions, each with what was known before it.

    Arguments:
        seen: the last observations, whitened, the latest one first; zero before the first one.
        action: places of the action's numbers among the choices.
        previous: the same of the action before; any where there is none.
        acted: whether there is one.
        trajectory: number of the trajectory.
    """

    seen: Float[Tensor, "steps width"]
    action: Int64[Tensor, "steps dims"]
    previous: Int64[Tensor, "steps dims"]
    acted: Bool[Tensor, " steps"]
    trajectory: Int64[Tensor, " steps"]

    def __len__(self) -> int:
        return len(self.seen)

    def at(self, index: Tensor) -> Steps:
        """Some of them."""
        return Steps(
            self.seen[index], self.action[index], self.previous[index], self.acted[index], self.trajectory[index]
        )


class CopyModel(nn.Module):
    """Logits of the next action: a network of one hidden layer, and a bias for each distance from the last action.

    Arguments:
        width: numbers of what is seen.
        dims: numbers of an action.
        choices: of each number.
        reads_action: whether the last action is read; otherwise zeros stand in its place.
    """

    def __init__(self, width: int, dims: int, choices: int, *, reads_action: bool) -> None:
        super().__init__()
        self.dims, self.choices, self.reads_action = dims, choices, reads_action
        self.first = nn.Linear(width + dims + 1, HIDDEN)
        self.last = nn.Linear(HIDDEN, dims * choices)
        self.distance = nn.Parameter(torch.zeros(dims, 2 * choices - 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, steps: Steps) -> Float[Tensor, "steps dims choices"]:
        """Logits of each number of the action."""
        known = (steps.acted & self.reads_action)[:, None]
        centred = torch.where(known, 2 * steps.previous / max(self.choices - 1, 1) - 1, 0.0)
        hidden = gelu(self.first(torch.cat([steps.seen, centred, known.to(steps.seen.dtype)], 1)))
        logits: Tensor = self.last(hidden).unflatten(1, (self.dims, self.choices))
        if not self.reads_action:
            return logits
        away = torch.arange(self.choices) - steps.previous[..., None] + self.choices - 1
        bias = self.distance.expand(len(steps), *self.distance.shape).gather(2, away)
        return logits + torch.where(known[..., None], bias, 0.0)

    def losses(self, steps: Steps) -> Float[Tensor, " steps"]:
        """Cross-entropy of each decision, in nats, averaged over the numbers of an action."""
        logits = self(steps)
        return (
            cross_entropy(logits.flatten(0, 1), steps.action.flatten(), reduction="none").view(len(steps), -1).mean(1)
        )


def trained(
    train: Steps, validation: Steps, choices: int, *, reads_action: bool, seed: int, looked: Callable[[], None]
) -> CopyModel:
    """A network with the weights that were best on the validation data.

    Arguments:
        train: decisions to learn from.
        validation: decisions to stop by.
        choices: of each number of an action.
        reads_action: whether the last action is read.
        seed: of weights and batches; the same for both networks.
        looked: called at each look at the validation data, of which there are at most `LOOKS`.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    width, dims = train.seen.shape[1], train.action.shape[1]
    model = CopyModel(width, dims, choices, reads_action=reads_action)
    network = [*model.first.parameters(), *model.last.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": network},
        {"params": [model.distance], "lr": BIAS_RATE, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    best, kept, waited = float("inf"), model.state_dict(), 0
    for step in range(STEPS + 1):
        if step % LOOK == 0:
            looked()
            with torch.no_grad():
                loss = float(model.losses(validation).mean())
            if loss < best:
                best, waited = loss, 0
                kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            else:
                waited += 1
                if waited == PATIENCE:
                    break
        optimizer.zero_grad()
        chosen = torch.randint(len(train), (min(BATCH, len(train)),), generator=generator)
        model.losses(train.at(chosen)).mean().backward()
        optimizer.step()
    model.load_state_dict(kept)
    return model
