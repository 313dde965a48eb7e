"""Part `transfer`: a similarity that is learned on a map with a wall, and carried frozen to other maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, mean_of, paired_difference
from holdfast.lab.figures import GREY, SHARE, legend, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.macros.arms import NAIVE, PRIMITIVES, Arm
from holdfast.studies.macros.paper import LEARNED, OURS, TRANSFER
from holdfast.studies.macros.rows import GAIN, LOSS, batches, tables_of
from holdfast.studies.macros.settings import TableConfig
from holdfast.studies.macros.worlds import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from holdfast.lab import Record

SOURCE = "source"
ARMS = {
    "primitives": PRIMITIVES,
    "naive": NAIVE,
    "learned": Arm(label="learned here", similarity="start", eta=1.0, diagonal=0.03, learned="sinkhorn", meta_lr=0.01),
    "frozen": Arm(label="its start, frozen", similarity="start", eta=1.0, diagonal=0.03),
    "shuffled": Arm(label="oracle, shuffled", similarity="shuffled", eta=1.0),
    "oracle": Arm(label="oracle", similarity="oracle", eta=1.0),
}
CARRIED = {"mean": "carried over, mean of seeds", "single": "carried over, of one seed"}
LABELS = {arm: settings.label for arm, settings in ARMS.items()} | CARRIED
FACTOR = 3
"""How much more alike junk has to be to junk than other pairs of actions are to each other."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Tables on several maps.

    Arguments:
        source: where similarities are learned.
        rooms: another map, with four rooms.
        open: one without walls.
        moved: the source with the goal elsewhere.
        larger: one of more cells.
        table: how they learn.
        batch: seeds that are trained side by side in a trial, and whose similarities are averaged.
    """

    source: Grid = field(default_factory=lambda: Grid(side=9, walls="row", length=3, junk=56, limit=80))
    rooms: Grid = field(default_factory=lambda: Grid(side=9, walls="rooms", length=3, junk=56, limit=80))
    open: Grid = field(default_factory=lambda: Grid(side=9, length=3, junk=56, limit=80))
    moved: Grid = field(default_factory=lambda: Grid(side=9, walls="row", goal=(0, 8), length=3, junk=56, limit=80))
    larger: Grid = field(default_factory=lambda: Grid(side=11, walls="row", length=3, junk=56, limit=80))
    table: TableConfig = field(default_factory=lambda: TableConfig(steps=30_000))
    batch: int = 20


MAPS = {
    SOURCE: "a wall (where it is learned)",
    "rooms": "four rooms",
    "open": "no walls",
    "moved": "another goal",
    "larger": "11 × 11",
}


def trials(config: Any) -> Iterator[Trial[TransferConfig]]:
    """One trial a batch of seeds, with all maps and arms.

    Arguments:
        config: the study's configuration.
    """
    settings: TransferConfig = config.transfer
    for seeds in batches(config.seed_range, settings.batch):
        yield Trial(seeds, settings, cost=settings.table.steps * len(seeds) / 3e3)


def run(trial: Trial[TransferConfig]) -> Outcome:
    """Learn similarities on the first map, then train tables with them on each of the others.

    Records, by `map` and `arm`: `auc`, the mean score over the run, and `final`, the last one; of the arm `learned` the
    mean weight of two different junk macros in the similarity, `junk_weight`, and of other pairs of different actions,
    `other_weight`.
    Curves: `scores`, and `matrix`, the mean of the learned similarities (`weight` of `first` and `second` action).
    """
    from holdfast.studies.macros.lanes import Setup
    from holdfast.studies.macros.tables import learn
    from holdfast.studies.macros.worlds import World

    config, seeds = trial.config, trial.seeds
    records: list[Record] = []
    curve: list[Record] = []
    learned: Tensor | None = None
    for number, name in enumerate(MAPS):
        world = World(getattr(config, name))
        arms = ARMS if learned is None else {arm: ARMS[arm] for arm in ("primitives", "naive", "oracle")}
        setups = {arm: settings.setup(world, seeds) for arm, settings in arms.items()}
        if learned is not None:
            eta, mean = ARMS["learned"].eta, learned.mean(0).expand(len(seeds), -1, -1)
            setups |= {"mean": Setup(eta=eta, sigma=mean), "single": Setup(eta=eta, sigma=learned)}
        courses = learn(world, setups, seeds, config.table, number)
        rows, points = tables_of(courses, seeds, config.table.steps, map=name)
        if learned is None:
            learned = courses["learned"].sigma
            assert learned is not None
            of_seed = dict(zip(seeds, weights_of(learned, world.grid.groups()), strict=True))
            rows = [{**row, **(of_seed[int(row["seed"] or 0)] if row["arm"] == "learned" else {})} for row in rows]
        records += rows
        curve += points
    assert learned is not None
    matrix: list[Record] = [
        {"seed": seeds[0], "first": first, "second": second, "weight": weight}
        for first, row in enumerate(learned.mean(0).tolist())
        for second, weight in enumerate(row)
    ]
    return Outcome(records, {"scores": curve, "matrix": matrix})


def weights_of(sigma: Tensor, groups: Sequence[int]) -> list[dict[str, float]]:
    """Mean weights of pairs of different actions in each similarity.

    Arguments:
        sigma: similarities, (seeds, n, n).
        groups: of the actions; junk is the last.
    """
    import torch

    junk = torch.tensor(groups) == groups[-1]
    inside = (junk[:, None] & junk).fill_diagonal_(False)
    others = ~inside.clone().fill_diagonal_(True)
    return [{"junk_weight": float(of[inside].mean()), "other_weight": float(of[others].mean())} for of in sigma]


def _values(results: Results, where: str, arm: str, metric: str = "auc") -> Values:
    return results.by_seed(metric, part="transfer", map=where, arm=arm)


def _difference(results: Results, where: str, first: str, second: str, threshold: float = 0.0) -> Evidence:
    names = (f"{LABELS[first]} ({MAPS[where]})", f"{LABELS[second]} ({MAPS[where]})")
    return paired_difference(
        _values(results, where, first), _values(results, where, second), threshold=threshold, names=names
    )


def _carried(results: Results) -> Evidence:
    return all_of([_difference(results, where, "mean", "naive", GAIN) for where in ("rooms", "open", "moved")])


def _single(results: Results) -> Evidence:
    return all_of([_difference(results, where, "single", "naive", GAIN) for where in ("rooms", "open", "moved")])


def _averaged(results: Results) -> Evidence:
    return all_of([_difference(results, where, "mean", "single") for where in ("rooms", "open")])


def _larger(results: Results) -> Evidence:
    return _difference(results, "larger", "mean", "naive")


def _weights(results: Results) -> Evidence:
    """Linear in the matrix, so that its mean over seeds is that of the mean matrix."""
    junk, other = (_values(results, SOURCE, "learned", metric) for metric in ("junk_weight", "other_weight"))
    surplus = Values.of(lambda inside, outside: inside - FACTOR * outside, junk, other)
    name = "the weight of two junk macros minus three times that of other pairs"
    return mean_of(surplus, threshold=0.0, min_seeds=20, name=name)


def _learned(results: Results) -> Evidence:
    return _difference(results, SOURCE, "learned", "naive", GAIN)


def _controls(results: Results) -> Evidence:
    return all_of([_difference(results, SOURCE, "learned", arm, LOSS) for arm in ("frozen", "shuffled")])


def _below(results: Results) -> Evidence:
    return _difference(results, SOURCE, "primitives", "learned")


CLAIMS = (
    Claim(
        "transfer-carried",
        "A similarity that was learned on one map, averaged over seeds and carried frozen to others, raises the score "
        "of an agent with macros by more than .12 in four rooms, without walls and with another goal.",
        _carried,
        paper=TRANSFER,
        family="transfer",
        headline=True,
        plain="a similarity of actions that was learned on one map helps on others",
        figure="transfer",
        scale="laptop",
    ),
    Claim(
        "transfer-single",
        "The similarity of one seed, carried over, raises the score by more than .12 on these maps, too.",
        _single,
        paper=TRANSFER,
        family="transfer",
        scale="laptop",
    ),
    Claim(
        "transfer-averaged",
        "The mean of the seeds' similarities carries over better than one of them, in four rooms and without walls.",
        _averaged,
        paper=OURS,
        family="transfer",
        scale="laptop",
    ),
    Claim(
        "transfer-larger",
        "On a larger map, too, the carried similarity raises the score.",
        _larger,
        paper=TRANSFER,
        family="transfer",
        scale="laptop",
    ),
    Claim(
        "transfer-weights",
        "In the mean of the learned similarities (Sinkhorn) two junk macros are at least three times as alike as other "
        "pairs of actions.",
        _weights,
        paper=OURS,
        family="transfer-weights",
        scale="laptop",
    ),
    Claim(
        "map-learned",
        "On the map with a wall, where it is learned, the learned similarity raises the score by more than .12.",
        _learned,
        paper=LEARNED,
        family="map",
        scale="laptop",
    ),
    Claim(
        "map-controls",
        "There the frozen start and a shuffled similarity score at least .15 lower.",
        _controls,
        paper=OURS,
        family="map",
        scale="laptop",
    ),
    Claim(
        "map-primitives",
        "There primitives alone stay above macros with the learned similarity.",
        _below,
        paper=OURS,
        family="map",
        scale="laptop",
    ),
)


def draw_transfer(results: Results, axes: Axes) -> list[Record]:
    """Mean scores by map and arm."""
    rows: list[Record] = []
    shown = ("naive", "learned", "single", "mean", "oracle", "primitives")
    for number, arm in enumerate(shown):
        first = True
        for place, (where, label) in enumerate(MAPS.items()):
            values = list(_values(results, where, arm).values())
            if not values:
                continue
            mean = seed_mean(values, bounds=SHARE)
            x = place + 0.12 * (number - 2.5)
            axes.errorbar(
                x,
                mean.mean,
                yerr=[[mean.mean - mean.low], [mean.high - mean.mean]],
                fmt="D" if arm == "primitives" else "o",
                markersize=5,
                color=GREY if arm == "primitives" else f"C{number}",
                label=LABELS[arm] if first else None,
            )
            first = False
            rows.append(
                {
                    "map": label,
                    "arm": LABELS[arm],
                    "mean score": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "seeds": mean.seeds,
                }
            )
    axes.set_xticks(range(len(MAPS)), list(MAPS.values()))
    axes.tick_params(axis="x", labelsize="small")
    axes.set_ylabel("mean score while learning")
    legend(axes, columns=3)
    return rows


def draw_matrix(results: Results, axes: Axes) -> list[Record]:
    """The mean of the learned similarities, with its groups named."""
    import numpy as np
    from matplotlib.colors import LogNorm

    curve = results.curve("matrix", part="transfer")
    if not curve:
        return []
    n = 1 + max(int(row["first"] or 0) for row in curve)
    matrix, times = np.zeros((n, n)), len(curve) / n**2
    for row in curve:
        matrix[int(row["first"] or 0), int(row["second"] or 0)] += float(row["weight"] or 0.0) / times
    grid: Grid = results.config.transfer.source
    names, actions = {"moves": (0, 4), "repeats": (4, 8), "lead nowhere": (8, n)}, list(grid.actions())
    image = axes.imshow(matrix, norm=LogNorm(vmin=1e-4, vmax=1.0), cmap="viridis")
    for low, high in names.values():
        axes.add_patch(_frame(low, high))
    axes.set_yticks([(low + high - 1) / 2 for low, high in names.values()], list(names))
    axes.set_xticks([(low + high - 1) / 2 for low, high in names.values()], list(names), rotation=45, ha="right")
    axes.set_ylabel("action")
    axes.grid(visible=False)
    if axes.figure is not None:
        axes.figure.colorbar(image, ax=axes, label="weight in the similarity")
    words = ["".join("udlr"[primitive] for primitive in action) for action in actions]
    return [
        {"action": words[first], "other": words[second], "weight": float(matrix[first, second])}
        for first in range(n)
        for second in range(n)
    ]


def _frame(low: int, high: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((low - 0.5, low - 0.5), high - low, high - low, fill=False, edgecolor="white", linewidth=1.2)


part = Part(
    "transfer",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "transfer",
            "A similarity that was learned on the map with a wall, carried frozen to other maps: mean scores over "
            "30,000 primitive steps, with 56 macros that lead nowhere. Means over seeds with 95 % intervals.",
            draw_transfer,
        ),
        Figure(
            "matrix",
            "The similarity of 64 actions that was learned on the map with a wall (Sinkhorn), mean over seeds: the "
            "macros that lead nowhere have become alike.",
            draw_matrix,
        ),
    ),
)
