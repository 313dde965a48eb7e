"""The similarity is learned through the agent's own step: what would have made it better on other transitions.

    inner   θ' = θ - α ∇_θ [ L_TD(D; θ) + η L_MASP(D; θ, Σ) ]     the step that the agent takes anyway
    outer   Σ ← Σ - β ∇_Σ L_TD(D'; θ'(Σ))                          D' other transitions of the replay, without penalty

With g' = ∇L_TD(D'; θ'), v = α g' (or P g', for an optimiser with a diagonal preconditioner P) and q̇_i = J_i v, the
change of the Q values of state i along v, the chain rule through one inner step is

    dL'/dΣ = -η d/dΣ [ ∂L_MASP(q; Σ) along q̇ ] = (2 η / B) Σ_i [ ṙ_i q_iᵀ + r_i q̇_iᵀ ],   r = Mq, ṙ = Mq̇, M = I - Σ

which takes one backward pass for g' and one forward-mode pass for q and q̇ together. The derivation is ours; the
paper says only that Σ is learned online by meta-gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.rl.similarity.matrix import SimilarityMatrix
from holdfast.rl.similarity.penalty import Form, Reduction, SimilarityWarning, check_strength, penalty_product

Parameters = Mapping[str, Tensor]
"""Of a network, by name: such as `dict(network.named_parameters())`."""

Method = Literal["auto", "jvp", "double_backward"]


UNRELATED = "the Q values do not depend on the parameters that they are given"


class MetaGradientError(HoldfastError):
    """A meta-gradient would be wrong."""


@dataclass(frozen=True, kw_only=True)
class InnerStep:
    """The step of an agent on its loss with the penalty, through which the similarity is learned.

    Arguments:
        values: Q values of the states of D, of shape (batch, n), as a function of the parameters, such as
            `lambda parameters: functional_call(network, parameters, (states,))`. Noise of the network is the same as in
            the step (frozen), and layers with statistics are in evaluation mode.
        before: parameters that the step began with: copies, since optimisers change them in place.
        after: parameters that it led to.
        lr: learning rate of plain SGD, or for each parameter the factors P by which the optimiser multiplies a gradient
            (`preconditioner`).
        eta: strength of the penalty in the step.
        form: of the penalty.
        reduction: of the penalty.
        mask: legal actions of the states.
        q: the values that the step's penalty was computed with, to compare with those of `values`; `None`: no
            comparison. It finds noise that was drawn anew and parameters that are not those before the step.
    """

    values: Callable[[dict[str, Tensor]], Tensor]
    before: Parameters
    after: Parameters
    lr: float | Parameters
    eta: float
    form: Form = "residual"
    reduction: Reduction = "sum"
    mask: Bool[Tensor, "batch n"] | None = None
    q: Float[Tensor, "batch n"] | None = None

    def __post_init__(self) -> None:
        if check_strength(self.eta) == 0:
            raise ArgumentError("eta", "a positive number: without a penalty there is nothing to learn from", self.eta)
        if isinstance(self.lr, float | int) and not 0 < self.lr < float("inf"):
            raise ArgumentError("lr", "a positive number", self.lr)
        if isinstance(self.lr, Mapping) and set(self.lr) != set(self.before):
            raise ArgumentError("lr", f"factors for {', '.join(self.before)}", ", ".join(self.lr) or "none")
        if set(self.before) != set(self.after) or not self.before:
            raise ArgumentError("after", f"the parameters {', '.join(self.before)}", ", ".join(self.after) or "none")


@dataclass(frozen=True)
class MetaStep:
    """What a step of meta-learning saw.

    Arguments:
        loss: the outer loss, detached.
        gradient_norm: Euclidean norm of the gradient with respect to the similarity's parameters, detached.
        method: how it was computed.
        matrix: the similarity after the step, detached; `None` where only a gradient was computed.
    """

    loss: Float[Tensor, ""]
    gradient_norm: Float[Tensor, ""]
    method: str
    matrix: Float[Tensor, "n n"] | None = None


def meta_step(
    loss: Callable[[dict[str, Tensor]], Tensor],
    inner: InnerStep,
    *,
    similarity: SimilarityMatrix,
    optimizer: torch.optim.Optimizer,
    method: Method = "auto",
) -> MetaStep:
    """One step on the similarity, after a step of the agent.

        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        q = network(states)
        (td(q, ...) + eta * masp_penalty(q, similarity.matrix().detach())).backward()
        agent.step()
        meta_step(
            lambda p: td(functional_call(network, p, (other_states,)), ...),
            InnerStep(
                values=lambda p: functional_call(network, p, (states,)),
                before=before, after=dict(network.named_parameters()), lr=preconditioner(agent, network), eta=eta, q=q,
            ),
            similarity=similarity, optimizer=meta_optimizer,
        )

    How often it is done, and whether D' is drawn anew (it should be), is the caller's. One inner step is seen.

    Arguments:
        loss: of D', a scalar, as a function of the parameters: without penalty, the target network fixed, every
            transition with the same weight. `outer_loss` makes one of losses of transitions.
        inner: the agent's step.
        similarity: with parameters, `raw` or `sinkhorn`.
        optimizer: of these parameters.
        method: `jvp`, `double_backward`, or the first with the second, and a warning, where an operation of the network
            has no forward-mode derivative.

    Errors:
        ArgumentError: the similarity is not learned; parameters that do not fit.
        MetaGradientError: the outer loss is not finite or does not depend on the parameters, or the values are not
            those of the step. The similarity is as it was.
    """
    optimizer.zero_grad(set_to_none=True)
    seen = meta_gradient(loss, inner, similarity=similarity, method=method)
    optimizer.step()
    return replace(seen, matrix=similarity.project_().detach().clone())


def meta_gradient(
    loss: Callable[[dict[str, Tensor]], Tensor],
    inner: InnerStep,
    *,
    similarity: SimilarityMatrix,
    method: Method = "auto",
) -> MetaStep:
    """The gradient of `meta_step` alone, which is added to that of the similarity's parameters.

    So several steps of the agent can share one step on the similarity.

    Arguments:
        loss: as in `meta_step`.
        inner: likewise.
        similarity: likewise.
        method: likewise.

    Errors:
        ArgumentError: likewise.
        MetaGradientError: likewise.
    """
    learned = [parameter for parameter in similarity.parameters() if parameter.requires_grad]
    if not learned:
        raise ArgumentError("similarity", "one that is learned, raw or sinkhorn", similarity.kind)
    if method not in ("auto", "jvp", "double_backward"):
        raise ArgumentError("method", "auto, jvp or double_backward", method)
    device = next(iter(inner.before.values())).device
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        outer, direction = _direction(loss, inner)
        sigma = similarity.matrix()
        objective, used = _objective(inner, direction, sigma, method)
        gradients = torch.autograd.grad(objective, learned)
    for parameter, gradient in zip(learned, gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    norm = torch.stack([gradient.detach().square().sum() for gradient in gradients]).sum().sqrt()
    return MetaStep(loss=outer, gradient_norm=norm, method=used)


def preconditioner(optimizer: torch.optim.Optimizer, network: torch.nn.Module) -> dict[str, Tensor]:
    """For each parameter of a network, the factors by which its optimiser multiplied the gradient in its last step.

    Those of SGD are its learning rate; those of Adam, AdamW and RMSprop lr / (√v + ε), taken as constants: an
    approximation that leaves out momentum and what the penalty does to v. What the optimiser does not train has 0.

    Arguments:
        optimizer: after its step.
        network: whose parameters it trains.

    Errors:
        ArgumentError: another optimiser, or one that has made no step.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    factors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        trained = [p for p in group["params"] if id(p) in names and p.grad is not None]
        if trained:
            factors |= zip([names[id(p)] for p in trained], _factors(optimizer, group, trained), strict=True)
    # In the network's order, as `before` and `after` have it.
    return {name: factors[name] if name in factors else torch.zeros_like(p) for name, p in network.named_parameters()}


def outer_loss(
    losses: Float[Tensor, " batch"],
    q: Float[Tensor, "batch n"],
    actions: Tensor,
    *,
    kind: Literal["td", "td_greedy"] = "td",
    mask: Bool[Tensor, "batch n"] | None = None,
) -> Float[Tensor, ""]:
    """The loss of the outer step from the losses of its transitions, of whatever kind these are.

    Arguments:
        losses: of each transition, such as squared TD errors or cross-entropies.
        q: values of the transitions' states.
        actions: that were taken, of shape (batch,).
        kind: `td`: the mean; `td_greedy`: the mean over the transitions whose action is the one with the largest value,
            which the policy depends on (0 if there is none).
        mask: legal actions.
    """
    if kind not in ("td", "td_greedy"):
        raise ArgumentError("kind", "td or td_greedy", kind)
    if kind == "td":
        return losses.mean()
    values = q.detach() if mask is None else q.detach().masked_fill(~mask, -torch.inf)
    greedy = (values.argmax(1) == actions).to(losses.dtype)
    return (losses * greedy).sum() / greedy.sum().clamp(min=1.0)


def _direction(
    loss: Callable[[dict[str, Tensor]], Tensor], inner: InnerStep
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The outer loss at θ', and the way in which a gradient like its own would move the parameters."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inner.after.items()}
    outer = loss(leaves)
    if outer.ndim or not outer.requires_grad:
        raise MetaGradientError("the outer loss is no scalar that depends on the parameters it is given")
    if not bool(torch.isfinite(outer)):
        raise MetaGradientError(f"the outer loss is {float(outer.detach())}: no step is made on the similarity")
    gradients = torch.autograd.grad(outer, list(leaves.values()), allow_unused=True)
    changes = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves.values(), gradients, strict=True)
    ]
    if isinstance(inner.lr, Mapping):
        moved = torch._foreach_mul(changes, [inner.lr[name].detach() for name in leaves])
    else:
        moved = torch._foreach_mul(changes, inner.lr)
    return outer.detach(), dict(zip(leaves, moved, strict=True))


def _objective(
    inner: InnerStep, direction: dict[str, Tensor], sigma: Tensor, method: Method
) -> tuple[Float[Tensor, ""], str]:
    """A scalar with the meta-gradient as its gradient, and how it was computed."""
    penalty = partial(penalty_product, sigma=sigma, form=inner.form, reduction=inner.reduction, mask=inner.mask)
    if method != "double_backward":
        try:
            q, change = _forward_mode(inner, direction)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            if method == "jvp":
                raise
            reason = str(error).splitlines()[0]
            words = f"no forward-mode derivative of the network ({reason}): two backward passes instead"
            warnings.warn(words, SimilarityWarning, stacklevel=4)
        else:
            _compare(inner, q)
            return -2 * inner.eta * penalty(q, change), "jvp"
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inner.before.items()}
    q = inner.values(leaves)
    _compare(inner, q)
    gradients = torch.autograd.grad(penalty(q, q), list(leaves.values()), create_graph=True, allow_unused=True)
    products = [
        (gradient * direction[name]).sum()
        for name, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    ]
    if not products:
        raise MetaGradientError(UNRELATED)
    return -inner.eta * torch.stack(products).sum(), "double_backward"


def _forward_mode(inner: InnerStep, direction: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The values at θ, and their change along a direction."""
    with torch.no_grad(), warnings.catch_warnings(), forward_ad.dual_level():
        # Torch compiles rules of its own for forward mode, the first time, and deprecates how it does it.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        duals = {name: forward_ad.make_dual(tensor.detach(), direction[name]) for name, tensor in inner.before.items()}
        q, change = forward_ad.unpack_dual(inner.values(duals))
    if change is None:
        raise MetaGradientError(UNRELATED)
    return q, change


def _compare(inner: InnerStep, q: Tensor) -> None:
    """Whether the values are those of the step, to half of the digits that both have.

    Errors:
        MetaGradientError: they are not.
    """
    if inner.q is None:
        return
    if q.shape != inner.q.shape:
        raise ArgumentError("q", f"shape {tuple(q.shape)}, as values has", f"shape {tuple(inner.q.shape)}")
    ours, theirs = q.detach(), inner.q.detach().to(q.dtype)
    if inner.mask is not None:
        ours, theirs = ours[inner.mask], theirs[inner.mask]
    precision = max(torch.finfo(q.dtype).eps, torch.finfo(inner.q.dtype).eps) ** 0.5
    largest = torch.minimum(ours.abs().max(), theirs.abs().max())
    if not bool(((ours - theirs).abs() <= precision * largest).all()):
        raise MetaGradientError(
            "values(before) are not those that the step's penalty was computed with: freeze the network's noise, and "
            "copy its parameters before the step"
        )


def _factors(optimizer: torch.optim.Optimizer, group: dict[str, Any], trained: list[Tensor]) -> Sequence[Tensor]:
    """Of parameters of a group.

    Errors:
        ArgumentError: the optimiser is not one of those that are understood, or has no state.
    """
    lr = float(group["lr"])
    if isinstance(optimizer, torch.optim.SGD):
        return [torch.full_like(parameter, lr) for parameter in trained]
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW | torch.optim.RMSprop):
        raise ArgumentError("optimizer", "SGD, Adam, AdamW or RMSprop", type(optimizer).__name__)
    states: list[dict[str, Any]] = [optimizer.state.get(parameter) or {} for parameter in trained]
    if not all(states):
        raise ArgumentError("optimizer", "one that has made a step", "one without state")
    if lr == 0:
        return [torch.zeros_like(parameter) for parameter in trained]
    if isinstance(optimizer, torch.optim.RMSprop):
        if group["centered"]:
            raise ArgumentError("optimizer", "RMSprop that is not centred", "centered=True")
        name, scales = "square_avg", [1 / lr] * len(states)
    else:
        name, decay = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq", float(group["betas"][1])
        steps = torch.stack([torch.as_tensor(state["step"]) for state in states]).tolist()  # one wait for a GPU
        scales = [(1 - decay**step) ** -0.5 / lr for step in steps]
    # 1 / (√v / lr + ε / lr): four passes over all parameters, with no Python for each of them.
    factors = torch._foreach_sqrt([state[name] for state in states])
    torch._foreach_mul_(factors, scales)
    torch._foreach_add_(factors, float(group["eps"]) / lr)
    torch._foreach_reciprocal_(factors)
    return factors
