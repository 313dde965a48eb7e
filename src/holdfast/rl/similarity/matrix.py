"""The similarity of actions: symmetric, not negative, the same in every state; fixed, or learned while training.

    raw        symmetric entries ≥ 0, clamped after each step, as published as far as is known; rows have any sum
    sinkhorn   K = exp((W + Wᵀ)/2), then rounds of K ← D^-½ K D^-½ with the row sums D: each row sums to 1
    cluster    averages within given groups
    frozen     a given matrix, such as one that was learned on another task

The identity is a stationary point of the meta-gradient, since the penalty is quadratic in I - Σ: who starts there
stays there. Learning drifts back to it in the end, for without bias the outer loss is smaller; or to the uniform
matrix, which takes the differences between actions away. Both are warned of.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from holdfast.errors import ArgumentError, count_of
from holdfast.rl.macros import Macros
from holdfast.rl.similarity.measures import effective_actions, similar_groups
from holdfast.rl.similarity.penalty import SimilarityWarning

Kind = Literal["raw", "sinkhorn", "cluster", "frozen"]

SATURATED = 50.0
"""The largest |W|: what is beyond has no gradient, and overflows further on."""
NOISE = 0.01
"""Relative standard deviation of the noise on a start, which makes entries differ."""
COLLAPSED = 0.01
"""Mean weight off the diagonal of a row, below which a similarity is the identity."""
DIFFUSE = 1.05
"""Mean of the diagonal in units of 1/n, below which a similarity is uniform."""
ASYMMETRY = 1e-5
"""That a given matrix may have."""
FLOOR = 1e-6
"""Least entry of a start of `sinkhorn`: one of 0 could never grow."""


class SimilarityMatrix(nn.Module):
    """A similarity Σ of n actions, to be multiplied with Q values.

    Its parameter `weights`, where it is learned, belongs to an optimiser of its own, with a rate of 0.003 to 0.01 for
    `sinkhorn` and 3e-5 to 3e-4 for `raw`: larger steps lock onto wrong groups at once. Checkpoints hold the list of
    actions, and load into a similarity of the same list alone.

    Arguments:
        actions: the agent's actions in their order, or how many there are, if all are primitives.
        kind: how Σ is made.
        start: of what is learned: the mean diagonal, the other entries being equal up to 1 % of noise, or a matrix,
            without noise; by default 0.05 (`sinkhorn`) and 0.5 (`raw`), at least 1.5/n. Of `frozen`: the matrix.
        clusters: of `cluster`: the group of each action, such as its net effect.
        seed: of the noise.
        iterations: rounds of `sinkhorn`. What they leave of the rows' sums is put on the diagonal.
        project: whether a given matrix is made symmetric, its negative entries 0, rather than refused.

    Errors:
        ArgumentError: a matrix of another shape, with entries that are not finite or negative, or not symmetric; a
            start of `sinkhorn` with a row of zeros; a start at the identity; what the kind does not have.
    """

    weights: Tensor

    def __init__(
        self,
        actions: int | Macros,
        *,
        kind: Kind = "sinkhorn",
        start: float | Tensor | None = None,
        clusters: Sequence[int] | None = None,
        seed: int = 0,
        iterations: int = 12,
        project: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("raw", "sinkhorn", "cluster", "frozen"):
            raise ArgumentError("kind", "raw, sinkhorn, cluster or frozen", kind)
        self.actions = actions if isinstance(actions, Macros) else Macros(count_of("actions", actions, least=1))
        self.kind: Kind = kind
        self.iterations = count_of("iterations", iterations, least=1)
        self.n = count_of("actions", len(self.actions), least=2)
        self._warned: set[str] = set()
        if (clusters is None) == (kind == "cluster"):
            raise ArgumentError("clusters", "the group of each action for kind cluster, and None for others", clusters)
        if kind in ("cluster", "frozen"):
            self.register_buffer("weights", self._fixed(start, clusters, project))
        else:
            self.weights = nn.Parameter(self._start(start, seed, project))
        self.register_load_state_dict_pre_hook(_refuse_other_actions)  # type: ignore[no-untyped-call]

    def matrix(self) -> Float[Tensor, "n n"]:
        """Σ, with its gradient where it is learned.

        For the agent's own loss it is to be detached, and can be kept until the next step on it.
        """
        if self.kind == "sinkhorn":
            return sinkhorn(self.weights, self.iterations)
        if self.kind == "raw":
            return ((self.weights + self.weights.T) / 2).clamp(min=0.0)
        return self.weights

    def forward(self, q: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        """Q values, each averaged with those of similar actions."""
        return q @ self.matrix().T

    def d_eff(self, c: float = 10.0) -> float:
        """Effective number of actions, see `effective_actions`."""
        return effective_actions(self.matrix(), c)

    def clusters(self, least: float = 0.5) -> tuple[tuple[int, ...], ...]:
        """Groups of similar actions, see `similar_groups`."""
        return similar_groups(self.matrix(), least)

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """What is worth a line in a log.

        Returns:
            `diagonal`, its mean; `off_diagonal`, the mean over rows of the rest; the smallest and largest sum of a row;
            `d_eff` with c = 10.
        """
        sigma = self.matrix().double()
        rows, diagonal = sigma.sum(1), sigma.diagonal().mean()
        return {
            "diagonal": float(diagonal),
            "off_diagonal": float(rows.mean() - diagonal),
            "smallest_row": float(rows.min()),
            "largest_row": float(rows.max()),
            "d_eff": effective_actions(sigma),
        }

    @torch.no_grad()
    def project_(self) -> Float[Tensor, "n n"]:
        """Bring what is learned back to where it may be, and look at where it has got to: after each step on it.

        Entries of `raw` are made symmetric and not negative; those of `sinkhorn` are held to |W| ≤ 50, with a warning.
        A similarity that has become the identity, or uniform, is warned of once each time it gets there.

        Returns:
            Σ as it is then.
        """
        if self.kind == "raw":
            self.weights.copy_(((self.weights + self.weights.T) / 2).clamp(min=0.0))
        elif self.kind == "sinkhorn":
            saturated = bool((self.weights.abs() > SATURATED).any())
            self._warn("saturated", saturated, f"entries of W beyond ±{SATURATED:g} are held there: use smaller steps")
            self.weights.clamp_(-SATURATED, SATURATED)
        sigma = self.matrix()
        diagonal = float(sigma.diagonal().mean())
        others = float(sigma.sum(1).mean()) - diagonal
        words = f"the similarity has become the identity ({others:.4f} of a row off its diagonal): no credit is shared"
        self._warn("collapsed", others < COLLAPSED, words)
        words = (
            f"the similarity is uniform (diagonal {diagonal:.4f} of {self.n} actions): differences between actions go"
        )
        self._warn("diffuse", diagonal < DIFFUSE / self.n, words)
        return sigma

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint has beside the weights: which actions these are of."""
        return {"actions": self.actions.to_json(), "kind": self.kind, "iterations": self.iterations}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Nothing is left to do: a state of other actions was refused before anything was loaded."""

    def extra_repr(self) -> str:
        """For people."""
        return f"n={self.n}, kind={self.kind!r}"

    def _warn(self, condition: str, holds: bool, words: str) -> None:
        if not holds:
            self._warned.discard(condition)
        elif condition not in self._warned:
            self._warned.add(condition)
            warnings.warn(words, SimilarityWarning, stacklevel=3)

    def _start(self, start: float | Tensor | None, seed: int, project: bool) -> Tensor:
        """The first weights of what is learned."""
        if isinstance(start, Tensor):
            matrix = checked_similarity(start, self.n, name="start", project=project)
            if float(matrix.sum(1).mean() - matrix.diagonal().mean()) < COLLAPSED:
                raise ArgumentError(
                    "start", "another matrix than the identity, where nothing is learned", "the identity"
                )
            if self.kind == "raw":
                return matrix
            empty = (matrix.sum(1) == 0).nonzero().flatten().tolist()
            if empty:
                raise ArgumentError("start", "rows that are not all zeros", f"zeros for action {empty[0]}")
            return matrix.clamp(min=FLOOR).log()
        least = 1.5 / self.n
        diagonal = max(0.05 if self.kind == "sinkhorn" else 0.5, least) if start is None else start
        if not 0 < diagonal <= 1 - COLLAPSED:
            words = f"a diagonal above 0, at most {1 - COLLAPSED:g}: at the identity nothing is learned"
            raise ArgumentError("start", words, diagonal)
        matrix = torch.full((self.n, self.n), (1 - diagonal) / (self.n - 1), dtype=torch.float64)
        matrix.fill_diagonal_(diagonal)
        noise = torch.randn(matrix.shape, dtype=matrix.dtype, generator=torch.Generator().manual_seed(seed))
        matrix = matrix * (1 + NOISE * noise)
        matrix = (matrix + matrix.T) / 2
        return (matrix if self.kind == "raw" else matrix.log()).float()

    def _fixed(self, start: float | Tensor | None, clusters: Sequence[int] | None, project: bool) -> Tensor:
        """The weights of what is not learned."""
        if clusters is None:
            if not isinstance(start, Tensor):
                raise ArgumentError("start", "a matrix for kind frozen", start)
            return checked_similarity(start, self.n, name="start", project=project)
        if start is not None:
            raise ArgumentError("start", "None for kind cluster", start)
        if len(clusters) != self.n:
            raise ArgumentError("clusters", f"the groups of {self.n} actions", f"{len(clusters)} groups")
        labels = torch.tensor([list(clusters).index(label) for label in clusters])
        same = (labels[:, None] == labels).float()
        return same / same.sum(1, keepdim=True)


def sinkhorn(weights: Float[Tensor, "*batch n n"], iterations: int) -> Float[Tensor, "*batch n n"]:
    """A symmetric doubly stochastic matrix from any weights, differentiable.

    K = exp((W + Wᵀ)/2), then rounds of K ← D^-½ K D^-½, as scalings v of K's rows and columns: v ← √(v / Kv). What
    the rounds leave of the sums is taken out by a common factor, which makes the largest sum 1, and what other rows
    lack is put on the diagonal: symmetric, and 1 to rounding, after any number of rounds.

    Arguments:
        weights: are held within ±50, for which float32 has room.
        iterations: rounds.
    """
    held = weights.clamp(-SATURATED, SATURATED)
    kernel = torch.exp((held + held.mT) / 2)
    scaling: Tensor = _Scaling.apply(kernel, iterations)  # type: ignore[no-untyped-call]
    balanced = scaling * kernel * scaling.mT
    balanced = (balanced + balanced.mT) / 2  # to the last digit
    balanced = balanced / balanced.sum(-1, keepdim=True).amax(-2, keepdim=True)
    return balanced + torch.diag_embed(1.0 - balanced.sum(-1))


class _Scaling(torch.autograd.Function):
    """v after rounds of v ← √(v / Kv) from v = 1, with a backward pass of three operations a round.

    With v' after a round and g the gradient at it, those at v and Kv are g v' / 2v and -g v'³ / 2v.
    """

    @staticmethod
    def forward(context: Any, kernel: Tensor, rounds: int) -> Tensor:
        """Of a symmetric matrix or several."""
        past = [torch.ones_like(kernel[..., :1])]
        for _ in range(rounds):
            past.append(torch.sqrt(past[-1] / (kernel @ past[-1])))
        context.save_for_backward(kernel, *past)
        return past[-1]

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Through all rounds."""
        kernel, *past = context.saved_tensors
        before, after = torch.cat(past[:-1], -1), torch.cat(past[1:], -1)
        at_scaling = after / (2 * before)
        at_product = -at_scaling * after.square()
        products = []
        for kept, turned in zip(reversed(at_scaling.split(1, -1)), reversed(at_product.split(1, -1)), strict=True):
            products.append(turned * gradient)
            gradient = torch.addcmul(kernel.mT @ products[-1], kept, gradient)
        return torch.cat(products[::-1], -1) @ before.mT, None


def checked_similarity(sigma: Tensor, n: int, *, name: str = "sigma", project: bool = False) -> Float[Tensor, "n n"]:
    """A given matrix in float32, if it is a similarity of n actions.

    Arguments:
        sigma: the matrix.
        n: number of actions.
        name: of the argument that it came as.
        project: whether it is made symmetric, and its negative entries 0, rather than refused.

    Errors:
        ArgumentError: it is not square, of another number of actions, not finite, negative, or not symmetric.
    """
    if sigma.shape != (n, n):
        raise ArgumentError(name, f"shape ({n}, {n}), of {n} actions", f"shape {tuple(sigma.shape)}")
    matrix = sigma.detach().double()
    if not bool(torch.isfinite(matrix).all()):
        raise ArgumentError(name, "finite entries", "NaN or infinite ones")
    if project:
        matrix = ((matrix + matrix.T) / 2).clamp(min=0.0)
    if float(matrix.min()) < 0:
        raise ArgumentError(
            name, "entries that are not negative (project=True makes them 0)", f"{float(matrix.min()):g}"
        )
    gap = float((matrix - matrix.T).abs().max())
    if gap > ASYMMETRY or math.isnan(gap):
        raise ArgumentError(name, "a symmetric matrix (project=True makes it one)", f"entries that differ by {gap:g}")
    return ((matrix + matrix.T) / 2).float()


def _refuse_other_actions(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before any of a checkpoint is loaded.

    Errors:
        ArgumentError: it is of other actions, or of another kind.
    """
    assert isinstance(module, SimilarityMatrix)
    saved = state.get(f"{prefix}_extra_state")
    if saved is None:
        return  # the strict loader says that it is missing
    for name in ("kind", "iterations"):
        if saved[name] != getattr(module, name):
            raise ArgumentError("state_dict", f"a similarity of {name} {getattr(module, name)}", f"{saved[name]}")
    theirs = Macros.from_json(saved["actions"])
    difference = module.actions.difference(theirs)
    if difference:
        raise ArgumentError("state_dict", "a similarity of the same actions in the same order", difference)
