"""Part `ale`: that Rainbow with macros runs on the Arcade Learning Environment. Too short to judge anything.

Games need the extra `macros`; where none is named there are no trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from holdfast.lab import Figure, Outcome, Part, Results, Trial
from holdfast.studies.macros.agents import ARMS, GamesConfig, draw_games, play

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record


def trials(config: Any) -> Iterator[Trial[GamesConfig]]:
    """One trial an agent, several of which share a GPU.

    Arguments:
        config: the study's configuration.
    """
    settings: GamesConfig = config.ale
    for seed in config.games_range[:2]:
        for game in settings.games:
            for arm in ARMS:
                yield Trial(seed, settings, {"game": game, "arm": arm}, cost=settings.steps / 100, gpu=settings.gpu)


def run(trial: Trial[GamesConfig]) -> Outcome:
    """Train one agent; see `agents.play`."""
    return play(trial.config, str(trial.labels["game"]), str(trial.labels["arm"]), trial.seeds[0])


def draw_curves(results: Results, axes: Axes) -> list[Record]:
    """Learning curves of the first game."""
    return draw_games(results, axes, "ale", results.config.ale.games)


part = Part(
    "ale",
    trials,
    run,
    figures=(
        Figure(
            "ale",
            "Rainbow with and without macros on an Atari game: too short to judge. Mean return by primitive steps.",
            draw_curves,
        ),
    ),
    needs={"ale_py": "holdfast[macros]", "cv2": "holdfast[macros]", "gymnasium": "holdfast[macros]"},
)
