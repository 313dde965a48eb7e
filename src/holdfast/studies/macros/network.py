"""Part `network`: the same grids with a small network, where the effect is not to be had.

A network's trunk shares credit among actions already, and a wrong similarity does more harm than on a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, paired_difference
from holdfast.lab.results import Values
from holdfast.studies.macros.arms import NAIVE, PRIMITIVES, Arm
from holdfast.studies.macros.paper import HURT, OURS, PENALTY
from holdfast.studies.macros.rows import GAIN, LOSS, batches, draw_curves, tables_of
from holdfast.studies.macros.settings import DeepConfig
from holdfast.studies.macros.worlds import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {
    "primitives": PRIMITIVES,
    "naive": NAIVE,
    "learned": Arm(
        label="learned (Sinkhorn)", similarity="start", eta=0.3, diagonal=0.1, learned="sinkhorn", meta_lr=0.003
    ),
    "oracle": Arm(label="oracle", similarity="oracle", eta=0.3),
    "frozen": Arm(label="its start, frozen", similarity="start", eta=0.3, diagonal=0.1),
    "shuffled": Arm(label="oracle, shuffled", similarity="shuffled", eta=0.3),
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Networks on a grid with junk.

    Arguments:
        grid: where.
        deep: how they learn.
        batch: seeds that are trained side by side in a trial.
    """

    grid: Grid = field(default_factory=lambda: Grid(side=9, length=3, limit=80))
    deep: DeepConfig = field(default_factory=DeepConfig)
    batch: int = 10


def trials(config: Any) -> Iterator[Trial[NetworkConfig]]:
    """One trial a batch of seeds, with all arms.

    Arguments:
        config: the study's configuration.
    """
    settings: NetworkConfig = config.network
    for seeds in batches(config.network_range, settings.batch):
        yield Trial(seeds, settings, cost=settings.deep.steps * len(seeds) / 2e3)


def run(trial: Trial[NetworkConfig]) -> Outcome:
    """Train networks of all arms and seeds. The arms of a seed share its random numbers and first weights.

    Records, by `arm`: `auc`, the mean score over the run, and `final`, the last one. Curve: `scores`.
    """
    from holdfast.studies.macros.deep import learn
    from holdfast.studies.macros.worlds import World

    config, world = trial.config, World(trial.config.grid)
    setups = {arm: settings.setup(world, trial.seeds) for arm, settings in ARMS.items()}
    courses = learn(world, setups, trial.seeds, config.deep)
    records, curve = tables_of(courses, trial.seeds, config.deep.steps)
    return Outcome(records, {"scores": curve})


def _values(results: Results, arm: str) -> Values:
    return results.by_seed("auc", part="network", arm=arm)


def _difference(
    results: Results, first: str, second: str, threshold: float = 0.0, alternative: Any = "greater"
) -> Evidence:
    values = (_values(results, arm) for arm in (first, second))
    names = (ARMS[first].label, ARMS[second].label)
    return paired_difference(*values, threshold=threshold, alternative=alternative, names=names)


def _null(results: Results) -> Evidence:
    return _difference(results, "learned", "naive", GAIN, "less")


def _hurts(results: Results) -> Evidence:
    return _difference(results, "learned", "naive", 0.0, "less")


def _helps(results: Results) -> Evidence:
    return _difference(results, "naive", "primitives")


def _oracle(results: Results) -> Evidence:
    return _difference(results, "oracle", "naive", GAIN, "less")


def _wrong(results: Results) -> Evidence:
    return _difference(results, "shuffled", "naive", -LOSS, "less")


CLAIMS = (
    Claim(
        "network-null",
        "With a small network in place of the table the penalty with a learned similarity does not raise the score of "
        "an agent with macros by .12.",
        _null,
        paper=PENALTY,
        family="network",
        headline=True,
        plain="a learned similarity of actions does not help an agent with a small network in place of a table",
        figure="network",
        scale="laptop",
    ),
    Claim(
        "network-hurts",
        "With a small network the penalty with a learned similarity lowers the score.",
        _hurts,
        paper=PENALTY,
        family="network",
        scale="laptop",
    ),
    Claim(
        "network-macros",
        "With a small network macros without a penalty help: their score is above that of primitives alone.",
        _helps,
        paper=HURT,
        family="network",
        scale="laptop",
    ),
    Claim(
        "network-oracle",
        "With a small network not even an oracle's similarity raises the score of an agent with macros by .12.",
        _oracle,
        paper=PENALTY,
        family="network",
        scale="laptop",
    ),
    Claim(
        "network-wrong",
        "With a small network a shuffled similarity costs more than .15.",
        _wrong,
        paper=OURS,
        family="network",
        scale="laptop",
    ),
)


def draw_scores(results: Results, axes: Axes) -> list[Record]:
    """Learning curves."""
    curves = {arm: results.curve("scores", part="network", arm=arm) for arm in ARMS}
    return draw_curves(axes, curves, {arm: settings.label for arm, settings in ARMS.items()})


part = Part(
    "network",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "network",
            "Small double deep Q-networks on a 9 × 9 grid with 24 macros that lead nowhere: score of the greedy policy "
            "by primitive steps. Means over seeds with 95 % intervals.",
            draw_scores,
        ),
    ),
)
