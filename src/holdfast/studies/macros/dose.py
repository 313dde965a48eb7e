"""Part `dose`: the same grid with more and more macro-actions that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, paired_difference
from holdfast.lab.figures import SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.macros.arms import NAIVE, PRIMITIVES, Arm
from holdfast.studies.macros.paper import DIMENSION, PENALTY
from holdfast.studies.macros.rows import GAIN, batches, tables_of
from holdfast.studies.macros.settings import TableConfig
from holdfast.studies.macros.worlds import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {
    "oracle": Arm(label="penalty, oracle's similarity", similarity="oracle", eta=1.0),
    "learned": Arm(
        label="penalty, learned similarity",
        similarity="start",
        eta=1.0,
        diagonal=0.05,
        learned="sinkhorn",
        meta_lr=0.01,
    ),
    "naive": NAIVE,
    "primitives": PRIMITIVES,
}


@dataclass(frozen=True, kw_only=True)
class DoseConfig:
    """Tables on grids with more and more junk.

    Arguments:
        doses: numbers of junk macros, ascending.
        grid: where, its junk apart.
        table: how they learn.
        batch: seeds that are trained side by side in a trial.
    """

    doses: tuple[int, ...] = (8, 16, 24, 36)
    grid: Grid = field(default_factory=Grid)
    table: TableConfig = field(default_factory=TableConfig)
    batch: int = 20


def trials(config: Any) -> Iterator[Trial[DoseConfig]]:
    """One trial a dose and batch of seeds, with all arms.

    Arguments:
        config: the study's configuration.
    """
    settings: DoseConfig = config.dose
    for seeds in batches(config.seed_range, settings.batch):
        for junk in settings.doses:
            yield Trial(seeds, settings, {"junk": junk}, cost=settings.table.steps * len(seeds) / 5e4)


def run(trial: Trial[DoseConfig]) -> Outcome:
    """Train tables of all arms and seeds. The arms of a seed share its random numbers, at all doses.

    Records, by `arm`: `auc`, the mean score over the run, and `final`, the last one. Curve: `scores`.
    """
    from dataclasses import replace

    from holdfast.studies.macros.tables import learn
    from holdfast.studies.macros.worlds import World

    config = trial.config
    world = World(replace(config.grid, junk=int(trial.labels["junk"] or 0)))
    setups = {arm: settings.setup(world, trial.seeds) for arm, settings in ARMS.items()}
    courses = learn(world, setups, trial.seeds, config.table)
    records, curve = tables_of(courses, trial.seeds, config.table.steps)
    return Outcome(records, {"scores": curve})


def _values(results: Results, arm: str, junk: int) -> Values:
    return results.by_seed("auc", part="dose", arm=arm, junk=junk)


def _difference(results: Results, first: tuple[str, int], second: tuple[str, int], threshold: float = 0.0) -> Evidence:
    names = (f"{ARMS[first[0]].label} ({first[1]} junk)", f"{ARMS[second[0]].label} ({second[1]} junk)")
    return paired_difference(_values(results, *first), _values(results, *second), threshold=threshold, names=names)


def _few(results: Results) -> Evidence:
    few = results.config.dose.doses[0]
    return _difference(results, ("naive", few), ("primitives", few))


def _many(results: Results) -> Evidence:
    many = results.config.dose.doses[-1]
    return _difference(results, ("primitives", many), ("naive", many))


def _monotone(results: Results) -> Evidence:
    doses = results.config.dose.doses
    return all_of([_difference(results, ("naive", less), ("naive", more)) for less, more in pairwise(doses)])


def _repairs(results: Results) -> Evidence:
    doses = results.config.dose.doses[-2:]
    return all_of([_difference(results, ("learned", dose), ("naive", dose), GAIN) for dose in doses])


def _oracle(results: Results) -> Evidence:
    doses = results.config.dose.doses
    return all_of([_difference(results, ("oracle", dose), ("primitives", dose)) for dose in doses])


CLAIMS = (
    Claim(
        "dose-few",
        "With 8 macros that lead nowhere, an agent with macros scores above one that has primitives alone: few help.",
        _few,
        paper=DIMENSION,
        family="dose",
        scale="laptop",
    ),
    Claim(
        "dose-many",
        "With 36 of them it scores below: many hurt.",
        _many,
        paper=DIMENSION,
        family="dose",
        scale="laptop",
    ),
    Claim(
        "dose-monotone",
        "From 8 over 16 and 24 to 36 macros that lead nowhere the score of an agent with macros falls each time.",
        _monotone,
        paper=DIMENSION,
        family="dose",
        headline=True,
        plain="the more of its macro-actions lead nowhere, the worse an agent does",
        figure="dose",
        scale="laptop",
    ),
    Claim(
        "dose-learned",
        "At 24 and at 36 of them the penalty with a learned similarity raises the score of an agent with "
        "macros by more than .12.",
        _repairs,
        paper=PENALTY,
        family="dose",
        scale="laptop",
    ),
    Claim(
        "dose-oracle",
        "With an oracle's similarity it is above primitives alone at each number of them.",
        _oracle,
        paper=PENALTY,
        family="dose",
        scale="laptop",
    ),
)


def draw_dose(results: Results, axes: Axes) -> list[Record]:
    """Scores by the number of junk macros."""
    rows: list[Record] = []
    doses: tuple[int, ...] = results.config.dose.doses
    for number, (arm, settings) in enumerate(ARMS.items()):
        values = {junk: list(_values(results, arm, junk).values()) for junk in doses}
        look: dict[str, Any] = {"color": f"C{number}", "linewidth": 1.8, "marker": "o", "markersize": 4}
        if arm == "primitives":
            look |= {"linestyle": ":", "marker": ""}
        points = draw_over_seeds(axes, values, band=True, bounds=SHARE, label=settings.label, **look)
        rows += [
            {"arm": settings.label, "junk macros": int(x), "mean score": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    axes.set_xticks(list(doses))
    axes.set_xlabel("macros that lead nowhere, beside 4 moves and 4 repeats")
    axes.set_ylabel("mean score while learning")
    legend(axes, columns=2)
    return rows


part = Part(
    "dose",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "dose",
            "Mean score over 40,000 primitive steps on a 13 × 13 grid, by the number of macros that lead nowhere. Few "
            "macros help, many hurt. Lines are means over seeds, bands 95 % intervals.",
            draw_dose,
        ),
    ),
)
