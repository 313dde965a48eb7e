"""How stubborn is a language model and how easily swayed, and does the probe that tells find what is there?

Re-tests arXiv 2507.03120, whose later version is "Competing Biases underlie Overconfidence and Underconfidence in
LLMs", Nature Machine Intelligence 8, 614-627 (2026), doi 10.1038/s42256-026-01217-9. Each part stands in the file of
its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.lab import Config, Study
from holdfast.studies.confidence import emergence, fusion, models, observers, served, trained, traps
from holdfast.studies.confidence.emergence import EmergenceConfig
from holdfast.studies.confidence.fusion import FusionConfig
from holdfast.studies.confidence.models import ModelsConfig
from holdfast.studies.confidence.observers import ObserversConfig
from holdfast.studies.confidence.paper import PAPER
from holdfast.studies.confidence.served import ServedConfig
from holdfast.studies.confidence.trained import TrainedConfig
from holdfast.studies.confidence.traps import TrapsConfig


@dataclass(frozen=True, kw_only=True)
class ConfidenceStudyConfig(Config):
    """Settings of the study.

    Arguments:
        observers: simulated observers whose parameters are estimated.
        traps: readings that mislead.
        served: an observer behind a server.
        trained: language models that are trained on observers.
        emergence: language models that are trained on unbiased authors.
        fusion: advice that is weighed outside of the model.
        models: language models of your own.
        model_seeds: how many seeds, from the first on, train models and ask servers, which takes longest.
    """

    observers: ObserversConfig = field(default_factory=ObserversConfig)
    traps: TrapsConfig = field(default_factory=TrapsConfig)
    served: ServedConfig = field(default_factory=ServedConfig)
    trained: TrainedConfig = field(default_factory=TrainedConfig)
    emergence: EmergenceConfig = field(default_factory=EmergenceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    model_seeds: int = 3


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": ConfidenceStudyConfig(
        seeds=5,
        first_seed=100,
        observers=ObserversConfig(questions=60),
        traps=TrapsConfig(questions=60),
        served=ServedConfig(questions=12),
        trained=trained.QUICK,
        emergence=emergence.QUICK,
        fusion=FusionConfig(cases=20_000),
        model_seeds=1,
    ),
    "laptop": ConfidenceStudyConfig(seeds=60, first_seed=100),
    "gpu": ConfidenceStudyConfig(seeds=60, first_seed=100, trained=trained.GPU, emergence=emergence.GPU, model_seeds=5),
    "paper": ConfidenceStudyConfig(
        seeds=60,
        first_seed=100,
        trained=trained.GPU,
        emergence=emergence.GPU,
        model_seeds=5,
        models=ModelsConfig(models=("google/gemma-3-12b-it",), gpu=1.0),
    ),
}

study = Study(
    name="confidence",
    question="Is a language model stubborn or easily swayed, can that be measured, and does it help to weigh advice "
    "outside of it?",
    scales=SCALES,
    parts=[
        models.part,
        trained.part,
        emergence.part,
        observers.part,
        traps.part,
        served.part,
        fusion.part,
    ],
    paper=PAPER,
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 1 hour (estimated)",
        "paper": "one GPU, under 1 hour a model of 12 billion parameters (estimated)",
    },
)
