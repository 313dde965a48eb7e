"""Merged chunks are those of a computation by hand; merging nothing changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Plain
from holdfast.nn.attention import AttentionCall
from holdfast.probes.rat import ChunkCompressibility, MergedLoss, chunk_compressibility
from holdfast.probes.rat.chunks import merged_attention, state_weights
from tests.probes.rat import models

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def call_of(time=23, window=None, softcap=None, sinks=False, mask=None):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, time, 6, dtype=torch.float64, generator=generator) for heads in (4, 2, 2)
    )
    sink = torch.linspace(-1, 1, 4, dtype=torch.float64) if sinks else None
    options = {"causal": mask is None, "window": window, "softcap": softcap, "sinks": sink, "mask": mask}
    return AttentionCall.of(query, key, value, normaliser=Plain(), **options)


def by_hand(call, size, weights, window, sliding=None):
    """One query of one head at a time, from lists of keys and values."""
    output = torch.zeros_like(call.query)
    for batch in range(2):
        for head in range(4):
            k, v = call.key[batch, head // 2], call.value[batch, head // 2]
            for query in range(call.queries):
                keys, values = [], []
                first = 0
                while first + size <= query + 1 - window:  # closed, and none of its tokens is among the last
                    chunk = slice(first, first + size)
                    if weights is not None and (sliding is None or query - (first + size - 1) < sliding):
                        keys.append((weights[:, None] * k[chunk]).sum(0))
                        values.append((weights[:, None] * v[chunk]).sum(0))
                    first += size
                exact = [t for t in range(first, query + 1) if sliding is None or query - t < sliding]
                keys += [k[t] for t in exact]
                values += [v[t] for t in exact]
                z = torch.stack(keys) @ call.query[batch, head, query] * 6**-0.5
                if call.softcap is not None:
                    z = call.softcap * torch.tanh(z / call.softcap)
                if call.sinks is not None:
                    z = torch.cat([z, call.sinks[head, None]])
                output[batch, head, query] = z.softmax(0)[: len(values)] @ torch.stack(values)
    return output


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("window", [1, 6])
@pytest.mark.parametrize("state", ["last", "mean", "ema 0.5", "dropped"])
def test_merged_attention(size, window, state):
    weights = None if state == "dropped" else state_weights(state, size)
    call = call_of()
    torch.testing.assert_close(
        merged_attention(call, size, weights, window), by_hand(call, size, weights, window), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("options", [{"window": 9}, {"softcap": 0.7}, {"sinks": True}])
def test_merged_attention_of_other_kinds(options):
    call, weights = call_of(**options), state_weights("mean", 3)
    expected = by_hand(call, 3, weights, 2, sliding=options.get("window"))
    torch.testing.assert_close(merged_attention(call, 3, weights, 2), expected, rtol=0, atol=1e-12)


def test_masks_and_pieces(monkeypatch):
    weights = state_weights("last", 4)
    expected = by_hand(call_of(), 4, weights, 3)
    visible = torch.ones(23, 23, dtype=torch.bool).tril()
    additive = torch.zeros(23, 23, dtype=torch.float64).masked_fill(~visible, -math.inf)
    monkeypatch.setattr("holdfast.nn.attention.visibility.CHUNK", 8 * 28 * 5)
    for mask in (None, visible, additive):
        torch.testing.assert_close(merged_attention(call_of(mask=mask), 4, weights, 3), expected, rtol=0, atol=1e-12)


def test_a_state_of_one_token_is_that_token():
    call = call_of()
    plain = merged_attention(call, 4, state_weights("last", 4), window=23)
    for state in ("last", "mean", "ema 0.9"):
        merged = merged_attention(call, 1, state_weights(state, 1), window=1)
        torch.testing.assert_close(merged, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        plain, torch.nn.functional.scaled_dot_product_attention(
            call.query, call.key, call.value, is_causal=True, enable_gqa=True
        ), rtol=0, atol=1e-12,
    )  # fmt: skip


def test_weights_of_states():
    assert state_weights("last", 4).tolist() == [0, 0, 0, 1]
    assert state_weights("mean", 4).tolist() == [0.25] * 4
    assert state_weights("ema 0.5", 3).tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7])


@pytest.mark.parametrize("make", [models.llama, models.gemma2, models.gpt_oss, models.gpt2, models.jamba])
def test_merging_nothing_changes_nothing(make):
    ids = models.tokens(60)
    for options in ({"chunk_sizes": (1,), "window": 1}, {"chunk_sizes": (2, 4), "window": 60}):
        found = chunk_compressibility(make(), ids, **options)
        changes = [merged.change for merged in (*found.together, *found.by_layer)]
        assert changes == [0.0] * len(changes)
        assert len(found.together) == 5 * len(options["chunk_sizes"])


@pytest.mark.parametrize("make", [models.llama, models.gemma2, models.gpt_oss])
def test_losses_are_those_of_the_model(make):
    model, ids = make(), models.tokens(60)
    found = chunk_compressibility(model, ids, chunk_sizes=(4,), window=4)
    with torch.no_grad():
        logits = model(ids).logits[:, 29:-1].double()
    by_text = torch.nn.functional.cross_entropy(logits.mT, ids[:, 30:], reduction="none").mean(1)
    assert (found.targets, found.texts, found.tokens) == (30, 2, 60)
    # Float32 through two layers, by two ways to compute attention.
    assert found.loss == pytest.approx(by_text.mean().item(), abs=1e-4)
    assert found.chance == pytest.approx(math.log(97))
    assert all(merged.low <= merged.change <= merged.high for merged in found.together)
    assert len({round(merged.change, 9) for merged in (*found.together, *found.dropped)}) == 6
    assert {merged.layer for merged in found.by_layer} == {0, 1}


def test_one_layer_alone_is_all_of_a_model_of_one_layer():
    found = chunk_compressibility(models.llama(layers=1), models.tokens(40, texts=1), chunk_sizes=(8, 2), window=2)
    assert found.chunk_sizes == (2, 8)
    for size in (2, 8):
        best, alone = found.best(size), found.in_layer(size, 0)
        assert (alone.state, alone.change) == (best.state, best.change)
        assert best.change == min(merged.change for merged in found.together if merged.chunk_size == size)
        assert math.isnan(best.low)  # one text has no interval


def test_a_trained_dependence_on_old_keys_is_seen():
    """Attention that looks for one old token exactly loses it when chunks are merged by their mean."""
    time, size = 32, 8
    key = torch.zeros(1, 1, time, 8, dtype=torch.float64)
    key[0, 0, 3, 0] = 40.0
    value = torch.zeros_like(key)
    value[0, 0, 3, 1] = 1.0
    query = torch.zeros_like(key)
    query[..., 0] = 1.0
    call = AttentionCall.of(query, key, value, causal=True, scale=1.0, normaliser=Plain())
    assert merged_attention(call, size, state_weights("last", size), 32)[0, 0, -1, 1] > 0.999
    assert merged_attention(call, size, state_weights("last", size), 1)[0, 0, -1, 1] == 0
    mean = merged_attention(call, size, state_weights("mean", size), 1)[0, 0, -1, 1]
    # Beside the state that it looks for, the last query sees two others and the eight tokens of its own chunk.
    others = 2 + 8
    assert mean == pytest.approx(math.exp(5) / (math.exp(5) + others) / size)


def compressibility(change, low, high, dropped=1.0, loss=1.0):
    merged = MergedLoss(16, "last", None, change, low, high)
    without = replace(merged, state="dropped", change=dropped)
    return ChunkCompressibility(16, 256, 8, 128, loss, math.log(256), (merged,), (without,), ())


def test_what_follows_is_computed():
    assert "cannot be switched: RAT has to be trained" in compressibility(0.8, 0.7, 0.9).finding
    assert "+0.80 nats a token with chunks of 16 (+1.00 without them)" in compressibility(0.8, 0.7, 0.9).finding
    assert "can be merged as they are" in compressibility(0.01, 0.0, 0.02).finding
    assert "too few to judge" in compressibility(0.06, 0.01, 0.1).finding
    assert "too few to judge" in compressibility(0.8, math.nan, math.nan).finding
    assert "matter so little here" in compressibility(0.02, 0.01, 0.03, dropped=0.03).finding
    assert "does not predict" in compressibility(0.8, 0.7, 0.9, loss=5.5).finding


def test_what_does_not_fit_is_refused():
    model, ids = models.llama(), models.tokens(20)
    for options, message in (
        ({"chunk_sizes": ()}, "chunk_sizes: expected at least one"),
        ({"chunk_sizes": (0,)}, "chunk_sizes: expected a whole number of at least 1, got 0"),
        ({"window": 0}, "window: expected a whole number of at least 1, got 0"),
        ({"gates": (1.0,)}, "gates: expected numbers between 0 and 1, got 1.0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            chunk_compressibility(model, ids, **options)
    for other in (models.bloom(), models.mamba()):
        with pytest.raises(ArgumentError, match="model: expected"):
            chunk_compressibility(other, ids)
