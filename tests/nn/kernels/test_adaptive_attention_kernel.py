"""The kernel against its twin: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
triton = pytest.importorskip("triton", reason="triton is not installed")

from holdfast.errors import ArgumentError  # noqa: E402
from holdfast.nn import Adaptive, Plain, SSMax, adaptive_attention, kernels, tempered_attention  # noqa: E402
from holdfast.nn.kernels import adaptive_attention as room  # noqa: E402
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature  # noqa: E402


@triton.jit
def _loop(out, n):
    for i in range(n):
        triton.language.store(out + i, 1.0)


def _cannot_loop() -> bool:
    """Whether Triton's interpreter cannot count: 3.6 asks for what numpy 2.4 no longer does."""
    if DEVICE == "cuda" or not room.INTERPRETED:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _loop[(1,)](torch.zeros(3), 3)
        except Exception as error:
            return "0-dimensional arrays" in repr(error)
    return False


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_cannot_loop(), reason="this Triton's interpreter cannot loop with this numpy"),
    pytest.mark.skipif(DEVICE == "cpu" and not room.INTERPRETED, reason="triton was imported before this module"),
    pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning"),
    # The interpreter computes what a mask then hides, on numpy.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]

FITTED = AdaptiveTemperature((0.05, 0.4, 0.3), threshold=0.7, entropy_range=(1.0, 3.5), beta_min=0.8, beta_max=2.0)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
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


def agree(inputs, *, decode=None, tolerance=2e-5, temperature=PUBLISHED, **options):
    found = room.adaptive_attention_triton(*inputs, decode=decode, temperature=temperature, **options)
    expected = room.adaptive_attention_twin(*(each.double() for each in inputs), temperature=temperature, **options)
    assert found.shape == expected.shape
    assert found.dtype == inputs[0].dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 5, 33, 130])
@pytest.mark.parametrize("queries", [1, 3, 17, 65])
def test_prefill_is_the_twin_at_odd_sizes(queries, keys, causal):
    agree(tensors(2, 1, queries, keys, 16), decode=False, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 5, 33, 130])
@pytest.mark.parametrize("queries", [1, 3, 16])
def test_decode_is_the_twin_at_odd_sizes(queries, keys, causal):
    inputs = tensors(4, 2, queries, keys, 16, batch=2)
    found = agree(inputs, decode=True, causal=causal)
    prefill = room.adaptive_attention_triton(*inputs, decode=False, causal=causal)
    torch.testing.assert_close(found, prefill, rtol=2e-5, atol=2e-5)


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
        {"temperature": FITTED},
        {"temperature": FITTED, "causal": True, "softcap": 5.0},
        {"temperature": AdaptiveTemperature((3.0,), threshold=0.0)},
        {"temperature": AdaptiveTemperature((0.01, 0.0, -0.1, 0.2, 0.1, 0.1, 1.0))},
        {"temperature": None},
        {"temperature": None, "causal": True, "window": 9, "softcap": 4.0},
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
    agree(inputs, decode=decode, causal=True, tolerance=2e-3 if dtype == torch.float16 else 1.6e-2)


@pytest.mark.parametrize("decode", [False, True])
def test_adaptation_off_is_ordinary_attention(decode):
    query, key, value = tensors(4, 2, 16, 75, 32)
    found = room.adaptive_attention_triton(query, key, value, temperature=None, decode=decode)
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, plain, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("temperature", [PUBLISHED, None])
def test_rows_that_see_nothing_are_zero(temperature, decode):
    found = agree(tensors(2, 2, 12, 5, 16), decode=decode, causal=True, temperature=temperature)
    assert (found[:, :, :7] == 0).all()
    assert (found[:, :, 7:] != 0).any(-1).all()


@pytest.mark.parametrize("decode", [False, True])
def test_nan_and_large_logits_stay_in_their_rows(decode):
    query, key, value = tensors(1, 1, 9, 40, 16)
    query[0, 0, 2, 3] = math.nan
    query[0, 0, 5] *= 1e4
    found = room.adaptive_attention_triton(query, key, value, decode=decode)
    assert found[0, 0, 2].isnan().all()
    rest = [row for row in range(9) if row != 2]
    expected = room.adaptive_attention_twin(query[:, :, rest].double(), key.double(), value.double())
    torch.testing.assert_close(found[:, :, rest].double(), expected, rtol=2e-5, atol=2e-5)


def test_statistics_are_those_of_the_row():
    query, key, value = tensors(2, 1, 35, 50, 16)
    entropy, logsumexp = (torch.empty(1, 2, 35, device=DEVICE) for _ in range(2))
    room.adaptive_attention_triton(query, key, value, statistics=(entropy, logsumexp))
    z = query.double() @ key.double().mT / 4
    p = z.softmax(-1)
    torch.testing.assert_close(entropy.double(), -(p * p.log()).sum(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logsumexp.double(), z.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_the_choice_of_an_implementation(monkeypatch):
    query, key, value = tensors(2, 1, 3, 5, 16)
    usual = "triton" if DEVICE == "cuda" else "reference"
    assert kernels.implementation(query, key, value) == usual
    monkeypatch.setenv(kernels.VARIABLE, "reference")
    assert kernels.implementation(query, key, value) == "reference"
    expected = kernels.attention(query, key, value)
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    assert kernels.implementation(query, key, value) == "triton"
    torch.testing.assert_close(kernels.attention(query, key, value), expected, rtol=2e-5, atol=2e-5)
    monkeypatch.setenv(kernels.VARIABLE, "nonsense")
    with pytest.raises(ArgumentError, match="triton or reference"):
        kernels.implementation(query, key, value)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("temperature", [None, FITTED, Adaptive(FITTED, detach=False), Plain()], ids=repr)
def test_adaptive_attention_uses_the_kernel_on_request(monkeypatch, temperature, direct):
    calls = []

    def spy(*args, **options):
        calls.append(options["temperature"])
        return compute(*args, **options)

    compute = room.adaptive_attention_triton
    monkeypatch.setattr(room, "adaptive_attention_triton", spy)
    monkeypatch.setattr(tempered_attention, "DIRECT", 1 << 24 if direct else 0)
    inputs = tensors(4, 2, 20, 37, 16)
    options = {"causal": True, "softcap": 4.0, "window": 21, "scale": 0.4, "temperature": temperature}
    expected = adaptive_attention(*inputs, **options)
    assert calls == []
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    found = adaptive_attention(*inputs, **options)
    assert calls == [{None: PUBLISHED, Plain(): None}.get(temperature, FITTED)]
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: ((q.requires_grad_(), k, v), {}),
        lambda q, k, v: ((q.double(), k.double(), v.double()), {}),
        lambda q, k, v: ((q, k, v), {"mask": torch.ones(3, 5, dtype=torch.bool, device=DEVICE)}),
        lambda q, k, v: ((q, k, v), {"sinks": torch.ones(2, device=DEVICE)}),
        lambda q, k, v: ((q, k, v), {"temperature": SSMax()}),
    ],
    ids=["gradient", "float64", "mask", "sinks", "normaliser"],
)
def test_adaptive_attention_goes_its_own_way_where_the_kernel_cannot(monkeypatch, change):
    inputs, options = change(*(each.detach().clone() for each in tensors(2, 1, 3, 5, 16)))
    expected = adaptive_attention(*inputs, **options)
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    monkeypatch.setattr(room, "adaptive_attention_triton", None)
    assert torch.equal(adaptive_attention(*inputs, **options), expected)


def test_the_splits_of_decoding_may_be_many_or_one(monkeypatch):
    """Their number is no constant of the kernel: a growing cache must not compile it again and again."""
    inputs = tensors(4, 2, 3, 150, 16)
    usual = agree(inputs, decode=True, causal=True)
    for span, splits in ((32, 5), (96, 2), (160, 1)):
        monkeypatch.setattr(room, "_splits", lambda *_, found=(span, splits): found)
        torch.testing.assert_close(agree(inputs, decode=True, causal=True), usual, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda q, k, v: ((q.requires_grad_(), k, v), {}), "a gradient is needed"),
        (lambda q, k, v: ((q, k, v.requires_grad_()), {}), "a gradient is needed"),
        (lambda q, k, v: ((q.double(), k.double(), v.double()), {}), "torch.float64"),
        (lambda q, k, v: ((q, k.half(), v), {}), "torch.float16, torch.float32"),
        (lambda q, k, v: ((q, k, v), {"mask": torch.ones(3, 5)}), "no mask and no sinks"),
        (lambda q, k, v: ((q, k, v), {"sinks": torch.ones(2)}), "no mask and no sinks"),
        (lambda q, k, v: ((q, k, v), {"temperature": "hot"}), "knows no str"),
        (lambda q, k, v: ((q, k, v), {"temperature": AdaptiveTemperature((1.0,) * 8)}), "more than 7 coefficients"),
        (lambda q, k, v: ((q.new_ones(1, 2, 3, 300), k, v), {}), "more than 256 dimensions"),
    ],
)
def test_what_the_kernel_does_not_take(monkeypatch, change, reason):
    inputs, options = change(*(each.detach().clone() for each in tensors(2, 1, 3, 5, 16)))
    assert not room.available(*inputs, **options)
    assert kernels.implementation(*inputs, **options) == "reference"
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    with pytest.raises(ArgumentError, match=reason):
        kernels.implementation(*inputs, **options)


def test_without_a_gradient_recorded_parameters_are_taken():
    inputs = tensors(2, 1, 3, 5, 16)
    inputs[0].requires_grad_()
    assert not room.available(*inputs)
    with torch.no_grad():
        assert room.available(*inputs)


def test_the_module_imports_without_triton():
    script = (
        "import sys; sys.modules['triton'] = None; import torch\n"
        "from holdfast.nn.kernels import adaptive_attention as a\n"
        "x = torch.randn(1, 1, 3, 16); a.adaptive_attention_twin(x, x, x); print(a.refusal(x, x, x))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "triton is not installed", answer.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [({"softcap": 0.0}, "softcap"), ({"window": 0}, "window")],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ArgumentError, match=message):
        room.adaptive_attention_triton(*tensors(2, 1, 3, 5, 16), **options)
