"""How many steps of training fit into a time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import default_collate

from holdfast.models.language.corpus import Corpus, Windows
from holdfast.models.language.model import HoldfastForCausalLM
from holdfast.models.language.place import Place
from holdfast.models.language.recipe import Recipe


def steps_that_fit(model: HoldfastForCausalLM, recipe: Recipe, corpus: Corpus, place: Place) -> int:
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

    step_s, look_s = _time_of(step, place), _time_of(look, place)
    share = batch * place.processes
    between = recipe.intervals.eval_windows / share * look_s / recipe.intervals.eval_every
    return max(1, round(60 * optimisation.minutes / (step_s + between)))


def _time_of(work: Callable[[], None], place: Place) -> float:
    """Mean seconds of some work, after a start that is not counted."""
    for _ in range(2):
        work()
    if place.device == "cuda":
        torch.cuda.synchronize()
    start, count = time.monotonic(), 0
    while count < 5 or (time.monotonic() - start < 4.0 and count < 100):
        work()
        count += 1
        if place.device == "cuda":
            torch.cuda.synchronize()
    return (time.monotonic() - start) / count
