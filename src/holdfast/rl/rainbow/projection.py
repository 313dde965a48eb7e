"""Distributions of returns on fixed atoms: what a reward and a discount make of one (Bellemare et al. 2017)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def project(
    probabilities: Float[Tensor, "batch atoms"],
    returns: Float[Tensor, " batch"],
    discounts: Float[Tensor, " batch"],
    support: Float[Tensor, " atoms"],
) -> Float[Tensor, "batch atoms"]:
    """The distribution of R + D Z on the atoms that Z has (algorithm 1).

    An atom that falls between two is shared among them in proportion to its distance. Every atom is compared with every
    other one: 51 x 51 products cost less than scattering, and a GPU adds them in the same order each time.

    Arguments:
        probabilities: of Z.
        returns: R.
        discounts: D, of each row its own; 0 where the episode ended.
        support: the atoms, equally far from each other and ascending.

    Returns:
        Probabilities; what falls outside of the support is at its ends.
    """
    low, high = support[0], support[-1]
    moved = (returns[:, None] + discounts[:, None] * support).clamp(low, high)
    width = (high - low) / (len(support) - 1)
    shares = (1 - (moved[:, None, :] - support[:, None]).abs() / width).clamp(min=0)
    return torch.einsum("bij,bj->bi", shares, probabilities)


def project_by_loop(
    probabilities: Float[Tensor, "batch atoms"],
    returns: Float[Tensor, " batch"],
    discounts: Float[Tensor, " batch"],
    support: Float[Tensor, " atoms"],
) -> Float[Tensor, "batch atoms"]:
    """The same, an atom at a time: the reference.

    Arguments:
        probabilities: of Z.
        returns: R.
        discounts: D.
        support: the atoms.
    """
    atoms = len(support)
    low, high = float(support[0]), float(support[-1])
    result = torch.zeros_like(probabilities)
    for row in range(len(probabilities)):
        for atom in range(atoms):
            value = float(returns[row]) + float(discounts[row]) * float(support[atom])
            place = (min(max(value, low), high) - low) / (high - low) * (atoms - 1)
            below = min(math.floor(place), atoms - 2)
            result[row, below] += probabilities[row, atom] * (below + 1 - place)
            result[row, below + 1] += probabilities[row, atom] * (place - below)
    return result
