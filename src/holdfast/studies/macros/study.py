"""Do macro-actions overload a learner, and does a penalty by the similarity of actions repair that?

Re-tests "Meta-learning how to Share Credit among Macro-Actions", arXiv 2506.13690, with a protocol of our own.
Each part stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.macros import ale, dose, junk, minatar, network, transfer
from holdfast.studies.macros.agents import GamesConfig
from holdfast.studies.macros.dose import DoseConfig
from holdfast.studies.macros.junk import JunkConfig
from holdfast.studies.macros.network import NetworkConfig
from holdfast.studies.macros.paper import PAPER
from holdfast.studies.macros.settings import DeepConfig, TableConfig
from holdfast.studies.macros.transfer import TransferConfig
from holdfast.studies.macros.worlds import Grid


@dataclass(frozen=True, kw_only=True)
class MacrosStudyConfig(Config):
    """Settings of the study.

    Arguments:
        junk: tables on a grid with macros that lead nowhere.
        dose: the same with more and more of them.
        transfer: similarities that are carried to other maps.
        network: small networks on a grid.
        minatar: Rainbow on MinAtar.
        ale: Rainbow on Atari games, for a moment.
        network_seeds: how many seeds, from the first on, `network` has.
        games_seeds: how many `minatar` has.
    """

    junk: JunkConfig = field(default_factory=JunkConfig)
    dose: DoseConfig = field(default_factory=DoseConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    minatar: GamesConfig = field(default_factory=GamesConfig)
    ale: GamesConfig = field(default_factory=GamesConfig)
    network_seeds: int = 20
    games_seeds: int = 10

    @property
    def network_range(self) -> range:
        """The seeds of `network`."""
        return self.seed_range[: self.network_seeds]

    @property
    def games_range(self) -> range:
        """The seeds of `minatar`, of which `ale` has two."""
        return self.seed_range[: self.games_seeds]


# Settings were laid down beforehand; verdicts come from seeds that nobody has looked at.
SMALL = TableConfig(steps=3_000, evaluations=20)
SCALES = {
    "quick": MacrosStudyConfig(
        seeds=3,
        first_seed=100,
        junk=JunkConfig(grid=Grid(side=6, length=2, limit=40), table=SMALL),
        dose=DoseConfig(doses=(8, 24), grid=Grid(side=6, length=2, limit=40), table=SMALL),
        transfer=TransferConfig(
            source=Grid(side=5, walls="row", length=2, junk=24, limit=40),
            rooms=Grid(side=5, walls="rooms", length=2, junk=24, limit=40),
            open=Grid(side=5, length=2, junk=24, limit=40),
            moved=Grid(side=5, walls="row", goal=(0, 4), length=2, junk=24, limit=40),
            larger=Grid(side=7, walls="row", length=2, junk=24, limit=40),
            table=SMALL,
        ),
        network=NetworkConfig(grid=Grid(side=5, length=2, limit=40), deep=DeepConfig(steps=2_000, evaluations=10)),
    ),
    "laptop": MacrosStudyConfig(seeds=40, first_seed=100),
    "gpu": MacrosStudyConfig(
        seeds=40,
        first_seed=100,
        minatar=GamesConfig(games=("MinAtar/Breakout-v1", "MinAtar/Asterix-v1")),
        ale=GamesConfig(games=("ALE/Breakout-v5",), steps=40_000, points=20, starts=4_000, agents=4),
    ),
}

study = Study(
    name="macros",
    question="Do macro-actions overload a learner, and does a penalty by the similarity of actions repair that?",
    scales=SCALES,
    parts=[junk.part, dose.part, transfer.part, network.part, minatar.part, ale.part],
    paper=PAPER,
    cost={
        "quick": "under 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
    },
)
