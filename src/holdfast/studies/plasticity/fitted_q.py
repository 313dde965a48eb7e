"""Part `fitted_q`: values of a grid world whose goal moves, fitted with a network and its slow copy.

All transitions are in every batch, so that nothing but the ability to learn is tested: there is no exploration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    all_of,
    equivalent,
    paired_difference,
    progress,
)
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.paper import NAP, OURS
from holdfast.studies.plasticity.shapes import Layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from holdfast.lab import Record


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is done for a network.

    Arguments:
        label: in figures.
        norm: whether it has LayerNorm.
        projected: whether its hidden matrices are held at their initial norms; the head never is.
        schedule: constant; decay: one cosine over all goals; known: a cosine for each goal.
        reset: whether a fresh network is taken for each goal.
    """

    label: str
    norm: bool = True
    projected: bool = True
    schedule: str = "constant"
    reset: bool = False


ARMS = {
    "plain": Arm(label="plain", norm=False, projected=False),
    "layernorm": Arm(label="LayerNorm", projected=False),
    "projected": Arm(label="projected"),
    "decay": Arm(label="projected, one decay", schedule="decay"),
    "known": Arm(label="projected, re-warmed at changes", schedule="known"),
    "reset": Arm(label="fresh network for each goal", projected=False, reset=True),
}


@dataclass(frozen=True, kw_only=True)
class FittedQConfig:
    """Action values of a grid world with four moves; reaching the goal is worth 1 and ends the episode.

    Arguments:
        side: of the grid.
        goals: how many there are, one after the other.
        steps: for each goal, Adam on the squared error of all transitions.
        copy_every: steps between two copies of the network that the targets are from.
        test_every: steps between two tests of the greedy policy.
        discount: of future rewards.
        rate: learning rate, the highest one where it changes.
        final: lowest rate, as a share of it.
        head: scale of the initial weights of the head, so that values begin near 0.
        layers: of the network.
    """

    side: int = 9
    goals: int = 60
    steps: int = 150
    copy_every: int = 15
    test_every: int = 10
    discount: float = 0.9
    rate: float = 5e-3
    final: float = 1 / 30
    head: float = 0.1
    layers: Layers = field(default_factory=lambda: Layers(width=64, depth=2))


def trials(config: Any) -> Iterator[Trial[FittedQConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: FittedQConfig = config.fitted_q
    for seed in config.seed_range:
        for arm in ARMS:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.goals * settings.steps / 2000)


class Grid:
    """A grid without walls; what leads out of it stays where it is.

    Arguments:
        side: of the grid.
    """

    def __init__(self, side: int) -> None:
        import torch
        from torch.nn.functional import one_hot

        self.places = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        moves = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
        after = (self.places[:, None] + moves).clamp(0, side - 1)
        self.next = after[..., 0] * side + after[..., 1]
        """Place after each move, (places, moves)."""
        self.observations = one_hot(self.places, side).flatten(1).float()
        """Row and column of each place, one-hot."""

    def optimal(self, goal: int) -> Tensor:
        """Which moves bring each place nearer to the goal, (places, moves)."""
        distance = (self.places - self.places[goal]).abs().sum(1)
        return distance[self.next] < distance[:, None]


def run(trial: Trial[FittedQConfig]) -> Outcome:
    """Fit one network to one goal after the other. All arms of a seed have the same goals.

    Records: share of places whose greedy move is optimal, mean over the first third of goals and the last, at the
    `first_end` and `last_end` of a goal, and during it, `first` and `last` (the area under its curve).
    Curve: `goals` (`end` and `area` by goal).
    """
    import torch

    from holdfast.lab.seeds import generator_for
    from holdfast.optim import Projector, Rewarm
    from holdfast.studies.plasticity.digits import network
    from holdfast.studies.plasticity.streams import GOALS

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    grid = Grid(config.side)
    goals = torch.randint(config.side**2, (config.goals,), generator=generator_for(seed, GOALS)).tolist()

    def begin(number: int) -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
        weights = seed + (number << 20)  # goal 0 has the seed's own
        model = network(2 * config.side, 4, config.layers, norm=arm.norm, seed=weights, head=config.head)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
        if arm.projected:
            Projector(model, optimizer)
        return model, optimizer

    model, optimizer = begin(0)
    schedule: Rewarm | None = None
    if arm.schedule != "constant":
        period = config.steps * (config.goals if arm.schedule == "decay" else 1)
        schedule = Rewarm(optimizer, peak=config.rate, final=config.rate * config.final, period=period)
    rows: list[Record] = []
    for number, goal in enumerate(goals):
        if number and arm.reset:
            model, optimizer = begin(number)
        if number and arm.schedule == "known" and schedule is not None:
            schedule.trigger()
        shares = _fit(model, optimizer, schedule, grid, goal, config)
        rows.append({"goal": number + 1, "end": shares[-1], "area": sum(shares) / len(shares)})
        progress.report((number + 1) / config.goals, optimal=shares[-1])
    third = max(1, config.goals // 3)
    record = {
        name + suffix: _mean(part, metric)
        for name, part in (("first", rows[:third]), ("last", rows[-third:]))
        for suffix, metric in (("_end", "end"), ("", "area"))
    }
    return Outcome([record], {"goals": rows})


def _fit(model: Any, optimizer: Any, schedule: Any, grid: Grid, goal: int, config: FittedQConfig) -> list[float]:
    """Fit the values of one goal; the share of places with an optimal greedy move, from test to test."""
    import torch

    reached = (grid.next == goal).float()
    elsewhere = torch.arange(len(grid.places)) != goal  # the episode has ended at the goal
    optimal = grid.optimal(goal)
    target, shares = torch.zeros(()), []
    for step in range(config.steps):
        if step % config.copy_every == 0:
            with torch.no_grad():
                best = model(grid.observations).max(1).values
                target = reached + config.discount * (1 - reached) * best[grid.next]
        loss = (model(grid.observations) - target)[elsewhere].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if (step + 1) % config.test_every == 0 or step + 1 == config.steps:
            with torch.no_grad():
                greedy = model(grid.observations).argmax(1, keepdim=True)
            shares.append(optimal.gather(1, greedy)[elsewhere].float().mean().item())
    return shares


def _mean(rows: Sequence[Record], metric: str) -> float:
    return sum(float(row[metric] or 0.0) for row in rows) / len(rows)


def _values(results: Results, arm: str) -> Values:
    return results.by_seed("last", part="fitted_q", arm=arm)


def _less(results: Results, low: str, high: str, threshold: float = 0.0) -> Evidence:
    return paired_difference(
        _values(results, high), _values(results, low), threshold=threshold, names=(ARMS[high].label, ARMS[low].label)
    )


def _order(results: Results) -> Evidence:
    return all_of([_less(results, "decay", "plain"), _less(results, "plain", "projected")])


def _decay(results: Results) -> Evidence:
    return _less(results, "decay", "projected", 0.04)


def _rewarm(results: Results) -> Evidence:
    names = (ARMS["known"].label, ARMS["projected"].label)
    return equivalent(_values(results, "known"), _values(results, "projected"), margin=0.02, names=names)


def _fresh(results: Results) -> Evidence:
    names = (ARMS["projected"].label, ARMS["reset"].label)
    return paired_difference(_values(results, "projected"), _values(results, "reset"), threshold=-0.02, names=names)


CLAIMS = (
    Claim(
        "fitted-q-decay",
        "In the last third of 60 goals, a network with held norms whose learning rate decays once has at least .04 "
        "fewer of its greedy moves right while it learns than one at a constant rate.",
        _decay,
        paper="in Rainbow one decay does about as well as cycles (figure 6)",
        family="fitted-q",
        scale="laptop",
    ),
    Claim(
        "fitted-q-order",
        "A plain network lies between the two.",
        _order,
        paper=f"plain networks lose plasticity, projected ones keep it ({NAP})",
        family="fitted-q",
        scale="laptop",
    ),
    Claim(
        "fitted-q-rewarm",
        "Re-warming at each change of the goal is within .02 of a constant rate.",
        _rewarm,
        paper="cyclic rates beat constant ones in Rainbow (figure 6)",
        family="fitted-q",
        scale="laptop",
    ),
    Claim(
        "fitted-q-fresh",
        "With held norms at a constant rate it is at most .02 below a fresh network for each goal.",
        _fresh,
        paper=OURS,
        family="fitted-q",
        scale="laptop",
    ),
)


def draw_goals(results: Results, axes: Axes) -> list[Record]:
    """Share of optimal greedy moves while each goal is learnt, means over tenths of all goals."""
    rows: list[Record] = []
    goals: int = results.config.fitted_q.goals
    width = max(1, goals // 10)
    for number, (arm, settings) in enumerate(ARMS.items()):
        tenths: dict[int, dict[int, list[float]]] = {}
        for row in results.curve("goals", part="fitted_q", arm=arm):
            place = min((int(row["goal"] or 0) - 1) // width, goals // width - 1)
            tenths.setdefault(place, {}).setdefault(int(row["seed"] or 0), []).append(float(row["area"] or 0.0))
        values = {
            (place + 0.5) * width: [sum(areas) / len(areas) for areas in seeds.values()]
            for place, seeds in sorted(tenths.items())
        }
        look: dict[str, Any] = {"color": f"C{number}", "linestyle": "--" if settings.reset else "-", "linewidth": 1.4}
        points = draw_over_seeds(axes, values, bounds=SHARE, label=settings.label, **look)
        rows += [
            {"arm": arm, "goal": x, "optimal moves": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    axes.set_xlabel("goal")
    axes.set_ylabel("optimal greedy moves while it is learnt")
    legend(axes, columns=2)
    return rows


part = Part(
    "fitted_q",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "fitted-q",
            "A goal in a 9 × 9 grid moves 60 times: share of places with an optimal greedy move, on average while each "
            "goal is learnt. Means over seeds.",
            draw_goals,
        ),
    ),
)
