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
    adaptive_attention,
    attention_weights,
)
from holdfast.nn.attention import AttentionCall, fused, kernel, streamed
from holdfast.nn.attention.call import Declined
from tests.nn.rounding import attention_rounding

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
    """The fused way's output, or `None` where it declines."""
    try:
        return fused.compute(
            AttentionCall.of(q, k, v, mask=mask, causal=causal, window=window, scale=scale, normaliser=normaliser)
        )
    except Declined:
        return None


def plain_form(q, k, v, normaliser, **options):
    groups = q.shape[1] // k.shape[1]
    weights = attention_weights(q, k, normaliser=normaliser, **options)
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
    torch.testing.assert_close(found, expected, **attention_rounding(q, k, scale=scale))


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


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 9}, {"window": 2}], ids=str)
@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("shape", [*SHAPES[:-1], (2, 4, 2, 40, 21, 8, 8)], ids=str)
def test_hides_what_the_plain_form_hides(shape, mask, options, monkeypatch):
    """A few queries at a time, in the last shape more of them than keys."""
    monkeypatch.setattr(fused, "ROWS", 12)
    q, k, v = inputs(shape)
    settled = dict(options, scale=0.4)
    if mask is not None:
        settled["mask"] = MASKS[mask](shape[0], shape[1], shape[3], shape[4])
    for normaliser in (Adaptive(), Llama4(0.5, 2.0), SSMax(tuple(0.1 * head for head in range(1, shape[1] + 1)))):
        found = fused_attention(q, k, v, normaliser=normaliser, **settled)
        expected = plain_form(q, k, v, normaliser, **settled)
        torch.testing.assert_close(found, expected, **attention_rounding(q, k, scale=1.0))


@pytest.mark.parametrize("normaliser", [Plain(), LogN(4)], ids=str)
@pytest.mark.parametrize("mask", ["of each sequence", "padding"])
def test_long_sequences_with_masks_of_their_own_go_one_by_one(mask, normaliser, monkeypatch):
    monkeypatch.setattr(fused, "SHORT", 0)
    q, k, v = inputs((3, 4, 2, 65, 65, 8, 8))
    seen = MASKS[mask](3, 4, 65, 65)
    with Kernels() as counted:
        found = fused_attention(q, k, v, mask=seen, causal=True, normaliser=normaliser)
    assert counted.calls == 3 * 2
    expected = plain_form(q, k, v, normaliser, mask=seen, causal=True, scale=1.0)
    torch.testing.assert_close(found, expected, **attention_rounding(q, k, scale=1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_costs_the_inputs_digits_and_no_others(dtype):
    """The reference is computed in float64, from the same rounded numbers."""
    q, k, v = inputs((1, 4, 2, 300, 300, 64, 64), dtype)
    found = fused_attention(q, k, v, causal=True, scale=0.25, normaliser=Adaptive())
    assert found.dtype == torch.float32
    wide = [each.double() for each in (q, k, v)]
    expected = plain_form(*wide, Adaptive(), scale=0.25, causal=True)
    torch.testing.assert_close(found.double(), expected, **attention_rounding(q.float(), k.float(), scale=0.25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_that_cancel_cost_the_digits_that_they_cost_the_formula(dtype):
    """Small logits, as sums of large products."""
    q, k, v = inputs((1, 1, 1, 64, 64, 4, 4), dtype)
    q[..., :2] = torch.tensor([300.0, -300.0])
    k[..., :2] = (torch.arange(64) % 2)[:, None] * 2.0 - 1
    found = fused_attention(q, k, v, normaliser=Adaptive())
    expected = plain_form(q.double(), k.double(), v.double(), Adaptive(), scale=1.0)
    torch.testing.assert_close(found.double(), expected, **attention_rounding(q, k, scale=1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_logits_have_the_entropy_of_the_formula(dtype):
    """Two groups of keys, far apart: no shift brings both near zero."""
    q, k, v = inputs((1, 1, 1, 64, 64, 4, 4), dtype)
    q, k = q.abs(), k + torch.where(torch.arange(64) < 32, 400.0, -400.0)[:, None].to(dtype)
    found = fused_attention(q, k, v, normaliser=Adaptive())
    expected = plain_form(q.double(), k.double(), v.double(), Adaptive(), scale=1.0)
    torch.testing.assert_close(found.double(), expected, **attention_rounding(q, k, scale=1.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", range(3))
def test_refuses_what_is_not_finite(which, value):
    tensors = inputs((1, 2, 2, 9, 9, 8, 8), torch.float32)
    tensors[which][0, 0, 5, 3] = value
    assert fused_attention(*tensors, causal=True, scale=1.0, normaliser=Adaptive()) is None


@pytest.mark.parametrize("which", range(3))
def test_huge_numbers_cost_other_rows_no_digits(which):
    """Where a huge key is seen, all or nothing is its."""
    tensors = inputs((1, 2, 2, 9, 9, 8, 8), torch.float32)
    allowed = attention_rounding(*tensors[:2])
    tensors[which][0, 0, 5, 3] = 1e36
    found = fused_attention(*tensors, causal=True, scale=0.1, normaliser=Adaptive())
    expected = plain_form(*tensors, Adaptive(), causal=True, scale=0.1)
    torch.testing.assert_close(found, expected, **allowed)


@pytest.mark.parametrize("normaliser", [Plain(), LogN(4), Adaptive()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_huge_key_that_is_hidden_and_huge_values_are_left_to_the_streamed_form(normaliser, dtype):
    """Finite all of them, but not their products and sums."""
    q, k, v = inputs((1, 2, 2, 70, 70, 8, 8), dtype)
    k[:, :, 50] = torch.finfo(dtype).max
    mask = torch.arange(70) != 50
    found = adaptive_attention(q, k, v, mask=mask, normaliser=normaliser)
    tolerance = attention_rounding(q, k * mask[:, None])
    expected = plain_form(q, k, v, normaliser, mask=mask).to(dtype)
    torch.testing.assert_close(found, expected, **tolerance)
    k[:, :, 50] = 0
    for sign in (1, -1):
        huge = torch.full_like(v, sign * torch.finfo(dtype).max / 2)
        found = adaptive_attention(q, k, huge, normaliser=normaliser)
        torch.testing.assert_close(found, huge, atol=0, rtol=attention_rounding(q, k)["rtol"])


LAYOUTS = {
    "transposed": lambda tensor: tensor.mT.contiguous().mT,
    "every other": lambda tensor: tensor.repeat_interleave(2, -1)[..., ::2],
    "dimensions first": lambda tensor: tensor.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "expanded": lambda tensor: tensor[..., :1].expand(tensor.shape),
    "as in transformers": lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2),
}


@pytest.mark.parametrize("normaliser", [Plain(), Adaptive()], ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_any_layout_in_memory_gives_the_same(which, layout, masked, normaliser):
    tensors = list(inputs((2, 4, 2, 66, 66, 8, 8), torch.float32))
    for place in which:
        tensors[place] = LAYOUTS[layout](tensors[place])
    mask = torch.arange(66) > 2 if masked else None
    found = adaptive_attention(*tensors, mask=mask, normaliser=normaliser)
    dense = [each.contiguous() for each in tensors]
    allowed = attention_rounding(*dense[:2])
    torch.testing.assert_close(found, adaptive_attention(*dense, mask=mask, normaliser=normaliser), **allowed)
    torch.testing.assert_close(found, plain_form(*dense, normaliser, mask=mask), **allowed)


def test_the_output_is_dense_also_where_values_are_narrower_than_keys():
    q, k, v = inputs((1, 2, 1, 70, 70, 8, 5))
    assert adaptive_attention(q, k, v, causal=True).is_contiguous()


def test_a_mask_is_worked_on_in_bounded_memory(monkeypatch):
    """A mask of its own for each of six heads, over many keys: a few queries at a time."""
    monkeypatch.setattr(fused, "LOGITS", 6 * 400 * 7)
    q, k, v = inputs((1, 6, 2, 90, 400, 8, 8))
    mask = torch.rand(1, 6, 90, 400) < 0.7
    largest = []

    class Masks(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
                largest.append(kwargs["attn_mask"].shape[-2])
            return func(*args, **(kwargs or {}))

    with Masks():
        found = adaptive_attention(q, k, v, mask=mask, normaliser=LogN(2))
    assert max(largest) == 7
    torch.testing.assert_close(found, plain_form(q, k, v, LogN(2), mask=mask), **attention_rounding(q, k))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, in its formulas
def test_forward_mode_derivatives_go_the_plain_way():
    q, k, v = inputs((1, 2, 2, 80, 80, 8, 8))
    tangent = torch.randn_like(q)
    found = torch.func.jvp(lambda each: adaptive_attention(each, k, v, causal=True), (q,), (tangent,))
    expected = torch.func.jvp(lambda each: plain_form(each, k, v, Adaptive(), causal=True), (q,), (tangent,))
    torch.testing.assert_close(found, expected, **attention_rounding(q, k, scale=1.0))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 5}, {"mask": torch.arange(80) > 3}], ids=str)
def test_the_default_device_does_not_matter(options):
    q, k, v = inputs((1, 2, 2, 80, 80, 8, 8))
    expected = adaptive_attention(q, k, v, normaliser=SSMax(), **options)
    with torch.device("meta"):
        found = adaptive_attention(q, k, v, normaliser=SSMax(), **options)
    assert torch.equal(found, expected)


class RootOfEntropy(Adaptive):
    """NaN where rounding has made an entropy negative."""

    def factor(self, entropy, visible, position):
        return entropy.sqrt()


def test_an_entropy_is_never_negative():
    """The first rows see one key, or equal ones, and have no entropy but that of rounding."""
    q, k, v = inputs((1, 8, 8, 200, 200, 16, 16), torch.float32)
    found = fused_attention(q, k, v, causal=True, scale=0.25, normaliser=RootOfEntropy())
    assert found is not None


def test_keys_that_no_query_sees_are_not_multiplied():
    """Padding at both ends and a window: what is left of the keys is what reaches the kernel."""
    q, k, v = inputs((1, 2, 1, 1024, 1024, 8, 8), torch.float32)
    mask = (torch.arange(1024) >= 300) & (torch.arange(1024) < 700)
    with Kernels() as counted:
        fused_attention(q, k, v, mask=mask, normaliser=Plain())
    assert counted.products == 2 * 1024 * 400
    with Kernels() as counted:
        fused_attention(q, k, v, causal=True, window=64, normaliser=Plain())
    assert 0 < counted.products < 2 * 1024 * 128


FORWARD, BACKWARD = (getattr(torch.ops.aten, name).default for name in (kernel.FORWARD, kernel.BACKWARD))


class Kernels(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts calls of the fused kernel and of its gradient, and the pairs of a query and a key that it is given."""

    calls = gradients = products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is FORWARD:
            query, key = args[:2]
            self.calls += 1
            self.products += query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        self.gradients += func is BACKWARD
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 1),
        ({"causal": True}, 1),
        ({"window": 3}, 1),
        ({"mask": torch.ones(64, 64, dtype=torch.bool)}, 1),
        ({"mask": torch.zeros(64, 64)}, 0),
        ({"softcap": 2.0}, 0),
        ({"sinks": torch.zeros(2)}, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "normaliser", [Plain(), LogN(4), SSMax((0.1, 0.2)), Adaptive()], ids=lambda n: type(n).__name__
)
def test_attention_uses_it_where_it_can(options, calls, normaliser, monkeypatch):
    """For the output where the factor needs no entropy, for the gradient in any case."""
    monkeypatch.setattr(fused, "TABLE", 1)
    q, k, v = inputs((1, 2, 2, 64, 64, 8, 8), torch.float32)
    for query in (q, q.clone().requires_grad_()):
        with Kernels() as counted:
            found = adaptive_attention(query, k, v, normaliser=normaliser, **options)
            if query.requires_grad:
                found.sum().backward()
        assert counted.calls == (0 if normaliser.needs_entropy else calls)
        assert counted.gradients == (calls if query.requires_grad else 0)
        assert found.dtype == torch.float32
    with Kernels() as counted:
        torch.func.vmap(lambda key: adaptive_attention(q, key, v, **options))(torch.stack([k, k]))
        torch.func.grad(lambda query: adaptive_attention(query, k, v, **options).sum())(q)
        adaptive_attention(q.clone().requires_grad_(), k, v, normaliser=Adaptive(detach=False), **options)
    assert counted.calls == counted.gradients == 0


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
        adaptive_attention(q, k, v, normaliser=Plain())
    assert sizes == [k.numel()] * 8


def test_random_shapes_agree_with_the_streamed_form(monkeypatch):
    torch.manual_seed(3)
    monkeypatch.setattr(streamed, "FEWEST", 0)
    for queries, past, groups, causal in itertools.product((2, 63, 129), (0, 1, 70), (1, 3), (False, True)):
        q, k, v = inputs((1, 2 * groups, 2, queries, queries + past, 8, 6))
        monkeypatch.setattr(fused, "FEWEST", 1)
        by_kernel = adaptive_attention(q, k, v, causal=causal, normaliser=LogN(3))
        monkeypatch.setattr(fused, "FEWEST", 1 << 40)
        by_chunks = adaptive_attention(q, k, v, causal=causal, normaliser=LogN(3))
        torch.testing.assert_close(by_kernel, by_chunks, **attention_rounding(q, k))


def test_without_the_operators_the_other_ways_give_the_same(monkeypatch):
    """They are none of PyTorch's public ones, and may go."""
    results = []
    for name in (kernel.FORWARD, "no_such_operator"):
        monkeypatch.setattr(kernel, "FORWARD", name)
        tensors = [tensor.requires_grad_() for tensor in inputs((2, 4, 2, 70, 70, 8, 8))]
        with Kernels() as counted:
            found = adaptive_attention(*tensors, causal=True)
            results.append([found, *torch.autograd.grad(found.sin().sum(), tensors)])
        assert (counted.gradients > 0) == (name != "no_such_operator")
    for by_kernel, otherwise in zip(*results, strict=True):
        torch.testing.assert_close(by_kernel, otherwise, **attention_rounding(*tensors[:2], size=100.0))


GRADIENTS = [  # batch, heads, kv heads, queries, keys, dim, value dim
    (2, 4, 2, 65, 65, 8, 8),
    (1, 6, 2, 31, 130, 5, 3),
    (2, 6, 1, 70, 71, 16, 20),
    (1, 2, 2, 65, 64, 8, 8),
]


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=str)
@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 9}], ids=str)
def test_gradients_are_those_of_the_plain_form(options, mask, normaliser, monkeypatch):
    """At odd sizes, with keys before the first query, fewer keys than queries, and rows that see nothing."""
    monkeypatch.setattr(fused, "ROWS", 12)
    for shape in GRADIENTS:
        tensors = [tensor.requires_grad_() for tensor in inputs(shape)]
        settled = dict(options, scale=0.4)
        if isinstance(normaliser, SSMax) and isinstance(normaliser.scale, tuple):
            settled["normaliser"] = SSMax(normaliser.scale[: shape[1]])
        else:
            settled["normaliser"] = normaliser
        if mask is not None:
            settled["mask"] = MASKS[mask](shape[0], shape[1], shape[3], shape[4])
        results = []
        for attend in (fused_attention, plain_form):
            output = attend(*tensors, **settled)
            results.append([output, *torch.autograd.grad(output.sin().sum(), tensors)])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, **attention_rounding(*tensors[:2], scale=1.0, size=100.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_low_precision_are_those_of_float64_on_the_same_numbers(dtype):
    tensors = [tensor.requires_grad_() for tensor in inputs((1, 4, 2, 200, 200, 32, 32), dtype)]
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found = adaptive_attention(*tensors, causal=True)
    expected = plain_form(*wide, Adaptive(), causal=True)
    allowed = attention_rounding(*tensors[:2], size=100.0)
    for ours, exact in zip(
        torch.autograd.grad(found.float().sum(), tensors), torch.autograd.grad(expected.sum(), wide), strict=True
    ):
        torch.testing.assert_close(ours.double(), exact, **allowed)


class Learned(Plain):
    """A temperature that is learned."""

    def __init__(self, temperature):
        object.__setattr__(self, "temperature", temperature)

    def factor(self, entropy, visible, position):
        return self.temperature * visible.clamp(min=1).to(entropy.dtype).log()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("queries", [2, 80])
def test_what_a_normaliser_learns_has_its_gradient(queries, recorded):
    q, k, v = inputs((2, 2, 2, queries, 4096, 8, 8))
    q.requires_grad_(recorded)
    gradients = []
    for attend in (adaptive_attention, lambda *tensors, normaliser: plain_form(*tensors, normaliser)):
        temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        attend(q, k, v, normaliser=Learned(temperature)).sin().sum().backward()
        gradients.append(temperature.grad)
    torch.testing.assert_close(*gradients, **attention_rounding(q, k, size=1e3))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": torch.arange(7) > 2}], ids=str)
@pytest.mark.parametrize("normaliser", [Plain(), LogN(2), Adaptive()], ids=str)
def test_second_derivatives_are_right(options, normaliser, monkeypatch):
    """The kernel's gradient has none, so that the formula takes over; the temperature is a constant of the first."""
    monkeypatch.setattr(fused, "FEWEST", 1)
    monkeypatch.setattr(fused, "TABLE", 1)
    results = []
    for attend in (adaptive_attention, plain_form):
        tensors = [tensor.requires_grad_() for tensor in inputs((1, 2, 1, 5, 7, 4, 4))]
        output = attend(*tensors, normaliser=normaliser, **options)
        first = torch.autograd.grad(output.sin().sum(), tensors, create_graph=True)
        results.append(torch.autograd.grad(sum(part.square().sum() for part in first), tensors))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **attention_rounding(*tensors[:2], size=1e4))


def test_only_what_is_asked_for_has_a_gradient():
    q, k, v = inputs((1, 2, 2, 80, 80, 8, 8), torch.float32)
    v.requires_grad_()
    adaptive_attention(q, k, v, causal=True, normaliser=Plain()).sum().backward()
    assert q.grad is None
    # A value's gradient is the weight that it has in all rows.
    torch.testing.assert_close(
        v.grad[..., 0], attention_weights(q, k, causal=True, normaliser=Plain()).sum(2), atol=1e-5, rtol=1e-5
    )


def test_a_tail_of_one_query_that_sees_all_keys():
    """More queries than keys: the last piece is a single query from which nothing is hidden."""
    q, k, v = inputs((1, 2, 1, 257, 256, 8, 8))
    found = fused_attention(q, k, v, causal=True, normaliser=Plain())
    torch.testing.assert_close(
        found, plain_form(q, k, v, Plain(), causal=True, scale=1.0), **attention_rounding(q, k, scale=1.0)
    )
