"""Does softmax attention disperse as its input grows, and does a temperature that adapts to entropy keep it
sharp?

Re-tests "Softmax is not enough (for sharp size generalisation)", arXiv 2410.01104, in six parts:

- `retrieve`: a single attention head learns to find the largest of at most 16 items, and is asked about
  thousands. Its weights stay the same; only the normaliser (the *arm*) changes.
- `trained-with`: the same network, trained anew with some of the alternatives, as their authors mean them to be used.
- `needle`: one logit stands a fixed margin above the rest; no training, no chance.
- `bounds`: the inequalities behind the argument, on random rows and in random encoders.
- `control`: the same network learns to average, a task that sharpness cannot help.
- `traces`: small language models write algorithms out step by step (on a GPU only; in `_sharpness_traces`).

The parts are in `_sharpness_retrieval`, `_sharpness_needle`, `_sharpness_bounds` and `_sharpness_traces`, the claims in
`_sharpness_claims` and the pictures in `_sharpness_figures`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.lab import Config, Outcome, Paper, Study, Trial, progress
from holdfast.studies.sharpness.bounds import BoundsConfig, run_bounds
from holdfast.studies.sharpness.claims import CLAIMS
from holdfast.studies.sharpness.figures import FIGURES
from holdfast.studies.sharpness.needle import NeedleConfig, run_needle
from holdfast.studies.sharpness.retrieval import (
    ControlConfig,
    RetrieveConfig,
    TrainedWithConfig,
    powers,
    run_trained,
    run_trained_with,
)
from holdfast.studies.sharpness.traces import TracesConfig, run_traces


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


def trials(config: SharpnessConfig) -> Iterator[Trial[Any]]:
    """One trial a part and seed; one for all seeds where they are stacked, and one for the needle table."""
    seeds: Sequence[int | tuple[int, ...]]
    for part, settings in (("retrieve", config.retrieve), ("control", config.control)):
        seeds = [tuple(config.seed_range)] if settings.stacked else config.seed_range
        for seed in seeds:
            yield Trial(seed, settings, {"part": part}, cost=float(settings.steps), gpu=_gpu(settings.device))
    alternatives = config.trained_with
    seeds = [tuple(config.seed_range)] if alternatives.stacked else config.seed_range
    for seed in seeds:
        for arm in alternatives.arms:
            labels = {"part": "trained-with", "arm": arm}
            yield Trial(seed, alternatives, labels, cost=float(alternatives.steps), gpu=_gpu(alternatives.device))
    # What is only switched on at the test needs the network that was trained without.
    trained_alone = [arm for arm in config.traces.arms if arm not in ("plain", "adaptive-inference")]
    together = [arm for arm in config.traces.arms if arm not in trained_alone]
    for seed in list(config.seed_range)[: config.trace_seeds]:
        for arms in filter(None, [together, *([arm] for arm in trained_alone)]):
            texts = replace(config.traces, arms=tuple(arms))
            yield Trial(seed, texts, {"part": "traces"}, cost=20_000.0, gpu=_gpu(texts.device))
    for seed in config.seed_range:
        yield Trial(seed, config.bounds, {"part": "bounds"}, cost=500.0, gpu=_gpu(config.bounds.device))
    yield Trial(config.first_seed, config.needle, {"part": "needle"}, cost=100.0)


def _gpu(device: str) -> float:
    return 1.0 if device.startswith("cuda") else 0.0


def run(trial: Trial[Any]) -> Outcome:
    """Compute one trial; see the functions of each part for what they record."""
    from holdfast.nn import CorrectionInactiveWarning

    with warnings.catch_warnings():
        # That the published law stops acting is what this study measures.
        warnings.simplefilter("ignore", CorrectionInactiveWarning)
        match trial.config:
            case RetrieveConfig() | ControlConfig():
                return run_trained(trial.config, trial.seeds)
            case TrainedWithConfig():
                return run_trained_with(trial.config, trial.seeds, str(trial.labels["arm"]))
            case TracesConfig():
                return Outcome(*run_traces(trial.config, trial.seeds[0], progress.report))
            case NeedleConfig():
                return run_needle(trial.config, trial.seeds[0])
            case BoundsConfig():
                return run_bounds(trial.config, trial.seeds[0])
            case other:
                raise TypeError(f"no part of this study has the configuration {type(other).__name__}")


study = Study(
    name="sharpness",
    question="Does softmax attention disperse as inputs grow, and does adaptive temperature keep it sharp?",
    scales=SCALES,
    trials=trials,
    run=run,
    claims=CLAIMS,
    figures=FIGURES,
    paper=Paper("Softmax is not enough (for sharp size generalisation)", "2410.01104"),
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
    },
)
