"""Noise of two factors, dueling heads, and what fits which body."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.rl.rainbow.networks import FEW_ROWS, NoisyLinear, RainbowNetwork

SHAPES = {"nature": (4, 84, 84), "minatar": (10, 10, 4), "mlp": (6,)}


@pytest.mark.parametrize("rows", [1, FEW_ROWS - 1, FEW_ROWS, 20])
def test_a_noisy_layer_is_a_linear_one_with_a_noisy_weight(rows: int) -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(7, 5).double()
    layer.noise_in.normal_()
    layer.noise_out.normal_()
    layer.weight_sigma.data.uniform_()
    x = torch.randn(rows, 7, dtype=torch.float64)
    weight = layer.weight + layer.weight_sigma * torch.outer(layer.noise_out, layer.noise_in)
    expected = x @ weight.T + layer.bias + layer.bias_sigma * layer.noise_out
    torch.testing.assert_close(layer(x), expected)
    ours = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    theirs = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_noise_is_of_factors_and_comes_from_its_generator() -> None:
    network = RainbowNetwork("mlp", (6,), 3, hidden=400, atoms=5)
    first = network.value[0]
    assert float(first.noise_in.abs().sum()) == 0
    network.resample(torch.Generator().manual_seed(3))
    noise = torch.cat([first.noise_in, network.advantage[0].noise_in, network.value[0].noise_out])
    # f(ε) = sign(ε) √|ε| has variance E|ε| = √(2/π), and 1,200 draws a standard error of it of .018.
    assert abs(float(noise.square().mean()) - (2 / torch.pi) ** 0.5) < 0.1
    kept = first.noise_in.clone()
    network.resample(torch.Generator().manual_seed(3))
    assert torch.equal(first.noise_in, kept)
    network.silence()
    assert float(first.noise_in.abs().sum() + first.noise_out.abs().sum()) == 0


@pytest.mark.parametrize("body", SHAPES)
def test_distributions_of_all_actions(body: str) -> None:
    torch.manual_seed(0)
    network = RainbowNetwork(body, SHAPES[body], 3, hidden=16, atoms=11)
    dtype = {"nature": torch.uint8, "minatar": torch.bool, "mlp": torch.float32}[body]
    seen = torch.randint(2, (2, *SHAPES[body])).to(dtype)
    logits = network(seen)
    assert logits.shape == (2, 3, 11)
    centred = logits - logits.mean(1, keepdim=True)  # the value stream is the mean of the logits over actions
    torch.testing.assert_close(logits.mean(1), network.value(network.body(floats(body, seen))))
    assert float(centred.detach().abs().max()) > 0
    expected = (logits.softmax(-1) * network.support).sum(-1)
    torch.testing.assert_close(network.values(seen), expected)


def floats(body: str, seen: torch.Tensor) -> torch.Tensor:
    if body == "nature":
        return seen.float() / 255
    return seen.float().permute(0, 3, 1, 2) if body == "minatar" else seen


def test_minatars_network_has_the_published_size() -> None:
    network = RainbowNetwork("minatar", (10, 10, 4), 6, hidden=128)
    heads = 2 * (2 * (1024 * 128 + 128)) + 2 * (128 * 51 + 51) + 2 * (128 * 306 + 306)
    assert sum(parameter.numel() for parameter in network.parameters()) == 16 * 4 * 9 + 16 + heads


@pytest.mark.parametrize(
    ("body", "shape", "settings", "words"),
    [
        ("nature", (10, 10, 4), {}, "84, 84"),
        ("minatar", (4,), {}, "height, width, channels"),
        ("mlp", (4,), {"atoms": 1}, "atoms"),
        ("mlp", (4,), {"value_min": 3.0, "value_max": 3.0}, "value_max"),
    ],
)
def test_what_does_not_fit_is_refused(body: str, shape: tuple[int, ...], settings: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        RainbowNetwork(body, shape, 2, **settings)
