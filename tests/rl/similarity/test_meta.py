"""The closed form of the meta-gradient is that of autograd through the agent's step, whatever the network's heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.errors import ArgumentError
from holdfast.rl import (
    InnerStep,
    MetaGradientError,
    SimilarityMatrix,
    SimilarityWarning,
    masp_penalty,
    meta_gradient,
    meta_step,
    outer_loss,
    preconditioner,
)

N, STATE, BATCH = 5, 3, 7


class Asymmetric(SimilarityMatrix):
    """Any matrix, to see each entry's own derivative."""

    def matrix(self) -> Tensor:
        return self.weights


def asymmetric(matrix: Tensor) -> SimilarityMatrix:
    similarity = Asymmetric(len(matrix), kind="raw").to(matrix.dtype)
    similarity.weights.data.copy_(matrix)
    return similarity


def mlp(outputs: int = N) -> nn.Module:
    return nn.Sequential(nn.Linear(STATE, 8), nn.Tanh(), nn.Linear(8, outputs))


class Dueling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(STATE, 8), nn.SiLU())
        self.value, self.advantage = nn.Linear(8, 1), nn.Linear(8, N)

    def forward(self, states: Tensor) -> Tensor:
        features = self.trunk(states)
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(1, keepdim=True)


class Noisy(nn.Module):
    """Factorised noise, which `draw` draws anew, or each call if it is not frozen."""

    def __init__(self, frozen: bool = True) -> None:
        super().__init__()
        self.frozen = frozen
        self.mean, self.deviation = mlp(), nn.Parameter(torch.full((N, STATE), 0.5))
        self.register_buffer("rows", torch.zeros(N))
        self.register_buffer("columns", torch.zeros(STATE))
        self.draw()

    def draw(self) -> None:
        self.rows, self.columns = torch.randn_like(self.rows), torch.randn_like(self.columns)

    def forward(self, states: Tensor) -> Tensor:
        if not self.frozen:
            self.draw()
        return self.mean(states) + states @ (self.deviation * torch.outer(self.rows, self.columns)).T


class C51(nn.Module):
    """Expectations of a distribution over atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = mlp(N * 11)
        self.register_buffer("atoms", torch.linspace(-2, 2, 11))

    def forward(self, states: Tensor) -> Tensor:
        return torch.einsum("bna,a->bn", self.logits(states).unflatten(1, (N, 11)).softmax(2), self.atoms)


class Problem:
    """One step of an agent, and an outer batch."""

    def __init__(self, network: nn.Module, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.network = network.double()
        self.states, self.others = (
            torch.randn(BATCH, STATE, dtype=torch.float64, generator=generator) for _ in range(2)
        )
        self.actions = torch.randint(N, (2, BATCH), generator=generator)
        self.targets = torch.randn(2, BATCH, dtype=torch.float64, generator=generator)
        self.sigma = torch.rand(N, N, dtype=torch.float64, generator=generator)

    def q(self, parameters: dict[str, Tensor], states: Tensor) -> Tensor:
        return functional_call(self.network, parameters, (states,))

    def td(self, parameters: dict[str, Tensor], batch: int) -> Tensor:
        q = self.q(parameters, (self.states, self.others)[batch])
        return (q.gather(1, self.actions[batch, :, None])[:, 0] - self.targets[batch]).square().mean()

    def exact(
        self, similarity: SimilarityMatrix, eta: float, factors: Callable[[str], Tensor | float], **penalty: object
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Autograd through the whole step: gradients of the similarity's weights, and θ'."""
        parameters = {name: p.detach().requires_grad_() for name, p in self.network.named_parameters()}
        q = self.q(parameters, self.states)
        loss = self.td(parameters, 0) + eta * masp_penalty(q, similarity.matrix(), **penalty)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        after = {
            name: parameter - factors(name) * gradient
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        }
        return list(torch.autograd.grad(self.td(after, 1), list(similarity.parameters()))), after

    def inner(self, after: dict[str, Tensor], **settings: object) -> InnerStep:
        before = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        return InnerStep(
            values=partial(self.q, states=self.states),
            before=before,
            after={name: tensor.detach() for name, tensor in after.items()},
            q=self.q(before, self.states),
            **settings,
        )


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("method", ["jvp", "double_backward"])
@pytest.mark.parametrize("network", [mlp, Dueling, Noisy, C51], ids=lambda network: network.__name__)
def test_the_closed_form_is_autograd_through_one_step(network, method):
    torch.manual_seed(100)
    problem = Problem(network())
    for settings in ({}, {"form": "pairwise", "reduction": "mean"}, {"mask": torch.rand(BATCH, N) < 0.7}):
        similarity = asymmetric(problem.sigma)
        (expected,), after = problem.exact(similarity, 0.7, lambda name: 0.05, **settings)
        assert expected.abs().max() > 1e-4
        inner = problem.inner(after, lr=0.05, eta=0.7, **settings)
        seen = meta_gradient(partial(problem.td, batch=1), inner, similarity=similarity, method=method)
        assert seen.method == method
        assert relative(similarity.weights.grad, expected) < 1e-10
        assert float(seen.loss) == pytest.approx(problem.td(after, 1).item(), rel=1e-12)
        assert float(seen.gradient_norm) == pytest.approx(float(expected.norm()), rel=1e-9)


@pytest.mark.parametrize("kind", ["raw", "sinkhorn"])
def test_it_reaches_the_weights_through_each_parametrisation(kind):
    torch.manual_seed(101)
    problem = Problem(mlp())
    similarity = SimilarityMatrix(N, kind=kind, seed=3).double()
    (expected,), after = problem.exact(similarity, 0.7, lambda name: 0.05)
    inner = problem.inner(after, lr=0.05, eta=0.7)
    meta_gradient(partial(problem.td, batch=1), inner, similarity=similarity)
    assert relative(similarity.weights.grad, expected) < 1e-10
    meta_gradient(partial(problem.td, batch=1), inner, similarity=similarity)  # gradients add up
    assert relative(similarity.weights.grad, 2 * expected) < 1e-10


def test_the_worked_example():
    similarity = SimilarityMatrix(2, kind="raw", start=torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    table = {"q": torch.tensor([[0.0, 4.0]])}
    inner = InnerStep(values=lambda p: p["q"], before=table, after=table, lr=0.1, eta=0.5)
    exact = asymmetric(similarity.matrix().detach())
    for method in ("jvp", "double_backward"):
        exact.weights.grad = similarity.weights.grad = None
        meta_gradient(lambda p: p["q"][0, 1], inner, similarity=exact, method=method)
        torch.testing.assert_close(exact.weights.grad, torch.tensor([[0.0, -0.2], [0.0, 0.2]]))
        meta_gradient(lambda p: p["q"][0, 1], inner, similarity=similarity, method=method)
        torch.testing.assert_close(similarity.weights.grad, torch.tensor([[0.0, -0.1], [-0.1, 0.2]]))
    # Action 1 is overestimated: it comes to be more like action 0, which pulls it down.
    before = similarity.matrix()[0, 1].item()
    optimizer = torch.optim.SGD(similarity.parameters(), lr=0.1)
    meta_step(lambda p: p["q"][0, 1], inner, similarity=similarity, optimizer=optimizer)
    assert similarity.matrix()[0, 1].item() == pytest.approx(before + 0.01)
    # A step too far is brought back: 0.73 - 10 · 0.2 is no weight.
    optimizer = torch.optim.SGD(similarity.parameters(), lr=10.0)
    with pytest.warns(SimilarityWarning, match="the similarity is uniform"):
        meta_step(lambda p: p["q"][0, 1], inner, similarity=similarity, optimizer=optimizer)
    assert similarity.weights[1, 1].item() == 0


def test_nothing_is_learned_at_the_identity():
    torch.manual_seed(102)
    problem = Problem(mlp())
    similarity = asymmetric(torch.eye(N, dtype=torch.float64))
    (expected,), after = problem.exact(similarity, 0.7, lambda name: 0.05)
    meta_gradient(partial(problem.td, batch=1), problem.inner(after, lr=0.05, eta=0.7), similarity=similarity)
    assert expected.norm() == similarity.weights.grad.norm() == 0


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05, betas=(0.0, 0.9), eps=1e-3),
    "amsgrad": lambda parameters: torch.optim.AdamW(
        parameters, lr=0.05, betas=(0.0, 0.9), amsgrad=True, weight_decay=0.0
    ),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_preconditioner_is_what_the_optimiser_multiplies_a_gradient_by(name):
    torch.manual_seed(103)
    problem = Problem(Dueling())
    network, similarity = problem.network, asymmetric(problem.sigma)
    optimizer = OPTIMIZERS[name](network.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        start = copy.deepcopy(network)
        q = network(problem.states)
        live = dict(network.named_parameters())
        (problem.td(live, 0) + 0.7 * masp_penalty(q, similarity.matrix().detach())).backward()
        optimizer.step()
    factors = preconditioner(optimizer, network)
    for parameter_name, parameter in network.named_parameters():
        moved = start.get_parameter(parameter_name) - factors[parameter_name] * parameter.grad
        torch.testing.assert_close(parameter.detach(), moved.detach(), rtol=1e-9, atol=1e-12)
    # With the factors as constants the closed form is exact too.
    after = {parameter_name: p.detach().clone() for parameter_name, p in network.named_parameters()}
    network.load_state_dict(start.state_dict())
    (expected,), exact_after = problem.exact(similarity, 0.7, lambda parameter_name: factors[parameter_name])
    for parameter_name in after:
        torch.testing.assert_close(after[parameter_name], exact_after[parameter_name].detach())
    inner = problem.inner(after, lr=factors, eta=0.7)
    meta_gradient(partial(problem.td, batch=1), inner, similarity=similarity)
    assert relative(similarity.weights.grad, expected) < 1e-9


def test_a_preconditioner_that_is_not_known_is_refused():
    network = mlp()
    network(torch.randn(2, STATE)).sum().backward()
    adagrad = torch.optim.Adagrad(network.parameters())
    centred = torch.optim.RMSprop(network.parameters(), centered=True)
    centred.step()
    for optimizer, message in [
        (adagrad, "optimizer: expected SGD, Adam, AdamW or RMSprop, got Adagrad"),
        (torch.optim.Adam(network.parameters()), "optimizer: expected one that has made a step"),
        (centred, "RMSprop that is not centred"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            preconditioner(optimizer, network)
    frozen, trained = mlp(), nn.Linear(2, 2)
    assert not any(factor.any() for factor in preconditioner(torch.optim.SGD(trained.parameters()), frozen).values())


class OldFunction(torch.autograd.Function):
    """Squares, without a rule for forward mode."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 2 * x * gradient


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(STATE, N)

    def forward(self, states: Tensor) -> Tensor:
        return OldFunction.apply(self.linear(states))


def test_operations_without_forward_mode_fall_back_with_a_warning():
    torch.manual_seed(104)
    problem = Problem(Squares())
    similarity = asymmetric(problem.sigma)
    (expected,), after = problem.exact(similarity, 0.7, lambda name: 0.05)
    inner = problem.inner(after, lr=0.05, eta=0.7)
    outer = partial(problem.td, batch=1)
    with pytest.warns(SimilarityWarning, match="no forward-mode derivative of the network"):
        seen = meta_gradient(outer, inner, similarity=similarity)
    assert seen.method == "double_backward"
    assert relative(similarity.weights.grad, expected) < 1e-10
    with pytest.raises(RuntimeError):
        meta_gradient(outer, inner, similarity=similarity, method="jvp")


def test_noise_that_is_drawn_anew_and_parameters_after_the_step_are_refused():
    torch.manual_seed(105)
    problem = Problem(Noisy(frozen=False))
    similarity = SimilarityMatrix(N, kind="raw").double()
    after = {name: p + 0.1 for name, p in problem.network.named_parameters()}
    optimizer = torch.optim.SGD(similarity.parameters(), lr=1.0)
    kept = similarity.weights.detach().clone()
    for method in ("auto", "double_backward"):
        with pytest.raises(MetaGradientError, match="freeze the network's noise"):
            meta_step(
                partial(problem.td, batch=1),
                problem.inner(after, lr=0.05, eta=0.7),
                similarity=similarity,
                optimizer=optimizer,
                method=method,
            )
    problem = Problem(mlp())
    before = problem.inner(dict(problem.network.named_parameters()), lr=0.05, eta=0.7)
    with torch.no_grad():
        for parameter in problem.network.parameters():
            parameter += 0.1
    live = dict(problem.network.named_parameters())  # not copied before the step
    wrong = InnerStep(values=before.values, before=live, after=live, lr=0.05, eta=0.7, q=before.q)
    with pytest.raises(MetaGradientError, match="copy its parameters before the step"):
        meta_step(partial(problem.td, batch=1), wrong, similarity=similarity, optimizer=optimizer)
    assert torch.equal(similarity.weights, kept)


def test_autocast_is_off_and_nothing_else_is_touched():
    torch.manual_seed(106)
    problem = Problem(mlp())
    network = problem.network.float()
    states = problem.states.float()
    similarity = SimilarityMatrix(N)
    parameters = {name: p.detach().clone() for name, p in network.named_parameters()}
    dtypes = []

    def values(at: dict[str, Tensor]) -> Tensor:
        q = functional_call(network, at, (states,))
        dtypes.append(q.dtype)
        return q

    inner = InnerStep(values=values, before=parameters, after=parameters, lr=0.05, eta=0.7)
    optimizer = torch.optim.Adam(similarity.parameters(), lr=0.01)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        meta_step(lambda at: values(at).square().mean(), inner, similarity=similarity, optimizer=optimizer)
    assert set(dtypes) == {torch.float32}
    assert similarity.weights.grad.abs().max() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, parameters[name])


def test_what_cannot_be_learned_from_is_refused():
    table = {"q": torch.tensor([[0.0, 4.0]])}
    inner = partial(InnerStep, values=lambda p: p["q"], before=table, after=table)
    learned, fixed = SimilarityMatrix(2, kind="raw"), SimilarityMatrix(2, kind="cluster", clusters=[0, 0])
    for settings, message in [
        ({"lr": 0.1, "eta": 0.0}, "eta: expected a positive number: without a penalty there is nothing to learn from"),
        ({"lr": 0.1, "eta": -1.0}, "eta: expected 0 or a positive finite number, got -1"),
        ({"lr": 0.0, "eta": 1.0}, "lr: expected a positive number"),
        ({"lr": {"p": torch.ones(1)}, "eta": 1.0}, "lr: expected factors for q, got p"),
        ({"lr": 0.1, "eta": 1.0, "after": {}}, "after: expected the parameters q, got none"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            inner(**settings)
    good = inner(lr=0.1, eta=1.0)
    with pytest.raises(ArgumentError, match="similarity: expected one that is learned, raw or sinkhorn, got cluster"):
        meta_gradient(lambda p: p["q"].sum(), good, similarity=fixed)
    for loss, message in [
        (lambda p: p["q"], "no scalar"),
        (lambda p: torch.tensor(1.0), "no scalar that depends on the parameters"),
        (lambda p: p["q"].sum() * torch.nan, "the outer loss is nan"),
    ]:
        with pytest.raises(MetaGradientError, match=message):
            meta_gradient(loss, good, similarity=learned)
    constant = inner(lr=0.1, eta=1.0, values=lambda p: torch.ones(1, 2, requires_grad=True))
    for method in ("auto", "double_backward"):
        with pytest.raises(MetaGradientError, match="the Q values do not depend on the parameters"):
            meta_gradient(lambda p: p["q"].sum(), constant, similarity=learned, method=method)
    # Values of illegal actions are compared with nothing.
    masked = torch.tensor([[-torch.inf, 4.0]])
    legal = inner(lr=0.1, eta=1.0, q=masked, mask=torch.tensor([[False, True]]))
    meta_gradient(lambda p: p["q"].sum(), legal, similarity=learned)
    with pytest.raises(MetaGradientError, match="freeze the network's noise"):
        meta_gradient(lambda p: p["q"].sum(), inner(lr=0.1, eta=1.0, q=masked), similarity=learned)


def test_outer_losses_of_all_and_of_greedy_transitions():
    q = torch.tensor([[1.0, 2.0, 9.0], [3.0, 0.0, 0.0], [0.0, 5.0, 0.0]], requires_grad=True)
    losses, actions = torch.tensor([1.0, 10.0, 100.0], requires_grad=True), torch.tensor([1, 0, 2])
    assert outer_loss(losses, q, actions).item() == 37.0
    assert outer_loss(losses, q, actions, kind="td_greedy").item() == 10.0
    legal = torch.tensor([[True, True, False]] + [[True] * 3] * 2)
    assert outer_loss(losses, q, actions, kind="td_greedy", mask=legal).item() == 5.5
    none = outer_loss(losses, q, torch.tensor([0, 1, 0]), kind="td_greedy")
    none.backward()
    assert none.item() == 0
    assert not losses.grad.any()
