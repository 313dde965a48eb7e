"""The mLSTM layer beside its equations, its published sizes, and what its state costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, group_norm, linear, pad, silu

from holdfast.errors import ArgumentError
from holdfast.nn import MLSTM, Backbone, BackboneConfig, Layout, mlstm
from tests.nn.mixers import mixer
from tests.nn.test_mixer_contract import numbers


def by_equations(layer: MLSTM, x: torch.Tensor) -> torch.Tensor:
    """The block without norm and residual, by a library's convolution and norm, and by whole matrices."""
    u, z = linear(x, layer.in_proj.weight).chunk(2, -1)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    convolved = silu(conv1d(pad(u.mT, (3, 0)), weight, bias, groups=layer.inner).mT)
    query, key, value = (
        linear(source, torch.block_diag(*blocks))
        for source, blocks in zip((convolved, convolved, u), layer.qkv, strict=True)
    )
    gates = layer.gates(torch.cat([query, key, value], -1))
    heads = [part.unflatten(-1, (layer.heads, -1)) for part in (query, key, value)]
    output, _ = mlstm(*heads, *gates.chunk(2, -1), backend="recurrent")
    normed = group_norm(output.flatten(0, 1).flatten(1), layer.heads, layer.norm, None, 1e-5).view(u.shape)
    return linear((normed + layer.skip * convolved) * silu(z), layer.out_proj.weight)


@pytest.mark.parametrize("backend", ["auto", "recurrent", "parallel", "chunkwise"])
@pytest.mark.parametrize(("dim", "heads", "time"), [(24, 4, 19), (40, 2, 1), (8, 1, 140)])
def test_the_layer_is_its_equations(dim, heads, time, backend):
    torch.manual_seed(0)
    layer, x = MLSTM(dim, heads, backend=backend).double(), numbers(2, time, dim)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    results = []
    for output in (layer(x)[0], by_equations(layer, x)):
        gradients = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
        results.append([output, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dim", "layers", "parameters"), [(512, 8, 12_939_840), (1280, 20, 198_836_640)])
def test_published_numbers_of_parameters(dim, layers, parameters):
    with torch.device("meta"):
        layer = MLSTM(dim, 4, blocks=layers)
    norms = (layers + 1) * dim
    assert layers * sum(parameter.numel() for parameter in layer.parameters()) + norms == parameters


@pytest.mark.parametrize(("dim", "inner"), [(32, 64), (33, 128), (24, 64), (704, 1408)])
def test_the_inner_width_is_twice_the_outer_one_up_to_a_multiple_of_64(dim, inner):
    with torch.device("meta"):
        assert MLSTM(dim, 4).inner == inner


def test_it_begins_as_published():
    torch.manual_seed(0)
    layer = MLSTM(256, 4, blocks=8)
    small, closing = math.sqrt(2 / (5 * 256)), 2 / (8 * math.sqrt(256))
    # The standard deviation of n normal numbers is off by 1 / sqrt(2 n) of itself; five times that is allowed.
    for weight, std in ((layer.in_proj.weight, small), (layer.qkv, small), (layer.out_proj.weight, closing)):
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
    assert not layer.gates.weight.any()
    assert layer.gates.bias[4:].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert 0 < layer.gates.bias[:4].abs().max() < 0.6
    assert torch.equal(layer.skip, torch.ones(512))
    assert torch.equal(layer.norm, torch.ones(512))
    assert layer.convolution.weight.abs().max() <= 0.5


@pytest.mark.parametrize(("dim", "heads"), [(24, 4), (32, 1)])
def test_the_state_has_the_bytes_of_the_formula_after_any_number_of_tokens(dim, heads):
    layer = MLSTM(dim, heads)
    size = layer.inner // heads
    expected = 3 * 4 * (heads * (size * size + size + 1) + 3 * layer.inner)
    state = layer.init_state(3)
    assert state.nbytes == expected
    with torch.no_grad():
        for time in (1, 3, 200, 5):  # the chunkwise form among them
            _, state = layer(numbers(3, time, dim).float(), state)
            assert state.nbytes == expected
            kept = (state.cell, state.normaliser, state.stabiliser, state.tail)
            assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == expected  # and no input with it
    assert state.seen.tolist() == [209] * 3


def test_the_published_state_has_its_size():
    with torch.device("meta"):
        state = MLSTM(1280, 4).init_state(1)
    assert 20 * state.nbytes / 2**20 == pytest.approx(125.2 + 20 * 3 * 2560 * 4 / 2**20, abs=0.1)


def test_a_limit_writes_over_the_cell_where_no_backward_pass_may_follow():
    layer, x = mixer("mlstm"), numbers(2, 9, 24)
    with torch.no_grad():
        whole, _ = layer(x)
        state = first = layer.init_state(2, limit=9)
        outputs = []
        for piece in x.split([3, 1, 5], 1):
            output, state = layer(piece, state)
            outputs.append(output)
            assert state.cell.data_ptr() == first.cell.data_ptr()
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first.cell, state.cell, rtol=0, atol=0)


def test_no_live_token_changes_nothing():
    layer, x = mixer("mlstm"), numbers(2, 5, 24)
    _, state = layer(x)
    output, after = layer(x, state, Layout.of_mask(torch.zeros(2, 5, dtype=torch.bool)))
    assert not output.any()
    assert after is state


def test_gates_at_their_extremes_keep_any_split_exact():
    """Gates of the layer, not of a function: weights that make pre-activations of hundreds."""
    layer, x = mixer("mlstm"), numbers(1, 30, 24)
    with torch.no_grad():
        layer.gates.weight *= 100
        whole, _ = layer(x)
        state, outputs = None, []
        for piece in x.split([7, 1, 12, 10], 1):
            output, state = layer(piece, state)
            outputs.append(output)
    assert whole.isfinite().all()
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-9, atol=1e-9)


def test_several_tokens_at_once_are_single_steps():
    """Of a stack at the size of a small policy, in float32."""
    torch.manual_seed(0)
    layers = [MLSTM(128, 4, blocks=4) for _ in range(4)]
    x = torch.randn(2, 30, 128, generator=torch.Generator().manual_seed(1))

    def run(pieces):
        states, outputs = [layer.init_state(2) for layer in layers], []
        for piece in pieces:
            for place, layer in enumerate(layers):
                mixed, states[place] = layer(nn.functional.layer_norm(piece, (128,)), states[place])
                piece = piece + mixed
            outputs.append(piece)
        return torch.cat(outputs, 1)

    with torch.no_grad():
        torch.testing.assert_close(run(x.split(3, 1)), run(x.split(1, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 24, "heads": 3}, "heads: expected a divisor of the inner width 64, got 3"),
        ({"dim": 0, "heads": 1}, "dim: expected a whole number of at least 1, got 0"),
        ({"dim": 24, "heads": 4, "blocks": 0}, "blocks: expected a whole number of at least 1, got 0"),
        ({"dim": 24, "heads": 4, "backend": "fastest"}, "backend: expected auto or one of .*, got fastest"),
    ],
)
def test_sizes_that_do_not_fit_are_named(arguments, message):
    construct = MLSTM.__init__
    while hasattr(construct, "__wrapped__"):
        construct = construct.__wrapped__
    with pytest.raises(ArgumentError, match=message):
        construct(MLSTM.__new__(MLSTM), **arguments)


def test_a_state_of_other_heads_is_refused():
    x = numbers(1, 5, 24)
    with pytest.raises(ArgumentError, match=r"state: expected heads and head width of \(1, 64\), got of \(4, 16\)"):
        mixer("mlstm-1")(x, mixer("mlstm")(x)[1])


def test_it_stands_in_a_backbone():
    backbone = Backbone(BackboneConfig(mixers=("mlstm",) * 3, dim=24, heads=4))
    assert {block.mixer.blocks for block in backbone.blocks} == {3}
    assert backbone(numbers(1, 5, 24).float())[0].isfinite().all()
