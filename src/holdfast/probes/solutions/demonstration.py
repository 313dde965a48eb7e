"""A small network that has learnt pairs of digits one after the other, for whoever wants to see the probe at work."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from holdfast.errors import require
from holdfast.probes.solutions.continual import Arm, ContinualRun, ContinualTask, train_paired

WIDTH, CLASSES, PIXELS = 64, 10, 64
STEPS = 100
RATE = 0.05


def fresh_network() -> nn.Sequential:
    """Two hidden layers of ReLU without biases, which would hide what the optimiser does."""
    sizes = (PIXELS, WIDTH, WIDTH)
    layers = [nn.Linear(rows, columns, bias=False) for rows, columns in pairwise(sizes)]
    head = nn.Linear(WIDTH, CLASSES, bias=False)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(head.weight, std=WIDTH**-0.5)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), head)


def digit_pairs() -> tuple[list[ContinualTask], tuple[Tensor, Tensor]]:
    """The classes (0, 1) to (8, 9) of scikit-learn's digits as tasks, and all that are not trained on.

    Images are divided by 16, their training mean is subtracted, for it would be a bias in disguise.

    Errors:
        MissingExtraError: scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "solutions").load_digits()
    images, labels = torch.as_tensor(bunch.data / 16, dtype=torch.float32), torch.as_tensor(bunch.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[: int(0.7 * len(order))], order[int(0.7 * len(order)) :]
    images = images - images[train].mean(0)
    tasks = []
    for first in range(0, CLASSES, 2):
        places = [part[(labels[part] == first) | (labels[part] == first + 1)] for part in (train, test)]
        tasks.append(ContinualTask(*((images[part], labels[part]) for part in places)))
    return tasks, (images[test], labels[test])


def forgetful_run(seed: int = 0) -> tuple[nn.Sequential, ContinualRun]:
    """A network that SGD has taught the pairs, with its snapshots."""
    tasks, _ = digit_pairs()
    arm = Arm(lambda parameters, rate: torch.optim.SGD(parameters, lr=rate), (RATE,))
    run = train_paired(fresh_network, {"SGD": arm}, tasks, seeds=(seed,), steps=STEPS, snapshots=True)["SGD"][0]
    model = fresh_network()
    model.load_state_dict(run.snapshots[-1])
    return model, run
