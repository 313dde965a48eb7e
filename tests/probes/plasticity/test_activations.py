"""What activation functions make is kept, however they are called, and the model stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity import feature_change, layer_metrics, measure, record


def mlp(**options: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(**options), nn.Linear(8, 5), nn.ReLU(**options), nn.Linear(5, 3))


class Functional(nn.Module):
    """Activations as functions, in place, and one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.act = nn.Conv2d(2, 4, 3), nn.Linear(4, 3), nn.GELU()

    def forward(self, image: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        x = F.relu(self.conv(image))
        x = torch.relu_(self.conv(F.pad(x[:, :2] - 0.1, (1, 1, 1, 1))))
        x = self.act(self.head(x.mean((2, 3)) * scale))
        return self.act(x)


def test_outputs_are_those_of_the_layers():
    model, x = mlp(), torch.randn(7, 6)
    kept = record(model, x)
    assert list(kept) == ["1", "3"]
    first = model[1](model[0](x))
    assert torch.equal(kept["1"].features, first)
    assert torch.equal(kept["1"].active[:, 0], first > 0)
    assert kept["3"].outputs.shape == (7, 1, 5)


def test_what_is_in_place_is_copied_before_it_is_overwritten():
    x = torch.randn(7, 6)
    plain, in_place = record(mlp(), x), record(mlp(inplace=True), x)
    for name in plain:
        assert torch.equal(plain[name].outputs, in_place[name].outputs)
        assert torch.equal(plain[name].active, in_place[name].active)
    # The next layer's function overwrites what the first made.
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.ReLU(inplace=True))
    kept = record(model, x)
    assert float(kept["1"].outputs.min()) < 0 <= float(kept["2"].outputs.min())


def test_functions_and_repeated_modules_are_seen_with_channels_as_units():
    model = Functional()
    image = torch.randn(5, 2, 6, 6)
    kept = record(model, {"image": image, "scale": 2.0})
    assert [*kept] == ["relu", "relu#2", "act", "act#2"]
    conv = model.conv(image).relu()
    assert kept["relu"].outputs.shape == (5, 16, 4)
    assert torch.equal(kept["relu"].outputs[:, 3, 2], conv[:, 2].flatten(1)[:, 3])
    assert kept["act"].kind == "gelu"
    assert record(model, (image,)).keys() == kept.keys()


def test_the_last_dimension_is_the_unit_after_linear_layers():
    sequence = nn.Sequential(nn.Linear(6, 8), nn.SiLU())
    assert record(sequence, torch.randn(3, 9, 6))["1"].outputs.shape == (3, 9, 8)
    one_d = nn.Sequential(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
    assert record(one_d, torch.randn(3, 6, 9))["2"].outputs.shape == (3, 7, 8)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
    model[1].eval()
    handle = model[0].register_forward_hook(lambda *_: None)
    model(torch.randn(4, 6)).sum().backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    x = torch.randn(4, 6)
    random = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure(model, x[:, :5])
    measure(model, x)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(map(torch.equal, (parameter.grad for parameter in model.parameters()), grads))
    assert [len(module._forward_hooks) for module in model] == [1, 0, 0, 0, 0]
    assert not any(module._forward_pre_hooks for module in model)
    assert torch.equal(torch.get_rng_state(), random)
    handle.remove()


def test_outputs_of_modules_are_kept_by_name():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    x = torch.randn(3, 5, 8)
    assert record(model, x, layers=["self_attn"])["self_attn"].outputs.shape == (3, 5, 8)
    assert [*record(model, x)] == ["relu"]
    with pytest.raises(ArgumentError, match="layers: expected names of modules of the model, got attention"):
        record(model, x, layers=["attention"])
    unused = nn.Sequential(nn.Linear(2, 2))
    unused.add_module("spare", nn.Identity())
    unused.forward = lambda x: unused[0](x)  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="layers: expected modules that the batch passes, got spare"):
        record(unused, torch.randn(2, 2), layers=["spare"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from the import of the compiler
def test_a_compiled_model_is_seen_as_it_was_written():
    assert [*record(torch.compile(mlp()), torch.randn(2, 6))] == ["1", "3"]


def test_one_example_and_dead_layers_have_values():
    model = mlp()
    with torch.no_grad():
        model[0].bias.fill_(-1e4)
    x = torch.randn(1, 6)
    dead = measure(model, x)["1"]
    assert (dead.dormant, dead.dead, dead.srank, dead.effective_rank, dead.stable_rank) == (1, 1, 0, 0, 0)
    kept = record(model, x)
    change = feature_change(kept, kept, steps=10)["1"]
    assert math.isnan(change.kernel)
    assert (change.steps, change.activation, change.activation_share) == (10, 0, 0)
    alive = measure(mlp(), x)["3"]
    assert (alive.srank, alive.effective_rank, alive.stable_rank) == pytest.approx((1, 1, 1))


def test_units_that_cannot_die_are_not_called_dead():
    kept = record(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), -torch.ones(3, 6))
    assert math.isnan(layer_metrics(kept["1"]).dead)
    assert record(nn.Linear(2, 2), torch.randn(3, 2)) == {}


def test_changes_are_those_between_two_records():
    model, x = mlp(), torch.randn(9, 6)
    before = record(model, x)
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[0].bias.mul_(3)
        model[2].weight.normal_()
    change = feature_change(before, record(model, x), steps=1)
    assert change["1"].kernel < 1e-6  # float32 features; a scale alone
    assert change["1"].activation == 0
    assert change["3"].kernel > 0.05
    assert change["3"].activation == pytest.approx(math.sqrt(change["3"].activation_share * 9 * 5))
    with pytest.raises(ArgumentError, match="after: expected the layers 1, 3"):
        feature_change(before, record(model, x, layers=["0"]), steps=1)
