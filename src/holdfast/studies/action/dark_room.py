"""Part `dark_room`: whether policies learn within their context, without a change of their weights.

They are trained on histories of scripted learners in dark rooms, and tested on goals that no history had: a policy
that has learned to learn finds the goal in its first episodes, and goes straight there in the later ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, paired_difference, progress
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.lab.seeds import rng_for
from holdfast.studies.action.arms import ARMS, COLOURS, backbone_of
from holdfast.studies.action.paper import OURS, SECOND_HAND
from holdfast.studies.action.streams import GOALS, HISTORIES
from holdfast.studies.action.training import Recipe, seeded, train

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int64
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.models.action.batch import Batch
    from holdfast.models.action.domain import Domain
    from holdfast.models.action.model import ActionModel


@dataclass(frozen=True, kw_only=True)
class DarkRoomConfig:
    """Policies for dark rooms.

    Arguments:
        arms: some of the backbones.
        size: of the backbones.
        room: cells of a side.
        steps: of an episode.
        episodes: of a history.
        held_out: share of the goals that no history has.
        histories: of each other goal.
        rollouts: histories of a policy for each held-out goal.
        recipe: how policies are trained.
    """

    arms: tuple[str, ...] = ("xlstm10", "xlstm11", "transformer")
    size: str = "small"
    room: int = 5
    steps: int = 16
    episodes: int = 4
    held_out: float = 0.2
    histories: int = 20
    rollouts: int = 8
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=400, batch=16, weight_decay=0.1))

    def __post_init__(self) -> None:
        if not set(self.arms) <= set(ARMS):
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", repr(self.arms))


def trials(config: Any) -> Iterator[Trial[DarkRoomConfig]]:
    """One trial a policy.

    Arguments:
        config: the study's configuration.
    """
    settings: DarkRoomConfig = config.dark_room
    for seed in config.long_range:
        for arm in settings.arms:
            recipe = settings.recipe
            yield Trial(seed, settings, {"arm": arm}, cost=recipe.steps / 8, gpu=recipe.gpu)


def run(trial: Trial[DarkRoomConfig]) -> Outcome:
    """Train one policy and let it act in rooms whose goals are new to it. Every arm of a seed sees the same.

    Records: `score` by `episode` of the history, mean over rooms: the return as a share of the greatest one; and
    `learner`, the same of the scripted learners of these goals.
    Curve: `dark_room` (loss in nats an action, by step).
    """
    import numpy as np

    from holdfast.studies.action.rooms import Rooms, learner_history, returns_of

    config, seed = trial.config, trial.seeds[0]
    rooms = Rooms(size=config.room, steps=config.steps, episodes=config.episodes)
    known, new = _goals(rooms, config.held_out, seed)
    model = _model(config, str(trial.labels["arm"]), seed)
    curve = train(model, config.recipe, _batches(rooms, known, config, seed), share=0.9)
    goals = new.repeat(config.rollouts, axis=0)
    best = np.array([rooms.best(goal) for goal in goals])[:, None]
    scores = (returns_of(rooms, goals, _deciding(model, len(goals), seed)) / best).mean(0)
    rng = rng_for(seed, HISTORIES, 1)
    shown = np.stack([learner_history(rooms, goal, rng).rewards for goal in goals]).reshape(
        len(goals), rooms.episodes, -1
    )
    learner = (shown.sum(-1) / best).mean(0)
    progress.report(1.0)
    records = [
        {"episode": number + 1, "score": float(score), "learner": float(learner[number])}
        for number, score in enumerate(scores)
    ]
    return Outcome(records, {"dark_room": curve})


def _goals(rooms: Any, held_out: float, seed: int) -> tuple[Int64[np.ndarray, "known 2"], Int64[np.ndarray, "new 2"]]:
    """Goals of histories, and those that are new in the test."""
    goals = rng_for(seed, GOALS).permutation(rooms.goals)
    count = max(1, round(held_out * len(goals)))
    return goals[count:], goals[:count]


def _domain(config: DarkRoomConfig) -> Domain:
    from holdfast.models.action.domain import Discrete, Domain, Vector

    return Domain(name="dark-room", observation=Vector(config.room**2), action=Discrete(5))


def _model(config: DarkRoomConfig, arm: str, seed: int) -> ActionModel:
    """A policy that reads no returns-to-go: what can be reached is not known before the goal is."""
    from holdfast.models.action.config import ActionConfig

    shape = backbone_of(arm, config.size, 2 * config.steps * config.episodes)
    return seeded(ActionConfig(backbone=shape, domains=(_domain(config),), returns=False), seed)


def _batches(rooms: Any, goals: Int64[np.ndarray, "goals 2"], config: DarkRoomConfig, seed: int) -> Any:
    """From a step to whole histories, drawn among all of them."""
    import numpy as np
    import torch

    from holdfast.models.action.batch import Batch
    from holdfast.studies.action.rooms import learner_history

    rng = rng_for(seed, HISTORIES, 0)
    histories = [learner_history(rooms, goal, rng) for goal in goals for _ in range(config.histories)]
    domain = _domain(config)

    def batch(step: int) -> Batch:
        chosen = rng_for(seed, HISTORIES, 2, step).integers(len(histories), size=config.recipe.batch)
        places, actions, rewards = (np.stack([histories[row][part] for row in chosen]) for part in range(3))
        return Batch(
            domain=domain,
            observation=torch.from_numpy(rooms.seen(places)),
            action=torch.from_numpy(actions)[..., None],
            valid=torch.ones(actions.shape, dtype=torch.bool),
            reward=torch.from_numpy(rewards),
        )

    return batch


def _deciding(model: ActionModel, rooms: int, seed: int) -> Any:
    """The policy in rooms side by side. It draws its actions, as a learner who explores does."""
    from holdfast.rl.stepping import Policy, PolicyConfig

    policy = Policy(
        model, PolicyConfig(domain="dark-room", slots=rooms, autoreset="same_step", temperature=1.0, seed=seed)
    )

    def decide(seen: Float[np.ndarray, "rooms cells"], reward: Float[np.ndarray, " rooms"] | None) -> Any:
        return policy.act(seen, reward)

    return decide


def _scores(results: Results, arm: str, episode: int) -> Values:
    return results.by_seed("score", part="dark_room", arm=arm, episode=episode)


def _learns(arm: str, results: Results) -> Evidence:
    """Score of the last episode less that of the first."""
    last = results.config.dark_room.episodes
    return paired_difference(_scores(results, arm, last), _scores(results, arm, 1), names=("last", "first"))


def _better(results: Results) -> Evidence:
    last = results.config.dark_room.episodes
    return paired_difference(
        _scores(results, "xlstm11", last), _scores(results, "xlstm10", last), names=("with sLSTM", "without")
    )


def _near(results: Results) -> Evidence:
    last = results.config.dark_room.episodes
    return mean_of(_scores(results, "xlstm11", last), threshold=0.5, bounds=(0, 1), name="score of the last episode")


CLAIMS = (
    Claim(
        "dark-room-xlstm10",
        "In dark rooms with new goals a policy of mLSTM blocks does better in its last episode than in its first, with "
        "the same weights.",
        partial(_learns, "xlstm10"),
        paper=f"returns rise over episodes ({SECOND_HAND})",
        family="dark-room",
        scale="laptop",
    ),
    Claim(
        "dark-room-xlstm11",
        "So does a policy with sLSTM blocks among them.",
        partial(_learns, "xlstm11"),
        paper=f"returns rise over episodes ({SECOND_HAND})",
        family="dark-room",
        scale="laptop",
    ),
    Claim(
        "dark-room-slstm",
        "In the last episode the policy with sLSTM blocks does better than the one without.",
        _better,
        paper=f"xLSTM[7:1] best on goals of the training and on new ones ({SECOND_HAND})",
        family="dark-room",
        headline=True,
        plain="a recurrent policy does better with state-tracking blocks (sLSTM) where it must remember",
        figure="dark-room",
        scale="laptop",
    ),
    Claim(
        "dark-room-half",
        "In the last episode it has more than half of the greatest return.",
        _near,
        paper=OURS,
        family="dark-room",
        scale="laptop",
    ),
)


def draw_dark_room(results: Results, axes: Axes) -> list[Record]:
    """Score by episode of the history, a line an arm, and that of scripted learners."""
    config: DarkRoomConfig = results.config.dark_room
    episodes = range(1, config.episodes + 1)
    rows: list[Record] = []
    looks: dict[str, dict[str, Any]] = {arm: {"color": COLOURS[arm], "label": ARMS[arm]} for arm in config.arms}
    for arm, look in looks.items():
        values = {episode: list(_scores(results, arm, episode).values()) for episode in episodes}
        points = draw_over_seeds(axes, values, bounds=SHARE, dots=True, marker="o", markersize=4, **look)
        rows += [
            {"arm": arm, "episode": x, "score": mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    learners = {
        episode: list(results.by_seed("learner", part="dark_room", arm=config.arms[0], episode=episode).values())
        for episode in episodes
    }
    if rows:
        draw_over_seeds(axes, learners, color=GREY, linestyle="--", label="the scripted learner")
    axes.set_xticks(list(episodes))
    axes.set_xlabel("episode of the history")
    axes.set_ylabel("share of the greatest return")
    legend(axes)
    return rows


part = Part(
    "dark_room",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "dark-room",
            "Returns of policies in dark rooms with goals that no history of the training had, by episode; nothing but "
            "their context changes from one to the next. Lines are means over seeds, dots are seeds.",
            draw_dark_room,
        ),
    ),
)
