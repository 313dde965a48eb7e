"""Attention in calls of PyTorch's fused kernel: the plain form's numbers, and a refusal where it would lose some."""

from __future__ import annotations

import itertools

import pytest
import torch

from holdfast.nn import (
    Adaptive,
    AdaptiveTemperature,
    Llama4,
    LogN,
    Plain,
    SSMax,
    YaRN,
    _fused,
    adaptive_attention,
    attention_weights,
    tempered_attention,
)
from holdfast.nn._fused import PRECISION
from holdfast.nn._visibility import Options

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")

SHAPES = [  # batch, heads, kv heads, queries, keys, dim, value dim
    (1, 1, 1, 1, 1, 4, 4),
    (2, 4, 2, 65, 65, 8, 8),
    (1, 6, 2, 31, 130, 5, 3),
    (1, 3, 3, 1, 77, 7, 9),
    (2, 6, 1, 200, 201, 16, 16),
]
NORMALISERS = [
    Plain(),
    Adaptive(),
    Adaptive(AdaptiveTemperature((0.5, 1.0), entropy_range=(0.5, 4.0))),
    LogN(4),
    SSMax(),
    SSMax((0.2, 0.5, 0.7, 0.0, 1.0, 0.1)),
    YaRN(8.0),
    Llama4(0.5, 16.0),
]


def inputs(shape, dtype=torch.float64):
    torch.manual_seed(0)
    batch, heads, kv_heads, queries, keys, dim, value_dim = shape
    q = 2 * torch.randn(batch, heads, queries, dim, dtype=torch.float64)
    k = torch.randn(batch, kv_heads, keys, dim, dtype=torch.float64)
    v = torch.randn(batch, kv_heads, keys, value_dim, dtype=torch.float64)
    return tuple(each.to(dtype) for each in (q, k, v))


def fused_attention(q, k, v, *, causal=False, scale=1.0, normaliser=None, mask=None, window=None):
    options = Options(causal, window, scale, None, q.shape[2], k.shape[2])
    return _fused.fused_attention(q, k, v, mask=mask, normaliser=normaliser or Adaptive(), options=options)


def plain_form(q, k, v, normaliser, **options):
    groups = q.shape[1] // k.shape[1]
    weights = attention_weights(q, k, temperature=normaliser, **options)
    return weights @ v.to(weights.dtype).repeat_interleave(groups, dim=1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [0.3, -1.1, 0.0])
@pytest.mark.parametrize("normaliser", NORMALISERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_plain_form(shape, normaliser, scale, causal):
    q, k, v = inputs(shape)
    if isinstance(normaliser, SSMax) and isinstance(normaliser.scale, tuple):
        normaliser = SSMax(normaliser.scale[: q.shape[1]])
    found = fused_attention(q, k, v, causal=causal, scale=scale, normaliser=normaliser)
    assert found is not None
    expected = plain_form(q, k, v, normaliser, scale=scale, causal=causal)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-11)


MASKS = {
    "of all": lambda b, h, q, k: torch.rand(q, k) < 0.6,
    "of each sequence": lambda b, h, q, k: torch.rand(b, 1, q, k) < 0.6,
    "of each head": lambda b, h, q, k: torch.rand(1, h, q, k) < 0.6,
    "of keys": lambda b, h, q, k: torch.rand(b, 1, 1, k) < 0.6,
    "of queries": lambda b, h, q, k: torch.rand(q, 1) < 0.6,
    "padding": lambda b, h, q, k: (torch.arange(k) >= torch.arange(b)[:, None] * 7 + 5)[:, None, None],
    "a band": lambda b, h, q, k: (torch.arange(k) - torch.arange(q)[:, None]).abs() < 4,
    "nothing seen": lambda b, h, q, k: torch.zeros(q, k, dtype=torch.bool),
}


@pytest.mark.parametrize("rows", [3, 256])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 9}, {"window": 2}], ids=str)
@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("shape", [*SHAPES[:-1], (2, 4, 2, 40, 21, 8, 8)], ids=str)
def test_hides_what_the_plain_form_hides(shape, mask, options, rows, monkeypatch):
    """A few queries at a time, in the last shape more of them than keys."""
    monkeypatch.setattr(_fused, "ROWS", rows)
    q, k, v = inputs(shape)
    settled = dict(options, scale=0.4)
    if mask is not None:
        settled["mask"] = MASKS[mask](shape[0], shape[1], shape[3], shape[4])
    for normaliser in (Adaptive(), SSMax(tuple(0.1 * head for head in range(1, shape[1] + 1)))):
        found = fused_attention(q, k, v, normaliser=normaliser, **settled)
        expected = plain_form(q, k, v, normaliser, **settled)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_costs_the_inputs_digits_and_no_others(dtype):
    """The reference is computed in float64, from the same rounded numbers."""
    q, k, v = inputs((1, 4, 2, 300, 300, 64, 64), dtype)
    found = fused_attention(q, k, v, causal=True, scale=0.25, normaliser=Adaptive())
    assert found.dtype == torch.float32
    wide = [each.double() for each in (q, k, v)]
    expected = plain_form(*wide, Adaptive(), scale=0.25, causal=True)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=0)


def test_an_offset_that_all_keys_share_costs_no_digits():
    """It shifts every logit by up to thousands of nats, and changes no weight."""
    q, k, v = inputs((1, 2, 2, 100, 100, 16, 16), torch.float32)
    k = (k + 512).double()
    expected = plain_form(q.double(), k.float().double(), v.double(), Adaptive(), causal=True)
    found = fused_attention(q, k.float(), v, causal=True, scale=0.25, normaliser=Adaptive())
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)


def test_refuses_logits_whose_entropy_would_lose_digits():
    """Two groups of keys, far apart: no shift brings both near zero. In float64 there are digits enough."""
    q, k, v = inputs((1, 1, 1, 64, 64, 4, 4))
    q, k = q.abs(), k + torch.where(torch.arange(64) < 32, 400.0, -400.0)[:, None]
    options = {"causal": False, "scale": 1.0, "normaliser": Adaptive()}
    assert 1e3 * torch.finfo(torch.float32).eps > PRECISION
    assert fused_attention(q.float(), k.float(), v.float(), **options) is None
    found = fused_attention(q, k, v, **options)
    torch.testing.assert_close(found, plain_form(q, k, v, Adaptive(), scale=1.0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("which", range(3))
def test_refuses_what_is_not_finite_or_overflows(which, value):
    tensors = inputs((1, 2, 2, 9, 9, 8, 8), torch.float32)
    tensors[which][0, 0, 5, 3] = value
    found = fused_attention(*tensors, causal=True, scale=1.0, normaliser=Adaptive())
    assert (found is None) == (which < 2 or value != 1e38)


def test_keys_that_no_query_sees_are_not_multiplied():
    """Padding at both ends and a window: what is left of the keys is what reaches the kernel."""
    q, k, v = inputs((1, 2, 1, 1024, 1024, 8, 8), torch.float32)
    mask = (torch.arange(1024) >= 300) & (torch.arange(1024) < 700)
    with Kernels() as counted:
        fused_attention(q, k, v, mask=mask, normaliser=Plain())
    assert counted.products == 2 * 1024 * 400
    with Kernels() as counted:
        fused_attention(q, k, v, causal=True, window=64, normaliser=Plain())
    assert counted.products < 2 * 1024 * 128


class Kernels(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts calls of the fused kernel, and the pairs of a query and a key that they are given."""

    calls = products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            query, key = args[:2]
            self.calls += 1
            self.products += query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 2),
        ({"causal": True}, 2),
        ({"temperature": Plain(), "causal": True}, 1),
        ({"temperature": SSMax()}, 1),
        ({"window": 3}, 2),
        ({"mask": torch.ones(64, 64, dtype=torch.bool)}, 2),
        ({"mask": torch.zeros(64, 64)}, 0),
        ({"softcap": 2.0}, 0),
        ({"sinks": torch.zeros(2)}, 0),
    ],
    ids=str,
)
def test_attention_uses_it_where_it_can(options, calls):
    q, k, v = inputs((1, 2, 2, 64, 64, 8, 8), torch.float32)
    with Kernels() as counted:
        found = adaptive_attention(q, k, v, **options)
    assert counted.calls == calls
    assert found.dtype == torch.float32
    with Kernels() as counted:
        adaptive_attention(q.clone().requires_grad_(), k, v, **options)
        torch.func.vmap(lambda key: adaptive_attention(q, key, v, **options))(torch.stack([k, k]))
    assert counted.calls == 0


def test_no_key_is_repeated_for_the_queries_that_share_it():
    """Eight queries share a key: a repeated key would have the size of the queries."""
    q, k, v = inputs((1, 8, 1, 64, 64, 8, 8))
    sizes = []

    class Keys(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
                sizes.append(args[1].numel())
            return func(*args, **(kwargs or {}))

    with Keys():
        adaptive_attention(q, k, v)
    assert sizes == [k.numel()] * 16


def test_random_shapes_agree_with_the_streamed_form(monkeypatch):
    torch.manual_seed(3)
    monkeypatch.setattr(tempered_attention, "STREAMED", 0)
    for queries, past, groups, causal in itertools.product((2, 63, 129), (0, 1, 70), (1, 3), (False, True)):
        q, k, v = inputs((1, 2 * groups, 2, queries, queries + past, 8, 6))
        monkeypatch.setattr(tempered_attention, "FUSED", 1)
        fused = adaptive_attention(q, k, v, causal=causal)
        monkeypatch.setattr(tempered_attention, "FUSED", 1 << 40)
        streamed = adaptive_attention(q, k, v, causal=causal)
        torch.testing.assert_close(fused, streamed, atol=1e-12, rtol=1e-11)
