"""Who makes a unit, who activates it and who reads it is found in the network's own calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.errors import ArgumentError
from holdfast.optim.baselines.units import replaceable_units
from tests.optim.baselines.networks import Convolutions, mlp


def readers(model: nn.Module) -> dict[str, list[tuple[str, int]]]:
    return {units.name: [(c.name, c.block) for c in units.consumers] for units in replaceable_units(model)[0]}


def test_layers_in_a_row():
    assert readers(mlp()) == {"0": [("2", 1)], "2": [("4", 1)]}
    assert replaceable_units(mlp())[1] == {"4": "it is the output"}


def test_convolutions_shared_activations_and_flattened_images():
    units, left = replaceable_units(Convolutions())
    assert readers(Convolutions()) == {"first": [("second", 1)], "second": [("head", 9)]}
    assert left == {"head": "it is the output"}
    first, second = units
    # The ReLU is called twice, so that only the module behind it tells which call it was.
    assert (first.listening.at_input, second.listening.at_input) == (True, True)
    assert [type(norm) for norm in first.norms] == [nn.BatchNorm2d]
    image = torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(first.of(image).mean(0), image.mean((0, 2, 3)))
    assert torch.equal(first.of(image[0]), image[0].flatten(1).T)
    flat = torch.randn(5, 27)
    torch.testing.assert_close(second.of(flat).mean(0), flat.view(5, 3, 9).mean((0, 2)))
    assert second.consumers[0].inputs(torch.tensor([2, 0])).tolist() == [*range(18, 27), *range(9)]


class Registered(nn.Module):
    """Modules are registered in another order than they are called in, and two heads read one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.policy = nn.Linear(5, 1), nn.Linear(5, 2)
        self.second, self.first = nn.Linear(6, 5), nn.Linear(4, 6)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.gelu(self.first(x.view(x.size(0), -1)))
        x = torch.tanh(self.second(self.drop(x)))
        return self.value(x), self.policy(x)


def test_the_order_of_calls_counts_and_all_readers_are_found():
    assert readers(Registered()) == {"first": [("second", 1)], "second": [("value", 1), ("policy", 1)]}


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 3, 1)
        self.act, self.pool, self.head = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.act(self.first(x)), 2)
        x = F.relu(self.third(F.silu(self.second(x))))
        return self.head(torch.flatten(self.pool(x), 1))


def test_pools_are_passed_and_remembered():
    units, left = replaceable_units(Pooled())
    assert [(u.name, u.consumers[0].name, u.consumers[0].direct) for u in units] == [
        ("first", "second", False),
        ("second", "third", True),
        ("third", "head", False),
    ]
    assert left == {"head": "it is the output"}


class Kinds(nn.Module):
    """Layers whose units must be left alone, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ok, self.read = nn.Linear(4, 4), nn.Linear(4, 4)
        self.residual, self.linear, self.twice = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied, self.normed = nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.tied.weight = self.twice.weight
        self.gate, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read(F.relu(self.ok(x)))
        x = x + F.relu(self.residual(x))
        x = F.relu(self.linear(x))
        x = F.relu(self.twice(x))
        x = F.relu(self.twice(x))
        x = F.relu(self.tied(x))
        x = F.relu(self.normed(x))
        return self.out(F.silu(self.gate(x)) * x)


def test_what_cannot_be_replaced_is_left_alone_with_its_reason():
    units, left = replaceable_units(Kinds())
    assert [layer.name for layer in units] == ["ok"]
    assert left == {
        "read": "no activation function follows",
        "residual": "add reads it",
        "linear": "twice is called more than once",
        "twice": "twice is called more than once",
        "tied": "the weight of tied is used elsewhere too",
        "normed": "the weight of normed is parametrised",
        "gate": "mul reads it",
        "out": "it is the output",
    }


def test_grouped_channels_and_linear_units_are_left_alone():
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2), nn.ReLU(), nn.Conv1d(4, 4, 1))
    model += nn.Sequential(nn.Conv1d(4, 2, 1), nn.ReLU(), nn.Conv1d(2, 2, 1))
    units, left = replaceable_units(model)
    assert [layer.name for layer in units] == ["5"]
    assert left["0"] == left["2"] == "2 has groups of channels"
    assert left["4"] == "no activation function follows"


def test_norms_over_other_dimensions_are_not_cut():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.LayerNorm((4, 3, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU())
    model += nn.Sequential(nn.Flatten(), nn.LayerNorm(18), nn.Linear(18, 2))
    units, left = replaceable_units(model)
    assert [(layer.name, len(layer.norms)) for layer in units] == [("0", 1)]
    assert left["3"] == "the norm 6 is over other dimensions than its units"


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if float(x.sum()) > 0 else x


def test_a_network_without_such_units_is_refused():
    with pytest.raises(
        ArgumentError, match=r"model: expected a network whose forward torch.fx can trace, got Branching"
    ):
        replaceable_units(Branching())
    with pytest.raises(ArgumentError, match="got 0: it is the output"):
        replaceable_units(nn.Sequential(nn.Linear(2, 2)))
