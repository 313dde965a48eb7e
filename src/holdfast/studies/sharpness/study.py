"""Does softmax attention disperse as its input grows, and does a temperature that adapts to entropy keep it
sharp?

Re-tests "Softmax is not enough (for sharp size generalisation)", arXiv 2410.01104. Each part stands in the file of its
name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Paper, Study
from holdfast.studies.sharpness import bounds, control, needle, retrieve, trained_with
from holdfast.studies.sharpness.bounds import BoundsConfig
from holdfast.studies.sharpness.control import ControlConfig
from holdfast.studies.sharpness.needle import NeedleConfig
from holdfast.studies.sharpness.retrieve import RetrieveConfig
from holdfast.studies.sharpness.sizes import powers
from holdfast.studies.sharpness.traces import part as traces
from holdfast.studies.sharpness.traces.part import TracesConfig
from holdfast.studies.sharpness.trained_with import TrainedWithConfig


@dataclass(frozen=True, kw_only=True)
class SharpnessConfig(Config):
    """Settings of the study.

    Arguments:
        retrieve: the main experiment, on max retrieval.
        trained_with: the same with networks trained with an alternative.
        needle: the two-level table.
        bounds: the inequalities.
        control: the negative control, on averages.
        traces: the language models.
        trace_seeds: how many seeds, from the first on, have language models; 0: none.
    """

    retrieve: RetrieveConfig = field(default_factory=RetrieveConfig)
    trained_with: TrainedWithConfig = field(default_factory=TrainedWithConfig)
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    trace_seeds: int = 0


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": SharpnessConfig(
        first_seed=100,
        retrieve=RetrieveConfig(steps=1500, sizes=(16, 64, 256, 512, 1024, 4096), sets=1024, large_sets=256),
        trained_with=TrainedWithConfig(steps=1500, sizes=(16, 256, 1024), sets=1024, arms=("published", "entmax")),
        bounds=BoundsConfig(rows=200, sizes=(128, 512, 2048)),
        control=ControlConfig(steps=600, sizes=(16, 64, 256, 1024), sets=1024, fit_sizes=powers(4, 9)),
    ),
    "laptop": SharpnessConfig(seeds=5, first_seed=100),
    "gpu": SharpnessConfig(
        seeds=10,
        first_seed=100,
        retrieve=RetrieveConfig(device="cuda", stacked=True, steps=100_000, sizes=powers(4, 17)),
        trained_with=TrainedWithConfig(device="cuda", stacked=True, steps=100_000, sizes=powers(4, 17)),
        bounds=BoundsConfig(device="cuda", rows=10_000, sizes=(512, 2048, 8192, 32768)),
        control=ControlConfig(device="cuda", stacked=True, steps=20_000, sizes=powers(4, 14)),
        trace_seeds=3,
    ),
}

study = Study(
    name="sharpness",
    question="Does softmax attention disperse as inputs grow, and does adaptive temperature keep it sharp?",
    scales=SCALES,
    parts=[retrieve.part, trained_with.part, needle.part, bounds.part, control.part, traces.part],
    paper=Paper("Softmax is not enough (for sharp size generalisation)", "2410.01104"),
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
    },
)
