"""Optimisers and what attaches to them do on a GPU what they do on a CPU."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from holdfast.optim import EffectiveLR, PowerProp, Projector, power_adamw, second_order

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def network(device, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 3)).to(device, dtype)


def train(model, optimizer, first=0, last=20):
    device, dtype = model[0].weight.device, model[0].weight.dtype
    for step in range(first, last):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(device, dtype)
        optimizer.zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        optimizer.step()
    return [parameter.detach().cpu() for parameter in model.parameters()]


def sgd(model, **how):
    return torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, **how)


def adamw(model, **how):
    return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1, **how)


MAKERS = {
    "sgd 3": lambda model: PowerProp(model, sgd(model), alpha=3),
    "adamw 1": lambda model: PowerProp(model, adamw(model), alpha=1),
    "adamw 2": lambda model: PowerProp(model, adamw(model, foreach=True), alpha=2),
    "adamw 2.5": lambda model: PowerProp(model, adamw(model), alpha=2.5),
    "adamw 4": lambda model: PowerProp(model, adamw(model), alpha=4),
    "first order": lambda model: PowerProp(model, sgd(model), alpha=3, form="first-order"),
    "recipe": lambda model: power_adamw(model, lr=1e-2),
    "muon": lambda model: second_order("muon", model, lr=1e-2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_weights_are_those_of_the_cpu(name):
    found = []
    for device in ("cpu", "cuda"):
        model = network(device)
        found.append(train(model, MAKERS[name](model)))
    close = 3e-2 if name == "muon" else 1e-8  # Muon computes its powers of a matrix in bfloat16
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=close, atol=close)


@pytest.mark.parametrize("method", ["shampoo", "soap"])
def test_second_order_weights_are_those_of_the_cpu(method):
    pytest.importorskip("pytorch_optimizer")
    found = []
    for device in ("cpu", "cuda"):
        model = network(device)
        found.append(train(model, second_order(method, model, lr=1e-3), last=4))
    for here, there in zip(*found, strict=True):  # eigenvectors of either device have a sign and an order of their own
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fused", [False, True])
def test_a_saved_state_goes_on_bit_for_bit(fused):
    whole, first = network("cuda", torch.float32), network("cuda", torch.float32)
    expected = train(whole, PowerProp(whole, adamw(whole, fused=fused), alpha=4), 0, 20)
    optimizer = PowerProp(first, adamw(first, fused=fused), alpha=4)
    train(first, optimizer, 0, 10)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = network("cuda", torch.float32)
    optimizer = PowerProp(second, adamw(second, fused=fused), alpha=4)
    second.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    for found, wanted in zip(train(second, optimizer, 10, 20), expected, strict=True):
        assert found.equal(wanted)


def test_a_skipped_step_of_the_scaler_changes_nothing():
    model = network("cuda", torch.float32)
    optimizer = PowerProp(model, adamw(model), alpha=3)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    train(model, optimizer, 0, 3)
    before = copy.deepcopy(model.state_dict())
    scaler.scale(model(torch.full((2, 6), torch.inf, device="cuda")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(model.state_dict()[name].equal(value) for name, value in before.items())
    assert scaler.get_scale() == 2.0**9


def test_half_precision_weights_have_a_wide_phi():
    """Steps far below a bfloat16 weight's last bit add up."""
    model = nn.Linear(4, 4, bias=False, device="cuda", dtype=torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    optimizer = PowerProp(model, torch.optim.SGD(model.parameters(), lr=1e-4), alpha=2)
    for _ in range(400):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert (model.weight < 0.95).all()


def test_projection_and_monitor_agree_with_the_cpu():
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 9), nn.LayerNorm(9), nn.Linear(9, 3)]
        model = nn.Sequential(*layers).to(device, torch.float64)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        Projector(model, optimizer)
        monitor = EffectiveLR(model, optimizer, every=5)
        found.append((train(model, optimizer, last=21), monitor.last))
    for here, there in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)
