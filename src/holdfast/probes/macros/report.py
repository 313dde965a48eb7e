"""What the probe of macro-actions found, as a sentence, tables, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdfast.probes.report import explained, jsonable, percent, shown, table
from holdfast.rl.macros import Macros

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 100
"""Columns of a report."""
HALF = 0.5
"""Effective share of the actions up to which they overload: at least two are learnt in the place of one."""
UNTRIED = 0.5
"""Share of actions that were never taken, from which on their values say nothing."""
TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""At which the number of groups is told, whichever was asked for: what is alike is a matter of degree."""
SHOWN = 20
"""Groups in the table."""
NAMED = 3
"""Actions of a group in the table."""

Finding = Literal["overloading", "not overloading", "undecided", "one agent", "untried"]


@dataclass(frozen=True)
class ActionGroup:
    """Actions with the same values, up to what is tolerated.

    Arguments:
        actions: their numbers, ascending.
        names: in words.
        difference: of two of them, root mean square as a share of that of all pairs of the agent's actions, mean over
            pairs; NaN: alone, or never legal together.
        correlation: mean over pairs, of values less their state's mean; NaN: alone, or constant.
        together: share of resamples that had a pair in one group, mean over pairs; NaN: alone.
        samples: states in which one of them was taken; `None`: not logged.
    """

    actions: tuple[int, ...]
    names: tuple[str, ...]
    difference: float
    correlation: float
    together: float
    samples: int | None


@dataclass(frozen=True)
class Coverage:
    """How often actions were taken in the log.

    Arguments:
        samples: of each action.
        mean: of them.
        median: of them.
        never: share of actions that were never taken.
    """

    samples: tuple[int, ...]
    mean: float
    median: float
    never: float


@dataclass(frozen=True)
class Rule:
    """The rule of thumb: macros of length L make the tree of decisions smaller only if n < |A|^L.

    Arguments:
        length: L, mean of the macros'.
        sequences: |A|^L, of the primitives.
        actions: n.
        effective: effective number, in the place of n where credit is shared.
    """

    length: float
    sequences: float
    actions: int
    effective: float

    @property
    def holds(self) -> bool:
        """Whether n < |A|^L."""
        return self.actions < self.sequences


@dataclass(frozen=True)
class MacrosReport:
    """How many different actions the values of an agent know; see `probe_macros`.

    Arguments:
        macros: the list of actions.
        listed: whether it was given; otherwise all count as primitives.
        states: in which actions differ, that were looked at.
        units: that were resampled.
        episodes: whether these are episodes; otherwise states.
        groups: actions with the same values, in the order of their first.
        interval: 95 % of the number of groups, over resamples.
        effective: effective number of actions of the fitted matrix, `strength` being c.
        effective_interval: of the two ends of `interval`.
        spectral: exp of the entropy of the matrix's spectrum.
        residual: Σ ‖q - Σq‖² / Σ ‖q - mean‖² in states held out.
        retention: what is left in Σq of the best action's lead over the mean, as a share, in states held out; above 1
            with a second agent, by whose values it is judged, where means choose better.
        agreement: cosine of both agents' values less their means; `None`: there was no second.
        residuals: by number of groups, from 1 on; NaN: actions that are never legal together would be one.
        retentions: likewise.
        correlation: of each two actions, of values less their state's mean; NaN: one is constant.
        difference: of each two, root mean square as a share of that of all pairs; NaN: never legal together.
        coverage: of the actions; `None`: not logged.
        rule: of thumb; `None`: no list, or no macros in it.
        tolerance: what was allowed to be lost.
        strength: c.
        notes: what else is to be known.
    """

    macros: Macros
    listed: bool
    states: int
    units: int
    episodes: bool
    groups: tuple[ActionGroup, ...]
    interval: tuple[int, int]
    effective: float
    effective_interval: tuple[float, ...]
    spectral: float
    residual: float
    retention: float
    agreement: float | None
    residuals: tuple[float, ...]
    retentions: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    difference: tuple[tuple[float, ...], ...]
    coverage: Coverage | None
    rule: Rule | None
    tolerance: float
    strength: float
    notes: tuple[str, ...]

    @property
    def finding(self) -> Finding:
        """Whether the actions overload.

        They do where the upper end of the effective number is at most half of them, and do not where its lower end is
        more: but values of one agent alone can differ for not being learnt, as those of an overloaded one do, so that
        only a second agent's can say that they do not. Where most actions were never taken, their values were never
        learnt and decide nothing.
        """
        half = HALF * len(self.macros)
        if self.coverage is not None and self.coverage.never > UNTRIED:
            return "untried"
        if self.effective_interval[1] <= half:
            return "overloading"
        if self.effective_interval[0] <= half:
            return "undecided"
        return "one agent" if self.agreement is None else "not overloading"

    @property
    def redundant(self) -> tuple[int, ...]:
        """Actions that are not the first of their group."""
        return tuple(sorted(action for group in self.groups for action in group.actions[1:]))

    @property
    def by_tolerance(self) -> dict[float, int]:
        """Number of groups at other tolerances."""
        residuals, retentions = np.array(self.residuals), np.array(self.retentions)
        return {
            tolerance: 1 + int(np.flatnonzero((residuals <= tolerance) & (retentions >= 1 - tolerance))[0])
            for tolerance in TOLERANCES
        }

    @property
    def verdict(self) -> str:
        """One sentence: whether macros overload the learner, how sure that is, and what to do."""
        n, unit = len(self.macros), "episodes" if self.episodes else "states"
        who = "Macros" if self.macros.sequences else "Actions"
        low, high = self.interval
        known = (
            f"by their values its {n} actions are {len(self.groups)} different ones (95% interval {low} to {high}), "
        )
        known += f"an effective number of {self.effective:.1f}"
        if self.finding == "untried":
            assert self.coverage is not None
            never = sum(not taken for taken in self.coverage.samples)
            return (
                f"It cannot be told whether {who.lower()} overload this learner, for {never} of its {n} actions were "
                "never taken: log more of its play, or let it explore more."
            )
        if self.finding == "undecided":
            return (
                f"It cannot be told whether {who.lower()} overload this learner: {known}, on either side of one half: "
                f"log more {unit}."
            )
        if self.finding == "not overloading":
            return f"{who} are not overloading this learner: {known}: there is little credit to share."
        if self.finding == "one agent":
            return (
                f"It cannot be told from one agent whether {who.lower()} overload this learner: {known}, which may be "
                "so, or may be noise of values that were not learnt: judge it by a second agent's (--second)."
            )
        return (
            f"{who} are overloading this learner: {known}, and acting on means of alike ones keeps "
            f"{percent(self.retention)} of the lead of the best: let them share credit (masp_penalty with the fitted "
            "matrix) or take fewer macros, and compare with primitive actions alone."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        head = {
            "verdict": self.verdict,
            "finding": self.finding,
            "redundant": self.redundant,
            "by_tolerance": {f"{tolerance:g}": groups for tolerance, groups in self.by_tolerance.items()},
        }
        content = asdict(self)
        content["macros"] = {
            "primitives": self.macros.primitives,
            "names": self.macros.names,
            "macros": self.macros.sequences,
            "meanings": self.macros.meanings,
            "sha256": self.macros.sha256,
        }
        plain: dict[str, Any] = jsonable({**head, **content})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw what is lost against the number of groups.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        n, (low, high) = len(self.macros), self.interval
        groups = np.arange(1, n + 1)
        ax.plot(groups, self.residuals, marker=".", label="residual")
        ax.plot(groups, 1 - np.array(self.retentions), marker=".", label="loss of the best action's lead")
        ax.axhline(self.tolerance, color="0.5", linestyle=":", label="tolerance")
        ax.axvspan(low - 0.25, high + 0.25, color="0.9", label="95% interval")
        ax.axvline(len(self.groups), color="0.3", linewidth=1)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("groups of actions")
        ax.set_ylabel("share lost, in states held out")
        ax.set_title(f"{n} actions, {len(self.groups)} groups")
        ax.legend()

    def explain(self) -> str:
        """What each number means."""
        return explained(
            {
                "groups": "the fewest groups of actions with which the tolerance holds, in what was held out",
                "effective": f"Σ 1 / (1 + c s²) over the singular values s of I - Σ, c = {self.strength:g}",
                "spectral": "exp of the entropy of the spectrum of Σ: the same without c",
                "residual": "Σ ‖q - Σq‖² / Σ ‖q - mean‖², Σ the mean within groups: the penalty's size",
                "lead kept": "(max Σq - mean) / (max q - mean): what acting greedily on Σq keeps of the best's lead",
                "agreement": "cosine of both agents' values less their state's mean; 1 without noise",
                "difference": "of two actions' values, root mean square, as a share of that of all pairs of actions",
                "correlation": "of two actions' values less their state's mean, over states; - where alone or constant",
                "together": "share of resamples in which two actions of the group were in one",
                "samples": "states in which an action of the group was taken",
                "n < |A|^L": "below it macros of length L make fewer sequences of decisions than primitives do",
            }
        )

    def __str__(self) -> str:
        """Return the sentence and tables."""
        n, unit = len(self.macros), "episodes" if self.episodes else "states"
        lines = [*textwrap.wrap(self.verdict, WIDTH), ""]
        low, high = self.effective_interval
        lines.append(f"{n} actions in {self.states} states; {self.units} {unit} resampled, others held out")
        lines.append(
            f"groups {len(self.groups)} [{self.interval[0]}, {self.interval[1]}], effective {self.effective:.1f} "
            f"[{low:.1f}, {high:.1f}], spectral {self.spectral:.1f}"
        )
        lines.append(
            f"residual {self.residual:.4f}, lead kept {self.retention:.4f}; one group fewer: {self._fewer}; "
            f"tolerance {self.tolerance:g}"
        )
        at = ", ".join(f"{groups} at {tolerance:g}" for tolerance, groups in self.by_tolerance.items())
        lines.append(f"groups by tolerance: {at}")
        if self.agreement is not None:
            lines.append(f"judged by a second agent's values, which agree with the first's to {self.agreement:.2f}")
        if self.coverage is not None:
            c = self.coverage
            lines.append(
                f"samples an action: {min(c.samples)} to {max(c.samples)}, median {c.median:g}, mean {c.mean:.1f}; "
                f"never taken {percent(c.never)}"
            )
        if self.rule is not None:
            r = self.rule
            lines.append(
                f"rule of thumb: n < |A|^L = {self.macros.primitives}^{r.length:.3g} = {r.sequences:.3g} "
                f"{'holds' if r.holds else 'fails'} for n = {n}, and "
                f"{'holds' if r.effective < r.sequences else 'fails'} for {r.effective:.1f}"
            )
        ranked = sorted(self.groups, key=lambda group: -len(group.actions))
        several = [group for group in ranked if len(group.actions) > 1]
        if several:
            header = (
                "size",
                "difference",
                "correlation",
                "together",
                *(("samples",) if self.coverage else ()),
                "actions",
            )
            rows = [
                (
                    str(len(group.actions)),
                    shown(group.difference, ".3f"),
                    shown(group.correlation, ".2f"),
                    shown(group.together, ".2f"),
                    *((str(group.samples),) if self.coverage else ()),
                    self._named(group),
                )
                for group in several[:SHOWN]
            ]
            lines += ["", *table(header, rows, names=("actions",))]
            if len(several) > SHOWN:
                lines.append(f"and {len(several) - SHOWN} more groups of at least two")
            alone = len(ranked) - len(several)
            lines += [f"{alone} action{'s are' if alone != 1 else ' is'} alone"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def _fewer(self) -> str:
        """What would be lost."""
        fewer = len(self.groups) - 1
        if fewer < 1 or math.isnan(self.residuals[fewer - 1]):
            return "none"
        return f"{self.residuals[fewer - 1]:.4f}, {self.retentions[fewer - 1]:.4f}"

    def _named(self, group: ActionGroup) -> str:
        names = group.names if self.listed else tuple(f"q{action}" for action in group.actions)
        return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED} more" if len(names) > NAMED else "")
