"""What the probe of plasticity found, as a sentence, tables, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from holdfast.probes.plasticity.activations import FeatureChange, LayerMetrics
from holdfast.probes.plasticity.learning_speed import SpeedRatio
from holdfast.probes.report import explained, jsonable, percent, shown, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 100
"""Columns of a report."""

ENOUGH = 0.8
"""Ratio from which a network counts as able to learn: single fresh networks come to between .88 and 1.05."""

Remedy = Literal["none", "rewarm", "project", "reset", "more draws", "more steps"]

ADVICE = {
    "none": "do nothing",
    "rewarm": "raise the learning rate again (holdfast.optim.Rewarm) when new data arrive",
    "project": "put the norms of layers back to where they began, and hold them (holdfast.optim.Projector)",
    "reset": "reset units (holdfast.optim.ReDo, or shrink_and_perturb_), then normalise (normalize_) and hold the norms"
    " of layers (Projector)",
    "more draws": "measure with more draws and twins",
    "more steps": "measure with more steps, or fewer examples",
}


@dataclass(frozen=True)
class LayerState:
    """A layer's weight beside that of fresh networks.

    Arguments:
        norm: Frobenius norm.
        norm_ratio: of that to the mean of the twins'.
        elr: ‖ΔW‖ / ‖W‖ of a step at the peak rate, mean over sampled steps of the task.
        elr_fresh: the same of a twin.
    """

    norm: float
    norm_ratio: float
    elr: float
    elr_fresh: float


@dataclass(frozen=True)
class ActivationState:
    """Features of one layer, beside those of a fresh network.

    Arguments:
        now: of the network.
        fresh: of a twin.
        change: by the task at the peak rate, of the network.
        change_fresh: of the twin.
    """

    now: LayerMetrics
    fresh: LayerMetrics
    change: FeatureChange
    change_fresh: FeatureChange


@dataclass(frozen=True)
class Curves:
    """Losses by step, averaged over draws, as shares of a constant's; a run that was not made has none.

    Arguments:
        peak: of the network at the peak rate.
        current: at its current rate.
        restored: at the peak rate, with its norms put back.
        twins: of each twin.
    """

    peak: tuple[float, ...]
    current: tuple[float, ...] | None
    restored: tuple[float, ...] | None
    twins: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PlasticityReport:
    """How fast a network learns something new, beside fresh networks; see `probe_plasticity`.

    Arguments:
        peak: ratio at the peak rate; `None`: the twins learnt too little to compare with.
        current: at the current rate; `None`: it is the peak rate, or too short.
        restored: at the peak rate with norms put back; `None`: there was no need, norms are held, or too short.
        twins: gain of each twin over the mean of all, which says how much fresh networks differ.
        twin_loss: mean of the twins' last losses, as a share of a constant's.
        constant: loss of the best constant.
        projected: whether norms were held in all runs, as in the network's training.
        steps: of each run.
        examples: that were memorised.
        draws: of their targets.
        layers: weights by layer.
        activations: features by activation function; empty where none was seen.
        elr_spread: largest over smallest measured effective learning rate of the layers.
        elr_spread_fresh: of a twin.
        curves: losses by step.
    """

    peak: SpeedRatio | None
    current: SpeedRatio | None
    restored: SpeedRatio | None
    twins: tuple[float, ...]
    twin_loss: float
    constant: float
    projected: bool
    steps: int
    examples: int
    draws: int
    layers: dict[str, LayerState]
    activations: dict[str, ActivationState]
    elr_spread: float
    elr_spread_fresh: float
    curves: Curves

    @property
    def remedy(self) -> Remedy:
        """What the ratios call for.

        Enough at the peak rate and at the current one: nothing. Not at the current one: a higher rate. Not at the peak
        rate, but with norms put back: projection. Neither: new units. A ratio below the limit whose interval reaches
        beyond it decides nothing.
        """
        if self.peak is None:
            return "more steps"
        if self.peak.ratio >= ENOUGH:
            if self.current is None or self.current.ratio >= ENOUGH:
                return "none"
            return "more draws" if _undecided(self.current) else "rewarm"
        if _undecided(self.peak):
            return "more draws"
        return "project" if self.restored is not None and self.restored.ratio >= ENOUGH else "reset"

    @property
    def verdict(self) -> str:
        """One sentence: can it learn as a fresh network does, how much of that is lost, and what to do."""
        remedy, advice = self.remedy, ADVICE[self.remedy]
        if self.peak is None:
            found = f"Too short to tell: in {self.steps} steps fresh networks came to {percent(self.twin_loss)} of a "
            return f"{found}constant's loss only; {advice}."
        at_peak, now = _share(self.peak), "" if self.current is None else _share(self.current)
        if remedy == "none":
            also = f", and {now} at the current rate" if now else ""
            return f"No loss of plasticity: it learns at {at_peak} of a fresh network's speed{also}; {advice}."
        if remedy == "rewarm":
            found = (
                f"The learning rate has become too low to learn: {now} of a fresh network's speed at the current rate"
            )
            return f"{found}, {at_peak} at the peak rate; {advice}."
        if remedy == "more draws":
            where = now if self.peak.ratio >= ENOUGH else at_peak
            return f"Not told by these runs: it learns at {where} of a fresh network's speed; {advice}."
        lost = f"Plasticity is lost: it learns at {at_peak} of a fresh network's speed"
        if self.restored is not None:
            lost += f", with its norms put back at {_share(self.restored)}"
        return f"{lost}; {advice}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, "remedy": self.remedy, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the losses by step.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        curves = self.curves
        for number, curve in enumerate(curves.twins):
            ax.plot(range(1, len(curve) + 1), curve, color="0.7", label="" if number else "fresh networks")
        named = (
            ("this network, peak rate", curves.peak, "C0"),
            ("this network, current rate", curves.current, "C1"),
            ("this network, norms put back", curves.restored, "C2"),
        )
        for label, line, color in named:
            if line is not None:
                ax.plot(range(1, len(line) + 1), line, color=color, label=label)
        ax.axhline(1, color="0.5", linestyle=":", linewidth=1)
        ax.set_xlabel("step")
        ax.set_ylabel("loss / loss of a constant")
        highest = max(1.0, *(value for curve in curves.twins for value in curve if math.isfinite(value)))
        ax.set_ylim(0, 1.15 * highest)
        ax.legend()
        ax.set_title("too short" if self.peak is None else f"learning speed {self.peak.ratio:.2f} of a fresh network's")

    def explain(self) -> str:
        """What each column means."""
        return explained(
            {
                "ratio": "learning speed beside that of fresh networks at the peak rate, and its 95 % interval",
                "last loss": "mean loss of the last steps, as a share of a constant's",
                "norm / fresh": "Frobenius norm of a layer's weight over that of fresh networks",
                "ELR": "relative change of the weight in a step at the peak rate; beside it that of a fresh network",
                "dormant": "share of units with mean |h| up to 0.025 of the layer's mean; beside it a fresh network's",
                "dead": "share of units that are active for no example",
                "srank": "singular values of the features that make 99 % of the sum of all",
                "eff. rank": "exp of the entropy of the singular values",
                "stable rank": "squared Frobenius norm over squared largest singular value",
                "ΔC, ΔA": "change of the features' kernel, and share of activations that switched, by the task",
            }
        )

    def __str__(self) -> str:
        """Return the sentence and tables."""
        lines = [*textwrap.wrap(self.verdict, WIDTH), ""]
        held = ", norms held" if self.projected else ""
        lines.append(f"{self.examples} examples with new targets, {self.steps} steps{held}; {self.draws} draws")
        lines += ["", *table(("run", "rate", "ratio", "", "last loss"), self._runs(), names=("run",))]
        if self.layers:
            header = ("layer", "norm", "norm / fresh", "ELR", "fresh")
            rows = [
                (name, f"{s.norm:.3g}", f"{s.norm_ratio:.2f}", shown(s.elr, ".2g"), shown(s.elr_fresh, ".2g"))
                for name, s in self.layers.items()
            ]
            lines += ["", *table(header, rows, names=("layer",))]
            spread = f"{shown(self.elr_spread, '.3g')}, of a fresh network {shown(self.elr_spread_fresh, '.3g')}"
            lines.append(f"spread of the ELR, largest over smallest: {spread}")
        return "\n".join([*lines, "", *self._features()])

    def _runs(self) -> list[tuple[str, ...]]:
        runs = {"this network, peak rate": self.peak, "current rate": self.current, "norms put back": self.restored}
        rows = [
            (name, f"{run.rate:.3g}", f"{run.ratio:.2f}", _interval(run), percent(run.loss))
            for name, run in runs.items()
            if run is not None
        ]
        spread = f"{min(self.twins):.2f} to {max(self.twins):.2f}"
        return [*rows, (f"{len(self.twins)} fresh networks", "", "1.00", spread, percent(self.twin_loss))]

    def _features(self) -> list[str]:
        if not self.activations:
            return ["no activation function was seen: no dormant units, ranks or changes of features"]
        header = ("activation", "units", "dormant", "dead", "srank", "eff. rank", "stable rank", "ΔC", "ΔA")
        rows = []
        for name, state in self.activations.items():
            now, fresh = state.now, state.fresh
            rows.append(
                (
                    f"{name} ({now.kind})",
                    str(now.units),
                    f"{percent(now.dormant)} | {percent(fresh.dormant)}",
                    f"{percent(now.dead)} | {percent(fresh.dead)}",
                    f"{shown(now.srank, '.0f')} | {shown(fresh.srank, '.0f')}",
                    f"{shown(now.effective_rank, '.1f')} | {shown(fresh.effective_rank, '.1f')}",
                    f"{shown(now.stable_rank, '.1f')} | {shown(fresh.stable_rank, '.1f')}",
                    f"{shown(state.change.kernel, '.2f')} | {shown(state.change_fresh.kernel, '.2f')}",
                    f"{percent(state.change.activation_share)} | {percent(state.change_fresh.activation_share)}",
                )
            )
        examples = next(iter(self.activations.values())).now.examples
        title = f"features of {examples} examples, this network | a fresh one; ΔC and ΔA over {self.steps} steps"
        return [title, *table(header, rows, names=("activation",))]


def _undecided(run: SpeedRatio) -> bool:
    return run.interval[1] >= ENOUGH


def _share(run: SpeedRatio) -> str:
    return f"{run.ratio:.2f}{' ' * bool(_interval(run))}{_interval(run)}"


def _interval(run: SpeedRatio) -> str:
    low, high = run.interval
    return "" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"
