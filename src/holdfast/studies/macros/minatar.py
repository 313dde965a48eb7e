"""Part `minatar`: Rainbow on MinAtar's games. They need the extra `macros`; where none is named there are no trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, unusable
from holdfast.lab.results import Values
from holdfast.studies.macros.agents import ARMS, GamesConfig, draw_games, play
from holdfast.studies.macros.paper import GAMES, HURT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record


def trials(config: Any) -> Iterator[Trial[GamesConfig]]:
    """One trial an agent, several of which share a GPU.

    Arguments:
        config: the study's configuration.
    """
    settings: GamesConfig = config.minatar
    for seed in config.games_range:
        for game in settings.games:
            for arm in ARMS:
                yield Trial(seed, settings, {"game": game, "arm": arm}, cost=settings.steps / 1e3, gpu=settings.gpu)


def run(trial: Trial[GamesConfig]) -> Outcome:
    """Train one agent; see `agents.play`."""
    return play(trial.config, str(trial.labels["game"]), str(trial.labels["arm"]), trial.seeds[0])


def _scores(results: Results, game: str, arm: str) -> Values:
    return results.by_seed("score", part="minatar", game=game, arm=arm)


def _wins(results: Results, first: str, *others: str) -> Evidence:
    """The share of games in which an arm is above all of some others."""
    games: tuple[str, ...] = results.config.minatar.games
    if not games:
        return unusable("this configuration has no games: --config.minatar.games")
    won = [
        Values.of(
            lambda score, *rest: float(score > max(rest)), *(_scores(results, game, arm) for arm in (first, *others))
        )
        for game in games
    ]
    share = Values.of(lambda *values: sum(values) / len(values), *won)
    return mean_of(share, threshold=0.5, bounds=(0, 1), name="the share of games that it wins")


def _hurt(results: Results) -> Evidence:
    return _wins(results, "primitives", "naive")


def _learned(results: Results) -> Evidence:
    return _wins(results, "learned", "naive", "primitives")


def _frozen(results: Results) -> Evidence:
    return _wins(results, "learned", "frozen")


CLAIMS = (
    Claim(
        "minatar-hurts",
        "In more than half of MinAtar's games Rainbow with macros added scores below Rainbow.",
        _hurt,
        paper=HURT,
        family="minatar",
        scale="gpu",
    ),
    Claim(
        "minatar-learned",
        "With the penalty and a learned similarity it scores above both in more than half of them.",
        _learned,
        paper=GAMES,
        family="minatar",
        scale="gpu",
    ),
    Claim(
        "minatar-controls",
        "It scores above the penalty with the similarity that it starts from in more than half of them.",
        _frozen,
        paper=GAMES,
        family="minatar",
        scale="gpu",
    ),
)


def draw_curves(results: Results, axes: Axes) -> list[Record]:
    """Learning curves of the first game."""
    return draw_games(results, axes, "minatar", results.config.minatar.games)


part = Part(
    "minatar",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "minatar",
            "Rainbow with and without macros on the first of MinAtar's games: mean return by primitive steps. Means "
            "over seeds with 95 % intervals.",
            draw_curves,
        ),
    ),
    needs={"gymnasium": "holdfast[macros]", "minatar": "holdfast[macros]"},
)
