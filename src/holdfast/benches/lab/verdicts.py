"""How often verdicts from few seeds are wrong, and how often they find what is there.

Every simulated study has n seeds whose values come from a known distribution. At a threshold that is the true mean
every verdict is false, on either side; at another one the share of studies with a verdict is the power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    import numpy as np

    Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

CASES = 100
"""Cases behind each share."""

EFFECTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
"""Means, in standard deviations of a seed, at which power is compared."""

AT_ONCE = 1 << 20
"""Values that are drawn at once."""


@dataclass(frozen=True)
class Options:
    """False verdicts, coverage and power, beside the plain t-test."""

    seeds: tuple[int, ...] = (3, 5, 10, 20, 40)
    """Seeds of a study."""
    studies: int = 100_000
    """Simulated studies for each distribution and number of seeds."""
    seed: int = 20260101
    """Of the simulation."""


TOY = Options(seeds=(3, 10), studies=200)


@dataclass(frozen=True)
class Distribution:
    """Values of a seed.

    Arguments:
        name: of the distribution.
        mean: the truth.
        draw: values of many studies.
        declared: what a claim on such values tells the test.
        control: values of the other arm, where differences are judged.
    """

    name: str
    mean: float
    draw: Draw
    declared: Mapping[str, Any]
    control: Draw | None = None


def distributions() -> tuple[Distribution, ...]:
    """What is simulated; the last two are skewed."""

    def binomial(share: float, cases: int) -> Draw:
        return lambda rng, shape: rng.binomial(cases, share, shape) / cases

    unit, shares = {"bounds": (0.0, 1.0)}, {"cases": CASES}
    return (
        Distribution("normal", 0.0, lambda rng, shape: rng.normal(size=shape), {}),
        Distribution("t, 2 degrees of freedom", 0.0, lambda rng, shape: rng.standard_t(2, shape), {}),
        Distribution("0 or 1, chance 0.5", 0.5, binomial(0.5, 1), unit),
        Distribution("0 or 1, chance 0.9", 0.9, binomial(0.9, 1), unit),
        Distribution("share 0.9 of 100", 0.9, binomial(0.9, CASES), shares),
        Distribution("share 0.99 of 100", 0.99, binomial(0.99, CASES), shares),
        Distribution("0.99 less 0.99 of 100", 0.0, binomial(0.99, CASES), shares, binomial(0.99, CASES)),
        Distribution("exponential", 1.0, lambda rng, shape: rng.exponential(size=shape), {}),
        Distribution("lognormal, sigma 1.5", math.exp(1.125), lambda rng, shape: rng.lognormal(0.0, 1.5, shape), {}),
    )


def run(options: Options, tell: Tell) -> Report:
    """Simulate studies.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report: a row for each distribution and number of seeds with the shares of studies whose verdict is
        `false`, and whose interval has the truth (`covered`; where there is no interval, nothing is missed), both
        also by the plain t-test (`_t`); for normal values also the power that is lost, at most. Its ratio: false
        verdicts for each one of the peer, over all rows.

    Errors:
        ArgumentError: no study is asked for, or studies of fewer than 3 seeds.
    """
    import numpy as np

    from holdfast.errors import count_of

    count_of("studies", options.studies, 1)
    for n in options.seeds:
        count_of("seeds", n, 3)
    rng = np.random.default_rng(options.seed)
    rows: list[Row] = []
    for distribution in distributions():
        for n in options.seeds:
            row: dict[str, Any] = {"values": distribution.name, "seeds": n}
            row |= shares(distribution, distribution.mean, n, options.studies, rng)
            if distribution.name == "normal":
                row["power_loss"] = power_loss(distribution, n, options.studies, rng)
            rows.append(row)
            tell(row)
    false, plain = (sum(row[name] for row in rows) / len(rows) for name in ("false", "false_t"))
    words = f"{false:.1%} of verdicts false over all rows, {plain:.1%} by the plain t-test"
    return Report(asdict(options), tuple(rows), words, false / plain if plain else None)


def power_loss(distribution: Distribution, n: int, studies: int, rng: np.random.Generator) -> float:
    """The most by which the power is below that of the plain t-test, at any of the effects."""
    losses = [0.0]
    for effect in EFFECTS:
        # A threshold so far below the mean is a mean so far above the threshold.
        power = shares(distribution, -effect, n, studies, rng)
        losses.append(power["false_t"] - power["false"])
    return max(losses)


def shares(
    distribution: Distribution, threshold: float, n: int, studies: int, rng: np.random.Generator
) -> dict[str, float]:
    """Shares of studies that are decided (`false`, at the truth) and whose interval has the threshold."""
    import numpy as np

    from holdfast.lab.few_seeds import compare_means
    from holdfast.lab.verdict import LEVEL

    counts = dict.fromkeys(("false", "false_t", "covered", "covered_t"), 0)
    left = studies
    while left:
        shape = (min(left, max(1, AT_ONCE // n)), n)
        values = distribution.draw(rng, shape)
        control = distribution.control(rng, shape) if distribution.control else None
        compared = compare_means(values, threshold, control=control, **distribution.declared)
        counts["false"] += int(compared.decided(LEVEL).sum())
        counts["covered"] += int((~((compared.low > threshold) | (compared.high < threshold))).sum())
        low, high, p_value = plain_t(values if control is None else values - control, threshold)
        counts["false_t"] += int((p_value < LEVEL).sum())
        counts["covered_t"] += int(((low <= threshold) & (threshold <= high)).sum())
        left -= shape[0]
    return {name: float(np.divide(count, studies)) for name, count in counts.items()}


def plain_t(values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The peer: interval and p-value of the t-test; identical values are a point, and proof."""
    import numpy as np
    from scipy import stats

    n = values.shape[1]
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / math.sqrt(n)
    half = stats.t.ppf(0.975, n - 1) * error + 1e-12  # rounding
    distance = np.maximum(np.abs(mean - threshold) - 1e-12, 0.0)
    p_value = 2 * stats.t.sf(distance / np.maximum(error, 1e-15), n - 1)
    return mean - half, mean + half, p_value
