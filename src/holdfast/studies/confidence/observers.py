"""Part `observers`: does the analysis recover the parameters of simulated observers, and accuse no ideal one?

The observers of `holdfast.confidence.PRESETS`, all in the crossed design on the same questions of a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Part, Results, Trial, all_of, mean_of, within
from holdfast.lab.figures import GREY, legend, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.confidence.curves import known
from holdfast.studies.confidence.paper import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.confidence.study import ConfidenceStudyConfig

PRESETS = (
    "bayes",
    "choice_supportive",
    "opposition_sensitive",
    "both",
    "stubborn",
    "contrarian",
    "position_biased",
    "anchorer",
)

PARAMETERS = ("choice_bias", "ownership_bias", "weight_same", "weight_opposite", "intercept_opposite", "position_bias")
"""Estimates that an observer has a parameter for."""

MARGIN = 0.05
"""Largest mean error, in log-odds or in multiples of what advice is worth, that counts as none."""

BIASED = ("choice_supportive", "opposition_sensitive", "both", "stubborn", "contrarian", "anchorer")
"""Observers with something to find in the five comparisons; the position-biased one has nothing there."""


@dataclass(frozen=True, kw_only=True)
class ObserversConfig:
    """Simulated observers.

    Arguments:
        presets: names of observers.
        questions: that each of them answers.
        ideal: simulations of the ideal observer in one trial, whose accusations are counted.
    """

    presets: tuple[str, ...] = PRESETS
    questions: int = 200
    ideal: int = 10


def trials(config: ConfidenceStudyConfig) -> Iterator[Trial[ObserversConfig]]:
    """One trial an observer, and one of many ideal observers."""
    for seed in config.seed_range:
        for preset in config.observers.presets:
            yield Trial(seed, config.observers, {"preset": preset, "kind": "one"})
        yield Trial(seed, config.observers, {"preset": "bayes", "kind": "many"}, cost=config.observers.ideal)


def run(trial: Trial[ObserversConfig]) -> list[Record]:
    """Simulate and analyse.

    Records: for each parameter `truth`, `value`, `low`, `high`, `error`, and whether the interval `covered` the truth;
    then `false` and `missed`, the numbers of verdicts that an observer does not deserve and that it lacks. Of many
    ideal ones: `accused`, the share that gets any verdict.
    """
    from holdfast.confidence import PRESETS as KNOWN
    from holdfast.confidence import analyze, simulate

    observer, seed, questions = KNOWN[str(trial.labels["preset"])], trial.seeds[0], trial.config.questions
    if trial.labels["kind"] == "many":
        # Seeds of their own, beside those of the other trials.
        draws = range(1_000_000 + seed * trial.config.ideal, 1_000_000 + (seed + 1) * trial.config.ideal)
        accused = sum(bool(analyze(simulate(observer, questions, draw)).flags) for draw in draws)
        return [{"accused": accused / len(draws)}]
    analysis = analyze(simulate(observer, questions, seed))
    truth = {
        "choice_bias": observer.bias,
        "ownership_bias": observer.bias - observer.bias_other,
        "weight_same": observer.weight_same,
        "weight_opposite": observer.weight_opposite,
        "intercept_opposite": observer.shift_opposite,
        "position_bias": observer.position,
    }
    ideal = {"choice_bias": 0.0, "ownership_bias": 0.0, "weight_same": 1.0, "weight_opposite": 1.0, "ratio": 1.0}
    rows: list[Record] = []
    for name in PARAMETERS:
        entry = getattr(analysis, name)
        rows.append(
            {
                "parameter": name,
                "truth": truth[name],
                "value": known(entry.value),
                "low": known(entry.low),
                "high": known(entry.high),
                "error": known(entry.value - truth[name]),
                "covered": float(entry.low <= truth[name] <= entry.high),
            }
        )
    real = truth | {"ratio": observer.ratio}
    biased = {name for name in ideal if real[name] != ideal[name]}
    flagged = {verdict.name for verdict in analysis.judged if verdict.flag}
    return [*rows, {"false": len(flagged - biased), "missed": len(biased - flagged), "found": len(biased & flagged)}]


def _recovered(results: Results) -> Evidence:
    """Every mean error is within the margin."""
    return all_of(
        [
            within(
                results.by_seed("error", part="observers", preset=preset, kind="one", parameter=parameter),
                -MARGIN,
                MARGIN,
                f"error of {parameter} of {preset}",
            )
            for preset in results.config.observers.presets
            for parameter in PARAMETERS
        ]
    )


def _coverage(results: Results) -> Evidence:
    """The mean over observers and parameters of the share of intervals that hold the truth."""
    tables = [
        results.by_seed("covered", part="observers", preset=preset, kind="one", parameter=parameter)
        for preset in results.config.observers.presets
        for parameter in PARAMETERS
    ]
    shares = Values.of(lambda *covered: sum(covered) / len(covered), *tables)
    return mean_of(shares, threshold=0.9, bounds=(0, 1), name="coverage")


def _unaccused(results: Results) -> Evidence:
    accused = results.by_seed("accused", part="observers", preset="bayes", kind="many")
    config = results.config.observers
    return mean_of(accused, threshold=0.08, alternative="less", cases=config.ideal, name="share accused")


def _named(results: Results) -> Evidence:
    """Each kind of biased observer is told apart from the ideal one by most of its biases."""
    shares = []
    for preset in BIASED:
        found, missed = (
            results.by_seed(name, part="observers", preset=preset, kind="one") for name in ("found", "missed")
        )
        shares.append(Values.of(lambda yes, no: float(yes > 0) if yes + no else 1.0, found, missed))
    means = Values.of(lambda *values: sum(values) / len(values), *shares)
    return mean_of(means, threshold=0.9, bounds=(0, 1), name="share found")


CLAIMS = (
    Claim(
        "observers-recovered",
        "Of every simulated observer each bias, weight and shift is recovered: mean errors are below 0.05.",
        _recovered,
        paper=OURS,
        family="observers",
        scale="laptop",
    ),
    Claim(
        "observers-coverage",
        "95 % intervals hold the true value in more than 90 % of cases.",
        _coverage,
        paper=OURS,
        family="observers",
    ),
    Claim(
        "observers-unaccused",
        "An ideal Bayesian observer is accused of any of five biases in less than 8 % of cases.",
        _unaccused,
        paper=OURS,
        family="observers",
        headline=True,
        plain="a simulated model without a bias is seldom accused of one",
        figure="recovered",
        scale="laptop",
    ),
    Claim(
        "observers-found",
        "Observers with biases get a verdict on one of them in more than 90 % of cases.",
        _named,
        paper=OURS,
        family="observers",
        scale="laptop",
    ),
)


def draw_recovered(results: Results, axes: Axes) -> list[Record]:
    """Estimates against true parameters, means over seeds."""
    rows: list[Record] = []
    for place, parameter in enumerate(PARAMETERS):
        points = []
        for preset in results.config.observers.presets:
            found = results.where(part="observers", preset=preset, kind="one", parameter=parameter)
            if not found:
                continue
            mean = seed_mean([float(row["value"] or 0.0) for row in found])
            truth = float(found[0]["truth"] or 0.0)
            points.append((truth, mean))
            rows.append(
                {
                    "observer": preset,
                    "parameter": parameter,
                    "true": truth,
                    "estimate": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "covered": sum(float(row["covered"] or 0.0) for row in found) / len(found),
                    "seeds": mean.seeds,
                }
            )
        if points:
            axes.plot(
                [truth for truth, _ in points],
                [mean.mean for _, mean in points],
                "os^DvP"[place],
                linestyle="none",
                fillstyle="none",  # parameters of observers coincide: smaller ones within larger ones show all
                markersize=15 - 2 * place,
                markeredgewidth=1.5,
                label=parameter.replace("_", " "),
            )
    if rows:
        ends = [min(float(row["true"] or 0.0) for row in rows), max(float(row["true"] or 0.0) for row in rows)]
        axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, zorder=0)
    axes.set_xlabel("true parameter")
    axes.set_ylabel("estimate")
    legend(axes)
    return rows


part = Part(
    "observers",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "recovered",
            "Parameters of eight simulated observers against what the analysis makes of their answers; means over "
            "seeds. The dashed line is equality.",
            draw_recovered,
        ),
    ),
)
