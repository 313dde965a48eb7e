"""Does a function on lists that is filter equivariant extend exactly to any length, and does amalgamation make a
network that was trained on short lists hold on long ones?

Re-tests "Filter Equivariant Functions: A symmetric account of length-general extrapolation on lists", arXiv
2507.08796, which is theory and has no experiments. Each part stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.lists import classes, exact, robust
from holdfast.studies.lists.classes import ClassesConfig
from holdfast.studies.lists.exact import ExactConfig
from holdfast.studies.lists.neural import part as neural
from holdfast.studies.lists.neural.part import NeuralConfig
from holdfast.studies.lists.paper import PAPER
from holdfast.studies.lists.robust import RobustConfig


@dataclass(frozen=True, kw_only=True)
class ListsConfig(Config):
    """Settings of the study.

    Arguments:
        classes: the enumeration.
        exact: functions that are given exactly.
        robust: answers that are wrong at random.
        neural: networks.
        neural_seeds: how many seeds, from the first on, have networks; 0: none.
        positions: how the networks see positions, with other networks for each; verdicts are on the first.
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

study = Study(
    name="lists",
    question="Can a function that is right on short lists be extended exactly to lists of any length, also a network "
    "that was trained on short ones?",
    scales=SCALES,
    parts=[classes.part, exact.part, robust.part, neural.part],
    paper=PAPER,
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, about 2 hours (estimated)",
    },
)
