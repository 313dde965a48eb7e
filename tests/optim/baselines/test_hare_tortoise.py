"""The tortoise follows, and the hare is put back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import HareTortoise
from tests.optim.baselines.networks import Convolutions, mlp, train


def test_the_hare_returns_to_the_average_of_where_it_was():
    model, x = mlp(), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    part = HareTortoise(model, optimizer, every=3, momentum=0.8)
    slow = model[0].weight.detach().clone()
    for step in range(1, 7):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        fast = model[0].weight.detach() - 0.5 * model[0].weight.grad
        optimizer.step()
        slow = 0.8 * slow + 0.2 * fast
        torch.testing.assert_close(part.tortoise["0.weight"], slow)
        torch.testing.assert_close(model[0].weight.detach(), slow if step % 3 == 0 else fast)


def test_the_slow_weights_are_lent_and_statistics_with_them():
    model = Convolutions()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    part = HareTortoise(model, optimizer, every=100, momentum=0.9)
    train(model, optimizer, torch.randn(6, 2, 3, 3), 4)
    state = copy.deepcopy(model.state_dict())
    with part.slow_weights() as slow:
        assert slow is model
        assert torch.equal(model.norm.running_mean, part.tortoise["norm.running_mean"])
        assert not torch.equal(model.first.weight, state["first.weight"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_slow_weights_move_in_half_precision():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    model.weight.data.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = HareTortoise(model, optimizer, every=10_000, momentum=0.999)
    model.weight.data.fill_(2.0)
    model.weight.grad = torch.zeros_like(model.weight)
    for _ in range(100):
        optimizer.step()
    assert float(part.tortoise["weight"]) == pytest.approx(2 - 0.999**100, abs=1e-5)


def test_a_resumed_run_counts_on():
    model, x = mlp(), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    part = HareTortoise(model, optimizer, every=3, momentum=0.8)
    train(model, optimizer, x, 2)
    other = copy.deepcopy(model)
    other_optimizer = torch.optim.SGD(other.parameters(), 0.5)
    other_part = HareTortoise(other, other_optimizer, every=3, momentum=0.8)
    other_part.load_state_dict(copy.deepcopy(part.state_dict()))
    train(model, optimizer, x, 2)
    train(other, other_optimizer, x, 2)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    with pytest.raises(ArgumentError, match="every"):
        HareTortoise(model, optimizer, every=0)
    with pytest.raises(ArgumentError, match="momentum"):
        HareTortoise(model, optimizer, every=1, momentum=1.0)
