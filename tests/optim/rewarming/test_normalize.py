"""Norms before nonlinearities, and networks where that cannot be done."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import ProjectionWarning, Projector, normalize_, scale_invariance
from holdfast.optim.rewarming.normalize import ChannelRMSNorm


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 3))


class Branching(nn.Module):
    """Cannot be traced."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.layer = nn.Linear(8, 6)
        self.act = nn.GELU()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        if x.sum() > 0:
            x = -x
        return self.head(self.act(self.layer(self.body(x))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.skip = nn.Conv2d(2, 5, 1)
        self.act = nn.ReLU()
        self.head = nn.Linear(5, 1)
        self.probability = nn.Sigmoid()

    def forward(self, x):
        x = self.act(self.norm(self.inner(x)) + self.skip(x))
        return self.probability(self.head(x.mean((2, 3))))


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.LayerNorm), ("rms", nn.RMSNorm)])
def test_hidden_layers_become_scale_invariant(norm, kind):
    model = mlp()
    assert normalize_(model, norm=norm) is model
    assert [type(model[place].norm) for place in (1, 4)] == [kind, kind]
    assert [model[place].bias is None for place in (0, 2, 5)] == [True, True, False]
    change = scale_invariance(model, torch.randn(32, 4))
    assert {name for name, value in change.items() if value < 1e-3} == {"0.weight", "2.weight"}
    assert "2.weight" in model.state_dict()  # names of layers stay
    Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("convolution", [False, True])
def test_norms_without_scales(norm, convolution):
    if convolution:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
        inputs, weights = torch.randn(6, 2, 5, 5), {"0.weight", "3.weight", "3.bias"}
    else:
        model, inputs, weights = mlp(), torch.randn(6, 4), {"0.weight", "2.weight", "5.weight", "5.bias"}
    scaled, bare = (
        normalize_(copy.deepcopy(model), norm=norm),
        normalize_(copy.deepcopy(model), norm=norm, affine=False),
    )
    assert {name for name, _ in bare.named_parameters()} == weights
    torch.testing.assert_close(bare.eval()(inputs), scaled.eval()(inputs))


def test_a_network_without_norms_is_told_before():
    model = mlp()
    with pytest.warns(ProjectionWarning, match="no norms"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.GroupNorm), ("rms", ChannelRMSNorm)])
def test_convolutions_are_normed_over_channels_and_positions(norm, kind):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).double()
    normalize_(model, norm=norm)
    assert isinstance(model[1].norm, kind)
    x = torch.randn(6, 2, 5, 5, dtype=torch.float64)
    assert scale_invariance(model, x, names=["0.weight"])["0.weight"] < 1e-4
    normed = model[1].norm(model[0](x))
    torch.testing.assert_close(normed.square().mean((1, 2, 3)), torch.ones(6, dtype=torch.float64), rtol=1e-3, atol=0)


def test_a_norm_that_is_there_stays_and_its_running_mean_forgets_the_bias():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    for _ in range(20):
        model(torch.randn(8, 2, 8))
    model.eval()
    x = torch.randn(4, 2, 8)
    before = model(x).detach()
    normalize_(model)
    assert isinstance(model[2], nn.ReLU)
    assert model[0].bias is None
    torch.testing.assert_close(model(x).detach(), before)


def test_a_sum_is_normed_and_the_output_is_not():
    model = Residual()
    normalize_(model)
    assert isinstance(model.act.norm, nn.GroupNorm)
    assert model.act.norm.num_channels == 5
    assert isinstance(model.probability, nn.Sigmoid)
    # Both biases are in the sum: neither is read by a norm alone, but that of the convolution before its BatchNorm.
    assert model.skip.bias is not None
    assert model(torch.randn(2, 2, 4, 4)).shape == (2, 1)


def test_a_network_that_cannot_be_traced():
    model = normalize_(Branching())
    assert isinstance(model.body[1].norm, nn.LayerNorm)
    assert model.act.norm.normalized_shape == (6,)
    assert model.body[0].bias is None  # within nn.Sequential the order is known
    assert model.layer.bias is not None
    assert model(torch.randn(3, 4)).shape == (3, 2)


def test_what_cannot_be_normed_is_refused_and_left_as_it_was():
    class Functional(nn.Module):
        def __init__(self, branches):
            super().__init__()
            self.first, self.act, self.second = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
            self.branches = branches

        def forward(self, x):
            if self.branches and x.sum() > 0:
                x = -x
            return self.second(self.act(self.first(torch.nn.functional.gelu(self.first(x)))))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU()

        def forward(self, x):
            return self.second(self.act(self.first(self.act(self.first(x)))))

    for model, message in (
        (Functional(branches=False), "the function gelu in its forward"),
        (Functional(branches=True), "the function gelu in the forward of Functional"),
        (Twice(), "act, which is called several times"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), "0, whose input is of unknown shape"),
        (nn.Sequential(nn.Linear(3, 2)), "none in Sequential"),
        (nn.TransformerEncoderLayer(4, 2, 8), "TransformerEncoderLayer"),
        (nn.DataParallel(mlp()), "a network before it is compiled or wrapped"),
    ):
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ArgumentError, match=message):
            normalize_(model)
        assert list(model.state_dict()) == list(before)
