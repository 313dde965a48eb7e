"""Attention on CUDA by PyTorch's own: the plain form's numbers.

On a GPU as it is. Elsewhere with the fused kernel of a CPU in the place of the operator that hands out the logarithm of
a row's sum; what reaches that operator is then seen with fake tensors, which have a device and no numbers.
"""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.nn import (
    Adaptive,
    AdaptiveTemperature,
    Entmax,
    Llama4,
    LogN,
    Plain,
    SSMax,
    adaptive_attention,
    attention_weights,
)
from holdfast.nn.attention import AttentionCall, kernel, plain, scaled
from holdfast.nn.attention.attention import WAYS
from holdfast.nn.attention.call import Declined
from holdfast.nn.normalisers import FactorNormaliser
from tests.nn.rounding import attention_rounding, combined, rounded_to

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")

gpu = pytest.mark.gpu  # on a CUDA device where there is one, with the operator of a CPU elsewhere

SHAPES = [  # batch, heads, kv heads, queries, keys, dim, value dim
    (2, 4, 4, 65, 65, 8, 8),
    (1, 6, 2, 131, 131, 16, 16),
    (1, 4, 1, 31, 77, 24, 24),
    (2, 6, 3, 70, 33, 8, 8),
    (1, 4, 2, 1, 50, 8, 8),
    (1, 1, 1, 16, 16, 64, 64),
]
FITTED = AdaptiveTemperature((0.5, 1.0), entropy_range=(0.5, 4.0))


class Learned(FactorNormaliser):
    """SSMax with a learned scale for each head."""

    def __init__(self, heads: int) -> None:
        self.scale = torch.linspace(0.2, 0.6, heads, dtype=torch.float64, device=DEVICE).requires_grad_()

    def factor(self, entropy, visible, position):
        return self.scale[:, None, None] * visible.to(entropy.dtype).log()


NORMALISERS = {
    "plain": lambda heads: Plain(),
    "log-n": lambda heads: LogN(4),
    "ssmax": lambda heads: SSMax(tuple(0.1 * head for head in range(heads))),
    "learned": Learned,
    "llama4": lambda heads: Llama4(0.5, 16.0),
    "adaptive": lambda heads: Adaptive(),
    "fitted": lambda heads: Adaptive(FITTED),
}


def tensors(shape, dtype=torch.float32):
    batch, heads, kv_heads, queries, keys, dim, value_dim = shape
    generator = torch.Generator().manual_seed(queries * 1009 + keys * 31 + dim)
    sizes = ((heads, queries, dim), (kv_heads, keys, dim), (kv_heads, keys, value_dim))
    q, k, v = (torch.randn(batch, *size, generator=generator, dtype=torch.float64) for size in sizes)
    return [tensor.to(DEVICE, dtype) for tensor in (2 * q, k, v)]


def by_cpu(query, key, value, causal):
    """What `scaled.log_sum` returns, by the fused kernel of a CPU."""
    return kernel.Fused(query, key, value, causal=causal).forward()


@pytest.fixture
def operators(monkeypatch):
    """Those of a CPU where there is no GPU."""
    if DEVICE == "cpu":
        monkeypatch.setattr(scaled, "log_sum", by_cpu)
        monkeypatch.setattr(scaled, "fused_kernels", lambda query, key, value, causal: (True, True))


def exact(q, k, v, normaliser, **options):
    """The plain form in float64, on the same numbers."""
    wide = [tensor.double() for tensor in (q, k, v)]
    weights = attention_weights(*wide[:2], normaliser=normaliser, **options)
    return weights @ wide[2].repeat_interleave(q.shape[1] // k.shape[1], dim=1)


def computed(q, k, v, normaliser, **options):
    call = AttentionCall.of(q, k, v, normaliser=normaliser, **options)
    assert scaled.unfit(call) is None
    return scaled.compute(call)


@gpu
@pytest.mark.parametrize("scale", [0.4, -0.7, 0.0], ids=str)
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_the_plain_form(shape, causal, normaliser, scale, operators, monkeypatch):
    monkeypatch.setattr(scaled, "FEW", 0)
    if causal and shape[3] not in (1, shape[4]):
        shape = (*shape[:4], shape[3], *shape[5:])
    inputs = [tensor.requires_grad_() for tensor in tensors(shape)]
    factor = NORMALISERS[normaliser](shape[1])
    wanted = [*inputs, *([factor.scale] if isinstance(factor, Learned) else [])]
    results = []
    for attend in (computed, exact):
        output = attend(*inputs, factor, causal=causal, scale=scale)
        results.append([output, *torch.autograd.grad(output.double().sin().sum(), wanted)])
    allowed = attention_rounding(*inputs[:2], scale=max(abs(scale), 0.1), size=100.0)
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), expected.double(), **allowed)


@gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_entropy_is_that_of_the_weights(dtype, groups, causal, operators):
    """To the digits of float32, with logits far from zero, where the sums that it is the difference of are large."""
    q, k, v = tensors((2, 3 * groups, 3, 300, 300, 32, 32), dtype)
    k = k + 3.0
    call = AttentionCall.of(q, k, v, causal=causal)
    entropy = scaled._entropy(call, causal).squeeze(-1)
    assert entropy.dtype == torch.float32
    weights = attention_weights(q.double(), k.double(), causal=causal, normaliser=Plain())
    expected = torch.special.entr(weights).sum(-1)
    torch.testing.assert_close(entropy.double(), expected, **attention_rounding(q.float(), k.float(), size=1.0))
    assert bool((entropy >= 0).all())


@gpu
@pytest.mark.parametrize("normaliser", ["plain", "log-n", "adaptive"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision_the_scaled_query_is_rounded_and_no_statistic(dtype, causal, normaliser, operators):
    q, k, v = tensors((1, 6, 2, 200, 200, 32, 32), dtype)
    factor = NORMALISERS[normaliser](6)
    output = computed(q, k, v, factor, causal=causal)
    assert output.dtype == dtype
    weights = attention_weights(q.double(), k.double(), causal=causal, normaliser=Plain())
    position = torch.arange(200, device=DEVICE).unsqueeze(1)
    entropy = torch.special.entr(weights).sum(-1, keepdim=True)
    beta = factor.factor(entropy, position + 1 if causal else torch.full_like(position, 200), position)
    rounded = (q.double() * (beta * 32**-0.5)).to(dtype) if normaliser != "plain" else q.double() * 32**-0.5
    expected = exact(rounded, k, v, Plain(), causal=causal, scale=1.0)
    # A kernel rounds weights to the dtype too, and a query may be rounded to the next number.
    allowed = combined(rounded_to(dtype, 4.0), rounded_to(dtype, 4.0))
    torch.testing.assert_close(output.double(), expected, **allowed)


@gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="the kernel of a CPU wants finite numbers")
@pytest.mark.parametrize("normaliser", [Plain(), Adaptive()], ids=str)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_in_a_query_or_a_key_stays_in_the_rows_that_see_it(poison, normaliser):
    q, k, v = tensors((1, 4, 2, 70, 70, 8, 8))
    clean = computed(q, k, v, normaliser, causal=True)
    q[0, 3, 20], k[0, 0, 50] = math.nan, poison
    output = computed(q, k, v, normaliser, causal=True)
    assert output[0, 3, 20].isnan().all()
    assert bool(output[0, :2, 50:].isnan().any())
    output[0, 3, 20] = clean[0, 3, 20]
    torch.testing.assert_close(output[:, :2, :50], clean[:, :2, :50], **attention_rounding(q[:, :, :20], v))
    torch.testing.assert_close(output[:, 2:], clean[:, 2:], **attention_rounding(q[:, :, :20], v))


def test_the_pass_for_the_entropy_gives_hidden_keys_no_say(monkeypatch):
    """Keys that stand in the place of values are finite: a weight of 0 does not undo NaN."""
    seen = []

    def spy(query, key, value, causal):
        seen.append((key, value))
        return by_cpu(query, value, value, causal)

    monkeypatch.setattr(scaled, "log_sum", spy)
    q, k, v = (tensor.cpu() for tensor in tensors((1, 2, 1, 20, 20, 8, 8)))
    k[0, 0, 15] = math.nan
    for causal in (True, False):
        scaled._entropy(AttentionCall.of(q, k, v, causal=causal), causal)
    assert seen[0][0].isnan().any()
    assert seen[0][1].isfinite().all()
    assert not seen[0][1][:, :, 15].any()
    assert seen[1][0] is seen[1][1]


def call_of(shape=(1, 4, 2, 64, 64, 8, 8), dtype=torch.float32, *, gradient=False, **options):
    q, k, v = tensors(shape, dtype)
    return AttentionCall.of(q.requires_grad_(gradient), k, v, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": torch.float64}, "float64"),
        ({"mask": torch.ones(64, 64, dtype=torch.bool, device=DEVICE)}, "only causality"),
        ({"mask": torch.zeros(64, 64, device=DEVICE)}, "only causality"),
        ({"window": 3, "causal": True}, "only causality"),
        ({"softcap": 2.0}, "no softcap"),
        ({"sinks": torch.zeros(4, device=DEVICE)}, "no sink"),
        ({"shape": (1, 4, 2, 63, 64, 8, 8), "causal": True}, "as many queries as keys"),
        ({"shape": (1, 4, 2, 64, 63, 8, 8), "causal": True}, "as many queries as keys"),
        ({"normaliser": Entmax()}, "no factor"),
        ({"gradient": True, "detach": False}, "has a gradient"),
        ({"shape": (1, 4, 2, 1, 64, 8, 8), "causal": True}, "few logits"),
    ],
    ids=str,
)
def test_what_it_does_not_take(options, reason):
    assert reason in scaled.unfit(call_of(**options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"causal": True, "gradient": True},
        {"detach": False},
        {"gradient": True, "detach": False, "normaliser": Plain()},
        {"shape": (1, 4, 2, 1, 64, 8, 8), "causal": True, "normaliser": LogN(4)},
        {"shape": (1, 4, 2, 63, 64, 8, 8)},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_what_it_takes(options):
    assert scaled.unfit(call_of(**options)) is None


def test_few_queries_are_taken_where_their_logits_are_many(monkeypatch):
    monkeypatch.setattr(plain, "MOST", 4 * 64 - 1)
    assert scaled.unfit(call_of((1, 4, 2, 1, 64, 8, 8), causal=True)) is None


def test_a_call_that_is_transformed_is_not_taken():
    reasons = []

    def attend(q, k, v):
        reasons.append(scaled.unfit(AttentionCall.of(q, k, v, causal=True)))
        return q.sum()

    q, k, v = tensors((1, 2, 2, 20, 20, 8, 8))
    torch.func.grad(attend)(q, k, v)
    torch.func.vmap(attend, in_dims=(0, None, None))(q[None], k, v)
    with torch.autograd.forward_ad.dual_level():
        attend(q, k, v)
    assert reasons == ["the call is traced or transformed"] * 3


def test_on_a_cpu_it_is_never_chosen(monkeypatch):
    def chosen(call):
        raise AssertionError

    monkeypatch.setattr(scaled, "compute", chosen)
    for normaliser in (Plain(), LogN(4), Adaptive()):
        for gradient in (False, True):
            q, k, v = (tensor.cpu() for tensor in tensors((1, 4, 2, 64, 64, 8, 8)))
            adaptive_attention(q.requires_grad_(gradient), k, v, causal=True, normaliser=normaliser)


def test_what_pytorch_would_compute_with_all_scores_is_left_to_others(monkeypatch):
    """Groups are tried without before."""
    asked = []

    def none(query, key, value, causal):
        asked.append((query.shape[1], query.shape[2], key.shape[1]))
        return (False, False)

    monkeypatch.setattr(scaled, "fused_kernels", none)
    for causal in (True, False):
        with pytest.raises(Declined):
            scaled.compute(call_of(causal=causal))
    assert asked == [(4, 64, 2), (4, 64, 4), (2, 128, 2)]
    q, k, v = tensors((1, 2, 2, 20, 20, 8, 8))
    with pytest.raises(Declined):
        scaled.log_sum(q, k, v, True)


class Attentions(TorchDispatchMode):
    """Records calls of the operator that hands out the logarithm, and which attentions follow."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is getattr(torch.ops.aten, scaled.FORWARD).default:
            self.calls.append((args, kwargs))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(DEVICE == "cuda", reason="the operator itself runs here")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("takes_groups", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_cuda_it_is_chosen_and_calls_the_operator_as_its_schema_says(dtype, takes_groups, causal, monkeypatch):
    """Fake tensors refuse wrong arguments, and every look at a value, for which a processor would wait."""

    def kernels(query, key, value, causal):
        fit = takes_groups or query.shape[1] == key.shape[1]
        return (fit, fit)

    monkeypatch.setattr(scaled, "fused_kernels", kernels)
    chosen = []
    compute = scaled.compute
    monkeypatch.setattr(scaled, "compute", lambda call: chosen.append(call) or compute(call))
    calls = {}
    with torch.no_grad(), torch._subclasses.FakeTensorMode():
        q, k, v = (
            torch.empty(2, heads, 65, width, device="cuda", dtype=dtype) for heads, width in ((6, 16), (2, 16), (2, 24))
        )
        for name in ("plain", "log-n", "adaptive"):
            with Attentions() as attentions:
                output = adaptive_attention(q, k, v, causal=causal, normaliser=NORMALISERS[name](6))
            assert (output.shape, output.dtype, output.device.type) == ((2, 6, 65, 24), dtype, "cuda")
            calls[name] = attentions.calls
        total = scaled.log_sum(k, k, k, causal)[1]
        assert (total.shape, total.dtype) == ((2, 2, 65), torch.float32)
    assert len(chosen) == 3
    assert [len(calls[name]) for name in ("plain", "log-n", "adaptive")] == [0, 0, 1]
    args, kwargs = calls["adaptive"][0]
    arguments = getattr(torch.ops.aten, scaled.FORWARD).default._schema.arguments
    bound = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    heads, rows = (6, 65) if causal else (2, 195)
    assert bound["query"].shape == (2, heads, rows, 16)
    assert bound["key"].shape == (2, heads, 65, 16)
    assert bound["query"].dtype == bound["key"].dtype == bound["value"].dtype == torch.float32
    assert (bound["compute_log_sumexp"], bound.get("is_causal", False), bound["scale"]) == (True, causal, 1.0)


@gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="there is no accelerator to wait for")
@pytest.mark.parametrize("normaliser", [Plain(), LogN(4), Adaptive()], ids=str)
def test_the_processor_does_not_wait_for_the_accelerator(normaliser):
    inputs = [tensor.requires_grad_() for tensor in tensors((1, 4, 4, 256, 256, 64, 64), torch.bfloat16)]
    for mode in (0, "error"):  # the first time kernels are loaded
        torch.cuda.set_sync_debug_mode(mode)
        try:
            adaptive_attention(*inputs, causal=True, normaliser=normaliser).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode(0)


@gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="PyTorch's kernels are those of a GPU")
@pytest.mark.parametrize("backend", [SDPBackend.MATH, None], ids=str)
def test_on_a_gpu_it_is_what_computes_unless_the_user_forbids_it(backend):
    inputs = [tensor.requires_grad_() for tensor in tensors((1, 4, 2, 256, 256, 64, 64))]
    with Attentions() as attentions, contextlib.ExitStack() as around:
        if backend is not None:
            around.enter_context(sdpa_kernel(backend))
        output = adaptive_attention(*inputs, causal=True)
        gradients = torch.autograd.grad(output.sin().sum(), inputs)
    # Of a fused kernel the operator runs twice in float32: for the entropy, and for the output.
    assert len(attentions.calls) == (0 if backend is not None else 2)
    expected = exact(*inputs, Adaptive(), causal=True)
    allowed = attention_rounding(*inputs[:2], size=100.0)
    for ours, wanted in zip(
        (output, *gradients), (expected, *torch.autograd.grad(expected.sin().sum(), inputs)), strict=True
    ):
        torch.testing.assert_close(ours.double(), wanted.double(), **allowed)


def test_its_place_is_before_the_ways_that_loop():
    names = [way.__name__.rpartition(".")[2] for way in WAYS]
    assert names.index("fused") < names.index("scaled") < names.index("streamed")
