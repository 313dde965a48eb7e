"""Language models as the parts `language` and `positions` train and test them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.studies.rat.arms import Shape, backbone_of
from holdfast.studies.rat.corpus import Corpus, Text, training_windows
from holdfast.studies.rat.streams import WEIGHTS
from holdfast.studies.rat.training import IGNORED, Recipe, precision, train

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.studies.rat.language_model import LanguageModel

TRAINING_SHARE = 0.9
"""Share of a trial's progress that its training makes."""


@dataclass(frozen=True, kw_only=True)
class TextModels:
    """How language models are trained.

    Arguments:
        time: tokens of a training window.
        text: what they read.
        shape: of the models.
        recipe: how they are trained.
    """

    time: int = 256
    text: Text = field(default_factory=Text)
    shape: Shape = field(default_factory=lambda: Shape(dim=96, layers=2))
    recipe: Recipe = field(
        default_factory=lambda: Recipe(steps=400, batch=8, learning_rate=2e-3, warmup=40, weight_decay=0.1)
    )

    @property
    def cost(self) -> float:
        """Relative length of a trial."""
        return self.recipe.steps * self.recipe.batch * self.time * self.shape.layers / 60_000


def trained(
    config: TextModels, corpus: Corpus, arm: str, seed: int, *, rope_theta: float | None = 10_000.0
) -> tuple[LanguageModel, list[Record]]:
    """A model, and its learning curve; windows depend on the seed alone, so that all arms read the same."""
    from holdfast.studies.rat.language_model import LanguageModel

    recipe = config.recipe
    backbone = backbone_of(arm, config.shape, config.time, rope_theta=rope_theta)
    model = LanguageModel(backbone, config.text.vocabulary, seed, WEIGHTS).to(recipe.device)
    model.backbone.checkpointing = recipe.recompute

    def batches(step: int) -> tuple[Tensor, Tensor]:
        return training_windows(corpus, config.text, seed, step, recipe.batch, config.time)

    curve = train(model, recipe, batches, TRAINING_SHARE)
    return model.eval(), curve


def losses(
    model: LanguageModel,
    inputs: Int[Tensor, "windows time"],
    targets: Int[Tensor, "windows time"],
    recipe: Recipe,
    last: int,
) -> Float[Tensor, "windows last"]:
    """Loss in nats of the last tokens of each window, not a number where nothing is asked."""
    import torch

    size = max(1, (recipe.micro_batch or recipe.batch) // max(1, inputs.shape[1] // 1024))
    parts = []
    with torch.no_grad():
        for some, wanted in zip(inputs.split(size), targets.split(size), strict=True):
            with precision(recipe.device):
                logits = model(some.to(recipe.device))[:, -last:]
            asked = wanted[:, -last:].to(recipe.device)
            nats = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), asked.flatten(), ignore_index=IGNORED, reduction="none"
            )
            parts.append(nats.view_as(asked).masked_fill(asked == IGNORED, float("nan")).cpu())
    return torch.cat(parts)
