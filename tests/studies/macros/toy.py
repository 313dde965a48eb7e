"""The study of macros at toy size."""

from __future__ import annotations

from holdfast.studies.macros.agents import GamesConfig
from holdfast.studies.macros.dose import DoseConfig
from holdfast.studies.macros.junk import JunkConfig
from holdfast.studies.macros.network import NetworkConfig
from holdfast.studies.macros.settings import DeepConfig, TableConfig
from holdfast.studies.macros.study import MacrosStudyConfig
from holdfast.studies.macros.transfer import TransferConfig
from holdfast.studies.macros.worlds import Grid

TABLE = TableConfig(steps=40, evaluations=4)
GRID = Grid(side=4, length=2, junk=3, limit=12)
GAMES = GamesConfig(
    games=("CartPole-v1",),
    steps=60,
    points=2,
    macros=("repeat:2", "random:3:2:3"),
    meta_every=2,
    starts=40,
    device="cpu",
)
TOY = MacrosStudyConfig(
    seeds=3,
    network_seeds=2,
    games_seeds=1,
    junk=JunkConfig(grid=GRID, table=TABLE, batch=2),
    dose=DoseConfig(doses=(2, 5), grid=GRID, table=TABLE),
    transfer=TransferConfig(
        source=Grid(side=5, walls="row", length=2, junk=3, limit=12),
        rooms=Grid(side=5, walls="rooms", length=2, junk=3, limit=12),
        open=Grid(side=5, length=2, junk=3, limit=12),
        moved=Grid(side=5, walls="row", goal=(0, 4), length=2, junk=3, limit=12),
        larger=Grid(side=7, walls="row", length=2, junk=3, limit=20),
        table=TABLE,
    ),
    network=NetworkConfig(grid=GRID, deep=DeepConfig(steps=24, evaluations=2, width=8, batch=4)),
    minatar=GAMES,
    ale=GAMES,
)
