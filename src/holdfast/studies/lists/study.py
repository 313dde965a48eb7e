"""Does a function on lists that is filter equivariant extend exactly to any length, and does amalgamation make a
network that was trained on short lists hold on long ones?

Re-tests "Filter Equivariant Functions: A symmetric account of length-general extrapolation on lists", arXiv
2507.08796, which is theory and has no experiments. Four parts:

- `classes`: how many functions the laws leave, and which laws hold; by enumeration, no chance.
- `exact`: functions that are given exactly, extended from short lists; what is asked, and what is refused.
- `robust`: lists put together from answers that are wrong at random.
- `neural`: networks trained on lists of at most 6 elements, raw and extended, with a sham and negative controls.

The parts are in `_lists_exact`, `_lists_robust` and `_lists_neural`, the claims in `_lists_claims` and the pictures
in `_lists_figures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.lab import Config, Outcome, Paper, Study, Trial, progress
from holdfast.studies.lists.claims import CLAIMS
from holdfast.studies.lists.exact import ClassesConfig, ExactConfig, run_classes, run_exact
from holdfast.studies.lists.figures import FIGURES
from holdfast.studies.lists.neural import ROLES, NeuralConfig, run_neural
from holdfast.studies.lists.robust import RobustConfig, run_robust


@dataclass(frozen=True, kw_only=True)
class ListsConfig(Config):
    """Settings of the study.

    Arguments:
        classes: the enumeration.
        exact: functions that are given exactly.
        robust: answers that are wrong at random.
        neural: networks.
        neural_seeds: how many seeds, from the first on, have networks; 0: none.
        positions: how the networks see positions, each a part of its own; verdicts are on the first.
    """

    classes: ClassesConfig = field(default_factory=ClassesConfig)
    exact: ExactConfig = field(default_factory=ExactConfig)
    robust: RobustConfig = field(default_factory=RobustConfig)
    neural: NeuralConfig = field(default_factory=NeuralConfig)
    neural_seeds: int = 3
    positions: tuple[str, ...] = ("rotary",)


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": ListsConfig(
        seeds=3,
        first_seed=100,
        classes=ClassesConfig(natural=5, order_natural=3, values=4, face_values=(3, 4, 5), longest=4),
        exact=ExactConfig(lists=2),
        robust=RobustConfig(lists=50),
        neural=NeuralConfig(
            steps=150,
            side_steps=60,
            lists=10,
            votes=(3,),
            probe_lists=40,
            pair_lists=40,
            refusal_lists=4,
            comparator_lists=4000,
            comparator_steps=300,
        ),
        neural_seeds=1,
    ),
    "laptop": ListsConfig(seeds=5, first_seed=100),
    "gpu": ListsConfig(
        seeds=5,
        first_seed=100,
        exact=ExactConfig(lists=60),
        robust=RobustConfig(lists=1000),
        neural=NeuralConfig(
            device="cuda",
            values=1024,
            longest=16,
            width=256,
            layers=6,
            heads=8,
            steps=10_000,
            side_steps=2500,
            batch=4096,
            rate=1e-3,
            lengths=(8, 16, 24, 32, 48, 80, 160, 320, 1000),
            lists=100,
            votes=(1, 9, 27),
            vote_lengths=(48, 80),
            pairs_longest=160,
            votes_longest=160,
            probe_lengths=(2, 4, 8, 12, 16, 17, 20),
            comparator_lists=200_000,
            comparator_steps=12_000,
            comparator_length=1000,
            distil_rounds=4,
            distil_lists=8192,
            distil_steps=2000,
        ),
        neural_seeds=3,
        positions=("rotary", "none"),
    ),
}


def trials(config: ListsConfig) -> Iterator[Trial[Any]]:
    """One trial for the classes, one a seed for the simulations, and one a network."""
    for seed in list(config.seed_range)[: config.neural_seeds]:
        for positions in config.positions:
            own = replace(config.neural, positions=positions)
            for role in ROLES:
                if role == "comparator" and positions != config.positions[0]:
                    continue  # It sees no positions.
                labels = {"part": "neural", "role": role, "positions": positions}
                on_cpu = role == "comparator" or not own.device.startswith("cuda")
                yield Trial(seed, own, labels, cost=float(own.trained_steps(role)), gpu=0.0 if on_cpu else 1.0)
    for seed in config.seed_range:
        yield Trial(seed, config.exact, {"part": "exact"}, cost=300.0)
        yield Trial(seed, config.robust, {"part": "robust"}, cost=100.0)
    yield Trial(config.first_seed, config.classes, {"part": "classes"}, cost=100.0)


def run(trial: Trial[Any]) -> Outcome:
    """Compute one trial; see the `run_*` function of each part for what it records."""
    seed = trial.seeds[0]
    match trial.config:
        case ClassesConfig():
            return Outcome(run_classes(trial.config, progress.report))
        case ExactConfig():
            return Outcome(run_exact(trial.config, seed, progress.report))
        case RobustConfig():
            return Outcome(run_robust(trial.config, seed, progress.report))
        case NeuralConfig():
            return Outcome(run_neural(trial.config, str(trial.labels["role"]), seed, progress.report))
        case other:
            raise TypeError(f"no part of this study has the configuration {type(other).__name__}")


study = Study(
    name="lists",
    question="Does a filter-equivariant list function extend exactly to any length, and does amalgamation make a "
    "network trained on short lists hold on long ones?",
    scales=SCALES,
    trials=trials,
    run=run,
    claims=CLAIMS,
    figures=FIGURES,
    paper=Paper(
        "Filter Equivariant Functions: A symmetric account of length-general extrapolation on lists", "2507.08796"
    ),
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, about 2 hours (estimated)",
    },
)
