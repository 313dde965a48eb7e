"""The kernels against the plain form: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import math
import sys
import warnings

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.importorskip("triton", reason="triton is not installed")


from holdfast.errors import ArgumentError  # noqa: E402
from holdfast.nn import Adaptive, AdaptiveTemperature, LogN, Plain, SSMax, adaptive_attention  # noqa: E402
from holdfast.nn.attention import AttentionCall, plain  # noqa: E402
from holdfast.nn.attention.attention import WAYS, attend  # noqa: E402
from holdfast.nn.attention.triton import host, kernels  # noqa: E402
from tests.nn.rounding import attention_rounding, combined, rounded_to  # noqa: E402


@triton.jit
def _loop(out, n):
    for i in range(n):
        triton.language.store(out + i, 1.0)


def _cannot_loop() -> bool:
    """Whether Triton's interpreter cannot count: 3.6 asks for what numpy 2.4 no longer does."""
    if DEVICE == "cuda" or not kernels.INTERPRETED:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _loop[(1,)](torch.zeros(3), 3)
        except Exception as error:
            return "0-dimensional arrays" in repr(error)
    return False


pytestmark = [
    pytest.mark.gpu,  # on a CUDA device where there is one, in the interpreter elsewhere
    pytest.mark.skipif(_cannot_loop(), reason="this Triton's interpreter cannot loop with this numpy"),
    pytest.mark.skipif(DEVICE == "cpu" and not kernels.INTERPRETED, reason="triton was imported before this module"),
    pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning"),
    # The interpreter computes what a mask then hides, on numpy.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]

FITTED = AdaptiveTemperature((0.05, 0.4, 0.3), threshold=0.7, entropy_range=(1.0, 3.5), beta_min=0.8, beta_max=2.0)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.delenv(host.VARIABLE, raising=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def tensors(heads, kv_heads, queries, keys, dim, *, value_dim=None, batch=1, dtype=torch.float32, spread=2.0):
    """Query, key and value inside larger buffers of NaN, with strides of their own."""
    generator = torch.Generator().manual_seed(queries * 1009 + keys * 31 + dim)

    def one(n, length, size, scale):
        around = torch.full((batch, length + 3, n + 1, size + 5), math.nan, dtype=dtype, device=DEVICE)
        inside = around[:, 1 : length + 1, 1 : n + 1, 2 : size + 2].transpose(1, 2)
        inside.copy_(scale * torch.randn(inside.shape, generator=generator))
        return inside

    return (
        one(heads, queries, dim, spread),
        one(kv_heads, keys, dim, 1.0),
        one(kv_heads, keys, value_dim or dim, 1.0),
    )


def kernel(query, key, value, *, decode=None, statistics=None, **options):
    return host.compute(AttentionCall.of(query, key, value, **options), decode=decode, statistics=statistics)


def reference(*inputs, **options):
    """The plain form in float64."""
    return plain.compute(AttentionCall.of(*(tensor.double() for tensor in inputs), **options))


def tolerance(query, key, scale=None):
    """Weights in 16 bits are rounded once more, before they meet the values."""
    once = attention_rounding(query, key, scale=scale)
    return once if query.dtype == torch.float32 else combined(once, rounded_to(query.dtype, 4.0))


def agree(inputs, *, decode=None, **options):
    result = kernel(*inputs, decode=decode, **options)
    expected = reference(*inputs, **options)
    assert result.shape == expected.shape
    assert result.dtype == inputs[0].dtype
    torch.testing.assert_close(result.double(), expected, **tolerance(*inputs[:2], options.get("scale")))
    return result


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 5, 33, 130])
@pytest.mark.parametrize("queries", [1, 3, 17, 65])
def test_prefill_is_the_plain_form_at_odd_sizes(queries, keys, causal):
    agree(tensors(2, 1, queries, keys, 16), decode=False, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 5, 33, 130])
@pytest.mark.parametrize("queries", [1, 3, 16])
def test_decode_is_the_plain_form_at_odd_sizes(queries, keys, causal):
    inputs = tensors(4, 2, queries, keys, 16, batch=2)
    found = agree(inputs, decode=True, causal=causal)
    prefill = kernel(*inputs, decode=False, causal=causal)
    torch.testing.assert_close(found, prefill, **tolerance(*inputs[:2]))


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"window": 1},
        {"window": 7, "causal": True},
        {"window": 40},
        {"window": 40, "causal": True},
        {"softcap": 3.0},
        {"softcap": 30.0, "causal": True, "window": 33},
        {"scale": 1.3},
        {"normaliser": FITTED},
        {"normaliser": FITTED, "causal": True, "softcap": 5.0},
        {"normaliser": AdaptiveTemperature((3.0,), threshold=0.0)},
        {"normaliser": AdaptiveTemperature((0.01, 0.0, -0.1, 0.2, 0.1, 0.1, 1.0))},
        {"normaliser": Plain()},
        {"normaliser": Plain(), "causal": True, "window": 9, "softcap": 4.0},
    ],
)
def test_options(decode, options):
    agree(tensors(3, 1, 13 if decode else 70, 101, 24, value_dim=40), decode=decode, **options)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("dim", [16, 32, 64, 80])
def test_head_sizes_and_groups(dim, decode):
    agree(tensors(4, 2, 9, 70, dim), decode=decode, causal=True)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, decode):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter holds bfloat16 as integers and multiplies those")
    inputs = tensors(2, 1, 11, 70, 32, dtype=dtype)
    agree(inputs, decode=decode, causal=True)


@pytest.mark.parametrize("decode", [False, True])
def test_adaptation_off_is_ordinary_attention(decode):
    query, key, value = tensors(4, 2, 16, 75, 32)
    found = kernel(query, key, value, normaliser=Plain(), decode=decode)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, expected, **tolerance(query, key))


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("normaliser", [Adaptive(), Plain()], ids=repr)
def test_rows_that_see_nothing_are_zero(normaliser, decode):
    found = agree(tensors(2, 2, 12, 5, 16), decode=decode, causal=True, normaliser=normaliser)
    assert (found[:, :, :7] == 0).all()
    assert (found[:, :, 7:] != 0).any(-1).all()


@pytest.mark.parametrize("decode", [False, True])
def test_nan_and_large_logits_stay_in_their_rows(decode):
    query, key, value = tensors(1, 1, 9, 40, 16)
    query[0, 0, 2, 3] = math.nan
    query[0, 0, 5] *= 1e4
    found = kernel(query, key, value, decode=decode)
    assert found[0, 0, 2].isnan().all()
    rest = [row for row in range(9) if row != 2]
    expected = reference(query[:, :, rest], key, value)
    others = [row for row in rest if row != 5]  # the large row has one key with all the weight
    for rows, allowed in (([5], tolerance(query[:, :, others], key)), (others, tolerance(query[:, :, others], key))):
        place = [rest.index(row) for row in rows]
        torch.testing.assert_close(found[:, :, rows].double(), expected[:, :, place], **allowed)


def test_statistics_are_those_of_the_row():
    query, key, value = tensors(2, 1, 35, 50, 16)
    entropy, logsumexp = (torch.empty(1, 2, 35, device=DEVICE) for _ in range(2))
    kernel(query, key, value, statistics=(entropy, logsumexp))
    z = query.double() @ key.double().mT / 4
    p = z.softmax(-1)
    torch.testing.assert_close(entropy.double(), -(p * p.log()).sum(-1), **tolerance(query, key))
    torch.testing.assert_close(logsumexp.double(), z.logsumexp(-1), **tolerance(query, key))


def test_the_choice_is_by_the_environment(monkeypatch):
    call = AttentionCall.of(*tensors(2, 1, 3, 5, 16))
    assert "is not triton" in host.refusal(call)
    monkeypatch.setenv(host.VARIABLE, "reference")
    assert "is not triton" in host.refusal(call)
    monkeypatch.setenv(host.VARIABLE, "triton")
    assert host.refusal(call) is None
    assert WAYS[0] is host
    monkeypatch.setenv(host.VARIABLE, "nonsense")
    with pytest.raises(ArgumentError, match="triton or reference"):
        attend(call)


@pytest.mark.parametrize("normaliser", [None, FITTED, Adaptive(FITTED, detach=False), Plain()], ids=repr)
def test_adaptive_attention_uses_the_kernel_on_request(monkeypatch, normaliser):
    calls = []
    compute = host.compute

    def spy(call):
        calls.append(call.normaliser)
        return compute(call)

    monkeypatch.setattr(host, "compute", spy)
    inputs = tensors(4, 2, 20, 37, 16)
    options = {"causal": True, "softcap": 4.0, "window": 21, "scale": 0.4, "normaliser": normaliser}
    expected = adaptive_attention(*inputs, **options)
    assert calls == []
    monkeypatch.setenv(host.VARIABLE, "triton")
    found = adaptive_attention(*inputs, **options)
    assert calls == [AttentionCall.of(*inputs, **options).normaliser]
    torch.testing.assert_close(found, expected, **tolerance(*inputs[:2]))


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: ((q.requires_grad_(), k, v), {}),
        lambda q, k, v: ((q.double(), k.double(), v.double()), {}),
        lambda q, k, v: ((q, k, v), {"mask": torch.ones(3, 5, dtype=torch.bool, device=DEVICE)}),
        lambda q, k, v: ((q, k, v), {"sinks": torch.ones(2, device=DEVICE)}),
        lambda q, k, v: ((q, k, v), {"normaliser": SSMax()}),
    ],
    ids=["gradient", "float64", "mask", "sinks", "normaliser"],
)
def test_adaptive_attention_goes_its_own_way_where_the_kernel_cannot(monkeypatch, change):
    inputs, options = change(*(tensor.detach().clone() for tensor in tensors(2, 1, 3, 5, 16)))
    expected = adaptive_attention(*inputs, **options)
    monkeypatch.setenv(host.VARIABLE, "triton")
    monkeypatch.setattr(host, "compute", None)
    assert torch.equal(adaptive_attention(*inputs, **options), expected)


def test_the_splits_of_decoding_may_be_many_or_one(monkeypatch):
    """Their number is no constant of the kernel: a growing cache must not compile it again and again."""
    inputs = tensors(4, 2, 3, 150, 16)
    usual = agree(inputs, decode=True, causal=True)
    for span, splits in ((32, 5), (96, 2), (160, 1)):
        monkeypatch.setattr(host, "_splits", lambda *_, sizes=(span, splits): sizes)
        torch.testing.assert_close(agree(inputs, decode=True, causal=True), usual, **tolerance(*inputs[:2]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda q, k, v: ((q.requires_grad_(), k, v), {}), "a gradient is needed"),
        (lambda q, k, v: ((q, k, v.requires_grad_()), {}), "a gradient is needed"),
        (lambda q, k, v: ((q.double(), k.double(), v.double()), {}), "torch.float64"),
        (lambda q, k, v: ((q, k, v), {"mask": torch.ones(3, 5, device=DEVICE)}), "no mask and no sinks"),
        (lambda q, k, v: ((q, k, v), {"sinks": torch.ones(2, device=DEVICE)}), "no mask and no sinks"),
        (lambda q, k, v: ((q, k, v), {"normaliser": LogN(4)}), "knows no LogN"),
        (lambda q, k, v: ((q, k, v), {"normaliser": AdaptiveTemperature((1.0,) * 8)}), "more than 7 coefficients"),
        (lambda q, k, v: ((q, k, v.new_ones(1, 1, 5, 300)), {}), "more than 256 dimensions"),
    ],
)
def test_what_the_kernel_does_not_take(monkeypatch, change, reason):
    inputs, options = change(*(tensor.detach().clone() for tensor in tensors(2, 1, 3, 5, 16)))
    call = AttentionCall.of(*inputs, **options)
    monkeypatch.setenv(host.VARIABLE, "triton")
    assert reason in host.refusal(call)
    with pytest.raises(ArgumentError, match=reason):
        host.compute(call)


def test_without_a_gradient_recorded_parameters_are_taken():
    inputs = tensors(2, 1, 3, 5, 16)
    inputs[0].requires_grad_()
    call = AttentionCall.of(*inputs)
    assert host.unfit(call) is not None
    with torch.no_grad():
        assert host.unfit(call) is None


def test_without_triton_the_other_ways_are_taken(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, "triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    call = AttentionCall.of(*tensors(1, 1, 3, 5, 16))
    assert host.refusal(call) == "triton is not installed"
    torch.testing.assert_close(attend(call), plain.compute(call))
