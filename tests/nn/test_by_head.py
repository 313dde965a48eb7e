"""One normaliser a head: as numbers, as parameters, and as a document."""

from __future__ import annotations

import json
import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import (
    RAT,
    Adaptive,
    AdaptiveTemperature,
    ByHead,
    CausalAttention,
    Entmax,
    LearnedScale,
    LogN,
    Plain,
    SSMax,
    adaptive_attention,
    attention_weights,
    document_of,
    normaliser_of,
)
from holdfast.nn.attention import call as calls
from holdfast.nn.attention import checkpointed, fused, plain, visibility
from holdfast.nn.attention.attention import WAYS

LAW = AdaptiveTemperature((1.0, 0.5), entropy_range=(0.0, 4.0), beta_max=3.0)
FOUR = ByHead((Plain(), Adaptive(LAW), LogN(4), SSMax(0.7)))


def drawn(time, heads=4, kv_heads=2, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, h, time, 8, generator=generator, dtype=torch.float64) for h in (heads, kv_heads, kv_heads)
    ]


def of_each_head(query, key, value, normalisers, **options):
    """Head by head, each with its own."""
    groups = query.shape[1] // key.shape[1]
    parts = [
        adaptive_attention(
            query[:, h : h + 1], key[:, h // groups][:, None], value[:, h // groups][:, None], normaliser=one, **options
        )
        for h, one in enumerate(normalisers)
    ]
    return torch.cat(parts, 1)


@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"causal": True, "window": 5}, {"causal": True, "softcap": 2.0}], ids=str
)
@pytest.mark.parametrize("time", [9, 130])
def test_every_head_has_its_own_whichever_way_computes_it(time, options):
    query, key, value = drawn(time)
    expected = of_each_head(query, key, value, FOUR.normalisers, **options)
    call = calls.AttentionCall.of(query, key, value, normaliser=FOUR, **options)
    taken = [way for way in WAYS if way.refusal(call) is None]
    assert taken
    for way in taken:
        torch.testing.assert_close(way.compute(call), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(adaptive_attention(query, key, value, normaliser=FOUR, **options), expected)


def test_gradients_are_those_of_each_head():
    tensors = [tensor.requires_grad_() for tensor in drawn(130)]
    mixed = torch.autograd.grad(adaptive_attention(*tensors, causal=True, normaliser=FOUR).sin().sum(), tensors)
    apart = torch.autograd.grad(of_each_head(*tensors, FOUR.normalisers, causal=True).sin().sum(), tensors)
    for one, other in zip(mixed, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("time", [5, 40, 90])  # by the formula, by the fused kernel, and chunk by chunk
@pytest.mark.parametrize("frozen", [True, False])
def test_the_gradient_of_a_scale_is_that_of_the_formula(time, frozen, monkeypatch):
    query, key, value = drawn(time, batch=1)
    if not frozen:
        query.requires_grad_()
    scale = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64, requires_grad=True)
    softcap = 3.0 if time == 90 else None
    if softcap is not None:
        monkeypatch.setattr(plain, "MOST", 100)
        monkeypatch.setattr(visibility, "CHUNK", 900)
    call = calls.AttentionCall.of(query, key, value, causal=True, softcap=softcap, normaliser=SSMax(scale))
    way = next(way for way in WAYS if way.refusal(call) is None)
    assert way is {5: plain, 40: fused, 90: checkpointed}[time]
    output = adaptive_attention(query, key, value, causal=True, softcap=softcap, normaliser=SSMax(scale))
    weights = attention_weights(query, key, causal=True, softcap=softcap, normaliser=SSMax(scale))
    expected = weights @ value.repeat_interleave(2, 1)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(each.sin().sum(), scale)[0] for each in (output, expected)]
    assert gradients[0].abs().min() > 0
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_documents_bring_back_every_number():
    for one in (FOUR, SSMax((1 / 3, 0.1), learned=True), Adaptive(LAW, detach=False), Entmax(1.3), Plain()):
        assert normaliser_of(json.loads(json.dumps(document_of(one)))) == one
    assert normaliser_of(None) is None
    assert normaliser_of("plain") == Plain()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ByHead(()), "normalisers: expected one a head"),
        (lambda: ByHead((SSMax((0.1, 0.2)),)), "normalisers: expected one a head"),
        (lambda: ByHead((SSMax(learned=True),)), "no learned scale"),
        (lambda: ByHead((Adaptive(), Adaptive(detach=False))), "all with detach or none"),
        (lambda: SSMax(0.0, learned=True), "above 0 where it is learned"),
        (lambda: SSMax(torch.ones(2, 2)), "a tensor of one float a head"),
        (lambda: LearnedScale(SSMax((0.1, 0.2), learned=True), 4), "one for each of 4 heads"),
        (lambda: document_of(SSMax(torch.ones(2))), "whose arguments are numbers"),
        (lambda: normaliser_of({"name": "by-head", "laws": []}), "a dict of the name by-head and of normalisers"),
        (lambda: normaliser_of({"name": "by-tail"}), "None or one of plain"),
        (lambda: adaptive_attention(*drawn(5), normaliser=ByHead((Plain(),) * 3)), "one that is for 4 heads"),
        (lambda: adaptive_attention(*drawn(5), normaliser=SSMax(learned=True)), "a layer that learns the scale"),
    ],
)
def test_what_cannot_work_is_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()


@pytest.mark.parametrize("layer", [CausalAttention, RAT])
def test_a_layer_learns_a_scale_a_head(layer):
    start = SSMax((0.2, 0.3, 0.4, 0.5), learned=True)
    torch.manual_seed(0)
    learned = layer(32, 4, normaliser=start)
    after = torch.random.get_rng_state()
    torch.manual_seed(0)
    fixed = layer(32, 4, normaliser=SSMax(start.scale))
    assert torch.equal(after, torch.random.get_rng_state())
    x = torch.randn(2, 40, 32)
    torch.testing.assert_close(learned(x)[0], fixed(x)[0], rtol=1e-4, atol=1e-6)
    learned(x)[0].square().sum().backward()
    assert learned.scale.log_scale.grad.abs().min() > 0
    before = learned(x)[0]
    with torch.no_grad():
        learned.scale.log_scale += math.log(2)
    assert not torch.allclose(before, learned(x)[0], rtol=0, atol=1e-6)
    assert "scale.log_scale" not in fixed.state_dict()
