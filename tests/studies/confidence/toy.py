"""The study of confidence at toy size."""

from __future__ import annotations

from holdfast.studies.confidence.fusion import FusionConfig
from holdfast.studies.confidence.models import ModelsConfig
from holdfast.studies.confidence.observers import ObserversConfig
from holdfast.studies.confidence.served import ServedConfig
from holdfast.studies.confidence.study import ConfidenceStudyConfig
from holdfast.studies.confidence.traps import TrapsConfig

TOY = ConfidenceStudyConfig(
    seeds=1,
    observers=ObserversConfig(presets=("bayes", "both"), questions=20, ideal=2),
    traps=TrapsConfig(questions=20),
    served=ServedConfig(ways=("systemone", "storm"), questions=7),
    fusion=FusionConfig(cases=500),
    models=ModelsConfig(count=12, accuracies=(0.6, 0.9)),
    model_seeds=1,
)
