"""Continual backprop: utilities beside a plain twin, ages, and what a replaced unit leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import ContinualBackprop
from tests.optim.baselines.networks import Convolutions, mlp, train


def test_utilities_are_those_of_a_plain_twin_with_each_unit_s_own_age():
    model = mlp().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    part = ContinualBackprop(model, optimizer, rate=0.0, decay=0.9)
    history = part.history["0"]
    utility, mean, age = torch.zeros(6).double(), torch.zeros(6).double(), torch.zeros(6).double()
    for step in range(5):
        if step == 2:  # one unit is young from now on
            for tensor in (utility, mean, age, history.utility, history.mean, history.age):
                tensor[3] = 0
        x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        h = model[1](model[0](x)).detach()
        train(model, optimizer, x)
        age += 1
        mean = 0.9 * mean + 0.1 * h.mean(0)
        distance = (h - mean / (1 - 0.9**age)).abs().mean(0)
        outgoing, incoming = model[2].weight.detach().abs().mean(0), model[0].weight.detach().abs().mean(1)
        utility = 0.9 * utility + 0.1 * outgoing * distance / incoming
    torch.testing.assert_close(history.utility, utility)
    torch.testing.assert_close(history.mean, mean)
    assert history.age.tolist() == [5, 5, 5, 3, 5, 5]
    torch.testing.assert_close(history.grown(0.9), 1 - 0.9**age)


def replacing(model: nn.Sequential, **options: float) -> tuple[ContinualBackprop, torch.optim.Optimizer]:
    optimizer = torch.optim.Adam(model.parameters(), 0.0)
    return ContinualBackprop(model, optimizer, **options), optimizer


def test_the_least_useful_unit_goes_and_leaves_its_average_behind():
    model, x = mlp(), torch.randn(64, 4)
    with torch.no_grad():
        model[0].bias += 2  # all others are awake
        model[0].weight[2] = 0  # always the same activation, which its readers take for a bias
        model[0].bias[2] = 1.5
    before = model(x)
    part, optimizer = replacing(model, rate=0.34 / 6, maturity=0)
    train(model, optimizer, x, 2)
    assert part.replaced == 0
    train(model, optimizer, x)  # three times a third of a unit a step, and as much of 5 units in the other layer
    assert part.replaced == 1
    assert part.history["0"].age.tolist() == [3, 3, 0, 3, 3, 3]
    assert not bool(model[2].weight[:, 2].any())
    assert bool(model[0].weight[2].all())
    torch.testing.assert_close(model(x), before)
    state = optimizer.state
    assert not bool(state[model[0].weight]["exp_avg_sq"][2].any() or state[model[2].weight]["exp_avg_sq"][:, 2].any())
    assert bool(state[model[0].weight]["exp_avg_sq"].any())
    assert float(part.history["0"].due) == pytest.approx(0.02)


def test_the_young_are_left_alone():
    model, x = mlp(), torch.randn(16, 4)
    part, optimizer = replacing(model, rate=1.0, maturity=3)
    train(model, optimizer, x, 3)
    assert part.replaced == 0
    train(model, optimizer, x)
    assert part.replaced == 11
    train(model, optimizer, x, 3)
    assert part.replaced == 11
    assert part.history["2"].age.tolist() == [3] * 5


def test_flattened_channels_hand_over_each_of_their_columns():
    model, x = Convolutions(), torch.randn(6, 2, 3, 3)
    with torch.no_grad():
        model.second.bias += 2  # all others are awake
        model.second.weight[1] = 0
        model.second.bias[1] = 2.0
        model.relu = nn.Identity()  # else the last layer's own ReLU hides what arrives
    bias, columns = model.head.bias.clone(), model.head.weight.view(2, 3, 9)[:, 1].sum(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = ContinualBackprop(model, optimizer, rate=1 / 3, maturity=0)
    assert [units.name for units in part.units] == ["second"]
    train(model, optimizer, x)
    torch.testing.assert_close(model.head.bias, bias + 2 * columns)
    assert not bool(model.head.weight.view(2, 3, 9)[:, 1].any())


def test_a_resumed_run_goes_on_alike():
    model, x = mlp(), torch.randn(16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    part = ContinualBackprop(model, optimizer, rate=0.05, maturity=2)
    train(model, optimizer, x, 6)
    other = mlp(7)
    other.load_state_dict(model.state_dict())
    other_optimizer = torch.optim.Adam(other.parameters(), 1e-2)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other_part = ContinualBackprop(other, other_optimizer, rate=0.05, maturity=2)
    other_part.load_state_dict(copy.deepcopy(part.state_dict()))
    for net, opt in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(3)
        train(net, opt, x, 12)
    assert part.replaced == other_part.replaced > 3
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("options", [{"rate": 2.0}, {"decay": 1.0}, {"maturity": -1}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        replacing(mlp(), **options)
