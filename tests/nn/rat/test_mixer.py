"""The RAT layer beside its limits, its published sizes and the layout of its checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from holdfast.errors import ArgumentError
from holdfast.nn import RAT, Backbone, BackboneConfig, GatedRNN, rat_attention
from holdfast.nn.rotary import rotated, turns
from tests.nn.mixers import mixer
from tests.nn.test_mixer_contract import in_pieces, numbers


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("query", "expected"), [(0.0, [0.5, 1.25, 1.375, 2.0]), (1.0, [0.5, 1.25, 1.3594558747785506, 2.0])]
)
def test_values_by_hand(query, expected):
    output = rat_attention(
        column(*[query] * 4),
        column(1, 1, 1, 1),
        column(1, 2, 3, 4),
        column(*[0.5] * 4),
        chunk_size=2,
        scale=1.0,
        backend="reference",
    )
    torch.testing.assert_close(output, column(*expected), rtol=1e-15, atol=1e-15)


def test_a_position_is_that_of_the_chunk():
    pair = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    value = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64).view(1, 2, 1, 2)
    output = rat_attention(pair, pair, value, torch.zeros_like(value), chunk_size=1, rope_theta=10_000.0)
    own, other = 1 / math.sqrt(2), math.cos(1) / math.sqrt(2)
    assert (own, other) == pytest.approx((0.7071068, 0.3820514), abs=1e-7)
    assert output[0, 1, 0, 0].item() == pytest.approx(0.5805558, abs=1e-7)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("time", [64, 97, 129])
def test_steps_and_pieces_equal_the_whole(chunk_size, time):
    torch.manual_seed(0)
    module = RAT(16, 4, chunk_size=chunk_size, rope_theta=100.0).double()
    x = numbers(2, time, 16)
    with torch.no_grad():
        whole, state = module(x)
        for cuts in ([time // 3, time // 2], list(range(1, time))):
            output, after = in_pieces(module, x, cuts)
            torch.testing.assert_close(output, whole, rtol=1e-12, atol=1e-12)
            assert after.closed.used == time // chunk_size
            torch.testing.assert_close(after.running_key, state.running_key, rtol=1e-12, atol=1e-12)
    assert state.closed.keys.shape[2] == time // chunk_size


def test_one_chunk_is_the_gated_recurrence():
    layer, rnn = RAT(12, 2, chunk_size=64).double(), GatedRNN(12).double()
    with torch.no_grad():
        rnn.in_proj.weight.copy_(layer.in_proj.weight[:36])
        rnn.out_proj.weight.copy_(layer.out_proj.weight)
        rnn.gate_bias.copy_(layer.gate_bias)
    x = numbers(2, 63, 12)
    torch.testing.assert_close(layer(x)[0], rnn(x)[0], rtol=1e-13, atol=1e-14)


def test_chunks_of_one_token_and_closed_gates_are_attention():
    query, key = numbers(2, 2, 33, 2, 6)
    value = numbers(2, 33, 4, 6, seed=2)
    output = rat_attention(query, key, value, torch.zeros_like(value), chunk_size=1)
    heads = (part.repeat(1, 1, 4 // part.shape[2], 1).transpose(1, 2) for part in (query, key, value))
    expected = scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


def test_a_head_takes_the_group_of_its_number_modulo_the_groups():
    layer = mixer("rat")
    x = numbers(1, 11, 24)
    swapped = RAT(24, 4, chunk_size=4, rope_theta=100.0).double()
    # Heads 0 and 2 share group 0. With their slices of z, v, g and of the output exchanged nothing else changes.
    order = torch.tensor([2, 1, 0, 3])
    channels = (order[:, None] * 6 + torch.arange(6)).flatten()
    rows = torch.cat([channels + 24 * part for part in range(3)] + [torch.arange(72, 96)])
    with torch.no_grad():
        swapped.in_proj.weight.copy_(layer.in_proj.weight[rows])
        swapped.gate_bias.copy_(layer.gate_bias[channels])
        swapped.out_proj.weight.copy_(layer.out_proj.weight[:, channels])
    torch.testing.assert_close(swapped(x)[0], layer(x)[0], rtol=1e-12, atol=1e-12)
    # Heads 0 and 1 do not.
    order = torch.tensor([1, 0, 2, 3])
    channels = (order[:, None] * 6 + torch.arange(6)).flatten()
    rows = torch.cat([channels + 24 * part for part in range(3)] + [torch.arange(72, 96)])
    with torch.no_grad():
        swapped.in_proj.weight.copy_(layer.in_proj.weight[rows])
        swapped.gate_bias.copy_(layer.gate_bias[channels])
        swapped.out_proj.weight.copy_(layer.out_proj.weight[:, channels])
    assert (swapped(x)[0] - layer(x)[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("mixers", "parameters", "of_first"),
    [
        (("attention",) * 24, 1_273_595_904, 16_779_264),
        (("rat",) * 24, 1_298_810_880, 17_829_888),
        (("rnn",) * 24, 1_273_645_056, 16_781_312),
        (("rat", "window") * 12, 1_286_203_392, 17_829_888),
    ],
)
def test_published_numbers_of_parameters(mixers, parameters, of_first):
    with torch.device("meta"):
        backbone = Backbone(BackboneConfig(mixers=mixers, dim=2048, heads=16))
    embedding = 32_000 * 2048
    assert sum(parameter.numel() for parameter in backbone.parameters()) + embedding == parameters
    block = backbone.blocks[0]
    counted = [*block.mixer.parameters(), *block.mixer_norm.parameters()]
    assert sum(parameter.numel() for parameter in counted) == of_first


def test_published_bytes_of_the_cache():
    with torch.device("meta"):
        layer = RAT(2048, 16, backend="reference").bfloat16()
        _, state = layer(torch.zeros(1, 4096, 2048, dtype=torch.bfloat16))
    assert 24 * state.nbytes == 50_724_864


def test_gates_remember_from_one_token_to_a_chunk():
    layer = RAT(512, 4, chunk_size=17)
    assert layer.gate_bias.min() >= 0
    assert layer.gate_bias.max() <= math.log(16)
    assert layer.gate_bias.std() > 0.3
    for chunk_size in (1, 2):
        assert not RAT(16, 4, chunk_size=chunk_size).gate_bias.any()


def test_a_state_goes_back_to_a_chunk_boundary_only():
    module, x = mixer("rat"), numbers(2, 11, 24)
    with torch.no_grad():
        _, state = module(x)
        for length in (0, 4, 8, 11):
            torch.testing.assert_close(
                module(x[:, length:], state.crop(length))[0], module(x)[0][:, length:], rtol=1e-12, atol=1e-12
            )
        for length in (1, 10, 12, -4):
            with pytest.raises(ArgumentError, match="length: expected 11 or a smaller multiple of the chunk size 4"):
                state.crop(length)


def test_an_open_gate_and_large_queries_are_finite():
    value = numbers(1, 40, 2, 8)
    for gate in (torch.ones_like(value), torch.zeros_like(value)):
        assert rat_attention(value, value, value, gate, chunk_size=16).isfinite().all()
    half = value.half()
    assert rat_attention(1e4 * half, half, half, torch.rand_like(half), chunk_size=16).isfinite().all()


def test_positions_far_beyond_any_table_are_exact():
    vector = numbers(1, 8)
    products = []
    for start in (0, 10**6):
        near, far = (
            rotated(vector, turns(torch.tensor([start + step]), 8, 10_000.0, torch.float64)) for step in (3, 5)
        )
        products.append((near * far).sum())
    torch.testing.assert_close(products[0], products[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_size": 0}, "chunk_size: expected a whole number of at least 1, got 0"),
        ({"chunk_size": 2.0}, "chunk_size: expected a whole number of at least 1, got 2.0"),
        ({"key": numbers(1, 3, 1, 4)}, r"key: expected shape \(1, 3, 2, 4\), got shape \(1, 3, 1, 4\)"),
        ({"query": numbers(1, 3, 3, 4)}, "query: expected shape .*a divisor of 4 heads"),
        ({"gate": numbers(1, 3, 4, 5)}, r"gate: expected shape \(1, 3, 4, 4\)"),
        ({"key": numbers(1, 3, 2, 4).float()}, "key: expected the dtype of value, torch.float64, got torch.float32"),
        ({"value": numbers(1, 3, 16)}, "value: expected four dimensions"),
        ({"rope_theta": -1.0}, "rope_theta: expected a positive number or None, got -1.0"),
        ({"backend": "fastest"}, "backend: expected auto or one of .*, got fastest"),
        ({"normaliser": "plain"}, "normaliser: expected a Normaliser, such as .*, or None, got 'plain'"),
        ({"gate": numbers(1, 3, 4, 4) + 2, "check": True}, r"gate: expected numbers in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    query = numbers(1, 3, 2, 4)
    options = {"query": query, "key": query, "value": numbers(1, 3, 4, 4), "chunk_size": 2, **change}
    options.setdefault("gate", torch.zeros(1, 3, 4, 4))
    call = {name: options.pop(name) for name in ("query", "key", "value", "gate")}
    with pytest.raises(ArgumentError, match=message):
        _unchecked(rat_attention, *call.values(), **options)


def _unchecked(function, *arguments, **options):
    """A call without the check of shapes that the tests add, which would come first."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 10, "heads": 4}, "dim: expected a multiple of the 4 heads, got 10"),
        ({"dim": 16, "heads": 4, "qk_groups": 3}, "qk_groups: expected a divisor of the 4 heads, got 3"),
        ({"dim": 12, "heads": 4}, "rope_theta: expected None, where a head has an odd number of channels"),
        ({"dim": 16, "heads": 4, "normaliser": "adaptive"}, "normaliser: expected a Normaliser, .*, got 'adaptive'"),
        ({"dim": 16, "heads": 4, "backend": "fastest"}, "backend: expected auto or one of .*, got fastest"),
    ],
)
def test_sizes_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        _unchecked(RAT.__init__, RAT.__new__(RAT), **arguments)


@pytest.mark.parametrize("index", [[1, 0], torch.tensor([True, False]), torch.tensor([[1, 0]])])
def test_rows_are_chosen_by_a_tensor_of_numbers(index):
    _, state = mixer("rat")(numbers(2, 5, 24))
    with pytest.raises(ArgumentError, match="index: expected a tensor of row numbers"):
        _unchecked(type(state).reorder, state, index)


def test_a_state_of_another_width_is_refused():
    x = numbers(1, 5, 24)
    with pytest.raises(ArgumentError, match="state: expected a state of width 24, got one of 12"):
        mixer("rnn")(x, GatedRNN(12).double().init_state(1))


def test_a_state_of_another_layer_is_refused():
    x = numbers(1, 5, 24)
    _, state = mixer("rat")(x)
    with pytest.raises(ArgumentError, match=r"heads, head_dim, chunk_size, rope_theta of \(4, 6, 3, 10000.0\)"):
        mixer("rat-adaptive")(x, state)
    with pytest.raises(ArgumentError, match=r"a state in torch\.float32, got one in torch\.float64"):
        mixer("rat").float()(x.float(), state)
