"""Does early data leave a network unable to learn later data, and does its effective learning rate decide that?

Re-tests "What Can Grokking Teach Us About Learning Under Nonstationarity?", arXiv 2507.20057.
Each part stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.plasticity import (
    atari,
    cifar,
    clamp,
    fitted_q,
    grokking,
    offsets,
    primacy,
    shuffling,
    sweep,
    warm_start,
)
from holdfast.studies.plasticity.atari import TWENTY, AtariConfig
from holdfast.studies.plasticity.cifar import CifarConfig
from holdfast.studies.plasticity.clamp import ClampConfig
from holdfast.studies.plasticity.fitted_q import FittedQConfig
from holdfast.studies.plasticity.grokking import GrokkingConfig, Phases
from holdfast.studies.plasticity.offsets import OffsetsConfig
from holdfast.studies.plasticity.paper import PAPER
from holdfast.studies.plasticity.primacy import PrimacyConfig
from holdfast.studies.plasticity.shapes import Addition, Layers, MLPShape, TransformerShape
from holdfast.studies.plasticity.shuffling import ShufflingConfig
from holdfast.studies.plasticity.sweep import SweepConfig
from holdfast.studies.plasticity.warm_start import WarmStartConfig


@dataclass(frozen=True, kw_only=True)
class PlasticityStudyConfig(Config):
    """Settings of the study.

    Arguments:
        grokking: networks that learn addition, and are re-warmed.
        shuffling: networks that memorise one task after the other.
        primacy: networks that had wrong labels first.
        warm_start: networks that had a part of the data first.
        fitted_q: values of a goal that moves.
        clamp: networks that learn addition with clamped norms.
        sweep: a grid of transformers of the published size.
        offsets: transformers of the published size, re-warmed after some steps.
        cifar: networks that had a part of CIFAR-10 first.
        atari: deep Q-networks.
        dear_seeds: how many seeds, from the first on, have the dearest parts: `grokking`, `shuffling`, `clamp`,
            `sweep`, `offsets` and `cifar`.
    """

    grokking: GrokkingConfig = field(default_factory=GrokkingConfig)
    shuffling: ShufflingConfig = field(default_factory=ShufflingConfig)
    primacy: PrimacyConfig = field(default_factory=PrimacyConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    fitted_q: FittedQConfig = field(default_factory=FittedQConfig)
    clamp: ClampConfig = field(default_factory=ClampConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    offsets: OffsetsConfig = field(default_factory=OffsetsConfig)
    cifar: CifarConfig = field(default_factory=CifarConfig)
    atari: AtariConfig = field(default_factory=AtariConfig)
    dear_seeds: int = 5

    @property
    def dear_range(self) -> range:
        """The seeds of the dearest parts."""
        return self.seed_range[: self.dear_seeds]


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": PlasticityStudyConfig(
        seeds=3,
        first_seed=100,
        dear_seeds=3,
        grokking=GrokkingConfig(
            arms=("rewarm", "low", "free", "mlp-rewarm", "mlp-free"),
            addition=Addition(modulus=23),
            transformer=TransformerShape(dim=32, hidden=64),
            phases=Phases(before=100, late=200, after=200, warmup=20, cycle=200),
            mlp_addition=Addition(modulus=23, share=0.6),
            mlp=MLPShape(dim=32, hidden=64),
            mlp_phases=Phases(before=100, late=100, after=200, warmup=20, cycle=200),
        ),
        shuffling=ShufflingConfig(tasks=6, steps=60, examples=100, layers=Layers(width=48), probe=60),
        primacy=PrimacyConfig(first=100, second=100, examples=200),
        warm_start=WarmStartConfig(steps=60),
        fitted_q=FittedQConfig(side=5, goals=6, steps=30),
        clamp=ClampConfig(addition=Addition(modulus=23, share=0.6), shape=MLPShape(dim=32, hidden=64), steps=100),
    ),
    "laptop": PlasticityStudyConfig(seeds=10, first_seed=100),
    "gpu": PlasticityStudyConfig(
        seeds=10,
        first_seed=100,
        sweep=SweepConfig(rates=(1e-3, 3e-3, 1e-2, 3e-2)),
        offsets=OffsetsConfig(peaks=(1e-3, 1e-2)),
        atari=AtariConfig(games=("breakout",)),
    ),
    "paper": PlasticityStudyConfig(
        seeds=5,
        first_seed=100,
        sweep=SweepConfig(rates=(1e-3, 3e-3, 1e-2, 3e-2), addition=Addition(modulus=117, share=0.2), steps=1_000_000),
        offsets=OffsetsConfig(
            peaks=(1e-3, 1e-2),
            offsets=(0, 10_000, 100_000, 300_000),
            cycle=700_000,
            addition=Addition(modulus=117, share=0.2),
        ),
        cifar=CifarConfig(folder="cifar-10-batches-bin"),
        atari=AtariConfig(
            games=TWENTY,
            frames=80_000_000,
            cycle=4_000_000,
            stop=10,
            replay=1_000_000,
            random=20_000,
            explore=250_000,
            copy_every=8_000,
        ),
    ),
}

study = Study(
    name="plasticity",
    question="Does early data leave a network unable to learn later data, and does its effective learning rate decide "
    "that?",
    scales=SCALES,
    parts=[
        grokking.part,
        shuffling.part,
        primacy.part,
        warm_start.part,
        fitted_q.part,
        clamp.part,
        sweep.part,
        offsets.part,
        cifar.part,
        atari.part,
    ],
    paper=PAPER,
    cost={
        "quick": "under 1 minute on 2 CPU cores",
        "laptop": "about 17 minutes on 2 CPU cores (added up from single trials)",
        "gpu": "one GPU, under 2 hours (estimated)",
        "paper": "a cluster: 400 agents of 80 million frames (estimated)",
    },
)
