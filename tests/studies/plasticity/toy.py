"""The study of plasticity at toy size."""

from __future__ import annotations

from holdfast.studies.plasticity.atari import AtariConfig
from holdfast.studies.plasticity.cifar import CifarConfig
from holdfast.studies.plasticity.clamp import ClampConfig
from holdfast.studies.plasticity.fitted_q import FittedQConfig
from holdfast.studies.plasticity.grokking import GrokkingConfig, Phases
from holdfast.studies.plasticity.offsets import OffsetsConfig
from holdfast.studies.plasticity.primacy import PrimacyConfig
from holdfast.studies.plasticity.shapes import Addition, Layers, MLPShape, TransformerShape
from holdfast.studies.plasticity.shuffling import ShufflingConfig
from holdfast.studies.plasticity.study import PlasticityStudyConfig
from holdfast.studies.plasticity.sweep import SweepConfig
from holdfast.studies.plasticity.warm_start import WarmStartConfig

ADDITION = Addition(modulus=5, share=0.6)
TRANSFORMER = TransformerShape(dim=8, heads=2, hidden=8, constants=2)
MLP = MLPShape(dim=4, hidden=8)
LAYERS = Layers(width=8, depth=2)
PHASES = Phases(before=4, late=6, after=4, warmup=1, cycle=4)
TOY = PlasticityStudyConfig(
    seeds=1,
    dear_seeds=1,
    grokking=GrokkingConfig(
        addition=ADDITION,
        transformer=TRANSFORMER,
        phases=PHASES,
        mlp_addition=ADDITION,
        mlp=MLP,
        mlp_phases=PHASES,
        evaluate_every=2,
        change_every=2,
        probes=4,
    ),
    shuffling=ShufflingConfig(
        arms=("plain", "detected", "decay", "fresh"),
        tasks=3,
        steps=3,
        examples=20,
        batch=4,
        layers=LAYERS,
        probe=25,
    ),
    primacy=PrimacyConfig(examples=40, first=3, second=3, batch=4, layers=LAYERS),
    warm_start=WarmStartConfig(tests=1700, steps=3, batch=4, layers=LAYERS),
    fitted_q=FittedQConfig(side=3, goals=3, steps=4, copy_every=2, test_every=2, layers=LAYERS),
    clamp=ClampConfig(addition=ADDITION, shape=MLP, steps=4, evaluate_every=2),
    sweep=SweepConfig(
        rates=(1e-3, 1e-2), decays=(0.0, 0.1), addition=ADDITION, shape=TRANSFORMER, steps=3, device="cpu"
    ),
    offsets=OffsetsConfig(
        peaks=(1e-3, 1e-2),
        offsets=(0, 2),
        warmup=1,
        cycle=3,
        addition=ADDITION,
        shape=TRANSFORMER,
        evaluate_every=2,
        device="cpu",
    ),
    cifar=CifarConfig(fractions=(0.5, 1.0), epochs=1, batch=8, channels=4, hidden=8, device="cpu"),
    atari=AtariConfig(
        games=("pong",),
        frames=80,
        cycle=16,
        stop=2,
        batch=2,
        replay=12,
        random=8,
        explore=4,
        copy_every=4,
        device="cpu",
    ),
)
