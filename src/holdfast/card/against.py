"""Two cards side by side: which figures differ by more than chance, all of them in one family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.card.finding import MEASURED, Finding, Measure
from holdfast.card.words import line
from holdfast.lab.verdict import holm

if TYPE_CHECKING:
    from holdfast.card.card import Card

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """One figure of two cards.

    Arguments:
        probe: whose figure it is.
        measure: what it is called.
        meaning: what it is.
        here, there: the figure of this card, and of the other.
        p: of no difference, adjusted by Holm over all figures of both cards.
        better: which of the two is better: `"here"`, `"there"`, or `"neither"` where that is the user's to say.
    """

    probe: str
    measure: str
    meaning: str
    here: float
    there: float
    p: float
    better: str

    @property
    def beyond_noise(self) -> bool:
        """Whether chance alone is an unlikely reason for it."""
        return self.p < LEVEL

    @property
    def sentence(self) -> str:
        """What differs, for people."""
        figure = f"{line(self.probe, 100)}: {line(self.measure, 100)}"
        found = f"{figure} is {_shown(self.here)}, in the other {_shown(self.there)}"
        if not self.beyond_noise:
            return f"{found}: no more than chance would make."
        return found + {"here": ": better here.", "there": ": better there.", "neither": "."}[self.better]


@dataclass(frozen=True)
class Comparison:
    """What of two cards differs.

    Arguments:
        differences: one for each figure that both have, the most certain first.
        only_here, only_there: probes that measured something in one of the two only.
    """

    differences: tuple[Difference, ...]
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]

    @property
    def beyond_noise(self) -> tuple[Difference, ...]:
        """Differences that chance alone would hardly make."""
        return tuple(difference for difference in self.differences if difference.beyond_noise)

    def __str__(self) -> str:
        """Return a line for each difference, and one for what is alike."""
        lines = [difference.sentence for difference in self.beyond_noise]
        alike = [difference.probe for difference in self.differences if not difference.beyond_noise]
        if not lines:
            lines.append("Nothing differs by more than chance.")
        if alike:
            lines.append(f"no more than chance would make: {', '.join(dict.fromkeys(alike))}")
        if self.only_here:
            lines.append(f"measured here only: {', '.join(self.only_here)}")
        if self.only_there:
            lines.append(f"measured there only: {', '.join(self.only_there)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON."""
        return {
            "differences": [
                {**vars(difference), "beyond_noise": difference.beyond_noise} for difference in self.differences
            ],
            "only_here": list(self.only_here),
            "only_there": list(self.only_there),
        }


def compare(here: Card, there: Card) -> Comparison:
    """Compare two cards, figure by figure, with Holm's adjustment over all of them.

    Figures of the same draws are compared pair by pair, by Student's test of the differences; others by Welch's. A
    figure without chance in it differs or does not.

    Arguments:
        here: a card.
        there: another one.
    """
    left, right = _measured(here), _measured(there)
    pairs = [
        (finding, measure, other)
        for probe, finding in left.items()
        if probe in right
        for measure, other in _common(finding, right[probe])
    ]
    adjusted = holm([chance(measure, other) for _, measure, other in pairs])
    differences = [
        Difference(
            finding.probe,
            measure.name,
            measure.meaning,
            measure.value,
            other.value,
            p,
            _better(measure, other),
        )
        for (finding, measure, other), p in zip(pairs, adjusted, strict=True)
    ]
    return Comparison(
        tuple(sorted(differences, key=lambda difference: difference.p)),
        tuple(probe for probe in left if probe not in right),
        tuple(probe for probe in right if probe not in left),
    )


def chance(here: Measure, there: Measure) -> float:
    """How likely a difference at least as large would be if there were none."""
    if here.units and here.units == there.units and len(here.values) == len(there.values) > 1:
        apart = np.subtract(here.values, there.values)
        of_units = float(apart.var(ddof=1)) / len(apart)
        # The spread of both is known from the same draws: two of it have the degrees of one.
        of_models = here.spread**2 + there.spread**2
        degrees = min(here.spread_degrees, there.spread_degrees)
        return _student(float(apart.mean()), [(of_units, len(apart) - 1), (of_models, degrees)])
    parts = [(one.error**2, one.degrees) for one in (here, there)]
    return _student(here.value - there.value, parts)


def _student(difference: float, parts: Sequence[tuple[float, float]]) -> float:
    """Student's test of a difference, with degrees of freedom by Welch and Satterthwaite.

    Arguments:
        difference: of two figures.
        parts: of its variance, each with its degrees of freedom.
    """
    from scipy import stats

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0 if difference else 1.0
    shares = sum((part / variance) ** 2 / degrees for part, degrees in parts)
    far = abs(difference) / math.sqrt(variance)
    return float(2 * (stats.t.sf(far, 1 / shares) if shares else stats.norm.sf(far)))


def _measured(card: Card) -> dict[str, Finding]:
    """What was measured, by probe; of two subjects the first one that a probe suits."""
    found: dict[str, Finding] = {}
    for finding in card.findings:
        if finding.outcome in MEASURED and finding.measures:
            found.setdefault(finding.probe, finding)
    return found


def _common(here: Finding, there: Finding) -> Iterator[tuple[Measure, Measure]]:
    others = {measure.name: measure for measure in there.measures}
    for measure in here.measures:
        other = others.get(measure.name)
        if other is not None and math.isfinite(measure.value) and math.isfinite(other.value):
            yield measure, other


def _better(here: Measure, there: Measure) -> str:
    if here.better == "neither" or here.value == there.value:
        return "neither"
    return "here" if (here.value > there.value) == (here.better == "higher") else "there"


def _shown(value: float) -> str:
    return f"{value:.3g}"
