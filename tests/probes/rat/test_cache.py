"""Bytes of the live cache are those of hand arithmetic, and what is predicted from them follows."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.probes.rat import cache_growth, rat_cache_bytes
from holdfast.probes.rat.cache import CacheGrowth, LayerCache
from tests.probes.rat import models

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

KV_HEADS, HEAD_DIM = 2, 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_keys(dtype):
    model = models.llama(layers=3).to(dtype)
    growth = cache_growth(model, models.tokens(96))
    per_token = 2 * KV_HEADS * HEAD_DIM * dtype.itemsize
    assert growth.lengths == (12, 24, 48, 96)
    assert [layer.layer for layer in growth.layers] == [0, 1, 2]
    for layer in growth.layers:
        assert layer.sizes == tuple(per_token * n for n in growth.lengths)
        assert (layer.per_token, layer.most) == (per_token, None)
    assert growth.per_token == 3 * per_token
    # Weights: tokens and logits; in each layer q, o, k, v, three of the feed-forward and two norms; a last norm.
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert growth.weights == (2 * 97 * 32 + 3 * layer + 32) * dtype.itemsize + buffers
    assert growth.outweighs == math.ceil(growth.weights / growth.per_token)
    # Four heads share two: RAT with chunks of 16 has states of all four, so that it saves 8 times and not 16.
    assert growth.saving == 8
    assert growth.multi_head(1000) == 2 * growth.at(1000)
    assert growth.rat(96) == 3 * (2 * 6 * 32 * dtype.itemsize + 2 * 32 * 4)


def test_sliding_windows_stop_growing():
    growth = cache_growth(models.mistral(), models.tokens(96))
    held = 2 * KV_HEADS * HEAD_DIM * 4
    for layer in growth.layers:
        assert layer.sizes == (12 * held, 15 * held, 15 * held, 15 * held)
        assert (layer.per_token, layer.most) == (0, 16)
    assert growth.growing == ()
    assert growth.outweighs == math.inf
    assert math.isnan(growth.saving)
    assert growth.at(10**6) == 2 * 15 * held
    one, other = cache_growth(models.gemma2(), models.tokens(96)).layers
    assert (one.per_token, one.sizes[-1]) == (0, 15 * held)
    assert (other.per_token, other.sizes[-1]) == (held, 96 * held)


def test_a_window_longer_than_the_text_is_what_the_cache_says():
    growth = cache_growth(models.mistral(window=200), models.tokens(96))
    held = 2 * KV_HEADS * HEAD_DIM * 4
    assert growth.growing == ()
    assert growth.layers[0].per_token == held
    assert growth.at(150) == 2 * 150 * held
    assert growth.at(10**6) == growth.at(200) == 2 * 200 * held


def test_latent_keys_are_what_the_tensors_hold():
    config = transformers.DeepseekV3Config(
        **models.TOKENS, **models.SHAPE, num_key_value_heads=4, num_hidden_layers=2, moe_intermediate_size=16,
        q_lora_rank=None, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
    )  # fmt: skip
    model, ids = models.made(config), models.tokens(40)
    with torch.no_grad():
        kept = model(ids[:1], use_cache=True).past_key_values.layers[0]
    assert cache_growth(model, ids).layers[0].sizes[-1] == kept.keys.nbytes + kept.values.nbytes


def test_recurrent_states_do_not_grow():
    growth = cache_growth(models.mamba(), models.tokens(40))
    # Twice the width: a state of four numbers and a convolution over four tokens for each channel.
    assert [layer.sizes for layer in growth.layers] == [(64 * (4 + 4) * 4,) * 4] * 2
    assert growth.growing == ()
    hybrid = cache_growth(models.jamba(), models.tokens(40))
    assert [layer.per_token for layer in hybrid.layers] == [0, 128, 0, 128]
    state = hybrid.layers[0].sizes[0]
    assert hybrid.rat(160) == 2 * state + 2 * rat_cache_bytes(160, 32, itemsize=4)


def test_states_that_are_not_kept_by_layers():
    config = transformers.RwkvConfig(**models.TOKENS, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
    growth = cache_growth(models.made(config, std=0.1), models.tokens(40))
    assert [(layer.layer, layer.per_token) for layer in growth.layers] == [(None, 0)]
    assert growth.layers[0].sizes == (5 * 32 * 2 * 4,) * 4


def test_what_rat_keeps_at_the_published_shape():
    assert 24 * rat_cache_bytes(4096, 2048) == 50_724_864
    assert rat_cache_bytes(17, 64, chunk_size=16, itemsize=2) == 2 * 2 * 64 * 2 + 2 * 64 * 4


def growth_of(*layers, weights=10**6, width=64):
    return CacheGrowth((10, 20), layers, 2, weights, width, 16)


def test_predictions_between_and_beyond_lengths():
    grouped = LayerCache(0, (10 * 32, 20 * 32), 32.0, None)  # 8 of 64 numbers: an eighth of all heads
    window = LayerCache(1, (1000, 2000), 100.0, 50)
    state = LayerCache(2, (500, 500), 0.0, None)
    growth = growth_of(grouped, window, state)
    assert growth.at(15) == 15 * 32 + 1500 + 500
    assert growth.at(40) == 40 * 32 + 4000 + 500
    assert growth.at(100) == 100 * 32 + 5000 + 500
    assert growth.saving == 2
    assert growth.multi_head(100) == 100 * 256 + 5000 + 500
    assert growth.outweighs == math.ceil((10**6 - 5500) / 32)
    assert growth_of(grouped, window, state, weights=1700).outweighs == 10
    # Keys of 4 numbers for heads of 64 together: RAT's, with chunks of 16, take as much for each token.
    assert growth_of(LayerCache(0, (160, 320), 16.0, None), width=64).saving == 1


def test_lengths_and_models_that_do_not_fit():
    with pytest.raises(ArgumentError, match="lengths: expected two or more, of at most 20 tokens"):
        cache_growth(models.llama(), models.tokens(20), lengths=(10, 21))
    with pytest.raises(ArgumentError, match="lengths: expected two or more"):
        cache_growth(models.llama(), models.tokens(20), lengths=(10,))
    assert cache_growth(models.gpt2(), models.tokens(96)).lengths == (8, 16, 32, 64)
    config = transformers.RecurrentGemmaConfig(
        **models.TOKENS, **models.SHAPE, num_hidden_layers=3, lru_width=32, attention_window_size=16
    )
    with pytest.raises(ArgumentError, match=r"model: expected one that returns a cache .*got RecurrentGemma"):
        cache_growth(models.made(config), models.tokens(20))
