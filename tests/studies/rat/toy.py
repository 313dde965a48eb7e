"""The study of RAT at toy size."""

from __future__ import annotations

from holdfast.studies.rat.arms import Shape
from holdfast.studies.rat.corpus import Text
from holdfast.studies.rat.cost import CostConfig
from holdfast.studies.rat.haystacks import Vocabulary
from holdfast.studies.rat.language import LanguageConfig
from holdfast.studies.rat.needles import NeedlesConfig
from holdfast.studies.rat.positions import PositionsConfig
from holdfast.studies.rat.study import RATStudyConfig
from holdfast.studies.rat.throughput import ThroughputConfig
from holdfast.studies.rat.training import Recipe

RECIPE = Recipe(steps=4, batch=4, warmup=2, curve_every=2, learning_rate=1e-2)
SHAPE = Shape(dim=16, heads=4, layers=2, window=8)
TOY = RATStudyConfig(
    seeds=1,
    needles=NeedlesConfig(
        tasks=("joint", "string"),
        needles=(2,),
        time=64,
        tests=4,
        vocabulary=Vocabulary(keys=8, values=4, noise=4),
        shape=SHAPE,
        recipe=RECIPE,
    ),
    language=LanguageConfig(time=32, text=Text(windows=3), shape=SHAPE, recipe=RECIPE),
    positions=PositionsConfig(
        time=16, lengths=(16, 32, 128), targets=8, text=Text(windows=3), shape=SHAPE, recipe=RECIPE
    ),
    cost=CostConfig(
        heads=8, head_dim=8, prefill=(16, 32, 64), training=(16,), decode=(64, 128), batch=2, rounds=1, tokens=64
    ),
    throughput=ThroughputConfig(
        shape=Shape(dim=64, heads=8, layers=2, window=8), prompt=64, room=80, steps=2, memory=1 << 18
    ),
    text_seeds=1,
)
