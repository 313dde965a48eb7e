"""Does the optimiser decide which solution is found, and can one be chosen for what it finds?

Re-tests "Optimizers Qualitatively Alter Solutions And We Should Leverage This", arXiv 2507.12224.
Each part stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.solutions import glyphs, matched, pairs, pruning, vit
from holdfast.studies.solutions.glyphs import GlyphsConfig
from holdfast.studies.solutions.matched import MatchedConfig
from holdfast.studies.solutions.pairs import PairsConfig
from holdfast.studies.solutions.paper import PAPER
from holdfast.studies.solutions.pruning import PruningConfig
from holdfast.studies.solutions.vit import ViTConfig


@dataclass(frozen=True, kw_only=True)
class SolutionsStudyConfig(Config):
    """Settings of the study.

    Arguments:
        pairs: networks that learn pairs of classes in turn, at one rate.
        matched: networks that are compared where they have learnt equally well.
        pruning: networks that are pruned.
        glyphs: larger networks that learn drawn digits in turn.
        vit: vision transformers that do.
        large_seeds: how many seeds, from the first on, `glyphs` and `vit` have.
    """

    pairs: PairsConfig = field(default_factory=PairsConfig)
    matched: MatchedConfig = field(default_factory=MatchedConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    glyphs: GlyphsConfig = field(default_factory=GlyphsConfig)
    vit: ViTConfig = field(default_factory=ViTConfig)
    large_seeds: int = 5

    @property
    def large_range(self) -> range:
        """The seeds of the parts for a GPU."""
        return self.seed_range[: self.large_seeds]


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": SolutionsStudyConfig(
        seeds=3,
        first_seed=100,
        pairs=PairsConfig(
            arms=("sgd", "shampoo", "shampoo-reset", "sgd-torch", "shampoo-torch"), steps=40, width=32, rate=0.1
        ),
        matched=MatchedConfig(arms=("sgd", "shampoo"), streams=("permuted",), levels=(0.8,), steps=(60,), tasks=3),
        pruning=PruningConfig(
            arms=("sgd", "power-3", "recipe", "l1-0.001", "gradual-0.05"), steps=300, hidden=(100, 50)
        ),
    ),
    "laptop": SolutionsStudyConfig(seeds=10, first_seed=100),
    "gpu": SolutionsStudyConfig(
        seeds=10,
        first_seed=100,
        glyphs=GlyphsConfig(arms=tuple(glyphs.FACTORIAL)),
        vit=ViTConfig(arms=tuple(vit.SWEEPS)),
    ),
}

study = Study(
    name="solutions",
    question="Does the optimiser decide which solution is found, and can one be chosen for what it finds?",
    scales=SCALES,
    parts=[pairs.part, matched.part, pruning.part, glyphs.part, vit.part],
    paper=PAPER,
    cost={
        "quick": "under 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
    },
)
