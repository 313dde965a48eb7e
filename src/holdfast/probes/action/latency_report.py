"""What the probe of control latency found, as one sentence, tables of 80 columns, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from holdfast.probes.report import explained, jsonable, size, table
from holdfast.probes.rounds import interval, line, medians_drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 80
"""Columns of a report."""

FLAT = (0.9, 1.1)
"""Between these a step after the longest episode, divided by one after the shortest, is called the same."""

FIT = 0.25
"""Share of a median by which a line may miss it: beyond, times follow no line."""

HUNDRED = 100
"""Steps of which the slowest is no more than their 99th percentile."""

MEANINGS = {
    "timesteps": "decisions in the episode before the one that is timed",
    "median ms": "of one decision for all episodes side by side, from observations to actions",
    "p99 ms": "99th percentile; the slowest one where there are fewer than a hundred",
    "Hz": "rate of control that is held at the 99th percentile",
    "state": "what is kept of the episode, all of a batch together",
    "beside ms": "median of what the policy is compared with, with random weights",
    "times": "that median divided by the policy's",
}
"""What each column of the table means."""


@dataclass(frozen=True)
class StepTimes:
    """Steps of one policy, in milliseconds. Intervals are of 95 %, from a bootstrap over rounds.

    Arguments:
        name: of the policy.
        batch: episodes side by side; `None`: as many as its observation says.
        lengths: timesteps before the step.
        medians: of a step at each length.
        p99: 99th percentile at each length, the slowest one where there are fewer than a hundred steps.
        rounds: steps at each length.
        growth: a step at the greatest length divided by one at the least, both of the same round: median.
        growth_interval: of that.
        fixed: where the least-squares line through the medians begins.
        per_timestep: by how much it rises with each timestep.
        per_timestep_interval: of that.
        parameters: of the backbone; `None`: not known.
        state_bytes: kept of all episodes at each length; `None`: not known.
        constant_state: whether what is kept has the same shapes at any length; `None`: not known.
    """

    name: str
    batch: int | None
    lengths: tuple[int, ...]
    medians: tuple[float, ...]
    p99: tuple[float, ...]
    rounds: int
    growth: float
    growth_interval: tuple[float, float]
    fixed: float
    per_timestep: float
    per_timestep_interval: tuple[float, float]
    parameters: int | None = None
    state_bytes: tuple[int, ...] | None = None
    constant_state: bool | None = None

    @classmethod
    def of(
        cls,
        name: str,
        batch: int | None,
        lengths: tuple[int, ...],
        times: Float[np.ndarray, "rounds lengths"],
        *,
        parameters: int | None = None,
        state_bytes: tuple[int, ...] | None = None,
        constant_state: bool | None = None,
    ) -> StepTimes:
        """From the times of all rounds."""
        growth = times[:, -1] / times[:, 0]
        medians = np.median(times, axis=0)
        fixed, slope = line(lengths, medians)
        return cls(
            name=name,
            batch=batch,
            lengths=lengths,
            medians=tuple(medians.tolist()),
            p99=tuple(np.quantile(times, 0.99, axis=0, method="higher").tolist()),
            rounds=len(times),
            growth=float(np.median(growth)),
            growth_interval=interval(medians_drawn(growth)),
            fixed=float(fixed),
            per_timestep=float(slope),
            per_timestep_interval=interval(line(lengths, medians_drawn(times))[1]),
            parameters=parameters,
            state_bytes=state_bytes,
            constant_state=constant_state,
        )

    @property
    def flat(self) -> bool:
        """Whether a step takes the same time at the greatest and the least length, within 10 %."""
        return FLAT[0] <= self.growth_interval[0] and self.growth_interval[1] <= FLAT[1]

    @property
    def grows(self) -> bool:
        """Whether a step is told to take longer at the greatest length than at the least."""
        return not self.flat and self.growth_interval[0] > 1

    @property
    def linear(self) -> bool:
        """Whether the medians lie near the line."""
        pairs = zip(self.lengths, self.medians, strict=True)
        return all(abs(self.fixed + self.per_timestep * n - median) <= FIT * median for n, median in pairs)

    @property
    def control_rate(self) -> float:
        """Decisions a second that are held at the 99th percentile of every length."""
        return 1e3 / max(self.p99)

    @property
    def bytes_per_timestep(self) -> float | None:
        """By how much the state grows between the least and the greatest length; `None`: not known."""
        if self.state_bytes is None:
            return None
        return (self.state_bytes[-1] - self.state_bytes[0]) / (self.lengths[-1] - self.lengths[0])


@dataclass(frozen=True)
class Crossover:
    """From which length on the one whose state grows is slower.

    Arguments:
        batch: episodes side by side.
        timesteps: that length, between measured ones on the line between them; 0: it is slower at all lengths that were
            measured; inf: at none.
        timesteps_interval: 95 %, from a bootstrap over rounds.
        longest: the greatest length that was measured of both.
        memory: timesteps from which on it keeps more bytes; inf: never.
    """

    batch: int | None
    timesteps: float
    timesteps_interval: tuple[float, float]
    longest: int
    memory: float

    @classmethod
    def of(
        cls,
        constant: StepTimes,
        growing: StepTimes,
        constant_times: Float[np.ndarray, "rounds lengths"],
        growing_times: Float[np.ndarray, "rounds others"],
    ) -> Crossover:
        """From the times of all rounds, at the lengths that both have.

        Arguments:
            constant: the one whose state is constant, or else the policy.
            growing: the other one.
            constant_times: a column for each of its lengths.
            growing_times: likewise.
        """
        common = [length for length in constant.lengths if length in growing.lengths]
        columns = [[arm.lengths.index(length) for length in common] for arm in (constant, growing)]
        pair = np.stack([constant_times[:, columns[0]], growing_times[:, columns[1]]], axis=1)
        medians, drawn = np.median(pair, axis=0), medians_drawn(pair)
        crossings = [crossing(common, other - one) for one, other in drawn]
        return cls(
            batch=constant.batch,
            timesteps=crossing(common, medians[1] - medians[0]),
            timesteps_interval=interval(np.array(crossings)),
            longest=common[-1],
            memory=_memory_crossover(constant, growing),
        )


def crossing(lengths: list[int], slower_by: Float[np.ndarray, " lengths"]) -> float:
    """The length from which on one is slower than the other at every greater length; 0: at all, inf: at none.

    Arguments:
        lengths: that were measured, ascending.
        slower_by: its time less that of the other, at each length.
    """
    not_slower = np.flatnonzero(slower_by <= 0)
    if not len(not_slower):
        return 0.0
    last = int(not_slower[-1])
    if last == len(lengths) - 1:
        return math.inf
    before, after = slower_by[last], slower_by[last + 1]
    return float(lengths[last] + (lengths[last + 1] - lengths[last]) * -before / (after - before))


def _memory_crossover(constant: StepTimes, growing: StepTimes) -> float:
    rate = growing.bytes_per_timestep
    if constant.state_bytes is None or growing.state_bytes is None or not rate or rate <= 0:
        return math.inf
    return growing.lengths[0] + (constant.state_bytes[0] - growing.state_bytes[0]) / rate


@dataclass(frozen=True)
class ControlLatencyReport:
    """What `probe_control_latency` found.

    Arguments:
        policy: the policy, an entry for each batch.
        rival: what it was compared with, likewise; empty: nothing.
        crossovers: likewise.
        left_out: what could not be measured, and why.
    """

    policy: tuple[StepTimes, ...]
    rival: tuple[StepTimes, ...]
    crossovers: tuple[Crossover, ...]
    left_out: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence: what a step costs, whether that grows with the episode, and when something else is faster."""
        clauses = []
        for number, steps in enumerate(self.policy):
            first = "" if steps.batch in (None, 1) else f"with {steps.batch} episodes side by side "
            clauses.append(first + _cost(steps))
            if self.crossovers:
                clauses.append(_beside(steps, self.rival[number], self.crossovers[number]))
        text = "; ".join(clauses)
        return f"{text[0].upper()}{text[1:]}."

    def explain(self) -> str:
        """What each column of the table means, a line each."""
        return explained(MEANINGS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        derived = [
            {"flat": steps.flat, "grows": steps.grows, "linear": steps.linear, "control_rate": steps.control_rate}
            for steps in self.policy
        ]
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self), "derived": derived})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw milliseconds of a step against the length of the episode, 99th percentiles as bars above.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        for number, steps in enumerate(self.policy):
            _draw(ax, steps, f"C{number}", "o-")
            if self.rival:
                _draw(ax, self.rival[number], f"C{number}", "s--")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("timesteps before")
        ax.set_ylabel("ms a step, up to the 99th percentile")
        ax.legend(fontsize="small")

    def __str__(self) -> str:
        """Return the sentence and a table for each batch."""
        lines = textwrap.wrap(self.verdict, WIDTH)
        for number, steps in enumerate(self.policy):
            lines += ["", *_table(steps, self.rival[number] if self.rival else None)]
            if self.crossovers and math.isfinite(self.crossovers[number].memory):
                more = f"{max(0, math.ceil(self.crossovers[number].memory)):,}"
                lines.append(f"memory: from {more} timesteps on the one that grows keeps more")
        if self.left_out:
            lines.append("")
            for text in self.left_out:
                lines += textwrap.wrap(f"left out: {text}", WIDTH, subsequent_indent="  ")
        return "\n".join(lines)


def _cost(steps: StepTimes) -> str:
    slowest = "p99" if steps.rounds >= HUNDRED else f"slowest of {steps.rounds}"
    rate = f"({slowest} {max(steps.p99):.3g} ms: {_rate(steps.control_rate)} Hz)"
    last = f"{steps.lengths[-1]:,} timesteps"
    if steps.flat:
        return f"a step takes {float(np.median(steps.medians)):.3g} ms at any episode length up to {last} {rate}"
    if steps.grows:
        first, final = steps.medians[0], steps.medians[-1]
        return (
            f"a step takes {first:.3g} ms after {steps.lengths[0]:,} timesteps and {final:.3g} ms after {last} {rate}"
        )
    low, high = min(steps.medians), max(steps.medians)
    state = ", though its state stays of one size" if steps.constant_state else ""
    untold = f"and noise hides whether that grows{state}"
    return f"a step takes {low:.3g} to {high:.3g} ms up to {last} {rate}, {untold}"


def _beside(steps: StepTimes, rival: StepTimes, crossover: Crossover) -> str:
    name, at, longest = rival.name, crossover.timesteps, f"{crossover.longest:,} timesteps"
    low, high = (_timesteps(end) for end in crossover.timesteps_interval)
    between = f"{_timesteps(at)} timesteps [{low}, {high}]"
    if rival.constant_state:  # and the policy's state grows
        if at == 0:
            return f"{name} is faster at every length"
        return f"{name} is not faster up to {longest}" if math.isinf(at) else f"{name} is faster from {between} on"
    if at == 0:
        return f"{name} is slower at every length"
    return f"{name} is faster up to {longest}" if math.isinf(at) else f"{name} is faster until {between}"


def _timesteps(number: float) -> str:
    """A length between measured ones, to two digits."""
    if not 0 < number < math.inf:
        return "0" if number == 0 else "beyond"
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{round(number / 10**digits) * 10**digits:,}"


def _rate(rate: float) -> str:
    return f"{float(f'{rate:.2g}'):,.0f}" if rate >= 10 else f"{rate:.2g}"


def _table(steps: StepTimes, rival: StepTimes | None) -> list[str]:
    rows = []
    for place, length in enumerate(steps.lengths):
        row = [f"{length:,}", f"{steps.medians[place]:.3g}", f"{steps.p99[place]:.3g}", _rate(1e3 / steps.p99[place])]
        row.append("-" if steps.state_bytes is None else size(steps.state_bytes[place]))
        if rival is not None and length in rival.lengths:
            other = rival.lengths.index(length)
            row += [f"{rival.medians[other]:.3g}", f"{rival.medians[other] / steps.medians[place]:.2f}x"]
            row.append("-" if rival.state_bytes is None else size(rival.state_bytes[other]))
        elif rival is not None:
            row += ["-"] * 3
        rows.append(tuple(row))
    header = ["timesteps", "median ms", "p99 ms", "Hz", "state"]
    batch = "" if steps.batch is None else f", batch {steps.batch}"
    known = "" if steps.parameters is None else f", {steps.parameters:,} parameters"
    lines = [f"{steps.name}{batch}{known}; {steps.rounds} steps at each length"]
    if rival is not None:
        header += ["beside ms", "times", "its state"]
        lines.append(f"beside it: {rival.name}, {rival.parameters:,} parameters")
    return [*lines, *table(header, rows)]


def _draw(ax: Axes, steps: StepTimes, color: str, style: str) -> None:
    above = [slow - median for slow, median in zip(steps.p99, steps.medians, strict=True)]
    batch = "" if steps.batch is None else f", batch {steps.batch}"
    error = [[0.0] * len(above), above]
    ax.errorbar(steps.lengths, steps.medians, error, fmt=style, color=color, markersize=4, label=steps.name + batch)
