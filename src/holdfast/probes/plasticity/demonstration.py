"""A small network that has lost its plasticity within seconds, for whoever wants to see the probe at work."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from holdfast.bar import Bar
from holdfast.probes.report import random_state_kept

EXAMPLES, PIXELS, CLASSES, WIDTH = 200, 64, 10, 64
TASKS, STEPS, BATCH = 30, 150, 50
RATE = 1e-2


def fresh_network() -> nn.Sequential:
    """A plain network with two hidden layers of ReLU."""
    return nn.Sequential(
        nn.Linear(PIXELS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
    )


def worn_network(
    seed: int = 0, *, progress: bool = True
) -> tuple[nn.Sequential, tuple[Tensor, Tensor], torch.optim.Optimizer]:
    """One that has memorised random labels of the same inputs, drawn anew for each of 30 tasks.

    Arguments:
        seed: of everything.
        progress: show a bar on a terminal.

    Returns:
        The network, inputs and labels, and the optimiser at its constant rate.
    """
    with random_state_kept(), Bar("30 tasks, one after the other", TASKS * STEPS, wanted=progress) as bar:
        torch.manual_seed(seed)
        model = fresh_network()
        inputs = torch.rand(EXAMPLES, PIXELS)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        labels = torch.empty(0)
        for _ in range(TASKS):
            labels = torch.randint(CLASSES, (EXAMPLES,))
            for _ in range(STEPS):
                places = torch.randint(EXAMPLES, (BATCH,))
                optimizer.zero_grad()
                cross_entropy(model(inputs[places]), labels[places]).backward()
                optimizer.step()
                bar.advance()
    return model, (inputs, labels), optimizer
