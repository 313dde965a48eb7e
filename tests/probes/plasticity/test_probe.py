"""The probe on networks in known states, which it leaves as they were."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from holdfast.errors import ArgumentError
from holdfast.optim import Projector
from holdfast.probes.plasticity import PlasticitySettings, probe_plasticity

SHORT = PlasticitySettings(steps=80, batch=32, examples=64, draws=2, twins=2, progress=False)


def fresh(norm: bool = False) -> nn.Sequential:
    layers = [nn.Linear(16, 32), nn.LayerNorm(32) if norm else nn.Identity(), nn.ReLU(inplace=True), nn.Linear(32, 4)]
    return nn.Sequential(*layers)


def data(examples: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(examples, 16, generator=generator), torch.randint(4, (examples,), generator=generator)


def model(seed: int = 7, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    return fresh(norm)


adam = partial(torch.optim.Adam, lr=2e-2)


def test_a_fresh_network_has_lost_nothing_and_one_that_is_dead_everything():
    found = probe_plasticity(model(), fresh, data(), optimizer=adam, settings=SHORT)
    assert 0.8 < found.peak.ratio < 1.2
    assert found.remedy == "none"
    assert (found.current, found.restored) == (None, None)
    assert found.activations["2"].now.dormant < 0.2
    assert found.layers["0"].norm_ratio == pytest.approx(1, abs=0.1)
    dead = model()
    with torch.no_grad():
        dead[0].bias.fill_(-100)
    found = probe_plasticity(dead, fresh, data(), optimizer=adam, settings=SHORT)
    assert found.peak.ratio < 0.05
    assert found.restored.ratio < 0.05
    assert found.remedy == "reset"
    assert found.activations["2"].now.dead == found.activations["2"].now.dormant == 1
    assert found.activations["2"].fresh.dead < 0.2


@pytest.mark.parametrize("seed", [0, 1, 2, 1_000_004])
def test_a_fresh_network_of_a_common_seed_is_no_twin_of_itself(seed):
    network = model(seed)
    settings = PlasticitySettings(steps=25, examples=8, draws=1, twins=3, progress=False)
    found = probe_plasticity(network, fresh, data(8), optimizer=adam, settings=settings)
    assert found.layers["0"].norm_ratio != 1


def test_norms_that_have_grown_are_put_back():
    grown = model(norm=True)
    with torch.no_grad():
        for layer in (grown[0], grown[3]):
            layer.weight.mul_(30)
    found = probe_plasticity(grown, partial(fresh, True), data(), optimizer=adam, settings=SHORT)
    assert found.peak.ratio < 0.6
    assert found.restored.ratio > 0.8
    assert found.remedy == "project"
    assert found.layers["0"].norm_ratio == pytest.approx(30, rel=0.1)
    assert found.layers["0"].elr < found.layers["0"].elr_fresh / 5


def test_a_rate_that_has_fallen_is_told_from_a_network_that_has_lost():
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    schedule = CosineAnnealingLR(optimizer, 10, eta_min=1e-5)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    found = probe_plasticity(network, fresh, data(), optimizer=optimizer, settings=SHORT)
    assert (found.peak.rate, found.current.rate) == pytest.approx((2e-2, 1e-5))
    assert found.peak.ratio > 0.8
    assert found.current.ratio < 0.3
    assert found.remedy == "rewarm"
    # The same where no scheduler has noted the peak, and with a function.
    lowered = torch.optim.Adam(network.parameters(), lr=1e-5)
    named = probe_plasticity(network, fresh, data(), optimizer=lowered, peak=2e-2, settings=SHORT)
    assert (named.peak.rate, named.current.rate, named.remedy) == (2e-2, 1e-5, "rewarm")
    by_hand = probe_plasticity(network, fresh, data(), optimizer=adam, current=1e-5, settings=SHORT)
    assert by_hand.current.ratio == pytest.approx(found.current.ratio, rel=1e-3)


def test_peaks_of_one_cycle_and_several_groups_are_kept_in_proportion():
    network = model()
    groups = [{"params": network[0].parameters()}, {"params": network[3].parameters(), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    OneCycleLR(optimizer, max_lr=[2e-2, 4e-2], total_steps=100)
    from holdfast.probes.plasticity.training import Training

    training = Training(network, optimizer, peak=None, current=None, projector=None)
    assert (training.peak, training.current) == pytest.approx((2e-2, 8e-4))
    other = training.optimizer(fresh(), 1e-2)
    assert [group["lr"] for group in other.param_groups] == pytest.approx([1e-2, 2e-2])
    assert [group["weight_decay"] for group in other.param_groups] == [0.1, 0.0]
    assert not other.state


def test_a_projector_of_the_user_s_is_used_for_all_networks():
    network = model(norm=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    Projector(network, optimizer, include="all")
    found = probe_plasticity(network, partial(fresh, True), data(), optimizer=optimizer, settings=SHORT)
    assert found.projected
    assert found.restored is None
    named = probe_plasticity(
        network,
        partial(fresh, True),
        data(),
        optimizer=adam,
        projector=partial(Projector, include="all"),
        settings=SHORT,
    )
    assert named.peak.ratio == pytest.approx(found.peak.ratio, rel=1e-4)
    free = probe_plasticity(network, partial(fresh, True), data(), optimizer=adam, settings=SHORT)
    assert free.peak.ratio != pytest.approx(found.peak.ratio, rel=1e-4)


def test_too_few_steps_give_no_number():
    settings = PlasticitySettings(steps=25, batch=8, examples=64, draws=1, twins=1, progress=False)
    found = probe_plasticity(model(), fresh, data(), optimizer=partial(torch.optim.SGD, lr=1e-4), settings=settings)
    assert (found.peak, found.current, found.restored) == (None, None, None)
    assert found.verdict.startswith("Too short to tell")


def test_everything_is_left_as_it_was():
    network = model()
    network.insert(3, nn.Dropout(0.2))
    network[1].eval()
    handle = network[0].register_forward_hook(lambda module, given, made: None)
    x, y = data()
    network(x).sum().backward()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    optimizer.step()
    before = copy.deepcopy((network.state_dict(), [p.grad for p in network.parameters()], optimizer.state_dict()))
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()

    def with_dropout() -> nn.Sequential:
        twin = fresh()
        twin.insert(3, nn.Dropout(0.2))
        return twin

    results = [probe_plasticity(network, with_dropout, (x, y), optimizer=optimizer, settings=SHORT) for _ in range(2)]
    assert results[0] == results[1]
    after = network.state_dict(), [p.grad for p in network.parameters()], optimizer.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [module.training for module in network] == [True, False, True, True, True]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert len(network[0]._forward_hooks) == 1
    assert len(optimizer._optimizer_step_post_hooks) == 0
    handle.remove()


class TwoInputs(nn.Module):
    """Named inputs, and a value for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.first(left) + self.second(right)))


def test_named_inputs_and_numbers_as_targets():
    x, _ = data()
    inputs = {"left": x[:, :8], "right": x[:, 8:]}
    torch.manual_seed(9)
    network = TwoInputs()
    found = probe_plasticity(network, TwoInputs, (inputs, torch.randn(64, 1)), optimizer=adam, settings=SHORT)
    assert 0.7 < found.peak.ratio < 1.3
    assert list(found.activations) == ["relu"]
    pair = (inputs["left"], inputs["right"])
    loss = nn.functional.smooth_l1_loss
    other = probe_plasticity(network, TwoInputs, (pair, torch.randn(64, 1)), optimizer=adam, loss=loss, settings=SHORT)
    assert 0.7 < other.peak.ratio < 1.3


def test_what_is_frozen_stays_frozen_in_the_twins():
    network = model()
    network[0].requires_grad_(False)
    found = probe_plasticity(network, fresh, data(), optimizer=adam, settings=SHORT)
    assert np.isnan(found.layers["0"].elr) == np.isnan(found.layers["0"].elr_fresh)
    assert found.layers["3"].elr > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factory": lambda: 3}, "factory: expected a function that returns a network, got int"),
        ({"factory": lambda: nn.Sequential(nn.Linear(16, 4))}, "factory: expected a network with 0.bias of shape"),
        ({"factory": lambda: fresh().append(nn.Linear(4, 4))}, "factory: expected a network without 4.bias"),
        ({"factory": model}, "factory: expected a function that makes a fresh network, got one with the weights"),
        ({"examples": (data()[0], [1, 2])}, "examples: expected a pair"),
        ({"examples": (data()[0], data()[1][:5])}, "examples: expected at least two inputs and as many targets"),
        ({"optimizer": lambda p: None}, "optimizer: expected a function that returns a torch.optim.Optimizer"),
        ({"peak": -1.0}, "peak: expected a learning rate above 0"),
        ({"optimizer": torch.optim.SGD(fresh().parameters(), 0.1)}, "optimizer: expected one that holds parameters"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"factory": fresh, "examples": data(), "optimizer": adam, "settings": SHORT} | change
    with pytest.raises(ArgumentError, match=message):
        probe_plasticity(model(), arguments.pop("factory"), arguments.pop("examples"), **arguments)


@pytest.mark.parametrize("settings", [{"steps": 24}, {"twins": 0}, {"examples": 1}])
def test_settings_that_measure_nothing_are_refused(settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        PlasticitySettings(**settings)
