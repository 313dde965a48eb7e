"""The study of solutions at toy size."""

from __future__ import annotations

from holdfast.studies.solutions.glyphs import GlyphsConfig
from holdfast.studies.solutions.matched import MatchedConfig
from holdfast.studies.solutions.pairs import PairsConfig
from holdfast.studies.solutions.pruning import PruningConfig
from holdfast.studies.solutions.study import SolutionsStudyConfig
from holdfast.studies.solutions.vit import ViTConfig

TOY = SolutionsStudyConfig(
    seeds=1,
    large_seeds=1,
    pairs=PairsConfig(
        arms=("sgd", "shampoo-reset", "shampoo-slow", "sgd-torch", "sgd-long"), steps=3, batch=4, width=8
    ),
    matched=MatchedConfig(steps=(2, 2), tasks=2, batch=4, width=4),
    pruning=PruningConfig(
        arms=("sgd", "power-3", "adamw", "recipe", "l1-0.001", "adam-l1-0.001", "gradual-0.05"),
        steps=30,
        batch=4,
        hidden=(12, 8),
    ),
    glyphs=GlyphsConfig(
        arms=("sgd-bias", "shampoo-0.9-reset"),
        sweeps=("sgd",),
        examples=200,
        tests=100,
        pair_steps=12,
        steps=2,
        tasks=2,
        batch=4,
        width=8,
        device="cpu",
    ),
    vit=ViTConfig(
        arms=("sgd", "soap"), examples=200, tests=100, steps=2, batch=4, patch=14, dim=8, depth=1, heads=2, device="cpu"
    ),
)
