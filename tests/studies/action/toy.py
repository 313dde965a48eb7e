"""The study of action at toy size."""

from __future__ import annotations

from holdfast.studies.action.cloning import Cloning
from holdfast.studies.action.conditioning import ConditioningConfig
from holdfast.studies.action.control import ControlConfig
from holdfast.studies.action.copycat import CopycatConfig
from holdfast.studies.action.dark_room import DarkRoomConfig
from holdfast.studies.action.demonstrations import Demonstrations
from holdfast.studies.action.latency import LatencyConfig
from holdfast.studies.action.manipulation import ManipulationConfig
from holdfast.studies.action.parity import ParityConfig
from holdfast.studies.action.study import ActionStudyConfig
from holdfast.studies.action.training import Recipe

RECIPE = Recipe(steps=4, batch=2, warmup=2, curve_every=2)
CLONING = Cloning(
    size="tiny",
    context=3,
    bins=5,
    demonstrations=Demonstrations(tasks=("pendulum",), episodes=3, disturbed=0.3),
    rollouts=1,
    recipe=RECIPE,
)
TOY = ActionStudyConfig(
    seeds=1,
    latency=LatencyConfig(dim=16, heads=2, layers=1, contexts=(2, 50, 60), batches=(1, 2), window=2, rounds=1),
    control=ControlConfig(arms=("xlstm10", "rat"), masked_arms=("transformer",), contexts=(2,), cloning=CLONING),
    conditioning=ConditioningConfig(arms=("xlstm10", "rat"), cloning=CLONING),
    copycat=CopycatConfig(contexts=(2,), cloning=CLONING),
    manipulation=ManipulationConfig(tasks=()),
    parity=ParityConfig(steps=4, batch=4, dim=8, lengths=(4, 32), tests=8, warmup=2, curve_every=2),
    dark_room=DarkRoomConfig(
        arms=("xlstm11",), size="tiny", room=3, steps=4, episodes=2, histories=2, rollouts=2, recipe=RECIPE
    ),
)
