"""How many actions a similarity leaves to learn, and which it holds to be the same."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError


def effective_actions(sigma: Float[Tensor, "rows columns"], c: float = 10.0) -> float:
    """Effective number of actions: how many dimensions a state's Q values have left under the penalty.

        d_eff(Σ, c) = Σ_k 1 / (1 + c s_k²)

    with the singular values s_k of I - Σ, for a symmetric Σ |1 - λ_k|: the trace of the smoother of least squares with
    the penalty. The identity has n, K clusters that are averages K + (n - K) / (1 + c), the uniform matrix
    1 + (n - 1) / (1 + c).

    Arguments:
        sigma: similarity of n actions.
        c: strength of the penalty against that of the data, 2 η / w with the weight w of each action's data.

    Errors:
        ArgumentError: c is negative; the matrix is not square or not finite.
    """
    if not 0 <= c < float("inf"):
        raise ArgumentError("c", "0 or a positive finite number", c)
    deviation = torch.eye(len(sigma), dtype=torch.float64) - _checked(sigma)
    return float((1 / (1 + c * torch.linalg.svdvals(deviation).square())).sum())


def spectral_actions(sigma: Float[Tensor, "rows columns"]) -> float:
    """Another effective number of actions, without a strength: exp of the entropy of the normalised spectrum of Σ.

    Arguments:
        sigma: similarity of n actions, of which the singular values are taken. The identity and every permutation have
            n, K clusters that are averages K, the uniform matrix 1.

    Errors:
        ArgumentError: the matrix is not square, not finite, or 0.
    """
    values = torch.linalg.svdvals(_checked(sigma))
    total = values.sum()
    if not total > 0:
        raise ArgumentError("sigma", "a matrix that is not 0", "0")
    shares = values / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def similar_groups(sigma: Float[Tensor, "rows columns"], least: float = 0.5) -> tuple[tuple[int, ...], ...]:
    """Groups of actions that are similar to each other on average, those that are alone included.

    Average linkage on the normalised similarity Σ_ij / √(Σ_ii Σ_jj), which is 1 within a cluster of equal actions.

    Arguments:
        sigma: similarity of n actions.
        least: mean normalised similarity with which two groups become one.

    Returns:
        The actions of each group, in the order of their first.

    Errors:
        ArgumentError: the matrix is not square or not finite, or a diagonal entry is not positive.
    """
    if not 0 < least <= 1:
        raise ArgumentError("least", "a number above 0, at most 1", least)
    matrix = _checked(sigma).numpy()
    diagonal = np.diag(matrix)
    if not (diagonal > 0).all():
        raise ArgumentError("sigma", "a positive diagonal", f"{diagonal.min():g}")
    if len(matrix) == 1:
        return ((0,),)
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    closeness = (matrix + matrix.T) / 2 / np.sqrt(np.outer(diagonal, diagonal))
    distance = np.maximum(1.0 - closeness, 0.0)
    np.fill_diagonal(distance, 0.0)
    tree = hierarchy.linkage(squareform(distance, checks=False), "average")
    labels = hierarchy.fcluster(tree, 1.0 - least + 1e-9, "distance")
    groups: dict[int, list[int]] = {}
    for action, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(action)
    return tuple(map(tuple, groups.values()))


def _checked(sigma: Tensor) -> Tensor:
    """In float64 on the processor."""
    if sigma.shape[0] != sigma.shape[1]:
        raise ArgumentError("sigma", "a square matrix", f"shape {tuple(sigma.shape)}")
    matrix = sigma.detach().cpu().double()
    if not bool(torch.isfinite(matrix).all()):
        raise ArgumentError("sigma", "finite entries", "NaN or infinite ones")
    return matrix
