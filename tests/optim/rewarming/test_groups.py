"""Groups are one a layer, and the modes give each its rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.groups import layer_groups
from holdfast.optim.rewarming.layers import scale_decay_groups
from holdfast.optim.rewarming.schedule import Rewarm


class Net(nn.Module):
    """Defined in another order than it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)
        self.embed = nn.Embedding(5, 8)
        self.norm = nn.LayerNorm(8)
        self.hidden = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.hidden(self.embed(x))).relu())


def schedule(groups: list[dict[str, Any]], mode: str) -> Rewarm:
    return Rewarm(AdamW(groups, lr=0.1), peak=0.1, final=0.001, period=100, layers=mode)


def rates(groups: list[dict[str, Any]], mode: str) -> dict[str, float]:
    rewarm = schedule(groups, mode)
    return {
        group["layer"]: rate / 0.1
        for group, rate in zip(rewarm.optimizer.param_groups, rewarm.get_last_lr(), strict=True)
    }


def test_one_group_a_layer() -> None:
    model = Net()
    groups = layer_groups(model, weight_decay=0.5)
    assert {group["layer"]: (len(group["params"]), group["head"]) for group in groups} == {
        "head": (2, True),
        "embed": (1, False),
        "hidden": (2, False),
        "": (2, False),  # the norm's scale and offset
    }
    assert all(group["weight_decay"] == 0.5 for group in groups)
    of_groups = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(of_groups) == sorted(id(parameter) for parameter in model.parameters())


def test_groups_that_exist_are_divided_and_keep_their_settings() -> None:
    groups = layer_groups(model := Net(), scale_decay_groups(model, 1.0), head="hidden")
    assert {(group["layer"], group["weight_decay"], group["head"]) for group in groups} == {
        ("", 1.0, False),  # the norm's scale
        ("", 0.0, False),  # its offset
        ("head", 0.0, False),
        ("embed", 0.0, False),
        ("hidden", 0.0, True),
    }


def test_a_shared_tensor_belongs_to_the_output_layer() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 5, bias=False))
    model[2].weight = model[0].weight
    assert [(group["layer"], group["head"]) for group in layer_groups(model)] == [("0", True), ("1", False)]


def test_parts_of_an_attention_and_of_a_parametrised_layer_are_of_that_layer() -> None:
    model = nn.ModuleDict(
        {"attend": nn.MultiheadAttention(8, 2), "w": nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))}
    )
    groups = {group["layer"]: group["params"] for group in layer_groups(model, head="w")}
    assert sum(len(parameters) for parameters in groups.values()) == len(list(model.parameters()))
    assert len(groups["w"]) == 3
    assert "" not in groups


def test_modes_of_features() -> None:
    groups = layer_groups(Net())
    assert rates(groups, "constant") == {"head": 1, "embed": 1, "hidden": 1, "": 1}
    assert rates(groups, "fast_features") == pytest.approx({"head": 0.1, "embed": 1, "hidden": 1, "": 1})
    assert rates(groups, "slow_features") == pytest.approx({"head": 1, "embed": 0.1, "hidden": 0.1, "": 0.1})


def test_even_ratio_gives_each_layer_the_same_relative_change() -> None:
    """Mean weights of 1, 2 and 6 and an empty head: multipliers of 1/3, 2/3, 2 with a mean of 1."""
    model = Net()
    with torch.no_grad():
        for name, value in (("head.weight", 0.0), ("embed.weight", 1.0), ("hidden.weight", -2.0)):
            model.get_parameter(name).fill_(value)
    found = rates(layer_groups(model), "even_ratio")
    assert found == pytest.approx({"head": 1, "embed": 2 / 3, "hidden": 4 / 3, "": 1})
    with torch.no_grad():
        model.head.weight.fill_(6.0)
    found = rates(layer_groups(model), "even_ratio")
    assert found == pytest.approx({"head": 2, "embed": 1 / 3, "hidden": 2 / 3, "": 1})


def test_even_ratio_looks_at_the_weights_when_a_cycle_begins() -> None:
    model = Net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    rewarm = schedule(layer_groups(model), "even_ratio")
    with torch.no_grad():
        model.hidden.weight.fill_(4.0)
    rewarm.optimizer.step()
    rewarm.step()
    assert len(set(rewarm.get_last_lr())) == 1
    rewarm.trigger()
    hidden = [group["layer"] for group in rewarm.optimizer.param_groups].index("hidden")
    assert rewarm.get_last_lr()[hidden] == pytest.approx(0.1 * 2)
    twin = schedule(layer_groups(model), "even_ratio")
    twin.load_state_dict(rewarm.state_dict())
    late = nn.Parameter(torch.full((2, 2), 3.0))
    twin.optimizer.add_param_group({"params": [late]})
    twin.optimizer.step()
    twin.step()
    assert twin.get_last_lr()[-1] == pytest.approx(twin.rate * 1.5)  # 3 of a mean of 2


def test_what_is_not_the_model_s_is_refused() -> None:
    with pytest.raises(ArgumentError, match="head: "):
        layer_groups(Net(), head="nowhere")
    with pytest.raises(ArgumentError, match="groups: "):
        layer_groups(Net(), [{"params": [nn.Parameter(torch.ones(3))]}])
    with pytest.raises(ArgumentError, match="layers: "):
        schedule([{"params": list(Net().parameters())}], "slow_features")
