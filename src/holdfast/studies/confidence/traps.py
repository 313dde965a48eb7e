"""Part `traps`: ways to read the same answers that find biases which are not there, beside the reading that does not.

Each trap has one observer whose parameter is turned up, a naive reading that goes wrong with it, and the reading of
`holdfast.confidence.analyze`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Part, Results, Trial, all_of, mean_of, within
from holdfast.lab.figures import GREY, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.confidence.paper import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.confidence import Analysis, Trials
    from holdfast.lab import Record
    from holdfast.studies.confidence.study import ConfidenceStudyConfig

NO_LIMIT = 20.0
"""Stands for no limit of log-odds: none of these observers gets there."""

QUESTIONS = 200
"""Simulated questions that each observer answers."""


@dataclass(frozen=True)
class Trap:
    """A naive reading beside a sound one.

    Arguments:
        levels: of what is turned up, from harmless to the worst.
        level: what it is, for the x axis.
        observer: what the observers of all levels share, as parameters of `holdfast.confidence.Observer`.
        turned: the parameter that is turned up; empty: the accuracy of the adviser.
        true: what both readings should say.
        naive: what the naive reading is.
        sound: what the sound one is.
        reading: for the y axis.
        caption: of the picture.
        tolerance: error of the sound reading that counts as none.
    """

    levels: tuple[float, ...]
    level: str
    observer: dict[str, float]
    turned: str
    true: float
    naive: str
    sound: str
    reading: str
    caption: str
    tolerance: float = 0.1


PAPER_LIKE = {"bias": 1.0, "weight_same": 0.8, "weight_opposite": 2.5}
"""What the paper describes."""

TRAPS = {
    "probability": Trap(
        levels=(0.6, 0.7, 0.8, 0.9),
        level="stated accuracy of the adviser",
        observer={},
        turned="",
        true=1.0,
        naive="in probabilities",
        sound="in log-odds",
        reading="effect of contradiction over that of agreement",
        caption="An ideal observer moves further down than up in probabilities, since there is more room below a "
        "confident answer; in log-odds it moves equally far.",
    ),
    "visibility": Trap(
        levels=(0.0, 0.5, 1.0, 1.5),
        level="choice bias of the observer",
        observer={},
        turned="bias",
        true=1.0,
        naive="measured from stage 1, own answer shown",
        sound="against neutral advice, same display",
        reading="weight of contradiction",
        caption="The weight of contradiction, truly 1, of observers that cling to what they see. Counted from the "
        "first answer it falls, since the display adds to the second.",
    ),
    "regression": Trap(
        levels=(0.0, 0.3, 1.0, 2.0),
        level="noise of the observer's readings, log-odds",
        observer={},
        turned="noise",
        true=0.0,
        naive="fall of log-odds, answer hidden, no advice",
        sound="shown less hidden",
        reading="change of log-odds without a reason",
        caption="A noisy reader loses confidence in an answer without any reason: the answer was chosen where noise "
        "spoke for it. Between displays the effect cancels.",
        tolerance=0.15,
    ),
    "censoring": Trap(
        levels=(NO_LIMIT, 9.2, 6.9, 4.6),
        level="limit of log-odds that can be read",
        observer=PAPER_LIKE,
        turned="clip",
        true=3.125,
        naive="all questions",
        sound="questions far from the limit",
        reading="weight of contradiction over agreement",
        caption="Readings that stop at a limit make the ratio of weights, truly 3.1, too large: agreement meets the "
        "limit, contradiction does not.",
        tolerance=0.2,
    ),
    "calibration": Trap(
        levels=(1.0, 1.5, 2.5),
        level="log-odds are reported so many times too large",
        observer={},
        turned="scale",
        true=1.0,
        naive="as reported",
        sound="calibrated",
        reading="weight of contradiction",
        caption="An overconfident model seems to over-weight everything. Its temperature, from first answers that are "
        "right or wrong, takes that out.",
        tolerance=0.15,
    ),
    "disagreement": Trap(
        levels=(0.0, 0.35, 0.7),
        level="fall on any contradiction, log-odds",
        observer={},
        turned="shift_opposite",
        true=1.0,
        naive="slope through zero",
        sound="slope beside an intercept",
        reading="weight of contradiction",
        caption="Who falls by a fixed amount on any contradiction, however bad the adviser, does not weigh it more by "
        "its accuracy. A slope through zero says so.",
    ),
    "pooled": Trap(
        levels=(NO_LIMIT, 9.2, 6.9),
        level="limit of log-odds that can be read",
        observer=PAPER_LIKE,
        turned="clip",
        true=2.5,
        naive="one regression over all cells",
        sound="contrasts far from the limit",
        reading="weight of contradiction",
        caption="One regression over all cells takes in advisers who are always right, whose effect meets the limit "
        "first. The true weight is 2.5.",
        tolerance=0.1,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrapsConfig:
    """Traps to walk into.

    Arguments:
        traps: names of them.
        questions: that each observer answers.
    """

    traps: tuple[str, ...] = tuple(TRAPS)
    questions: int = QUESTIONS


def trials(config: ConfidenceStudyConfig) -> Iterator[Trial[TrapsConfig]]:
    """One trial a trap."""
    for seed in config.seed_range:
        for trap in config.traps.traps:
            yield Trial(seed, config.traps, {"trap": trap})


def run(trial: Trial[TrapsConfig]) -> list[Record]:
    """Simulate an observer at each level and read its answers both ways.

    Records: `level`, `naive` and `sound`.
    """
    from holdfast.confidence import Observer, analyze, simulate

    name = str(trial.labels["trap"])
    trap, seed, questions = TRAPS[name], trial.seeds[0], trial.config.questions
    rows: list[Record] = []
    fixed = None if trap.turned else simulate(Observer(**trap.observer), questions, seed)
    for level in trap.levels:
        values = trap.observer | ({trap.turned: level} if trap.turned and level != NO_LIMIT else {})
        answers = simulate(Observer(**values), questions, seed) if fixed is None else fixed
        naive, sound = READINGS[name](analyze(answers), answers, level)
        rows.append({"level": level, "naive": naive, "sound": sound})
    return rows


def _probability(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    from holdfast.confidence.diagnostics import probability_asymmetry

    asymmetry = probability_asymmetry(answers.where(answers.accuracy == level))
    updates = {update.advice: update.observed.value for update in analysis.updates if update.accuracy == level}
    return (asymmetry.observed if asymmetry else math.nan), updates["opposite"] / updates["same"]


def _visibility(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    return analysis.secondary["shown_from_stage_1_opposite"].value, analysis.weight_opposite.value


def _regression(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    (cell,) = (
        cell for cell in analysis.cells if (cell.display, cell.advice, cell.accuracy) == ("hidden", "neutral", None)
    )
    return -cell.log_odds_change, analysis.choice_bias.value


def _far_from_limit(analysis: Analysis, answers: Trials) -> tuple[float, float]:
    """Weight of contradiction, and its ratio to that of agreement, from questions far from the limit."""
    import numpy as np

    from holdfast.confidence import contrast
    from holdfast.confidence.diagnostics import far_from_limit, saturation_limit

    limit = saturation_limit(answers)
    if math.isinf(limit):
        return analysis.weight_opposite.value, analysis.ratio.value
    near = np.unique(answers.question[~far_from_limit(answers, limit)])
    far = contrast(answers, ~np.isin(answers.question, near))
    weight = far.mean("weight_opposite")
    return weight, weight / far.mean("weight_same")


def _censoring(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    return analysis.weight_opposite.value / analysis.weight_same.value, _far_from_limit(analysis, answers)[1]


def _calibration(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    return analysis.weight_opposite.value, analysis.calibrated["weight_opposite"].value


def _disagreement(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    return analysis.secondary["through_zero_opposite"].value, analysis.weight_opposite.value


def _pooled(analysis: Analysis, answers: Trials, level: float) -> tuple[float, float]:
    from holdfast.confidence import pooled_regression

    return pooled_regression(answers)["weight_opposite"], _far_from_limit(analysis, answers)[0]


READINGS: dict[str, Callable[[Analysis, Trials, float], tuple[float, float]]] = {
    "probability": _probability,
    "visibility": _visibility,
    "regression": _regression,
    "censoring": _censoring,
    "calibration": _calibration,
    "disagreement": _disagreement,
    "pooled": _pooled,
}


def _worst(results: Results, name: str, reading: str) -> Values:
    """A reading at the worst level, by seed."""
    return results.by_seed(reading, part="traps", trap=name, level=TRAPS[name].levels[-1])


def _misled(results: Results) -> Evidence:
    """Each naive reading is further from the truth than the sound one may be, by twice that."""
    links = []
    for name in results.config.traps.traps:
        trap = TRAPS[name]
        away = Values.of(lambda value, true=trap.true: abs(value - true), _worst(results, name, "naive"))
        links.append(mean_of(away, threshold=2 * trap.tolerance, name=f"error of the naive reading of {name}"))
    return all_of(links)


def _avoided(results: Results) -> Evidence:
    links = []
    for name in results.config.traps.traps:
        trap = TRAPS[name]
        low, high = trap.true - trap.tolerance, trap.true + trap.tolerance
        links.append(within(_worst(results, name, "sound"), low, high, f"sound reading of {name}"))
    return all_of(links)


CLAIMS = (
    Claim(
        "traps-mislead",
        "Each of seven naive readings errs by more than twice what the sound one may, at its worst level.",
        _misled,
        paper=OURS,
        family="traps",
        scale="laptop",
    ),
    Claim(
        "traps-avoided",
        "The analysis reads the truth from the same answers: mean errors below 0.1 (ideal weights, biases) to 0.2 "
        "(ratios near a limit).",
        _avoided,
        paper=OURS,
        family="traps",
        scale="laptop",
    ),
)


def draw_trap(name: str, results: Results, axes: Axes) -> list[Record]:
    """Both readings at each level, means over seeds, and the truth."""
    trap = TRAPS[name]
    rows: list[Record] = []
    limits = NO_LIMIT in trap.levels
    # A limit that is no limit has no place on a scale of limits.
    places = {level: place if limits else level for place, level in enumerate(trap.levels)}
    for reading, label, colour in (("naive", trap.naive, "C3"), ("sound", trap.sound, "C0")):
        values: dict[float, list[float]] = {place: [] for place in places.values()}
        for row in results.where(part="traps", trap=name):
            values[places[float(row["level"] or 0.0)]].append(float(row[reading] or 0.0))
        drawn = draw_over_seeds(axes, values, band=True, marker="o", markersize=4, color=colour, label=label)
        by_place = {place: level for level, place in places.items()}
        rows += [
            {"reading": label, "level": by_place[at], "mean": mean, "low": low, "high": high, "seeds": seeds}
            for at, mean, low, high, seeds in drawn
        ]
    axes.axhline(trap.true, color=GREY, linestyle="--", linewidth=1, label="truth", zorder=0)
    ticks = ["none" if level == NO_LIMIT else f"{level:g}" for level in trap.levels]
    axes.set_xticks(list(places.values()), ticks)
    axes.set_xlabel(trap.level)
    axes.set_ylabel(trap.reading)
    legend(axes)
    return rows


part = Part(
    "traps",
    trials,
    run,
    claims=CLAIMS,
    figures=[
        Figure(f"trap-{name}", f"{trap.caption} Means over seeds with 95 % intervals.", partial(draw_trap, name))
        for name, trap in TRAPS.items()
    ],
)
