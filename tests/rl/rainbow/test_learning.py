"""It learns. What takes minutes is run by hand, and judged by a margin that was written here before the first run.

`holdfast train rainbow --env MinAtar/Breakout-v1 --steps 250000 --seed 100`: the mean return of the last 100 games is
to be at least 2 above that of random actions, which is 0.41 (2,000 games, standard error 0.02).
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gymnasium")

from holdfast.rl.rainbow.recipe import IntervalsRecipe, LearningRecipe, PlayRecipe, RainbowRecipe
from holdfast.rl.rainbow.train import train

RANDOM = 22.5
"""Mean return of random actions in CartPole-v1 (1,000 games of seed 0)."""
MARGIN = 40.0
"""By which the last third of 3,000 steps is to be better on average, written down before the first run of this seed."""


@pytest.mark.usefixtures("unchecked")
def test_it_learns_to_balance_a_pole(tmp_path: Path) -> None:
    recipe = RainbowRecipe(
        play=PlayRecipe(env="CartPole-v1", steps=3_000, seed=100),
        learning=LearningRecipe(train_every=2),
        intervals=IntervalsRecipe(log_every=1_000),
    )
    report = train(recipe, tmp_path / "run", quiet=True)
    assert report["curve"][-1]["return"] > RANDOM + MARGIN
    assert report["updates"] == 1_250
