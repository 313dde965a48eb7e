"""How many steps of training fit into a time."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils.data import default_collate

from holdfast.models.language.corpus import Corpus, Windows
from holdfast.models.language.model import HoldfastForCausalLM
from holdfast.models.language.recipe import LanguageRecipe
from holdfast.models.training.pace import steps_within
from holdfast.models.training.place import Place


def steps_that_fit(model: HoldfastForCausalLM, recipe: LanguageRecipe, corpus: Corpus, place: Place) -> int:
    """How many steps take as long as the recipe's minutes, with the looks at validation data between them.

    It is measured with a copy, for a few seconds: the model and the random states stay as they are.
    """
    optimisation, context = recipe.optimisation, recipe.model.context
    assert optimisation.minutes is not None
    batch = place.batch(optimisation)
    windows = Windows(corpus.train.tokens, context, batch, optimisation.seed)
    inputs = {
        name: tensor.to(place.device)
        for name, tensor in default_collate([windows[number] for number in range(batch)]).items()
    }
    trial: Any = copy.deepcopy(model)
    trial.to(place.device).train()
    optimiser = torch.optim.AdamW(trial.parameters(), fused=True)
    kind = torch.bfloat16 if place.precision == "bfloat16" else torch.float16

    def forward() -> Any:
        with torch.autocast(place.device, dtype=kind, enabled=place.precision != "float32"):
            return trial(**inputs).loss

    def step() -> None:
        for _ in range(optimisation.accumulate):
            forward().backward()
        optimiser.step()
        optimiser.zero_grad()

    def look() -> None:
        with torch.no_grad():
            forward()

    looks = recipe.intervals.eval_windows / (batch * place.processes) / recipe.intervals.eval_every
    return steps_within(optimisation.minutes, step, look, looks, place.device)
