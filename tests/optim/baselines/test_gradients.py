"""Parts that change gradients: L2-init, Grokfast, spectral regularisation; with closures, scalers and copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import Grokfast, L2Init, SpectralRegularization, attached
from tests.optim.baselines.networks import Convolutions, mlp, train

PARTS = {
    "l2": lambda model, optimizer: L2Init(model, optimizer, strength=0.05),
    "grokfast": lambda model, optimizer: Grokfast(model, optimizer, decay=0.9),
    "spectral": lambda model, optimizer: SpectralRegularization(model, optimizer, strength=0.05),
}
parts = pytest.mark.parametrize("attach", PARTS.values(), ids=PARTS)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_l2_init_is_the_gradient_of_its_penalty():
    model, x = mlp().double(), torch.randn(8, 4, dtype=torch.float64)
    twin = copy.deepcopy(model)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer, plain = (torch.optim.Adam(net.parameters(), 1e-2) for net in (model, twin))
    part = L2Init(model, optimizer, strength=0.3)
    train(model, optimizer, x, 5)
    for _ in range(5):
        plain.zero_grad()
        penalty = 0.3 * sum((p - s).square().sum() for p, s in zip(twin.parameters(), start, strict=True))
        (twin(x).square().mean() + penalty).backward()
        plain.step()
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-9, atol=1e-11)
    assert float(part.penalty()) == pytest.approx(
        0.3 * sum(float((p.detach() - s).square().sum()) for p, s in zip(model.parameters(), start, strict=True))
    )


def test_l2_init_leaves_alone_what_another_optimiser_trains():
    model = mlp()
    optimizer = torch.optim.SGD(model[:2].parameters(), 0.1)
    L2Init(model, optimizer, strength=1.0)
    with torch.no_grad():
        model[4].weight.add_(1)
    model(torch.randn(8, 4)).sum().backward()
    before = model[4].weight.grad.clone()
    optimizer.step()
    assert torch.equal(model[4].weight.grad, before)
    # A group that is added later is drawn too, to where it was at first.
    optimizer.add_param_group({"params": model[4].parameters()})
    optimizer.step()
    torch.testing.assert_close(model[4].weight.grad, before + 2)


def test_grokfast_averages_copies_of_gradients():
    weight = nn.Parameter(torch.zeros(2))
    model = nn.ParameterList([weight])
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    part = Grokfast(model, optimizer, decay=0.75, factor=2.0)
    average = None
    for gradient in (torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])):
        # In place, as `zero_grad(set_to_none=False)` leaves it: a window of references would be emptied.
        if weight.grad is None:
            weight.grad = torch.zeros(2)
        weight.grad.zero_().add_(gradient)
        before = weight.detach().clone()
        optimizer.step()
        average = gradient if average is None else 0.75 * average + 0.25 * gradient
        torch.testing.assert_close(part.average["0"], average)
        torch.testing.assert_close(before - weight.detach(), gradient + 2 * average)


def test_spectral_regularisation_is_the_gradient_of_its_penalty():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = SpectralRegularization(model, optimizer, strength=0.5, exponent=2, iterations=400)
    model(torch.randn(5, 2, 3, 3, dtype=torch.float64)).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name]
        if parameter.ndim > 1:
            top = torch.linalg.matrix_norm(parameter.flatten(1), 2)
            (slope,) = torch.autograd.grad(0.5 * (top**2 - 1) ** 2, parameter)
            expected = expected + slope
        torch.testing.assert_close(parameter.grad, expected)
    sizes = part.largest_singular_values()
    assert float(sizes["2.weight"]) == pytest.approx(float(torch.linalg.matrix_norm(model[2].weight.detach(), 2)))


def test_spectral_regularisation_brings_the_largest_singular_value_to_one():
    model = mlp()
    with torch.no_grad():
        model[0].weight.mul_(4)
        model[4].weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    SpectralRegularization(model, optimizer, strength=1.0)
    for _ in range(300):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    tops = [float(torch.linalg.matrix_norm(model[place].weight.detach(), 2)) for place in (0, 2, 4)]
    assert tops == pytest.approx([1, 1, 0], abs=0.02)


@parts
def test_a_closure_gets_the_same(attach):
    """Lightning runs the backward pass within the step."""
    x, results = torch.randn(8, 4), []
    for with_closure in (False, True):
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        attach(model, optimizer)
        for _ in range(4):

            def closure(model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            if with_closure:
                assert float(optimizer.step(closure).detach()) > 0
            else:
                closure()
                optimizer.step()
        results.append(weights(model))
    assert torch.equal(*results)


@parts
@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_changes_nothing(attach, fused):
    x, results = torch.randn(8, 4), []
    for enabled in (False, True):
        model = mlp().double()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=fused)
        part = attach(model, optimizer)
        if isinstance(part, SpectralRegularization):
            part.iterations = 300  # one step more of the power method makes no difference then
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=enabled)
        for step in range(5):
            optimizer.zero_grad()
            loss = model(x.double()).square().mean()
            scaler.scale(loss).backward()
            if step == 2 and enabled:  # one step more, which overflows
                model[0].weight.grad[0, 0] = torch.inf
                scaler.step(optimizer)
                scaler.update(64.0)
                optimizer.zero_grad()
                scaler.scale(model(x.double()).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update(64.0)
        results.append(weights(model))
    assert bool(results[1].isfinite().all())
    # The average of Grokfast takes itself for the gradient in a step that is left out, so that it stays.
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-9)


@parts
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda three: pickle.loads(pickle.dumps(three))])
def test_copies_go_on_alike(attach, copier):
    model, x = mlp(), torch.randn(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    part = attach(model, optimizer)
    train(model, optimizer, x, 3)
    other, other_optimizer, other_part = copier((model, optimizer, part))
    assert attached(other_optimizer) == (other_part,)
    train(model, optimizer, x, 3)
    train(other, other_optimizer, x, 3)
    assert torch.equal(weights(model), weights(other))
    part.remove()
    assert attached(optimizer) == ()
    assert len(optimizer._optimizer_step_pre_hooks) == 0


@parts
def test_training_is_resumed_exactly(attach):
    model, x = mlp(), torch.randn(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    part = attach(model, optimizer)
    train(model, optimizer, x, 3)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), part.state_dict()], file)
    train(model, optimizer, x, 3)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = mlp(5)
    other_optimizer = torch.optim.Adam(other.parameters(), 1e-2)
    other_part = attach(other, other_optimizer)
    for target, state in zip((other, other_optimizer, other_part), saved, strict=True):
        target.load_state_dict(state)
    train(other, other_optimizer, x, 3)
    assert torch.equal(weights(model), weights(other))


def test_a_state_of_another_network_is_refused_with_its_names():
    parts = [L2Init(net, torch.optim.SGD(net.parameters(), 0.1), strength=0.1) for net in (mlp(), mlp()[:3], mlp(0, 7))]
    with pytest.raises(ArgumentError, match=r"missing: 4.bias, 4.weight; unexpected: none"):
        parts[0].load_state_dict(parts[1].state_dict())
    with pytest.raises(ArgumentError, match=r"0.weight of shape \(6, 4\), got shape \(7, 4\)"):
        parts[0].load_state_dict(parts[2].state_dict())


def test_the_average_of_small_gradients_is_not_lost_in_half_precision():
    model = nn.Linear(4, 3).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    part = Grokfast(model, optimizer, decay=0.999)
    for value in (1.0, 1.0078125):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
    assert part.average["bias"].tolist() == pytest.approx([1 + 0.001 * 0.0078125] * 3, abs=2e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, o: L2Init(m, o, strength=-1.0), "strength: expected a number of at least 0, got -1.0"),
        (lambda m, o: Grokfast(m, o, decay=1.0), "decay: expected"),
        (lambda m, o: Grokfast(m, o, factor=-1.0), "factor: expected"),
        (lambda m, o: SpectralRegularization(m, o, strength=0.1, exponent=0), "exponent: expected a whole number"),
        (lambda m, o: L2Init(Convolutions(), o, strength=1.0), "optimizer: expected one that changes parameters"),
        (lambda m, o: SpectralRegularization(Convolutions(), o, strength=1.0), "optimizer: expected one that changes"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ArgumentError, match=message):
        make(model, optimizer)
    assert attached(optimizer) == ()


def test_spectral_regularisation_takes_in_groups_that_are_added():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    SpectralRegularization(model, optimizer, strength=1.0)
    before = model[1].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert not model[1].weight.grad.any()
    optimizer.add_param_group({"params": list(model[1].parameters())})
    optimizer.step()
    assert not torch.equal(model[1].weight.detach(), before)
