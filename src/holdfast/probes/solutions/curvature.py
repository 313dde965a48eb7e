"""How sharp a minimum is: the largest eigenvalue of the loss's Hessian, and the loss nearby."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-3
"""Of the residual ‖Hv − λv‖ / |λ|."""

LEAST, MOST = 30, 100
"""Iterations, unless the Krylov space is exhausted before."""

RADIUS = 0.05
"""Of the ball in which the highest loss is looked for, as in sharpness-aware minimisation."""


@dataclass(frozen=True)
class Sharpness:
    """The loss around the weights.

    Arguments:
        largest_eigenvalue: λ_max of the Hessian of the loss on the probe batch.
        residual: ‖Hv − λv‖ / |λ| of its eigenvector; above 10⁻³ the iterations did not suffice.
        iterations: of Lanczos, a Hessian-vector product each.
        ball: the loss at 0.05 along the normalised gradient, less that at the weights.
    """

    largest_eigenvalue: float
    residual: float
    iterations: int
    ball: float


def sharpness(objective: Callable[[Sequence[Tensor]], Tensor], weights: Sequence[Tensor], *, seed: int) -> Sharpness:
    """The largest eigenvalue by Lanczos' method with full reorthogonalisation, from Hessian-vector products.

    It keeps one vector of all weights an iteration: 8 bytes × parameters × up to 100.

    Arguments:
        objective: from weights to the loss; differentiable twice.
        weights: where; they are not changed, and no gradient is put into them.
        seed: of the first vector.

    Errors:
        RuntimeError: a part cannot be differentiated twice.
    """
    variables = [tensor.detach().clone().requires_grad_() for tensor in weights]
    loss = objective(variables)
    gradient = torch.autograd.grad(loss, variables, create_graph=True, allow_unused=True, materialize_grads=True)
    flat = torch.cat([part.flatten().double() for part in gradient])
    if _has_errors(flat):
        # The part of the graph that leads to the weights would leave it out, and give a wrong Hessian.
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(len(flat), generator=generator, dtype=torch.float64).to(flat.device)

    def product(direction: Float[Tensor, " weights"]) -> Float[Tensor, " weights"]:
        if not flat.requires_grad:
            return torch.zeros_like(direction)
        parts = torch.autograd.grad(
            flat, variables, direction, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.flatten().double() for part in parts]).detach()

    value, residual, iterations = largest_eigenvalue(product, vector)
    norm = float(flat.detach().norm())
    ball = math.nan
    if norm > 0 and math.isfinite(norm):
        with torch.no_grad():
            moved = [w + RADIUS / norm * g.to(w.dtype) for w, g in zip(variables, gradient, strict=True)]
            ball = float(objective(moved)) - float(loss.detach())
    return Sharpness(value, residual, iterations, ball)


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Float[Tensor, " weights"]
) -> tuple[float, float, int]:
    """Of a symmetric matrix that is known by its products with vectors.

    Arguments:
        product: of the matrix with a vector.
        start: a random vector.

    Returns:
        The algebraically largest eigenvalue; the relative residual of its eigenvector, from one product more; and the
        number of iterations. All NaN where a product is not finite.
    """
    basis = [start / start.norm()]
    diagonal, beside = list[float](), list[float]()
    while True:
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        stacked = torch.stack(basis)
        for _ in range(2):  # once leaves what rounding has lost
            image = image - stacked.mT @ (stacked @ image)
        length = float(image.norm())
        if not math.isfinite(length + diagonal[-1]):
            return math.nan, math.nan, len(basis)
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.tensor(beside, dtype=torch.float64)
            tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        value, weights = float(values[-1]), vectors[:, -1]
        scale = float(values.abs().max())
        exhausted = len(basis) == len(start) or length <= 1e-12 * max(scale, 1e-300)
        close = len(basis) >= LEAST and length * abs(float(weights[-1])) <= TOLERANCE * abs(value)
        if exhausted or close or len(basis) == MOST:
            break
        beside.append(length)
        basis.append(image / length)
    vector = stacked.mT @ weights.to(stacked.device)
    residual = float((product(vector) - value * vector).norm())
    return value, residual / abs(value) if value else residual, len(basis)


def _has_errors(made: Tensor) -> bool:
    """Whether a graph has nodes that stand for a derivative that is not there."""
    nodes, seen = [made.grad_fn], set[object]()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            return True
        nodes += [below for below, _ in node.next_functions]
    return False
