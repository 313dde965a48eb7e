"""Part `neural`: networks trained on lists of at most 6 elements, raw and extended, with a sham and negative controls.

Every trial trains from nothing. `network` learns the tasks that are filter equivariant, and is asked as it is and
through `holdfast.lists.extrapolate`; `sham` learns the same lists with answers in random order, and `controls` learns
tasks that are not filter equivariant; `comparator` is the network that is filter equivariant by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.lab import Outcome, Part, Trial, progress
from holdfast.studies.lists.neural import networks
from holdfast.studies.lists.neural.claims import CLAIMS
from holdfast.studies.lists.neural.figures import FIGURES

if TYPE_CHECKING:
    from holdfast.studies.lists.study import ListsConfig

ROLES = ("network", "sham", "controls", "comparator")

VOTED = ("sort", "partition")
"""What is also voted on: the tasks in which the value of an element matters, which are the hard ones."""


@dataclass(frozen=True, kw_only=True)
class NeuralConfig:
    """How networks are trained on short lists and tested on long ones.

    Arguments:
        device: where to train, such as "cpu" or "cuda"; on CUDA in bfloat16.
        positions: "rotary", or "none": the network sees the order of tokens through its causal mask alone.
        values: number of values.
        longest: lists that are trained on have 1 to so many elements.
        width: of the network.
        layers: of the network.
        heads: attention heads a layer.
        steps: optimiser steps of the network that the claims are about.
        side_steps: optimiser steps of the sham and of the network that learns the negative controls.
        batch: lists a step, of all tasks together.
        rate: greatest learning rate.
        lengths: elements of the test lists; twice and ten times `longest` are among them.
        lists: test lists for each task and length.
        votes: how often pairs are asked for, each time among other values, where there is a vote.
        vote_lengths: the two lengths at which voting on `sort` is judged.
        pairs_longest: up to this length the answer is also glued from all pairs.
        votes_longest: up to this length pairs are voted on.
        probe_lengths: elements of the lists of the probe that needs no labels.
        probe_lists: lists for each of these lengths.
        pair_lists: lists for each distance of two values, to see which of them are sorted wrongly.
        refusal_lists: lists whose values calibration is tried on.
        comparator_lists: lists that the comparator is trained on, for each task.
        comparator_steps: optimiser steps of the comparator.
        comparator_length: the greatest length at which it is tested.
        distil_rounds: rounds in which the network is taught its own extension; 0: none.
        distil_lists: new lists a round and task.
        distil_steps: optimiser steps a round.
    """

    device: str = "cpu"
    positions: str = "rotary"
    values: int = 128
    longest: int = 6
    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 6000
    side_steps: int = 1500
    batch: int = 128
    rate: float = 4e-3
    lengths: tuple[int, ...] = (4, 6, 8, 12, 16, 32, 60)
    lists: int = 50
    votes: tuple[int, ...] = (1, 9)
    vote_lengths: tuple[int, int] = (16, 32)
    pairs_longest: int = 60
    votes_longest: int = 60
    probe_lengths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    probe_lists: int = 400
    pair_lists: int = 600
    refusal_lists: int = 20
    comparator_lists: int = 20_000
    comparator_steps: int = 1200
    comparator_length: int = 100
    distil_rounds: int = 0
    distil_lists: int = 2048
    distil_steps: int = 300

    def __post_init__(self) -> None:
        if self.positions not in ("rotary", "none"):
            raise ArgumentError("positions", "'rotary' or 'none'", self.positions)
        for argument, needed in (
            ("lengths", {self.twice, self.tenfold, *self.vote_lengths}),
            ("probe_lengths", {self.longest, self.longest + 1}),
        ):
            missing = needed - set(getattr(self, argument))
            if missing:
                raise ArgumentError(argument, f"{', '.join(map(str, sorted(needed)))} among them", missing)
        if max(*self.lengths, self.comparator_length) > self.values:
            expected = f"at least {max(*self.lengths, self.comparator_length)}, as lists have no duplicates"
            raise ArgumentError("values", expected, self.values)

    def trained_steps(self, role: str) -> int:
        """Optimiser steps of a role."""
        return {"network": self.steps, "comparator": self.comparator_steps}.get(role, self.side_steps)

    @property
    def twice(self) -> int:
        """Twice the length that is trained on."""
        return 2 * self.longest

    @property
    def tenfold(self) -> int:
        """Ten times that length."""
        return 10 * self.longest


def trials(config: ListsConfig) -> Iterator[Trial[NeuralConfig]]:
    """One trial a network; comparators see no positions, so that there is one a seed."""
    for seed in list(config.seed_range)[: config.neural_seeds]:
        for positions in config.positions:
            settings = replace(config.neural, positions=positions)
            for role in ROLES:
                if role == "comparator" and positions != config.positions[0]:
                    continue
                on_gpu = role != "comparator" and settings.device.startswith("cuda")
                labels = {"role": role, "positions": positions}
                yield Trial(seed, settings, labels, cost=float(settings.trained_steps(role)), gpu=float(on_gpu))


def run(trial: Trial[NeuralConfig]) -> Outcome:
    """Train and test one network. Its test lists depend on the seed alone, and are the same for all roles.

    Records:

    - for each `arm`, `task` and length `n`: the share of lists answered exactly (`exact`), of lists that got an
      answer (`answered`), the `kendall` error of the answers that hold the right elements, the `queries` a list;
    - for each `task` and length `n` of the probe: `violation`, which needs no labels, and the `error`;
    - for two values that are a `gap` apart, in a list as long as those trained on: the `pair_error` of sorting;
    - for each `task` whether calibration `refused` the network: the share of lists on whose values it did.
    """
    config, seed, role = trial.config, trial.seeds[0], str(trial.labels["role"])
    if role == "comparator":
        return Outcome(list(networks.comparators(config, seed)))
    tasks = networks.CONTROLS if role == "controls" else networks.TASKS
    model = networks.trained(config, tasks, seed, steps=config.trained_steps(role), shuffled=role == "sham")
    rows = list(networks.decoded(model, tasks, config, seed))
    progress.report(0.7)
    if role == "network":
        rows += networks.glued(model, config, seed, ("blocks", "pairs"), tasks)
        progress.report(0.75)
        rows += networks.glued(model, config, seed, tuple(f"votes {votes}" for votes in config.votes), VOTED)
        progress.report(0.9)
        rows += networks.probed(model, config, seed)
        rows += networks.pair_errors(model, config, seed)
    if role == "sham":
        rows += networks.glued(model, config, seed, ("blocks",), tasks)
    if role in ("network", "controls"):
        rows += networks.refusals(model, tasks, config, seed)
    if role == "network" and config.distil_rounds:
        rows += networks.distilled(model, config, seed)
    progress.report(1.0)
    return Outcome(rows)


part = Part("neural", trials, run, claims=CLAIMS, figures=FIGURES)
