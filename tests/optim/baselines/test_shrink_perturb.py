"""θ ← shrink · θ + perturb · fresh."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import shrink_and_perturb_
from tests.optim.baselines.networks import mlp


def test_every_parameter_is_mixed_and_the_fresh_ones_stay():
    model, fresh = mlp(0), mlp(1)
    before = [p.detach().clone() for p in model.parameters()]
    noise = [p.detach().clone() for p in fresh.parameters()]
    assert shrink_and_perturb_(model, fresh) is model
    for now, old, new in zip(model.parameters(), before, noise, strict=True):
        torch.testing.assert_close(now, 0.4 * old + 0.1 * new)
    assert all(map(torch.equal, fresh.parameters(), noise))


def test_a_tied_weight_is_shrunk_once():
    model, fresh = mlp(0, 5), mlp(1, 5)
    for network in (model, fresh):
        network.append(nn.Linear(5, 5))
        network[5].weight = network[2].weight
    old, new = model[2].weight.detach().clone(), fresh[2].weight
    shrink_and_perturb_(model, fresh, shrink=0.5, perturb=0.2)
    torch.testing.assert_close(model[5].weight, 0.5 * old + 0.2 * new)


def test_other_networks_are_refused_before_anything_changes():
    model = mlp(0)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ArgumentError, match=r"fresh: expected 0.bias of shape \(6,\), got one of shape \(7,\)"):
        shrink_and_perturb_(model, mlp(1, 7))
    with pytest.raises(ArgumentError, match=r"fresh: expected 4.bias of shape \(3,\), got none"):
        shrink_and_perturb_(model, mlp(1)[:4])
    with pytest.raises(ArgumentError, match=r"fresh: expected no parameter 5.bias"):
        shrink_and_perturb_(model, mlp(1).append(nn.Linear(3, 3)))
    with pytest.raises(ArgumentError, match="fresh: expected another network than the model"):
        shrink_and_perturb_(model, model)
    with pytest.raises(ArgumentError, match=r"shrink: expected a number from 0 to 1, got 1.5"):
        shrink_and_perturb_(model, mlp(1), shrink=1.5)
    with pytest.raises(ArgumentError, match="perturb"):
        shrink_and_perturb_(model, mlp(1), perturb=float("nan"))
    assert all(map(torch.equal, model.parameters(), before))


def test_a_compiled_network_is_mixed_with_a_plain_one():
    model, fresh = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.4 * model.weight.detach() + 0.1 * fresh.weight.detach()
    shrink_and_perturb_(torch.compile(model, backend="eager"), fresh)
    torch.testing.assert_close(model.weight.detach(), expected)
