"""Part `atari`: deep Q-learning with one update a step, at constant and at cyclic learning rates.

Games need the extra `rl`. At scales without games the part has no trials, and its claims say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import require
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, progress, unusable
from holdfast.lab.figures import GREY, legend, seed_mean
from holdfast.lab.results import Values

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {"high": "constant, high", "low": "constant, low", "cyclic": "cyclic", "stopped": "cyclic, then low"}

TWENTY = (
    *("asterix", "space_invaders", "breakout", "pong", "qbert", "demon_attack", "seaquest", "wizard_of_wor"),
    *("road_runner", "beam_rider", "frostbite", "crazy_climber", "assault", "krull", "boxing", "jamesbond"),
    *("kangaroo", "up_n_down", "gopher", "hero"),
)
"""The games of the paper's experiments with one update a step."""


@dataclass(frozen=True, kw_only=True)
class AtariConfig:
    """Deep Q-networks (Adam).

    Arguments:
        games: names as those of ale-py; none: the part is left out.
        frames: of play; an action lasts four.
        cycle: frames of a cycle of the learning rate.
        stop: cycles after which the rate stays low in the arm that stops.
        high: learning rate, the peak where it changes.
        low: lowest one.
        batch: transitions of an update.
        replay: actions that are remembered.
        random: actions that are taken at random before the first update.
        explore: actions in which the share of random ones falls to .01.
        copy_every: updates between two copies of the network that the targets are from.
        discount: of future rewards.
        device: where.
    """

    games: tuple[str, ...] = ()
    frames: int = 400_000
    cycle: int = 40_000
    stop: int = 5
    high: float = 6.25e-5
    low: float = 1e-6
    batch: int = 32
    replay: int = 100_000
    random: int = 2_000
    explore: int = 10_000
    copy_every: int = 1_000
    discount: float = 0.99
    device: str = "cuda"


def trials(config: Any) -> Iterator[Trial[AtariConfig]]:
    """One trial an agent.

    Arguments:
        config: the study's configuration.
    """
    settings: AtariConfig = config.atari
    gpu = 0.25 if settings.device.startswith("cuda") else 0.0
    for seed in config.seed_range:
        for game in settings.games:
            for arm in ARMS:
                yield Trial(seed, settings, {"game": game, "arm": arm}, cost=settings.frames / 1000, gpu=gpu)


def run(trial: Trial[AtariConfig]) -> Outcome:
    """Train one agent.

    Records: `score`, the mean return of the episodes that ended in the last tenth of training (of all where none did; 0
    where none ended at all), and how many `episodes` ended.
    Curve: `episodes` (return by frame).

    Errors:
        MissingExtraError: ale-py is not installed.
    """
    import torch

    from holdfast.lab.seeds import rng_for
    from holdfast.studies.plasticity.dqn import Replay, loss_of, q_network, scaled
    from holdfast.studies.plasticity.streams import NOISE

    config, seed, device = trial.config, trial.seeds[0], trial.config.device
    games = require("ale_py.vector_env", "rl")
    play = games.AtariVectorEnv(str(trial.labels["game"]), num_envs=1, reward_clipping=False)
    actions = int(play.single_action_space.n)
    network, slow = (q_network(actions, seed).to(device) for _ in range(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=config.high, eps=1.5e-4, fused=True)
    schedule = _schedule(optimizer, config, str(trial.labels["arm"]))
    rng, replay = rng_for(seed, NOISE), Replay(config.replay, seed)
    stack, _ = play.reset(seed=seed)
    total, returned, start = config.frames // 4, 0.0, 0
    episodes: list[Record] = []
    for step in range(total):
        share = max(0.01, 1 - max(0, step - config.random) / config.explore)
        if rng.random() < share:
            action = int(rng.integers(actions))
        else:
            with torch.no_grad():
                action = int(network(scaled(torch.from_numpy(stack), device)).argmax())
        seen = stack[0, -1]
        stack, reward, ended, cut = _acted(play, action)
        returned += reward
        replay.add(seen, action, min(1.0, max(-1.0, reward)), ended, start)
        if ended or cut:
            episodes.append({"frame": 4 * (step + 1), "return": returned})
            returned, start = 0.0, replay.count
            stack, *_ = _acted(play, 0)  # whose action is passed over: it gives the next episode's first frames
        if step >= config.random:
            loss = loss_of(network, slow, replay.sample(config.batch), config.discount, device)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            if (step - config.random) % config.copy_every == 0:
                slow.load_state_dict(network.state_dict())
        if step % 1000 == 0:
            progress.report(step / total, episodes=len(episodes))
    play.close()
    late = [row for row in episodes if int(row["frame"] or 0) > 0.9 * config.frames] or episodes
    score = sum(float(row["return"] or 0.0) for row in late) / len(late) if late else 0.0
    return Outcome([{"score": score, "episodes": len(episodes)}], {"episodes": episodes})


def _acted(play: Any, action: int) -> tuple[np.ndarray[Any, Any], float, bool, bool]:
    """Frames, reward, whether the episode ended, and whether it was cut off."""
    import numpy as np

    stack, rewards, ended, cut, _ = play.step(np.array([action]))
    return stack, float(rewards[0]), bool(ended[0]), bool(cut[0])


def _schedule(optimizer: Any, config: AtariConfig, arm: str) -> Any:
    """The course of the learning rate; `None` where it stays what it is."""
    from holdfast.optim import Rewarm

    if arm in ("high", "low"):
        for group in optimizer.param_groups:
            group["lr"] = getattr(config, arm)
        return None
    count = config.stop if arm == "stopped" else None
    period = config.cycle // 4  # an update for each action
    return Rewarm(optimizer, peak=config.high, final=config.low, period=period, cyclic=True, max_cycles=count)


def _scores(results: Results, game: str, arm: str) -> Values:
    return results.by_seed("score", part="atari", game=game, arm=arm)


def _wins(results: Results, arm: str) -> Evidence:
    """The share of games in which an arm is above both constant rates."""
    games: tuple[str, ...] = results.config.atari.games
    if not games:
        return unusable("this configuration has no games: --config.atari.games")
    won = [
        Values.of(
            lambda cyclic, high, low: float(cyclic > max(high, low)),
            *(_scores(results, game, name) for name in (arm, "high", "low")),
        )
        for game in games
    ]
    share = Values.of(lambda *values: sum(values) / len(values), *won)
    return mean_of(share, threshold=0.5, bounds=(0, 1), name="the share of games that it wins")


def _cyclic(results: Results) -> Evidence:
    return _wins(results, "cyclic")


def _stopped(results: Results) -> Evidence:
    return _wins(results, "stopped")


CLAIMS = (
    Claim(
        "atari-cyclic",
        "A cyclic learning rate scores higher than both constant ones, its peak and its lowest, in more than half of "
        "the games.",
        _cyclic,
        paper="better in several games, unstable in others (figure 6)",
        family="atari",
        scale="gpu",
    ),
    Claim(
        "atari-stopped",
        "So does one that stays low after the first half of its cycles.",
        _stopped,
        paper="large gains over constant rates and over cycling for ever (figure 7)",
        family="atari",
        scale="gpu",
    ),
)


def draw_scores(results: Results, axes: Axes) -> list[Record]:
    """Scores by game, as a share of those at the high constant rate."""
    rows: list[Record] = []
    games: tuple[str, ...] = results.config.atari.games
    for number, (arm, label) in enumerate(ARMS.items()):
        for place, game in enumerate(games):
            values = list(_scores(results, game, arm).values())
            base = list(_scores(results, game, "high").values())
            if not values or not base or not sum(base):
                continue
            mean, size = seed_mean(values), abs(sum(base) / len(base))
            x = place + 0.2 * number - 0.3
            axes.bar(x, mean.mean / size, width=0.18, color=f"C{number}", label=None if place else label)
            rows.append({"game": game, "arm": arm, "score": mean.mean, "low": mean.low, "high": mean.high})
    axes.axhline(1.0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(games)), list(games), rotation=45, ha="right")
    axes.set_ylabel("score / mean at the high constant rate")
    legend(axes)
    return rows


part = Part(
    "atari",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "atari",
            "Scores of deep Q-networks with one update a step, in the last tenth of training. Bars are "
            "means over seeds.",
            draw_scores,
        ),
    ),
    needs={"ale_py": "holdfast[rl]"},
)
