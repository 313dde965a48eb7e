"""Part `junk`: a table that learns on a grid with many macro-actions that lead nowhere.

The protocol was laid down, with its settings and the windows of the claims, before this code was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, paired_difference, within
from holdfast.lab.results import Values
from holdfast.studies.macros.arms import NAIVE, PRIMITIVES, Arm
from holdfast.studies.macros.paper import HURT, LEARNED, OURS, PENALTY
from holdfast.studies.macros.rows import GAIN, LOSS, batches, draw_curves, tables_of
from holdfast.studies.macros.settings import TableConfig
from holdfast.studies.macros.worlds import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record

ARMS = {
    "primitives": PRIMITIVES,
    "naive": NAIVE,
    "steps": Arm(label="macros, primitive steps learned too", steps_too=True),
    "raw": Arm(label="learned (raw)", similarity="start", learned="raw", meta_lr=1e-4),
    "sinkhorn": Arm(
        label="learned (Sinkhorn)", similarity="start", eta=1.0, diagonal=0.05, learned="sinkhorn", meta_lr=0.01
    ),
    "oracle": Arm(label="oracle", similarity="oracle"),
    "frozen-raw": Arm(label="start of raw, frozen", similarity="start"),
    "frozen-sinkhorn": Arm(label="start of Sinkhorn, frozen", similarity="start", eta=1.0, diagonal=0.05),
    "shuffled": Arm(label="oracle, shuffled", similarity="shuffled"),
    "uniform": Arm(label="uniform", similarity="uniform"),
}


@dataclass(frozen=True, kw_only=True)
class JunkConfig:
    """Tables on a grid with junk.

    Arguments:
        arms: names of those that are trained.
        grid: where.
        table: how they learn.
        batch: seeds that are trained side by side in a trial.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    grid: Grid = field(default_factory=Grid)
    table: TableConfig = field(default_factory=TableConfig)
    batch: int = 20


def trials(config: Any) -> Iterator[Trial[JunkConfig]]:
    """One trial a batch of seeds, with all arms.

    Arguments:
        config: the study's configuration.
    """
    settings: JunkConfig = config.junk
    for seeds in batches(config.seed_range, settings.batch):
        yield Trial(seeds, settings, cost=settings.table.steps * len(settings.arms) * len(seeds) / 2e5)


def run(trial: Trial[JunkConfig]) -> Outcome:
    """Train tables of all arms and seeds. The arms of a seed share its random numbers.

    Records, by `arm`: `auc`, the mean of the scores of greedy policies in equal distances of primitive steps, the one
    before the first step included, and `final`, the last one.
    Curve: `scores` (`score` by `arm` and primitive `step`).
    """
    from holdfast.studies.macros.tables import learn
    from holdfast.studies.macros.worlds import World

    config, world = trial.config, World(trial.config.grid)
    setups = {arm: ARMS[arm].setup(world, trial.seeds) for arm in config.arms}
    courses = learn(world, setups, trial.seeds, config.table)
    records, curve = tables_of(courses, trial.seeds, config.table.steps)
    return Outcome(records, {"scores": curve})


def _values(results: Results, arm: str) -> Values:
    return results.by_seed("auc", part="junk", arm=arm)


def _difference(results: Results, first: str, second: str, threshold: float) -> Evidence:
    values = (_values(results, arm) for arm in (first, second))
    return paired_difference(*values, threshold=threshold, names=(ARMS[first].label, ARMS[second].label))


def _primitives(results: Results) -> Evidence:
    return within(_values(results, "primitives"), 0.37, 0.44, "primitives only", bounds=(0, 1))


def _naive(results: Results) -> Evidence:
    return within(_values(results, "naive"), 0.08, 0.26, "macros", bounds=(0, 1))


def _hurt(results: Results) -> Evidence:
    return _difference(results, "primitives", "naive", 0.0)


def _oracle(results: Results) -> Evidence:
    return within(_values(results, "oracle"), 0.58, 0.72, "oracle", bounds=(0, 1))


def _raw(results: Results) -> Evidence:
    return _difference(results, "raw", "naive", GAIN)


def _sinkhorn(results: Results) -> Evidence:
    return _difference(results, "sinkhorn", "naive", GAIN)


def _controls(results: Results) -> Evidence:
    return all_of([_difference(results, "raw", arm, LOSS) for arm in ("frozen-raw", "shuffled", "uniform")])


def _sinkhorn_controls(results: Results) -> Evidence:
    return all_of([_difference(results, "sinkhorn", arm, LOSS) for arm in ("frozen-sinkhorn", "shuffled", "uniform")])


def _primitives_too(results: Results) -> Evidence:
    return _difference(results, "raw", "primitives", 0.0)


def _rival(results: Results) -> Evidence:
    return _difference(results, "raw", "steps", 0.0)


CLAIMS = (
    Claim(
        "junk-hurts",
        "On a grid with 24 macros that lead nowhere, an agent with macros scores below one that has primitives alone.",
        _hurt,
        paper=HURT,
        family="junk",
        headline=True,
        plain="an agent with many useless macro-actions does worse than one without any",
        figure="junk",
        scale="laptop",
    ),
    Claim(
        "junk-learned",
        "The penalty with a learned (raw) similarity raises the score of the agent with macros by more than .12.",
        _raw,
        paper=LEARNED,
        family="junk",
        headline=True,
        plain="a penalty with a learned similarity of actions wins back much of what useless macros cost",
        figure="junk",
        scale="laptop",
    ),
    Claim(
        "junk-controls",
        "It is the learning that raises it: with the similarity that it starts from, frozen, with a "
        "shuffled one and with a uniform one the score is at least .15 lower.",
        _controls,
        paper=OURS,
        family="junk",
        headline=True,
        plain="a penalty does much worse with a similarity of actions that is not learned or is shuffled",
        figure="junk",
        scale="laptop",
    ),
    Claim(
        "junk-sinkhorn",
        "On that grid the penalty with a similarity that is learned in Sinkhorn's form raises the score "
        "by more than .12, too.",
        _sinkhorn,
        paper=LEARNED,
        family="junk",
        scale="laptop",
    ),
    Claim(
        "junk-sinkhorn-controls",
        "There the frozen start of Sinkhorn's form, a shuffled similarity and a uniform one score at least .15 lower.",
        _sinkhorn_controls,
        paper=OURS,
        family="junk",
        scale="laptop",
    ),
    Claim(
        "junk-beats-primitives",
        "Macros with a learned (raw) similarity score above primitives alone.",
        _primitives_too,
        paper=PENALTY,
        family="junk",
        scale="laptop",
    ),
    Claim(
        "junk-rival",
        "The learned (raw) similarity scores above an agent that learns from the primitive steps within macros, too.",
        _rival,
        paper=OURS,
        family="junk",
        scale="laptop",
    ),
    Claim(
        "junk-window-primitives",
        "The score of primitives alone is between .37 and .44, as in a prototype.",
        _primitives,
        paper=OURS,
        family="junk-windows",
        scale="laptop",
    ),
    Claim(
        "junk-window-naive",
        "That of macros is between .08 and .26.",
        _naive,
        paper=OURS,
        family="junk-windows",
        scale="laptop",
    ),
    Claim(
        "junk-window-oracle",
        "That of the penalty with an oracle's similarity is between .58 and .72.",
        _oracle,
        paper=OURS,
        family="junk-windows",
        scale="laptop",
    ),
)


def draw_scores(results: Results, axes: Axes) -> list[Record]:
    """Learning curves."""
    curves = {arm: results.curve("scores", part="junk", arm=arm) for arm in ARMS}
    return draw_curves(axes, curves, {arm: settings.label for arm, settings in ARMS.items()})


part = Part(
    "junk",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "junk",
            "Tables that learn on a 13 × 13 grid with 4 moves, their repeats and 24 macros that lead nowhere: score of "
            "the greedy policy by primitive steps. Means over seeds with 95 % intervals.",
            draw_scores,
        ),
    ),
)
