"""The fingerprint of a solution, as a sentence, tables, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from holdfast.probes.report import explained, jsonable, percent, shown, table
from holdfast.probes.solutions.curvature import Sharpness
from holdfast.probes.solutions.pruning import Kept
from holdfast.probes.solutions.retention import Retention

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA = 1
"""Of the JSON."""

KIND = "holdfast solution fingerprint"

WIDTH = 100
"""Columns of a report."""

CONSERVED = 1e-4
"""ρ up to which the column sums are conserved: rounding leaves 10⁻⁷ to 10⁻⁶, the least drift known is 8 · 10⁻³."""

DENSE_WITHIN = 0.02
"""Accuracy that pruning may cost."""

FORGOTTEN = 0.1
"""Accuracy that a linear probe has above the output from which forgetting sits in the head."""

LARGEST_MATRIX = 100
"""Classes up to which all cosines are in the JSON."""

Law = Literal["conserved", "shrunk in proportion", "broken", "not known"]


@dataclass(frozen=True)
class Ranks:
    """Of features.

    Arguments:
        effective: exp of the entropy of σ / Σ σ (Roy and Vetterli).
        participation: (Σ σ²)² / Σ σ⁴.
        srank: singular values that make 99 % of the sum of all.
    """

    effective: float
    participation: float
    srank: float


@dataclass(frozen=True)
class Representation:
    """Features of the last hidden layer, H.

    Arguments:
        rows: of H; no rank exceeds their number.
        features: its columns.
        centred: ranks of H less its mean.
        uncentred: ranks of H.
        class_cosine: mean cosine between the means of different classes, not centred.
        cosines: of all pairs of the classes that are there; empty above 100 classes.
        nonpositive: share of H ≤ 0.
        dead: share of units that are never above 0.
        lifetime: Treves–Rolls sparsity over examples; NaN where H has negative entries.
        population: over units.
    """

    rows: int
    features: int
    centred: Ranks
    uncentred: Ranks
    class_cosine: float
    cosines: tuple[tuple[float, ...], ...]
    nonpositive: float
    dead: float
    lifetime: float
    population: float


@dataclass(frozen=True)
class WeightState:
    """The weight of one layer, or of all together.

    Arguments:
        size: number of weights.
        stable_rank: ‖W‖² / ‖W‖₂², of the weight as a matrix with its first axis as rows; NaN of all together.
        change_stable_rank: of W − W₀; NaN without initial weights.
        hoyer: 0 where all weights are of one size, 1 where one alone is not zero.
        near_zero: share with |w| below 10⁻³ of the root mean square.
    """

    size: int
    stable_rank: float
    change_stable_rank: float
    hoyer: float
    near_zero: float


@dataclass(frozen=True)
class LinearProbe:
    """What features know and the output does not say.

    Arguments:
        probe: accuracy of a ridge probe that has seen half of the batch, on the other half.
        output: accuracy of the network's output on that half.
    """

    probe: float
    output: float


@dataclass(frozen=True)
class Localisation:
    """Where learning takes place.

    Arguments:
        participation: (Σ d²)² / (n Σ d⁴) of each change of the weights: one a task, or that from the initial weights.
        cosine: mean between the changes of different tasks; NaN for one.
        overlap: mean over pairs of tasks of Σ min of their shares of squared change by unit; NaN for one.
    """

    participation: tuple[float, ...]
    cosine: float
    overlap: float


@dataclass(frozen=True)
class Conservation:
    """The column sums of the output layer's weight; see `column_drift`.

    Arguments:
        drift: ρ; NaN without initial weights.
        shrunk: factor by which the sums have shrunk.
        rest: of ρ, what is not in proportion.
        nc0: ‖Wᵀ1‖² / K.
        nc0_initial: the same of the initial weights.
    """

    drift: float
    shrunk: float
    rest: float
    nc0: float
    nc0_initial: float

    @property
    def law(self) -> Law:
        """Which it follows."""
        if math.isnan(self.drift):
            return "not known"
        if self.drift <= CONSERVED:
            return "conserved"
        return "shrunk in proportion" if self.rest <= CONSERVED else "broken"


@dataclass(frozen=True)
class Provenance:
    """What a fingerprint is of, for whoever finds the file later.

    Arguments:
        seed: of the run; fingerprints are paired by it.
        probe_seed: of what the probe draws.
        optimizer: class of the optimiser; empty if it was not told.
        settings: of its groups.
        data: digest of inputs and targets of the probe batch.
        versions: of packages.
    """

    seed: int | None
    probe_seed: int
    optimizer: str
    settings: tuple[dict[str, Any], ...]
    data: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Fingerprint:
    """What kind of solution a network is; see `probe_solution`.

    Arguments:
        provenance: what it is of.
        loss: on the probe batch.
        accuracy: on the probe batch.
        classes: of the output.
        representation: features of the last hidden layer.
        layers: weights by layer.
        weights: of all layers together.
        kept: accuracy against kept weights.
        linear_probe: what features know.
        sharpness: `None` if it was not wanted.
        localisation: `None` without initial weights.
        retention: `None` without tasks.
        conservation: of the output layer.
        notes: what is to be known of these numbers.
    """

    provenance: Provenance
    loss: float
    accuracy: float
    classes: int
    representation: Representation
    layers: dict[str, WeightState]
    weights: WeightState
    kept: tuple[Kept, ...]
    linear_probe: LinearProbe
    sharpness: Sharpness | None
    localisation: Localisation | None
    retention: Retention | None
    conservation: Conservation
    notes: tuple[str, ...]

    @property
    def needed(self) -> float:
        """The least fraction of weights, of those that were tried, from which all keep the accuracy within .02."""
        fraction = math.nan
        dense = next((kept.accuracy for kept in self.kept if kept.fraction == 1), math.nan)
        for kept in sorted(self.kept, key=lambda kept: -kept.fraction):
            if not kept.accuracy >= dense - DENSE_WITHIN:
                break
            fraction = kept.fraction
        return fraction

    @property
    def verdict(self) -> str:
        """One sentence: what kind of solution it is, and which optimiser would find another."""
        h = self.representation
        cosine = "" if math.isnan(h.class_cosine) else f", class means at a cosine of {h.class_cosine:.2f}"
        text = (
            f"This solution has an accuracy of {percent(self.accuracy)} and needs {percent(self.needed)} of its "
            f"weights for it, features of effective rank {shown(h.centred.effective, '.1f')} of {h.features}{cosine}"
        )
        if self.sharpness is not None:
            text += f", and λ_max {shown(self.sharpness.largest_eigenvalue, '.3g')}"
        remedies = []
        if self.needed > 0.1:
            remedies.append("to prune further, train with PowerProp (AdamW in φ with decay)")
        if self.linear_probe.probe - self.linear_probe.output > FORGOTTEN:
            remedies.append(
                f"features know more than the output says (a linear probe has {percent(self.linear_probe.probe)}, the "
                f"output {percent(self.linear_probe.output)}), so refit the output layer"
            )
        if self.retention is not None and self.retention.forgetting > FORGOTTEN:
            remedies.append(
                f"{percent(self.retention.forgetting)} of accuracy on old tasks is forgotten: try Shampoo with a long "
                "memory, compared at matched plasticity"
            )
        return "; ".join([text, *remedies]) + "."

    def scalars(self) -> dict[str, float]:
        """All numbers that can be compared between solutions, by name; NaN where there is none."""
        h, nothing = self.representation, math.nan
        sharp, place, kept = self.sharpness, self.localisation, self.retention
        changes = [layer.change_stable_rank for layer in self.layers.values()]
        spread = place.participation if place is not None else ()
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "effective rank, centred": h.centred.effective,
            "effective rank, uncentred": h.uncentred.effective,
            "participation ratio, centred": h.centred.participation,
            "participation ratio, uncentred": h.uncentred.participation,
            "srank, centred": h.centred.srank,
            "srank, uncentred": h.uncentred.srank,
            "class cosine": h.class_cosine,
            "features ≤ 0": h.nonpositive,
            "dead units": h.dead,
            "lifetime sparsity": h.lifetime,
            "population sparsity": h.population,
            "stable rank of W, mean": _mean([layer.stable_rank for layer in self.layers.values()]),
            "stable rank of ΔW, mean": _mean(changes),
            "Hoyer sparsity": self.weights.hoyer,
            "weights near zero": self.weights.near_zero,
            **{f"accuracy at {point.fraction:g} kept": point.accuracy for point in self.kept if point.fraction < 1},
            "linear probe": self.linear_probe.probe,
            "output beside the probe": self.linear_probe.output,
            "λ_max": nothing if sharp is None else sharp.largest_eigenvalue,
            "loss in the ball": nothing if sharp is None else sharp.ball,
            "delta participation, mean": _mean(list(spread)),
            "cosine between tasks": nothing if place is None else place.cosine,
            "unit overlap": nothing if place is None else place.overlap,
            "learn": nothing if kept is None else kept.learn,
            "old": nothing if kept is None else kept.old,
            "forgetting": nothing if kept is None else kept.forgetting,
            "backward transfer": nothing if kept is None else kept.backward_transfer,
            "drift of column sums": self.conservation.drift,
            "NC0": self.conservation.nc0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        head = {"kind": KIND, "schema": SCHEMA, "verdict": self.verdict, "law": self.conservation.law}
        plain: dict[str, Any] = jsonable({**head, "scalars": self.scalars(), **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw accuracy against kept weights.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        curve = sorted(self.kept, key=lambda kept: kept.fraction)
        fractions = [kept.fraction for kept in curve]
        ax.plot(fractions, [kept.accuracy for kept in curve], marker="o")
        ax.axhline(self.accuracy, color="0.5", linestyle=":", linewidth=1)
        ax.set_xscale("log")
        ax.set_xticks(fractions, [f"{fraction:g}" for fraction in fractions])
        ax.minorticks_off()
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("kept share of the weights, one shot, no retraining")
        ax.set_ylabel("accuracy")
        name = self.provenance.optimizer or "optimiser not told"
        ax.set_title(f"{name}: Hoyer sparsity {self.weights.hoyer:.2f}, class cosine {self._cosine}")

    @property
    def _cosine(self) -> str:
        return shown(self.representation.class_cosine, ".2f")

    def explain(self) -> str:
        """What each number means."""
        return explained(
            {
                "effective rank": "exp of the entropy of the features' singular values",
                "participation": "(Σσ²)² / Σσ⁴",
                "srank": "singular values that make 99 % of the sum of all",
                "class cosine": "mean cosine between the mean features of different classes, not centred",
                "lifetime": "Treves–Rolls sparsity 1 − (E h)² / E h² over examples; population: over units",
                "stable rank": "squared Frobenius norm over squared largest singular value",
                "Hoyer": "0 where all weights are of one size, 1 where one alone is not zero",
                "near zero": "share of weights below 10⁻³ of their root mean square",
                "kept": "accuracy with the largest weights of each layer alone; the output layer keeps twice as many",
                "linear probe": "accuracy of ridge regression on the features, on the half that it has not seen",
                "λ_max": "largest eigenvalue of the Hessian; ball: what the loss rises by 0.05 along the gradient",
                "delta": "(Σd²)² / (n Σd⁴) of a change of the weights: 1 where all change alike",
                "ρ": "‖1ᵀΔW‖ / (√K ‖ΔW‖) of the output layer: 0 for SGD, Shampoo, Muon under softmax cross-entropy",
                "NC0": "‖Wᵀ1‖² / K of the output layer; 0 is necessary for neural collapse",
            }
        )

    def __str__(self) -> str:
        """Return the sentence and tables."""
        h, law = self.representation, self.conservation
        lines = [*textwrap.wrap(self.verdict, WIDTH), ""]
        header = (f"{h.rows} × {h.features} features", "effective rank", "participation", "srank")
        rows = [
            (name, *(shown(value, ".1f") for value in (ranks.effective, ranks.participation, ranks.srank)))
            for name, ranks in (("centred", h.centred), ("uncentred", h.uncentred))
        ]
        lines += table(header, rows, names=header[:1])
        lines.append(
            f"class cosine {self._cosine}; ≤ 0 {percent(h.nonpositive)}, dead {percent(h.dead)}, "
            f"lifetime sparsity {shown(h.lifetime, '.2f')}, population {shown(h.population, '.2f')}"
        )
        lines.append(f"linear probe {percent(self.linear_probe.probe)}, output {percent(self.linear_probe.output)}")
        weights = {**self.layers, "all": self.weights}
        columns = ("layer", "weights", "stable rank", "of ΔW", "Hoyer", "near zero")
        cells = [
            (name, str(w.size), *(shown(v, ".2f") for v in (w.stable_rank, w.change_stable_rank, w.hoyer)),
             percent(w.near_zero))
            for name, w in weights.items()
        ]  # fmt: skip
        lines += ["", *table(columns, cells, names=("layer",)), ""]
        kept = [("kept", *(f"{point.fraction:g}" for point in self.kept))]
        kept.append(("accuracy", *(shown(point.accuracy, ".3f") for point in self.kept)))
        lines += [*table(kept[0], kept[1:], names=("kept",)), ""]
        if self.sharpness is not None:
            s = self.sharpness
            lines.append(
                f"λ_max {shown(s.largest_eigenvalue, '.4g')} (residual {shown(s.residual, '.1g')}, {s.iterations} "
                f"iterations); ball {shown(s.ball, '.3g')}"
            )
        if self.localisation is not None:
            p = self.localisation
            lines.append(
                f"delta participation {', '.join(shown(value, '.3f') for value in p.participation)}; cosine between "
                f"tasks {shown(p.cosine, '.2f')}, unit overlap {shown(p.overlap, '.2f')}"
            )
        if self.retention is not None:
            r = self.retention
            lines.append(
                f"learn {r.learn:.3f}, old {r.old:.3f}, final {r.final:.3f}, forgetting {r.forgetting:.3f}, "
                f"backward transfer {r.backward_transfer:+.3f}"
            )
        lines.append(
            f"column sums of the output layer: {law.law} (ρ {shown(law.drift, '.2g')}, factor "
            f"{shown(law.shrunk, '.4f')}, rest {shown(law.rest, '.2g')}); NC0 {shown(law.nc0, '.4g')}, at first "
            f"{shown(law.nc0_initial, '.4g')}"
        )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
