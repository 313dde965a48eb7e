"""A study of the parts that train models, at toy size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.lab import Config, Study
from holdfast.llm import Message
from holdfast.studies.confidence import emergence, trained
from holdfast.studies.confidence.emergence import EmergenceConfig
from holdfast.studies.confidence.language_model import Recipe
from holdfast.studies.confidence.trained import TrainedConfig


@dataclass(frozen=True, kw_only=True)
class ModelsConfig(Config):
    """What both parts read of the study's configuration."""

    trained: TrainedConfig
    emergence: EmergenceConfig
    model_seeds: int = 1


RECIPE = Recipe(layers=1, dim=16, heads=2, steps=100, batch=8, warmup=5, learning_rate=1e-2, curve_every=10)
"""Enough to write labels and nothing else; the probe refuses less."""
TOY = ModelsConfig(
    seeds=2,
    trained=TrainedConfig(questions=4, accuracies=(0.6, 0.9), endpoint_questions=2, recipe=RECIPE),
    emergence=EmergenceConfig(questions=4, authors=8, recipe=RECIPE),
)
study = Study(
    name="models",
    question="Does the probe find what is there?",
    scales={"laptop": TOY},
    parts=[trained.part, emergence.part],
)


def learned(arm: str) -> tuple[list[list[Message]], np.ndarray]:
    """Prompts of the toy model of an arm, and what is to follow them."""
    plan = trained.plan_of(TOY.trained, 0)
    return trained.transcripts(trained.observer_of(trained.ARMS[arm], TOY.trained, plan, 0), plan)
