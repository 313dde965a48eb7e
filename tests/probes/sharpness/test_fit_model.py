"""A model's own logits are those that its attention computes, and laws fitted to them are the laws of its heads."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Adaptive, FitError, Plain, entropy_of, fit_temperature

transformers = pytest.importorskip("transformers")

from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM  # noqa: E402
from holdfast.nn.huggingface import set_normalisers  # noqa: E402
from holdfast.probes.sharpness import fit_model_temperature, model_logits, probe_model_sharpness  # noqa: E402
from tests.probes.sharpness.test_of_model import llama, tokens  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PATHS = [f"model.layers.{layer}.self_attn" for layer in range(3)]


def batches():
    ids = tokens(time=128, batch=8)
    return [ids[:3], {"input_ids": ids[3:]}]


def test_rows_are_those_of_the_models_own_attention():
    model, ids = llama("eager").eval(), tokens(time=20, batch=4)
    logits = model_logits(model, [ids], reference=8, rows=4)
    assert list(logits) == PATHS
    weights = model(ids, output_attentions=True).attentions
    for path, own in zip(PATHS, weights, strict=True):
        assert [list(head) for head in logits[path]] == [[8, 16, 32]] * 4
        for head in range(4):
            for size, queries in ((8, range(6, 8)), (16, range(8, 16)), (32, range(16, 20))):
                rows = logits[path][head][size]
                assert rows.shape == (4, size)
                for place, row in enumerate(rows.softmax(-1)):  # one row a sequence, in their order
                    known = own[place, head, list(queries)].sort(-1, descending=True).values
                    width = min(size, 20)
                    gap = (known[:, :width] - row[:width]).abs().amax(-1).min()
                    assert gap < 1e-5
                    assert row[width:].sum() == 0


def test_what_is_padding_or_not_seen_is_left_out():
    model, ids = llama().eval(), tokens(time=24, batch=4)
    alone = model_logits(model, [ids], reference=8, rows=16)
    padded = torch.nn.functional.pad(ids, (7, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (7, 0))
    position = (mask.cumsum(1) - 1).clamp(min=0)
    given = {"input_ids": padded, "attention_mask": mask, "position_ids": position}
    found = model_logits(model, [given], reference=8, rows=16)
    for path in PATHS:
        for one, other in zip(alone[path], found[path], strict=True):
            assert one.keys() == other.keys()
            for size in one:
                torch.testing.assert_close(one[size], other[size], rtol=1e-4, atol=1e-4)


def test_rows_that_are_kept_back_are_of_other_sequences():
    model = llama().eval()
    ids = tokens(time=64, batch=8)
    changed = ids.clone()
    changed[3::4] = changed[3::4].flip(1)
    for one, other in zip(
        *(model_logits(model, [given], reference=16)[PATHS[0]] for given in (ids, changed)), strict=True
    ):
        for size in one:
            same = (one[size] == other[size]).all(1)
            held = torch.arange(len(same)) % 4 == 3
            assert torch.equal(same, ~held)


def test_every_head_has_the_law_of_its_own_rows(tmp_path):
    model = llama().eval()
    fit = fit_model_temperature(model, batches(), reference=16)
    logits = model_logits(model, batches(), reference=16)
    assert fit.heads == 12
    assert fit.fitted > 6
    assert str(fit).startswith(f"{fit.fitted} of 12 heads have a law")
    for path in PATHS:
        for law, refusal, rows, one in zip(
            fit.laws[path], fit.refusals[path], logits[path], fit.normalisers[path].normalisers, strict=True
        ):
            if law is None:
                with pytest.raises(FitError, match=refusal.partition(":")[0]):
                    fit_temperature(rows, reference=16)
                assert one == Plain()
            else:
                assert law == fit_temperature(rows, reference=16)
                assert one == Adaptive(law)
    fresh = tokens(time=128, batch=3)
    before = probe_model_sharpness(model, fresh).own.entropy_share
    set_normalisers(model, fit.normalisers)
    answer = model(fresh).logits
    model.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.model.layers[2].self_attn.holdfast_normaliser == fit.normalisers[PATHS[2]]
    assert torch.equal(read(fresh).logits, answer)
    sharper = probe_model_sharpness(read, fresh, normalisers={"plain": Plain()})
    assert sharper.remedies[0].entropy_share == pytest.approx(before, abs=1e-2)  # with the softmax it is as it was


def test_heads_of_a_layer_share_a_law():
    model = llama().eval()
    fit = fit_model_temperature(model, batches(), reference=16, by="layer")
    logits = model_logits(model, batches(), reference=16)
    for path, laws in fit.laws.items():
        assert laws[0] is not None
        assert set(laws) == {laws[0]}
        pooled = {size: torch.cat([head[size] for head in logits[path]]) for size in logits[path][0]}
        assert laws[0] == fit_temperature(pooled, reference=16)


def test_a_window_or_a_sink_is_taken_as_it_is():
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=5,
        max_position_embeddings=4096,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 or "sinks" in name:
                weight.normal_(std=3.0 if "sinks" in name else 0.25)
    ids = tokens(time=40, batch=4)
    windowed, full = (model_logits(model, [ids], reference=16)[path] for path in PATHS[:2])
    assert windowed == ({},) * 4
    assert [list(head) for head in full] == [[17, 33, 65]] * 4  # the sink is one more
    sinks = model.model.layers[1].self_attn.sinks
    for head, sink in zip(full, sinks, strict=True):
        assert all((rows == sink).any(1).all() for rows in head.values())
    fit = fit_model_temperature(model, [tokens(time=128, batch=8)], reference=16, by="layer")
    assert fit.laws[PATHS[0]] == (None,) * 4
    assert fit.refusals[PATHS[0]][0].startswith("range: expected rows that see about 16 keys")


def test_the_model_is_left_as_it_was():
    model = llama().train()
    model.model.layers[0].self_attn.attention_dropout = 0.5
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    given, state = batches(), torch.random.get_rng_state()
    one, two = (model_logits(model, given, reference=16) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x[64], y[64]) for p in PATHS for x, y in zip(one[p], two[p], strict=True))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())
    assert "holdfast_probe" not in transformers.AttentionInterface._global_mapping


def test_what_cannot_be_fitted_is_refused():
    model = llama().eval()
    with pytest.raises(ArgumentError, match="at least 4 sequences"):
        model_logits(model, [tokens(batch=3)], reference=16)
    with pytest.raises(ArgumentError, match="reference: expected a whole number of at least 2"):
        model_logits(model, [tokens(batch=4)], reference=1)
    with pytest.raises(ArgumentError, match="tensors of token numbers, or dicts"):
        model_logits(model, ["a text"], reference=16)
    with pytest.raises(FitError, match="0 of 12 heads have a law; 12 keep the softmax: range"):
        fit_model_temperature(model, batches(), reference=128)
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=4))
    own = HoldfastForCausalLM(HoldfastConfig(mixers=["attention"], vocab_size=97, hidden_size=8, num_attention_heads=2))
    for other in (bloom, own):
        with pytest.raises(ArgumentError, match="asks transformers"):
            fit_model_temperature(other, batches(), reference=16)


def test_absent_keys_have_no_weight():
    rows = torch.randn(5, 12)
    wider = torch.nn.functional.pad(rows, (0, 20), value=-1e30)
    torch.testing.assert_close(entropy_of(wider), entropy_of(rows), rtol=0, atol=1e-6)
