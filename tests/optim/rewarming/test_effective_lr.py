"""The monitor against steps that can be worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import EffectiveLR, attached
from holdfast.optim.rewarming.effective_lr import UnknownOptimizerWarning, family_of


def single(value=0.125, size=64, dtype=torch.float32):
    """One layer beside an output layer that never moves."""
    model = nn.Sequential(nn.Linear(size, size, bias=False), nn.ReLU(), nn.Linear(size, 1, bias=False)).to(dtype)
    nn.init.constant_(model[0].weight, value)
    return model


def stepped(model, optimizer, gradient):
    model[0].weight.grad = gradient.to(model[0].weight.dtype)
    optimizer.step()


def test_the_first_step_of_adam():
    model = single()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = EffectiveLR(model, optimizer, every=1)
    assert monitor.last == {}
    stepped(model, optimizer, torch.ones(64, 64))
    last = monitor.last
    assert last["elr/0"] == pytest.approx(0.008, abs=1e-6)
    assert last["norm/0"] == 8
    assert last["nominal/0"] == 1e-3 / 8
    assert last["elr/global"] == last["elr/0"]
    assert last["elr/spread"] == 1
    assert last["elr/2"] == 0


def test_a_step_of_gradient_descent_along_the_weight():
    model = single(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, model[0].weight.detach().clone())
    assert monitor.last["elr/0"] == pytest.approx(0.1, rel=1e-14)
    assert monitor.last["angular/0"] == pytest.approx(0, abs=4096 * 2**-53)
    assert monitor.last["nominal/0"] == 0.1 / 64


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 0.3, 2.0, 3.0])
def test_the_angle_is_exact_at_any_size(angle):
    """A rotation by an angle that is known, with a change of the norm on top."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator, dtype=torch.float64)
    other = torch.randn(64, 64, generator=generator, dtype=torch.float64)
    other -= (other * weight).sum() / weight.square().sum() * weight
    other *= weight.norm() / other.norm()
    target = 1.5 * (math.cos(angle) * weight + math.sin(angle) * other)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-7)):
        model = single(dtype=dtype)
        with torch.no_grad():
            model[0].weight.copy_(weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        monitor = EffectiveLR(model, optimizer, every=1)
        stepped(model, optimizer, weight - target)
        assert monitor.last["angular/0"] == pytest.approx(angle, rel=1e-6, abs=tolerance)


def test_global_and_spread_leave_the_output_layer_out():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for layer, value in zip(model, (3.0, 4.0, 1.0), strict=True):
        nn.init.constant_(layer.weight, value)
        layer.weight.grad = torch.full((1, 1), value)
    optimizer = torch.optim.SGD(
        [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[1].weight, model[2].weight], "lr": 0.125}]
    )
    monitor = EffectiveLR(model, optimizer, every=1)
    optimizer.step()
    last = monitor.last
    assert [last[f"elr/{layer}"] for layer in range(3)] == [0.5, 0.125, 0.125]
    assert last["elr/global"] == pytest.approx(math.hypot(1.5, 0.5) / 5)
    assert last["elr/spread"] == 4
    assert last["nominal/1"] == 0.125 / 16


def test_only_sampled_steps_are_measured_and_written():
    model, seen = single(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=3, writers=[lambda values, step: seen.append((step, values))])
    for _ in range(7):
        stepped(model, optimizer, torch.ones(64, 64))
        assert not monitor._before
    assert [step for step, _ in seen] == [3, 6]
    assert seen[-1][1] == monitor.last
    assert seen[0][1]["norm/0"] == pytest.approx(64 * 0.075, abs=1e-5)  # before the third step of 0.1: 0.125 - 0.2
    monitor.load_state_dict({"steps": 8})
    stepped(model, optimizer, torch.ones(64, 64))
    assert [step for step, _ in seen] == [3, 6, 9]


def test_steps_that_a_scaler_skips_do_not_count():
    for fused in (False, True):
        model = single(size=4)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        monitor = EffectiveLR(model, optimizer, every=2)
        scaler = torch.amp.GradScaler("cpu")
        for gradient in (1.0, math.inf, math.inf, 1.0, math.inf):
            scaler.scale(model[0].weight.sum() * gradient).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert monitor.steps == 2
        assert monitor.last["elr/0"] == pytest.approx(1e-3 / (0.125 - 1e-3), rel=1e-4)


def test_a_sample_of_a_step_that_was_skipped_on_a_gpu_is_dropped():
    """There the host does not know; here a tensor of another device stands for it."""
    model = single(size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.ones(4, 4))
    before = monitor.last
    monitor._sample = monitor._measure([], None)
    monitor._sample.skipped = torch.tensor(1.0)
    assert monitor.last == before


def test_what_is_dropped_is_not_written(monkeypatch):
    model = single(size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    written = []
    monitor = EffectiveLR(model, optimizer, every=1, writers=lambda values, step: written.append(step))
    stepped(model, optimizer, torch.ones(4, 4))
    measure = monitor._measure
    monkeypatch.setattr(monitor, "_measure", lambda layers, _: measure(layers, torch.tensor(1.0)))
    stepped(model, optimizer, torch.ones(4, 4))
    assert written == [1]


def test_groups_added_later_and_layers_that_are_not_held():
    model = single(size=4)
    optimizer = torch.optim.SGD([model[2].weight], lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.ones(4, 4))
    assert "elr/0" not in monitor.last
    optimizer.add_param_group({"params": [model[0].weight]})
    stepped(model, optimizer, model[0].weight.detach().clone())
    assert monitor.last["elr/0"] == pytest.approx(0.1)
    with pytest.raises(ArgumentError, match="optimizer: expected one that holds a layer"):
        EffectiveLR(single(), optimizer)
    with pytest.raises(ArgumentError, match="every"):
        EffectiveLR(model, optimizer, every=0)


def test_bfloat16_is_subtracted_in_float32():
    model = single(0.0625, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.full((64, 64), 0.0625 * 2**-7))
    assert monitor.last["elr/0"] == 2**-7
    stepped(model, optimizer, torch.full((64, 64), 1e-5))  # less than half of the spacing there: nothing happens
    assert monitor.last["elr/0"] == 0


def test_families():
    parameters = [nn.Parameter(torch.ones(2, 2))]

    class OwnAdam(torch.optim.AdamW):
        pass

    assert family_of(torch.optim.SGD(parameters, momentum=0.9)) == "gradient"
    for kind in (torch.optim.Adam, OwnAdam, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Muon):
        assert family_of(kind(parameters)) == "normalised", kind
    assert family_of(torch.optim.Adadelta(parameters)) is None
    model = single(size=2)
    optimizer = torch.optim.Adadelta(model.parameters())
    with pytest.warns(UnknownOptimizerWarning, match="of Adadelta is not known"):
        monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.ones(2, 2))
    assert {"elr/0", "angular/0"} <= set(monitor.last)
    assert not any(name.startswith("nominal") for name in monitor.last)


def test_a_rate_in_a_tensor_is_that_of_the_step():
    model = single()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-3), capturable=False, foreach=False)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.ones(64, 64))
    optimizer.param_groups[0]["lr"].fill_(1.0)
    assert monitor.last["nominal/0"] == pytest.approx(1e-3 / 8, rel=1e-6)


def test_a_weight_of_zero_has_no_rate():
    model = single(0.0, size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=1)
    stepped(model, optimizer, torch.ones(4, 4))
    assert math.isnan(monitor.last["elr/0"])
    assert math.isnan(monitor.last["nominal/0"])
    assert math.isnan(monitor.last["elr/spread"])


def test_copied_with_its_model_it_measures_the_copy():
    model = single(size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = EffectiveLR(model, optimizer, every=1)
    twin_model, twin_optimizer, twin = copy.deepcopy((model, optimizer, monitor))
    assert attached(twin_optimizer) == (twin,)
    stepped(twin_model, twin_optimizer, twin_model[0].weight.detach().clone())
    assert twin.last["elr/0"] == pytest.approx(0.1)
    assert twin.last["elr/global"] == pytest.approx(0.1)
    assert monitor.last == {}


def test_one_writer_needs_no_list():
    weight = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    written = []
    EffectiveLR(weight, optimizer, every=1, writers=lambda values, step: written.append(step))
    weight(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert written == [1]
