"""Generation through transformers: what is cached changes no token."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from holdfast.errors import ArgumentError
from holdfast.models.language import HoldfastCache, HoldfastForCausalLM
from tests.models.language.tiny import CHUNK, PAD, SCHEDULES, model, padded, rows

NEW = 11
LENGTHS = (2, 9, 14)
"""The first prompt is shorter than a chunk, the last longer than two windows."""

by_schedule = pytest.mark.parametrize("mixers", SCHEDULES.values(), ids=SCHEDULES)
pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning:transformers")


def added(network: HoldfastForCausalLM, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """New tokens."""
    mask = torch.ones_like(ids) if mask is None else mask
    output = network.generate(
        ids, attention_mask=mask, **{"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD, **options}
    )
    return output[:, ids.shape[1] :]


@by_schedule
def test_greedy_tokens_are_the_most_likely_ones(mixers: tuple[str, ...]) -> None:
    network = model(mixers)
    for row in rows(*LENGTHS):
        ids = row[None]
        for token in added(network, ids)[0]:
            assert token == network(ids, use_cache=False).logits[0, -1].argmax()
            ids = torch.cat([ids, token.view(1, 1)], 1)


@by_schedule
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("side", ["left", "middle"])
def test_a_ragged_batch_is_continued_as_its_rows_are(mixers: tuple[str, ...], beams: int, side: str) -> None:
    network, alone = model(mixers), rows(*LENGTHS)
    ids, mask = padded(alone, side)
    if side == "middle":  # transformers goes on from the last column
        ids, mask = ids.roll(1, 1), mask.roll(1, 1)
        alone = [row.roll(1) for row in alone]
        ids, mask, alone = ids[1:], mask[1:], alone[1:]
    together = added(network, ids, mask, num_beams=beams)
    for row, expected in zip(alone, together, strict=True):
        assert added(network, row[None], num_beams=beams)[0].equal(expected)


@by_schedule
def test_beams_are_the_same_without_a_cache(mixers: tuple[str, ...]) -> None:
    network, alone = model(mixers), rows(*LENGTHS)
    ids, mask = padded(alone, "left")
    with_cache = added(network, ids, mask, num_beams=3)
    assert with_cache.equal(added(network, ids, mask, num_beams=3, use_cache=False))
    assert len(set(with_cache.flatten().tolist())) > 3


@by_schedule
def test_other_ways_to_fill_the_cache(mixers: tuple[str, ...]) -> None:
    network, alone = model(mixers), rows(*LENGTHS)
    ids, mask = padded(alone, "left")
    expected = added(network, ids, mask)
    assert added(network, ids, mask, prefill_chunk_size=5).equal(expected)
    assert added(network, ids, mask, cache_implementation="static").equal(expected)
    vectors = network.get_input_embeddings()(ids)
    from_vectors = network.generate(
        inputs_embeds=vectors, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=PAD
    )
    assert from_vectors.equal(expected)


def test_a_static_cache_holds_beams_and_ends() -> None:
    network, alone = model(SCHEDULES["rat+window"]), rows(*LENGTHS)
    ids, mask = padded(alone, "left")
    static = added(network, ids, mask, num_beams=3, cache_implementation="static")
    assert static.equal(added(network, ids, mask, num_beams=3))
    cache = HoldfastCache(limit=10)
    output = network(alone[1][None], past_key_values=cache)
    room = cache.nbytes
    network(alone[0][None, :1], past_key_values=cache)
    assert output.past_key_values is cache
    assert (cache.nbytes, cache.get_max_length()) == (room, 10)
    with pytest.raises(ArgumentError, match="state: expected room for 11 tokens, got a limit of 10"):
        network(alone[0][None, :1], past_key_values=cache)


@by_schedule
def test_a_conversation_goes_on_where_it_was(mixers: tuple[str, ...]) -> None:
    network, first = model(mixers), rows(7)[0][None]
    cache = HoldfastCache()
    whole = network.generate(
        first, attention_mask=torch.ones_like(first), past_key_values=cache, max_new_tokens=5, pad_token_id=PAD
    )
    assert cache.columns == 7 + 5 - 1  # the last token has not been read
    question = torch.cat([whole, rows(6)[0][None]], 1)
    before = copy.deepcopy(cache)
    expected = added(network, question)
    assert added(network, question, past_key_values=cache).equal(expected)
    assert added(network, question, past_key_values=before).equal(expected)


@by_schedule
@torch.no_grad()
def test_beams_are_reordered_inside_a_chunk(mixers: tuple[str, ...]) -> None:
    network = model(mixers)
    prompts = torch.stack(rows(CHUNK + 2, CHUNK + 2, CHUNK + 2))
    index, steps = torch.tensor([2, 0, 0]), torch.stack(rows(3, 3, 3))
    expected = network(torch.cat([prompts[index], steps], 1)).logits[:, -3:]
    cache = network(prompts).past_key_values
    copied = copy.deepcopy(cache)
    cache.reorder_cache(index)
    logits = [network(steps[:, place : place + 1], past_key_values=cache).logits for place in range(3)]
    torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=0, atol=1e-10)
    copied.batch_select_indices(torch.tensor([1]))
    copied.batch_repeat_interleave(2)
    assert (copied.batch_size, copied.columns) == (2, CHUNK + 2)
    again = network(steps[:2], past_key_values=copied).logits
    expected = network(torch.cat([prompts[[1, 1]], steps[:2]], 1)).logits[:, -3:]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-10)
    copied.reset()
    again = network(prompts, past_key_values=copied).logits
    torch.testing.assert_close(again, network(prompts).logits, rtol=0, atol=1e-10)


def test_a_cache_goes_back_where_it_can() -> None:
    ids = rows(2 * CHUNK + 1)[0][None]
    for name, back, possible in [
        ("attention", 3, True),
        ("rat", 1, True),
        ("rat", 2, False),
        ("rat+window", 1, False),
        ("rnn", 1, False),
    ]:
        network = model(SCHEDULES[name])
        cache = network(ids).past_key_values
        assert cache.is_croppable == (name == "attention")
        if not possible:
            with pytest.raises(ArgumentError, match="length: expected 9"):
                cache.crop(-back)
            assert cache.columns == 9
            continue
        cache.crop(-back)
        assert cache.columns == 9 - back
        logits = network(ids[:, 9 - back :], past_key_values=cache).logits
        torch.testing.assert_close(logits, network(ids).logits[:, 9 - back :], rtol=0, atol=1e-10)
    network = model(SCHEDULES["attention"])
    batch, mask = padded(rows(3, 5), "left")
    cache = network(batch, attention_mask=mask).past_key_values
    assert not cache.is_croppable
    cache.crop(0)
    with pytest.raises(ArgumentError, match="tokens_to_remove: expected 0, since rows are padded"):
        cache.crop(-1)


def test_assisted_decoding_is_for_what_can_go_back() -> None:
    ids = rows(9)[0][None]
    network = model(SCHEDULES["attention"])
    expected = added(network, ids)
    assert added(network, ids, prompt_lookup_num_tokens=3, eos_token_id=PAD).equal(expected)
    assert added(network, ids, assistant_model=network, eos_token_id=PAD).equal(expected)
    for name in ("rat", "rat+window", "rnn"):
        with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
            added(model(SCHEDULES[name]), ids, prompt_lookup_num_tokens=3)
    tiny = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ArgumentError, match=r"assistant_model: expected attention layers only, .* got rat, window"):
        LlamaForCausalLM(tiny).generate(ids, assistant_model=model(SCHEDULES["rat+window"]), max_new_tokens=3)


def test_drawn_tokens_follow_the_seed() -> None:
    network, ids = model(SCHEDULES["rat+window"]), rows(5)[0][None]
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(added(network, ids, do_sample=True, temperature=2.0, top_p=0.9))
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_other_caches_are_refused() -> None:
    network, ids = model(SCHEDULES["rat"]), rows(5)[0][None]
    with pytest.raises(ArgumentError, match="past_key_values: expected a HoldfastCache or None, got DynamicCache"):
        added(network, ids, past_key_values=DynamicCache())
    for kind in ("offloaded", "quantized"):
        with pytest.raises(ArgumentError, match=f"cache_implementation: expected dynamic or static, got {kind}"):
            added(network, ids, cache_implementation=kind)
    with pytest.raises(ArgumentError, match="a model of Holdfast"):
        HoldfastCache().update(ids, ids, 0)
    assert not HoldfastCache().is_compileable
    assert "columns=0" in repr(HoldfastCache())
