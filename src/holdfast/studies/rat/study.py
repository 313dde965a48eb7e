"""Does recurrence inside chunks, with attention across them, keep what attention knows at a fraction of its cost?

Re-tests "RAT: Bridging RNN Efficiency and Attention Accuracy via Chunk-based Sequence Modeling", arXiv 2507.04416.
Each part stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.rat import cost, language, needles, positions, throughput
from holdfast.studies.rat.arms import Shape
from holdfast.studies.rat.corpus import Text
from holdfast.studies.rat.cost import CostConfig
from holdfast.studies.rat.haystacks import Vocabulary
from holdfast.studies.rat.language import LanguageConfig
from holdfast.studies.rat.needles import NeedlesConfig
from holdfast.studies.rat.paper import PAPER
from holdfast.studies.rat.positions import PositionsConfig
from holdfast.studies.rat.throughput import ThroughputConfig
from holdfast.studies.rat.training import Recipe


@dataclass(frozen=True, kw_only=True)
class RATStudyConfig(Config):
    """Settings of the study.

    Arguments:
        needles: networks that look for needles.
        language: language models.
        positions: language models beyond the length that they were trained on.
        cost: what mixing costs.
        throughput: what writing costs.
        text_seeds: how many seeds, from the first on, have language models, which are the dearest.
    """

    needles: NeedlesConfig = field(default_factory=NeedlesConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    throughput: ThroughputConfig = field(default_factory=ThroughputConfig)
    text_seeds: int = 3


QUICK = Recipe(steps=20, batch=4, warmup=4, curve_every=5)

LARGE = Shape(dim=2048, heads=16, layers=24, window=1024)
"""The published models of 1.3 billion parameters."""

MIDDLE = Shape(dim=512, heads=8, layers=8, window=1024)
"""About 25 million parameters: three seeds of every arm have to fit into two hours."""

PUBLISHED = Recipe(
    device="cuda",
    steps=52_452,
    batch=512,
    micro_batch=8,
    learning_rate=8e-4,
    last_rate=1e-6,
    warmup=2_623,
    weight_decay=0.1,
    decay_all=True,
    curve_every=50,
    checkpoint_every=250,
    recompute=True,
    compiled=True,
)
"""110 thousand million tokens in sequences of 4,096; warm-up is 5 % of the steps."""

FINEWEB = Text(tokens="fineweb-edu-100bt.bin", vocabulary=32_000, validation=0.005, windows=128_000, once=True, end=2)
"""FineWeb-Edu, sample-100BT, by the tokenizer of Llama 2. 128,000 windows of 4,096 tokens are kept back."""

BYTES = Text(windows=256)
GPU = Recipe(
    device="cuda",
    steps=2_000,
    batch=16,
    learning_rate=1e-3,
    last_rate=1e-5,
    warmup=100,
    weight_decay=0.1,
    curve_every=50,
    checkpoint_every=500,
)
GPU_COST = CostConfig(
    device="cuda",
    heads=16,
    head_dim=128,
    prefill=(4096, 8192, 16384, 32768, 65536, 131072),
    training=(4096, 8192, 16384, 32768, 65536, 131072),
    decode=(512, 1024, 2048, 4096),
    tokens=262_144,
    batch=512,
    rounds=5,
)
GPU_THROUGHPUT = ThroughputConfig(
    device="cuda", shape=LARGE, vocabulary=32_000, prompt=3072, room=4096, steps=64, memory=60 << 30
)

# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": RATStudyConfig(
        seeds=3,
        first_seed=100,
        needles=NeedlesConfig(
            arms=("attention", "rat16", "rnn"),
            tasks=("joint", "apart", "string"),
            needles=(4,),
            tests=16,
            recipe=QUICK,
        ),
        language=LanguageConfig(
            arms=("attention", "rat16", "rnn", "rat16-window"),
            time=64,
            text=Text(windows=4),
            shape=Shape(dim=32, layers=2),
            recipe=QUICK,
        ),
        positions=PositionsConfig(
            time=64,
            lengths=(64, 128, 256, 512),
            targets=16,
            text=Text(windows=4),
            shape=Shape(dim=32, layers=2, window=16),
            recipe=QUICK,
        ),
        cost=CostConfig(prefill=(64, 256, 1024), training=(64, 256), decode=(256, 1024), batch=4, rounds=1),
        throughput=ThroughputConfig(
            shape=Shape(dim=64, heads=8, layers=2, window=64), prompt=256, room=320, steps=2, memory=1 << 22
        ),
        text_seeds=1,
    ),
    "laptop": RATStudyConfig(seeds=5, first_seed=100),
    "gpu": RATStudyConfig(
        seeds=3,
        first_seed=100,
        needles=NeedlesConfig(
            tasks=("joint", "apart", "string"),
            needles=(4, 64),
            time=2048,
            tests=256,
            vocabulary=Vocabulary(keys=256),
            shape=Shape(dim=128, layers=2),
            recipe=Recipe(device="cuda", steps=1_500, batch=64, learning_rate=2e-3, warmup=100, curve_every=50),
        ),
        language=LanguageConfig(time=4096, text=BYTES, shape=MIDDLE, recipe=GPU),
        positions=PositionsConfig(
            time=4096, lengths=(4096, 8192, 16384, 32768), targets=1024, text=BYTES, shape=MIDDLE, recipe=GPU
        ),
        cost=GPU_COST,
        throughput=GPU_THROUGHPUT,
    ),
    "paper": RATStudyConfig(
        seeds=3,
        first_seed=100,
        needles=NeedlesConfig(
            tasks=("joint", "apart", "string"),
            needles=(4, 16, 64),
            time=4096,
            tests=512,
            vocabulary=Vocabulary(keys=256),
            shape=Shape(dim=256, layers=4),
            recipe=Recipe(device="cuda", steps=10_000, batch=64, learning_rate=1e-3, warmup=500, curve_every=100),
        ),
        language=LanguageConfig(
            time=4096,
            text=FINEWEB,
            shape=LARGE,
            recipe=PUBLISHED,
            arms=("attention", "rat16", "rat64", "rnn", "attention-window", "rat16-window"),
        ),
        positions=PositionsConfig(
            time=4096,
            lengths=(4096, 8192, 16384, 32768),
            targets=1024,
            text=FINEWEB,
            shape=LARGE,
            recipe=PUBLISHED,
        ),
        cost=GPU_COST,
        throughput=GPU_THROUGHPUT,
    ),
}

study = Study(
    name="rat",
    question="Does recurrence inside chunks, with attention across them, keep what attention knows at a fraction of "
    "its cost?",
    scales=SCALES,
    parts=[needles.part, language.part, positions.part, cost.part, throughput.part],
    paper=PAPER,
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
        "paper": "25 days a model on one H100 (estimated), 30 models",
    },
)
