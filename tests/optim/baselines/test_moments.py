"""After a reset an optimiser takes the step that a new one would."""

from __future__ import annotations

import copy

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.optim import reset_moments
from holdfast.optim.baselines.moments import reset_moments_of
from tests.optim.baselines.networks import mlp, train

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2),
    "momentum": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, initial_accumulator_value=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_next_step_is_that_of_a_new_optimiser(make):
    model, x = mlp(), torch.randn(8, 4)
    optimizer = make(model.parameters())
    train(model, optimizer, x, 3)
    twin = copy.deepcopy(model)
    reset_moments(optimizer)
    train(model, optimizer, x, 2)
    train(twin, make(twin.parameters()), x, 2)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_only_what_is_named_is_forgotten():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, torch.randn(8, 4))
    reset_moments(optimizer, [model[0].weight])
    assert model[0].weight not in optimizer.state
    assert model[0].bias in optimizer.state
    with pytest.raises(
        ArgumentError, match=r"parameters: expected parameters of the optimizer, got one of shape \(2,\)"
    ):
        reset_moments(optimizer, [torch.zeros(2)])
    reset_moments(optimizer, model[0].bias)
    assert model[0].bias not in optimizer.state
    reset_moments(optimizer, model)
    assert not optimizer.state


def test_slices_are_found_by_the_parameter_and_not_by_its_place():
    model = mlp()
    # The layer's parameters are last here, in a group of their own, and an extra parameter is first.
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))]},
        {"params": [*model[4].parameters(), *model[2].parameters()]},
        {"params": [model[0].bias, model[0].weight]},
    ]
    optimizer = torch.optim.Adam(groups)
    train(model, optimizer, torch.randn(8, 4))
    state = {name: {key: t.clone() for key, t in optimizer.state[p].items()} for name, p in model.named_parameters()}
    reset_moments_of(optimizer, model[0].weight, 0, torch.tensor([1, 4]))
    for name, parameter in model.named_parameters():
        for key, tensor in optimizer.state[parameter].items():
            expected = state[name][key]
            if name == "0.weight" and key != "step":
                expected[[1, 4]] = 0
            assert torch.equal(tensor, expected), (name, key)
    fresh = torch.optim.Adam(model.parameters())
    reset_moments_of(fresh, model[0].weight, 0, torch.tensor([1]))
    assert not fresh.state


@pytest.mark.parametrize(("make", "key", "value"), [("adagrad", "sum", 0.1), ("rprop", "step_size", 0.01)])
def test_slices_begin_where_the_optimiser_does(make, key, value):
    model = mlp()
    optimizer = OPTIMIZERS[make](model.parameters())
    train(model, optimizer, torch.randn(8, 4), 3)
    reset_moments_of(optimizer, model[2].weight, 1, torch.tensor([2]))
    kept = optimizer.state[model[2].weight][key]
    assert kept[:, 2].tolist() == pytest.approx([value] * 5)
    assert not torch.allclose(kept, torch.tensor(value))
