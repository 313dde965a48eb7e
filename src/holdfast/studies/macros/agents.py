"""Rainbow agents that play a game, with and without macro-actions: what the parts with games share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from holdfast.lab import Outcome
from holdfast.studies.macros.rows import draw_curves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from holdfast.lab import Record, Results

ARMS = {
    "primitives": "primitives only",
    "naive": "macros",
    "learned": "penalty, learned similarity",
    "frozen": "its start, frozen",
}


@dataclass(frozen=True, kw_only=True)
class GamesConfig:
    """Rainbow agents.

    Arguments:
        games: ids of environments; none: the part is left out.
        steps: primitive steps of an agent.
        points: of its learning curve.
        macros: those beside the primitives, as `holdfast train rainbow --macros` takes them.
        eta: strength of the penalty.
        meta_every: updates of the agent for one of the similarity.
        starts: primitive steps before the first update; `None`: as suits the game.
        agents: that share a GPU.
        device: where.
    """

    games: tuple[str, ...] = ()
    steps: int = 250_000
    points: int = 50
    macros: tuple[str, ...] = ("repeat:2,3,4,5,6", "random:32:2:6")
    eta: float = 0.1
    meta_every: int = 10
    starts: int | None = None
    agents: int = 10
    device: Literal["cpu", "cuda"] = "cuda"

    @property
    def gpu(self) -> float:
        """Share of a GPU that an agent takes."""
        return 1 / self.agents if self.device == "cuda" else 0.0


def play(config: GamesConfig, game: str, arm: str, seed: int) -> Outcome:
    """Train an agent, as `holdfast train rainbow` does.

    Arguments:
        config: how.
        game: id of the environment.
        arm: one of `ARMS`.
        seed: of everything.

    Returns:
        A record with `score`, the mean return of the games that ended in the last tenth of the steps (of all where
        none did; 0 where none ended), `games` that ended, `actions` of the agent and its `decisions`; of agents with a
        penalty the effective number of actions in the end, `d_eff`.
        Curve: `scores`, the mean return of the games that ended since the point before, by primitive `step`.

    Errors:
        MissingExtraError: the game's package is not installed.
    """
    from holdfast.rl.rainbow.recipe import IntervalsRecipe, LearningRecipe, PlayRecipe, RainbowRecipe
    from holdfast.rl.rainbow.train import train

    penalty = arm in ("learned", "frozen")
    macros = () if arm == "primitives" else config.macros
    recipe = RainbowRecipe(
        play=PlayRecipe(env=game, steps=config.steps, macros=macros, seed=seed, device=config.device),
        learning=LearningRecipe(
            eta=config.eta if penalty else 0.0,
            meta=arm == "learned",
            meta_every=config.meta_every,
            learning_starts=config.starts,
        ),
        intervals=IntervalsRecipe(log_every=max(1, config.steps // config.points), save_every=config.steps),
    )
    with TemporaryDirectory() as folder:
        report = train(recipe, Path(folder) / "run", quiet=True)
    late = [game[1] for game in report["games"] if game[0] > 0.9 * config.steps]
    late = late or [game[1] for game in report["games"]]
    record: dict[str, Any] = {
        "score": sum(late) / len(late) if late else 0.0,
        "games": len(report["games"]),
        "actions": report["actions"],
        "decisions": report["decisions"],
    }
    if penalty:
        record["d_eff"] = report["curve"][-1]["similarity"]["d_eff"]
    curve = [{"step": point["step"], "score": point["return"]} for point in report["curve"] if "return" in point]
    return Outcome([record], {"scores": curve})


def draw_games(results: Results, axes: Axes, part: str, games: Sequence[str]) -> list[Record]:
    """Learning curves of the first game, an arm a line.

    Arguments:
        results: of the study.
        axes: to draw on.
        part: whose.
        games: of the part.
    """
    if not games:
        axes.set_ylabel("mean return")
        return []
    curves: dict[str, list[Record]] = {}
    for arm in ARMS:
        rows = results.curve("scores", part=part, game=games[0], arm=arm)
        # Decisions end at steps of their own: what was logged at about the same step stands in one column.
        width = max(1, max((int(row["step"] or 0) for row in rows), default=1) // 25)
        curves[arm] = [{**row, "step": round(int(row["step"] or 0) / width) * width} for row in rows]
    rows = draw_curves(axes, curves, ARMS)
    axes.set_ylabel(f"mean return of {games[0]}")
    return rows
