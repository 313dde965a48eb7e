"""Attention against the paper's rule worked out by hand: loops over floats that share nothing with the library."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.nn import adaptive_attention, attention_statistics
from holdfast.nn.attention import fused, plain, streamed, visibility
from tests.nn.rounding import attention_rounding

pytestmark = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")


def factor_by_hand(entropy):
    """The published rule, written out."""
    if entropy <= 0.5:
        return 1.0
    value = -0.037 * entropy**4 + 0.481 * entropy**3 - 2.3 * entropy**2 + 4.917 * entropy - 1.791
    return max(1.0, value)


def row_by_hand(logits):
    """Weights, entropy in nats and factor of a row of floats."""
    top = max(logits)
    share = [math.exp(z - top) for z in logits]
    p = [each / math.fsum(share) for each in share]
    entropy = -math.fsum(each * math.log(each) for each in p if each > 0)
    factor = factor_by_hand(entropy)
    share = [math.exp(factor * (z - top)) for z in logits]
    return [each / math.fsum(share) for each in share], entropy, factor


def by_hand(query, key, value, *, mask=None, causal=False, scale=None, softcap=None, window=None, sinks=None):
    """Output, entropies and factors, one row after the other in Python's floats."""
    batch, heads, queries, dim = query.shape
    kv_heads, keys, value_dim = key.shape[1], key.shape[2], value.shape[3]
    q, k, v = (each.double().tolist() for each in (query, key, value))
    if mask is not None:
        lowest = -math.inf if mask.dtype == torch.bool else torch.finfo(mask.dtype).min / 2
        table = mask.broadcast_to(batch, heads, queries, keys).tolist()
    output = torch.zeros(batch, heads, queries, value_dim, dtype=torch.float64)
    entropies, factors = [], []
    for b in range(batch):
        for h in range(heads):
            g = h * kv_heads // heads
            for i in range(queries):
                place = i + keys - queries
                logits, seen = [], []
                for j in range(keys):
                    if causal and j > place:
                        continue
                    if window is not None and abs(j - place) >= window:
                        continue
                    if mask is not None and (table[b][h][i][j] is False or table[b][h][i][j] <= lowest):
                        continue
                    z = sum(a * c for a, c in zip(q[b][h][i], k[b][g][j], strict=True))
                    z *= 1 / math.sqrt(dim) if scale is None else scale
                    if softcap is not None:
                        z = softcap * math.tanh(z / softcap)
                    if mask is not None and mask.dtype != torch.bool:
                        z += table[b][h][i][j]
                    logits.append(z)
                    seen.append(j)
                if sinks is not None:
                    logits.append(sinks[h].item())
                if not logits:
                    entropies.append(0.0)
                    continue
                weights, entropy, factor = row_by_hand(logits)
                entropies.append(entropy)
                factors.append(factor)
                for j, weight in zip(seen, weights[: len(seen)], strict=True):
                    for d in range(value_dim):
                        output[b, h, i, d] += weight * v[b][g][j][d]
    return output, torch.tensor(entropies, dtype=torch.float64).view(batch, heads, queries), factors


SHAPES = {  # batch, heads, kv heads, queries, keys, dim, value dim
    "one row": (1, 2, 1, 1, 13, 5, 3),
    "square": (2, 4, 2, 7, 7, 3, 4),
    "more keys": (1, 6, 3, 5, 17, 4, 5),
    "more queries": (1, 2, 2, 6, 4, 8, 3),
}
OPTIONS = {
    "nothing": {},
    "causal": {"causal": True},
    "bool": {"mask": "bool"},
    "additive": {"mask": "additive"},
    "lowest, one row for all": {"mask": "lowest"},
    "one column for all": {"mask": "column"},
    "window": {"window": 3},
    "softcap": {"softcap": 1.3},
    "sinks": {"sinks": True},
    "scale": {"scale": 0.37},
    "causal, window, bool": {"causal": True, "window": 4, "mask": "bool"},
    "everything": {
        "causal": True, "window": 6, "mask": "additive", "softcap": 2.0, "sinks": True, "scale": 0.9,
    },
}  # fmt: skip
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def arguments(shape, options, dtype):
    batch, heads, kv_heads, queries, keys, dim, value_dim = shape
    torch.manual_seed(keys)
    query = (1.5 * torch.randn(batch, heads, queries, dim)).to(dtype)
    key = torch.randn(batch, kv_heads, keys, dim).to(dtype)
    value = torch.randn(batch, kv_heads, keys, value_dim).to(dtype)
    settled = dict(options)
    visible = torch.rand(batch, 1, queries, keys) < 0.7
    kind = options.get("mask")
    if kind == "bool":
        settled["mask"] = visible
    elif kind == "additive":
        bias = torch.randn(heads, queries, keys).to(dtype)
        settled["mask"] = bias.masked_fill(~visible, -math.inf)
    elif kind == "lowest":
        settled["mask"] = torch.zeros(keys, dtype=dtype).masked_fill(~visible[0, 0, 0], torch.finfo(dtype).min)
    elif kind == "column":
        settled["mask"] = torch.arange(queries)[:, None] != 1
    if options.get("sinks"):
        settled["sinks"] = torch.linspace(-1, 1, heads).to(dtype)
    return (query, key, value), settled


@pytest.fixture(params=["direct", "fused", "chunks", "chunks with a gradient"])
def path(request, monkeypatch):
    """Which of its ways the attention goes; what the fused kernel cannot do goes in chunks there."""
    monkeypatch.setattr(fused, "FEWEST", 1 if request.param == "fused" else 1 << 40)
    monkeypatch.setattr(streamed, "FEWEST", 1 << 40 if request.param == "direct" else 0)
    if request.param != "direct":
        monkeypatch.setattr(plain, "MOST", 0)
        monkeypatch.setattr(visibility, "CHUNK", 24)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_what_the_rule_says(shape, options, dtype, path):
    inputs, settled = arguments(SHAPES[shape], OPTIONS[options], dtype)
    expected, _, _ = by_hand(*inputs, **settled)
    if path == "chunks with a gradient":
        inputs[0].requires_grad_()
    found = adaptive_attention(*inputs, **settled)
    assert found.dtype == dtype
    assert found.requires_grad == (path == "chunks with a gradient")
    torch.testing.assert_close(found.double(), expected, **attention_rounding(*inputs[:2], scale=settled.get("scale")))


@pytest.mark.parametrize("chunk", [24, 1 << 21])
@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_are_what_the_rule_says(shape, options, block, chunk, monkeypatch):
    monkeypatch.setattr(visibility, "CHUNK", chunk)
    (query, key, value), settled = arguments(SHAPES[shape], OPTIONS[options], torch.float64)
    found = attention_statistics(query, key, block=block, **settled)
    torch.testing.assert_close(
        found.entropy, by_hand(query, key, value, **settled)[1], **attention_rounding(query, key)
    )


@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_long_rows_beyond_the_laws_reach_stay_as_they_are(spread, path):
    """450 keys of nearly the same logit have more than 5.94 nats; with a spread they have less, and are sharpened."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, n, 3, dtype=torch.float64) for n in (2, 450, 450))
    query *= spread
    expected, _, factors = by_hand(query, key, value)
    assert [factor == 1.0 for factor in factors] == [spread < 1] * 2
    query.requires_grad_(path == "chunks with a gradient")
    torch.testing.assert_close(adaptive_attention(query, key, value), expected, **attention_rounding(query, key))


def test_the_cases_reach_both_sides_of_the_rule():
    """Rows that are sharpened and rows that are left alone, so that neither side goes untested."""
    factors = []
    for shape in SHAPES.values():
        inputs, settled = arguments(shape, {"causal": True}, torch.float64)
        factors += by_hand(*inputs, **settled)[2]
    assert sum(factor > 1.2 for factor in factors) > 20
    assert sum(factor == 1 for factor in factors) > 20


def test_the_hand_meets_the_published_example():
    weights, entropy, factor = row_by_hand([0.0, 1.0, 2.0, 3.0])
    assert entropy == pytest.approx(0.9475369640, abs=1e-9)
    assert factor == pytest.approx(1.1824114138, abs=1e-9)
    assert weights == pytest.approx([0.0201525346, 0.0657422296, 0.2144663600, 0.6996388758], abs=1e-9)
