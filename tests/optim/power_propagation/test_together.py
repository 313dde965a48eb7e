"""Lists of tensors, as a GPU gets them, become what tensors one by one become; here on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holdfast.optim.power_propagation import PowerProp, PowerPropWarning, magnitude_masks, together
from holdfast.optim.power_propagation.powers import power, root

ALPHAS = (2.0, 3.0, 4.0, 2.5)


@pytest.fixture
def at_once(monkeypatch):
    def turn(on):
        monkeypatch.setattr(together, "can_be", lambda value, weight: on and weight.dtype == value.dtype)

    return turn


def network():
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, 2)]
    return nn.Sequential(*layers).double()


def train(model, optimizer, first, last):
    for step in range(first, last):
        x = torch.randn(8, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x[:, 0, :2].abs()).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_maps_of_lists(alpha):
    weights = [torch.tensor([-1.7, 0.0, 1e-9], dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)]
    values = together.roots(weights, alpha)
    for value, weight in zip(values, weights, strict=True):
        torch.testing.assert_close(value, root(weight, alpha), rtol=1e-13, atol=0)
    into = [torch.empty_like(value) for value in values]
    together.powers_(into, values, [None, torch.zeros(3, 5, dtype=torch.bool)], alpha)
    torch.testing.assert_close(into[0], power(values[0], alpha), rtol=1e-13, atol=0)
    assert not into[1].any()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_training_is_the_same(at_once, monkeypatch, alpha):
    monkeypatch.setattr(together, "AT_ONCE", 300)  # two of the three weights
    found = []
    for on in (True, False):
        at_once(on)
        model = network()
        optimizer = PowerProp(model, torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1), alpha=alpha)
        for value in optimizer.roots.values():  # as another device might have taken them
            value.data = value.nextafter(2 * value).detach()
        train(model, optimizer, 0, 10)  # a warning of foreign writes would be an error
        optimizer.set_masks({"3.weight": magnitude_masks(model, 0.3)["3.weight"]})
        train(model, optimizer, 10, 20)
        with torch.no_grad():
            model[0].weight[0, 0, 0] = 0.5
        with pytest.warns(PowerPropWarning, match=r"^0\.weight: written"):
            train(model, optimizer, 20, 25)
        found.append(model.state_dict())
    assert (found[0]["3.weight"] == 0).sum() > 100
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_only_what_was_written_gets_a_new_root(at_once, alpha):
    at_once(True)
    model = network()
    optimizer = PowerProp(model, torch.optim.SGD(model.parameters(), lr=0.0), alpha=alpha)
    train(model, optimizer, 0, 1)
    before = optimizer.roots["3.weight"].detach().clone()
    with torch.no_grad():
        model[3].weight[0, 0] = 0.25
    with pytest.warns(PowerPropWarning, match=r"^3\.weight: written"):
        train(model, optimizer, 1, 2)
    same = optimizer.roots["3.weight"] == before
    assert (~same).nonzero().tolist() == [[0, 0]]
    assert model[3].weight[0, 0].item() == pytest.approx(0.25, rel=1e-14)


def test_lists_are_of_one_device_and_type_and_not_too_long(monkeypatch):
    monkeypatch.setattr(together, "AT_ONCE", 10)
    sizes = {"a": 6, "b": 4, "c": 1, "d": 20}
    weights = {name: torch.zeros(size) for name, size in sizes.items()} | {"e": torch.zeros(2).double()}
    assert list(together.chunks(weights)) == [["a", "b"], ["c"], ["d"], ["e"]]
