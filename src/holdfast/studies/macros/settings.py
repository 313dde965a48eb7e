"""How learners learn, apart from them: who only declares a study loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """How a table is learned.

    Arguments:
        steps: primitive steps in all.
        evaluations: greedy ones after the first, in equal distances.
        epsilon: share of random decisions.
        lr: of the table.
        meta_every: updates of the table for one step of the similarity.
    """

    steps: int = 40_000
    evaluations: int = 40
    epsilon: float = 0.1
    lr: float = 0.2
    meta_every: int = 20


@dataclass(frozen=True, kw_only=True)
class DeepConfig:
    """How a network learns (Adam, mean squared error).

    Arguments:
        steps: primitive steps in all.
        evaluations: greedy ones after the first, in equal distances.
        epsilon: share of random decisions.
        width: of both hidden layers.
        lr: of Adam.
        batch: transitions of an update, drawn from all that are stored.
        update_every: primitive steps for one update.
        target_every: updates between two copies of the network that targets are from.
    """

    steps: int = 12_000
    evaluations: int = 40
    epsilon: float = 0.1
    width: int = 64
    lr: float = 1e-3
    batch: int = 32
    update_every: int = 4
    target_every: int = 50
