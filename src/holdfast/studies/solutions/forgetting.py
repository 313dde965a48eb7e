"""Let a network learn tasks one after the other, and see what is left of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from holdfast.lab import Record, progress
from holdfast.probes.plasticity.metrics import effective_rank, stable_rank
from holdfast.probes.solutions.continual import ContinualEvaluation
from holdfast.probes.solutions.features import head_of, record_head
from holdfast.probes.solutions.metrics import class_cosines, class_means, mean_off_diagonal
from holdfast.probes.solutions.retention import RateResult, matched_retention
from holdfast.studies.digits import Labelled, batches_of, learn
from holdfast.studies.solutions.optimizers import Arm, make
from holdfast.studies.solutions.streams import BATCHES
from holdfast.studies.solutions.tasks import Split


def learn_in_turn(
    model: nn.Module, arm: Arm, rate: float, tasks: Sequence[Split], *, steps: int, batch: int, seed: int
) -> tuple[Record, list[Record]]:
    """Train on each task. At a seed all arms see the same batches; longer ones see more of them.

    Arguments:
        model: with its initial weights.
        arm: optimiser.
        rate: learning rate.
        tasks: in their order.
        steps: of each task, by default of an arm.
        batch: images a step.
        seed: of the batches.

    Returns:
        A record of `learn` (accuracy on each task just after it, a mean) and `old` (that on all but the last in the
        end), of the mean `cosine` between class means of the last hidden layer and its effective rank `rank`, centred,
        both on the test images of all tasks, and of the mean `stable_rank` of the matrices' changes; and a row for each
        task with its accuracy `after` it and at the `end`.
    """
    evaluation = ContinualEvaluation(model, [(task.test.images, task.test.labels) for task in tasks], snapshots=False)
    start = [tensor.detach().clone() for tensor in model.parameters()]
    optimizer = make(arm, model, rate)
    for number, task in enumerate(tasks):
        if arm.reset and number:
            optimizer = make(arm, model, rate)
        batches = batches_of(len(task.train.images), steps * arm.length, batch, seed, BATCHES, number)
        for _ in learn(model, optimizer, task.train, batches.to(task.train.images.device)):
            pass
        evaluation.after_task()
        progress.report((number + 1) / len(tasks))
    accuracies, kept = evaluation.accuracies, evaluation.retention
    joined = Labelled(*(torch.cat(parts) for parts in zip(*(task.test for task in tasks), strict=True)))
    head = record_head(model, head_of(model), joined.images, joined.labels, seed=0)
    means, _ = class_means(head.features, head.targets)
    changes = [
        stable_rank((tensor.detach() - before).flatten(1).cpu())
        for tensor, before in zip(model.parameters(), start, strict=True)
        if tensor.ndim > 1
    ]
    record: Record = {
        "learn": kept.learn,
        "old": kept.old,
        "cosine": mean_off_diagonal(class_cosines(means)),
        "rank": effective_rank(head.features - head.features.mean(0)),
        "stable_rank": sum(changes) / len(changes),
    }
    curve: list[Record] = [
        {"task": task + 1, "after": float(accuracies[task, task]), "end": float(accuracies[-1, task])}
        for task in range(len(tasks))
    ]
    return record, curve


def sweep(
    model: nn.Module,
    arm: Arm,
    rates: Sequence[float],
    tasks: Sequence[Split],
    *,
    level: float,
    steps: int,
    batch: int,
    seed: int,
) -> tuple[Record, list[Record]]:
    """Train on the tasks at each of several rates, always from the same weights.

    Arguments:
        model: with these weights.
        arm: optimiser.
        rates: learning rates.
        tasks: in their order.
        level: learning accuracy at which what is kept is told.
        steps: of each task, by default of an arm.
        batch: images a step.
        seed: of the batches.

    Returns:
        A record of what is kept at the level, `matched` (nothing where no two neighbouring rates bracket it),
        `bracketed` (1 or 0) and the `best` learning accuracy; and a row of `learn` and `old` for each rate.
    """
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    curve: list[Record] = []
    runs: list[RateResult] = []
    for rate in rates:
        model.load_state_dict(start)
        record, _ = learn_in_turn(model, arm, rate, tasks, steps=steps, batch=batch, seed=seed)
        runs.append(RateResult(rate, float(record["learn"] or 0.0), float(record["old"] or 0.0)))
        curve.append({"rate": rate, "learn": record["learn"], "old": record["old"]})
    matched = matched_retention(runs, level)
    known = math.isfinite(matched)
    best = max(run.learn for run in runs)
    return {"matched": matched if known else None, "bracketed": int(known), "best": best}, curve
