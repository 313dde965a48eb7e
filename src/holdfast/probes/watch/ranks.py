"""Ranks of features and of weights, at a bounded cost.

Singular values are the roots of the eigenvalues of the smaller Gram matrix, in float64: what that loses against a
decomposition of the matrix itself, below 1e-6 of the largest, is below the rounding of numbers in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.optim.rewarming.layers import Layer

SIDE = 256
"""Smaller side of a matrix up to which all its singular values are computed."""

WORK = 1 << 28
"""Multiplications that all singular values of some matrices may take at a time: about 20 ms on one core."""

WORK_OF_A_WEIGHT = 160
"""Likewise for each weight, where that is more: what a training spends on some 50 tokens."""

LANCZOS = 20
"""Steps towards the largest singular value of a larger matrix."""


def effective_rank(matrix: Float[Tensor, "rows columns"]) -> float:
    """exp of the entropy of σ / Σ σ: 0 for a matrix of zeros, NaN for one that is not finite.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    return _effective(_singular_values(matrix))


def stable_rank(matrix: Float[Tensor, "rows columns"]) -> float:
    """‖W‖² / σ_1², with the Frobenius norm: 0 for a matrix of zeros, NaN for one that is not finite.

    Exact up to rounding where the smaller side is at most `SIDE`. Of a larger matrix σ_1 comes from `LANCZOS` steps of
    Lanczos' method, which never find more than there is, so that the rank is too large if anything: by at most 0.3 %
    for random matrices with 300 to 1,000 rows.

    Source: Rudelson and Vershynin, "Sampling from large matrices", JACM 2007, as the numerical rank. The error of σ_1²
    is of the order (ln n / k)² on average over starts, whatever the matrix: Kuczyński and Woźniakowski, SIAM J. Matrix
    Anal. Appl. 13, 1992.
    """
    if min(matrix.shape) <= SIDE:
        return _stable(_singular_values(matrix))
    wide = _wide(matrix).to(torch.promote_types(matrix.dtype, torch.float32))
    size = float(torch.linalg.vector_norm(wide, dtype=torch.float64))
    if not math.isfinite(size) or size == 0:
        return 0.0 if size == 0 else math.nan
    return (size / _largest(wide)) ** 2


class WeightRanks:
    """Ranks of the weights of layers that are trained.

    `weight_rank/<layer>` is the effective rank, of matrices with a smaller side of at most `SIDE`;
    `weight_stable_rank/<layer>` the stable rank of any. Weights of more than two dimensions are matrices with the first
    one as rows. Where all singular values of all matrices would take more multiplications than `WORK` and than
    `WORK_OF_A_WEIGHT` for each weight, the matrices take turns.

    Arguments:
        layers: those whose weight is frozen, sharded, or one of the two factors of `weight_norm` are left out.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._large: list[Layer] = []
        self._turns: list[list[Layer]] = [[]]
        small: list[Layer] = []
        for layer in layers:
            weight = layer.parameter
            if layer.role != "weight" or not weight.requires_grad or not weight.numel() or hasattr(weight, "to_local"):
                continue
            (small if min(_shape(weight)) <= SIDE else self._large).append(layer)
        left = budget = max(WORK, WORK_OF_A_WEIGHT * sum(layer.parameter.numel() for layer in small))
        for layer in small:
            side, other = sorted(_shape(layer.parameter))
            work = side * side * (other + 4 * side)
            if work > left and self._turns[-1]:
                self._turns.append([])
                left = budget
            self._turns[-1].append(layer)
            left -= work

    def measure(self, turn: int) -> dict[str, float]:
        """The ranks whose turn it is.

        Arguments:
            turn: number of the measurement.
        """
        numbers = {}
        with torch.no_grad():
            for layer in self._turns[turn % len(self._turns)]:
                values = _singular_values(layer.parameter.detach().flatten(1))
                numbers[f"weight_rank/{layer.title}"] = _effective(values)
                numbers[f"weight_stable_rank/{layer.title}"] = _stable(values)
            for layer in self._large:
                numbers[f"weight_stable_rank/{layer.title}"] = stable_rank(layer.parameter.detach().flatten(1))
        return numbers


def _shape(weight: Tensor) -> tuple[int, int]:
    return len(weight), math.prod(weight.shape[1:])


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _singular_values(matrix: Tensor) -> Tensor:
    """In ascending order; those that rounding has made are 0."""
    wide = _wide(matrix).double()
    gram = wide @ wide.mT
    if not bool(gram.isfinite().all()):
        return gram.new_full((len(gram),), math.nan)
    values: Tensor = torch.linalg.eigvalsh(gram)
    noise = wide.shape[1] * torch.finfo(values.dtype).eps * values[-1]
    return values.masked_fill(values <= noise, 0.0).sqrt()


def _effective(values: Tensor) -> float:
    total = float(values.sum())
    if not total > 0:
        return total
    share = values / total
    return math.exp(float(-torch.special.xlogy(share, share).sum()))


def _stable(values: Tensor) -> float:
    largest = float(values[-1])
    return float(values.div(largest).square().sum()) if largest > 0 else largest


def _largest(wide: Float[Tensor, "rows columns"]) -> float:
    """The largest singular value, by Lanczos' method with a basis that is kept orthogonal."""
    start = torch.randn(len(wide), generator=torch.Generator().manual_seed(0)).to(wide)
    basis = (start / start.norm())[None]
    for _ in range(LANCZOS - 1):
        new = wide @ (basis[-1] @ wide)
        new = new - (basis @ new) @ basis
        basis = torch.cat([basis, (new / new.norm().clamp(min=torch.finfo(new.dtype).tiny))[None]])
    # Where the matrix has fewer values than there are steps, the last vectors are rounding, and orthogonal to nothing.
    seen = (torch.linalg.qr(basis.mT).Q.mT @ wide).double()
    return math.sqrt(float(torch.linalg.eigvalsh(seen @ seen.mT)[-1]))
