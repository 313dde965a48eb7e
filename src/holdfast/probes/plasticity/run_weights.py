"""What the weights of a training run's checkpoints tell by themselves, without the network and without data.

Whether a network can still learn they do not tell: that takes training it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity.files import read_weights
from holdfast.probes.plasticity.metrics import stable_rank
from holdfast.probes.report import explained, jsonable, shown, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST = 1 << 22
"""Weights of a matrix above which its rank is left out: it takes the largest singular value."""

COLUMNS = {
    "norm, last": "Frobenius norm of the matrix at the first and at the last checkpoint",
    "growth": "the last divided by the first",
    "stable rank, last": "‖W‖² / σ², σ the largest singular value, at the first and at the last checkpoint",
}
"""What the columns of the table say."""

TICKS = 6
"""Checkpoints of a picture that are named; of more there are numbers."""

STATE = "trainer_state.json"
"""Where the Trainer of Hugging Face notes learning rates, in the folder of a checkpoint."""


@dataclass(frozen=True)
class MatrixChange:
    """One weight matrix over the checkpoints of a run.

    Arguments:
        norms: Frobenius norm at each checkpoint.
        rank: stable rank ‖W‖² / ‖W‖₂² at the first and at the last; NaN where the matrix is large or zero.
    """

    norms: tuple[float, ...]
    rank: tuple[float, float]

    @property
    def growth(self) -> float:
        """Last norm over the first; NaN where that was zero."""
        return self.norms[-1] / self.norms[0] if self.norms[0] > 0 else math.nan

    @property
    def rank_change(self) -> float:
        """Last stable rank over the first."""
        return self.rank[1] / self.rank[0] if self.rank[0] > 0 else math.nan


@dataclass(frozen=True)
class RunWeights:
    """Norms and ranks of the weight matrices of a run; see `probe_run_weights`.

    Arguments:
        checkpoints: names, in order.
        matrices: by name.
        rates: learning rate at each checkpoint; `None`: not noted.
        zeros: share of weights that are exactly zero, at the first and at the last.
    """

    checkpoints: tuple[str, ...]
    matrices: dict[str, MatrixChange]
    rates: tuple[float, ...] | None
    zeros: tuple[float, float]

    @property
    def growth(self) -> float:
        """Geometric mean of the growth of norms."""
        return _geometric([change.growth for change in self.matrices.values()])

    @property
    def rank_change(self) -> float:
        """Geometric mean of the change of stable ranks."""
        return _geometric([change.rank_change for change in self.matrices.values()])

    @property
    def effective_rate(self) -> float:
        """‖ΔW‖ / ‖W‖ of a step at the last checkpoint over that at the first, of an optimiser with steps of one size.

        That is so of Adam and its kin, whose steps are as long as the learning rate says.
        """
        rate = 1.0 if self.rates is None or self.rates[0] == 0 else self.rates[-1] / self.rates[0]
        return rate / self.growth

    @property
    def verdict(self) -> str:
        """One sentence: what has become of norms and ranks, and what that leaves open."""
        return f"{self.norms_sentence} {self.ranks_sentence}"

    @property
    def norms_sentence(self) -> str:
        """What has become of norms."""
        rate = "at the same learning rate" if self.rates is None else f"at the rates noted ({_rates(self.rates)})"
        return (
            f"By its weights alone: from {self.checkpoints[0]} to {self.checkpoints[-1]} the norms of "
            f"{len(self.matrices)} weight matrices came to {self.growth:.2f} times what they were, so that {rate} a "
            f"step of Adam turns them {self.effective_rate:.2f} times as far. Whether it can still learn that does not "
            "tell."
        )

    @property
    def ranks_sentence(self) -> str:
        """What has become of ranks."""
        zero = f"; {self.zeros[1]:.0%} of the weights are zero" if self.zeros[1] >= 0.005 else ""
        if math.isnan(self.rank_change):
            return f"By its weights alone: no matrix is small enough to tell its rank{zero}."
        return (
            f"By its weights alone: from {self.checkpoints[0]} to {self.checkpoints[-1]} the stable rank of weight "
            f"matrices came to {self.rank_change:.2f} times what it was{zero}. What that costs in accuracy is not told."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        derived = {name: getattr(self, name) for name in ("verdict", "growth", "rank_change", "effective_rate")}
        plain: dict[str, Any] = jsonable({**derived, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the norms over those of the first checkpoint.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        places = range(len(self.checkpoints))
        for change in self.matrices.values():
            if change.norms[0] > 0:
                ax.plot(places, [norm / change.norms[0] for norm in change.norms], color="0.7", linewidth=1)
        means = [
            _geometric([change.norms[place] / change.norms[0] for change in self.matrices.values() if change.norms[0]])
            for place in places
        ]
        ax.plot(places, means, color="C0", marker="o", label="all matrices")
        ax.axhline(1, color="0.5", linestyle=":", linewidth=1)
        if len(places) <= TICKS:
            ax.set_xticks(places, self.checkpoints)
        else:
            ax.locator_params(axis="x", integer=True)
        ax.set_xlabel("checkpoint")
        ax.set_ylabel("norm / norm at the first")
        ax.legend()

    def explain(self) -> str:
        """What the columns of the table say, one on a line."""
        return explained(COLUMNS)

    def __str__(self) -> str:
        """Return the sentences and a table."""
        header = ("matrix", "norm", "last", "growth", "stable rank", "last")
        rows = [
            (
                name,
                f"{c.norms[0]:.3g}",
                f"{c.norms[-1]:.3g}",
                shown(c.growth, ".2f"),
                *(shown(r, ".1f") for r in c.rank),
            )
            for name, c in self.matrices.items()
        ]
        return "\n".join([self.verdict, "", *table(header, rows, names=("matrix",))])


def probe_run_weights(checkpoints: Sequence[Path]) -> RunWeights:
    """Follow the norms of weight matrices over the checkpoints of a run, and compare their ranks at both ends.

    Arguments:
        checkpoints: files or folders, in order; see `read_weights`.

    Errors:
        ArgumentError: there are fewer than two, they have other matrices than the first, or none.
    """
    if len(checkpoints) < 2:
        raise ArgumentError("checkpoints", "at least two", len(checkpoints))
    norms = list[dict[str, float]]()
    ranks = dict[Path, dict[str, float]]()
    zeros = dict[Path, float]()
    for path in checkpoints:
        matrices = _matrices(read_weights(path))
        if not matrices:
            raise ArgumentError("checkpoints", "weight matrices", f"none in {path.name}")
        if norms and set(matrices) != set(norms[0]):
            strange = ", ".join(sorted(set(matrices) ^ set(norms[0]))[:3])
            raise ArgumentError("checkpoints", f"those of one model: {path.name} differs in", strange)
        norms.append({name: float(matrix.double().norm()) for name, matrix in matrices.items()})
        if path in (checkpoints[0], checkpoints[-1]):
            ranks[path] = {name: _rank(matrix) for name, matrix in matrices.items()}
            count = sum(matrix.numel() for matrix in matrices.values())
            zeros[path] = sum(int((matrix == 0).sum()) for matrix in matrices.values()) / count
    first, last = checkpoints[0], checkpoints[-1]
    return RunWeights(
        tuple(path.stem for path in checkpoints),
        {
            name: MatrixChange(tuple(column[name] for column in norms), (ranks[first][name], ranks[last][name]))
            for name in norms[0]
        },
        learning_rates(checkpoints),
        (zeros[first], zeros[last]),
    )


def learning_rates(checkpoints: Sequence[Path]) -> tuple[float, ...] | None:
    """The rate that was last noted at each checkpoint of a Trainer of Hugging Face; `None`: not at all of them."""
    found = [rates[-1] for path in checkpoints if (rates := rates_noted(path))]
    return tuple(found) if len(found) == len(checkpoints) else None


def rates_noted(checkpoint: Path) -> list[float]:
    """All rates up to a checkpoint that a Trainer of Hugging Face has noted in its folder."""
    try:
        history = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["log_history"]
        rates = [float(entry["learning_rate"]) for entry in history if "learning_rate" in entry]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [rate for rate in rates if rate > 0]


def _matrices(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if tensor.ndim > 1 and tensor.is_floating_point()}


def _rank(matrix: Tensor) -> float:
    if matrix.numel() > LARGEST or not bool(matrix.any()):
        return math.nan
    return stable_rank(matrix.double().flatten(1))


def _geometric(ratios: Sequence[float]) -> float:
    known = [math.log(ratio) for ratio in ratios if ratio > 0]
    return math.exp(sum(known) / len(known)) if known else math.nan


def _rates(rates: Sequence[float]) -> str:
    return f"{rates[0]:.2g} to {rates[-1]:.2g}"
