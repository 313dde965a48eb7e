"""The probe of whole models says what a direct computation says, and leaves the model as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Adaptive, AdaptiveTemperature, Entmax, Hard, Plain, SSMax, entropy_of
from holdfast.nn.attention import AttentionCall
from holdfast.nn.huggingface import register, unregister
from holdfast.probes.sharpness import probe_model_sharpness
from holdfast.probes.sharpness.listening import MeasuredCall
from tests.command_line import ask

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def llama(implementation="sdpa", std=0.25):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=std)
    return model


def tokens(time=130, batch=2):
    torch.manual_seed(1)
    return torch.randint(3, 97, (batch, time))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_numbers_are_those_of_a_direct_computation(implementation):
    ids = tokens()
    report = probe_model_sharpness(llama(implementation), ids)
    assert len(report.heads) == 12
    with torch.no_grad():
        attentions = llama("eager").eval()(ids, output_attentions=True).attentions
    visible = torch.arange(1, 131).double()
    for found in report.heads:
        weights = attentions[found.layer][:, found.head].double()[:, 1:]
        entropy = torch.special.entr(weights).sum(-1)
        assert found.rows == 2 * 129
        assert found.nan_rows == 0
        assert found.entropy == pytest.approx(entropy.mean().item(), abs=1e-4)
        assert found.entropy_share == pytest.approx((entropy / visible[1:].log()).mean().item(), abs=1e-4)
        assert found.largest == pytest.approx(weights.amax(-1).mean().item(), abs=1e-4)
        lower = weights.masked_fill(weights == 0, math.inf).amin(-1)
        spread = (weights.amax(-1).log() - lower.log()).clamp(max=60)
        assert found.spread == pytest.approx(spread.mean().item(), rel=2e-2)
        assert found.slack >= 1
        assert found.below + found.acting + found.above == pytest.approx(1)


def test_the_model_is_left_as_it_was():
    model = llama().train()
    model.requires_grad_(True)
    model.model.layers[1].eval()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    ids = tokens(20)
    state = torch.get_rng_state()
    probe_model_sharpness(model, ids)
    assert model.training
    assert not model.model.layers[1].training
    assert not model.model.layers[1].self_attn.training
    assert model.model.layers[2].self_attn.training
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert "holdfast_probe" not in transformers.AttentionInterface._global_mapping


def test_padding_is_left_out():
    ids = tokens(40, batch=1)
    padded = torch.cat([torch.zeros(1, 7, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(47) >= 7).long()[None]
    alone = probe_model_sharpness(llama(), ids)
    found = probe_model_sharpness(llama(), padded, mask)
    for one, other in zip(alone.heads, found.heads, strict=True):
        assert other.rows == one.rows
        assert other.entropy == pytest.approx(one.entropy, abs=1e-3)


def test_uniform_attention_has_slope_one_and_sharp_attention_does_not():
    flat = probe_model_sharpness(llama(std=1e-4), tokens(300))
    assert all(head.slope == pytest.approx(1, abs=1e-3) for head in flat.heads)
    assert all(head.entropy_share == pytest.approx(1, abs=1e-3) for head in flat.heads)
    assert len(flat.violations(0.99)) == 12
    sharp = probe_model_sharpness(llama(std=1.0), tokens(300))
    assert min(head.entropy_share for head in sharp.heads) < 0.5
    assert sharp.violations(0.0)[0].entropy_share == max(head.entropy_share for head in sharp.heads)


def test_the_reach_of_another_law():
    law = AdaptiveTemperature((2.0,))
    report = probe_model_sharpness(llama(), tokens(40), temperature=law)
    assert report.interval == (0.5, math.inf)
    assert all(head.above == 0 for head in report.heads)


def test_gpt2_and_nan():
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert len(probe_model_sharpness(model, tokens(30)).heads) == 8
    broken = llama()
    with torch.no_grad():
        broken.model.embed_tokens.weight[5] = math.nan
    ids = tokens(30)
    ids[ids == 5] = 6
    ids[0, 20] = 5
    report = probe_model_sharpness(broken, ids)
    assert all(head.nan_rows == 10 for head in report.heads if head.layer == 0)
    # From there on the model's own attention spreads it to the rows before: a hidden value of NaN times zero.
    assert all(head.nan_rows == 29 for head in report.heads if head.layer > 0)
    assert "rows with NaN were left out" in str(report)


def test_what_cannot_be_probed_is_refused():
    with pytest.raises(ArgumentError, match="input_ids"):
        probe_model_sharpness(llama(), tokens(1))
    with pytest.raises(ArgumentError, match="model"):
        probe_model_sharpness(torch.nn.Linear(2, 2), tokens(5))


def test_the_command_line(tmp_path: Path):
    llama().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("A text of some length. " * 20, encoding="utf-8")
    words = ("probe", "sharpness", "model")
    status, out, err = ask(*words, "--length", "64", "--plot", "map.png", cwd=tmp_path)
    assert status == 0, err
    assert "12 heads at 64 tokens" in out
    assert "random tokens" in err
    assert (tmp_path / "map.png").stat().st_size > 3000
    status, out, err = ask(*words, "--text", "text.txt", "--length", "100", "--json", cwd=tmp_path)
    assert status == 0, err
    found = json.loads(out)
    assert len(found["heads"]) == 12
    assert found["length"] == 100
    assert "bytes of text.txt" in err
    assert ask(*words, "--length", "64", "--fail-above", "1.01", cwd=tmp_path)[0] == 0
    status, _, err = ask(*words, "--length", "64", "--fail-above", "0.1", cwd=tmp_path)
    assert status == 1
    assert "12 heads have a mean H / ln n above 0.1" in err
    status, out, err = ask(*words, "--length", "520", "--json", cwd=tmp_path)
    assert status == 0, err
    assert (json.loads(out)["length"], json.loads(out)["made_for"]) == (520, 512)
    status, _, err = ask(*words, "--text", "none.txt", cwd=tmp_path)
    assert status == 2
    assert "--text: expected a file of text" in err


def gpt_oss(std=0.25):
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=16,
        pad_token_id=0,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 or "sinks" in name:
                weight.normal_(std=std)
    return model


def test_a_sink_is_part_of_the_distribution():
    ids, plain, parked = tokens(40, batch=1), gpt_oss(), gpt_oss()
    with torch.no_grad():
        for layer in plain.model.layers:
            layer.self_attn.sinks.fill_(-50.0)
        for layer in parked.model.layers:
            layer.self_attn.sinks.fill_(50.0)
    without, within = probe_model_sharpness(plain, ids).heads, probe_model_sharpness(parked, ids).heads
    assert min(head.entropy_share for head in without) > 0.1
    assert max(head.entropy for head in within) < 1e-6
    assert min(head.largest for head in within) == pytest.approx(1)
    # Spreads are those of the keys, which the sink of the first layer does not change.
    for one, other in zip(without[:4], within[:4], strict=True):
        assert one.spread == pytest.approx(other.spread, rel=1e-5)
        assert min(one.slack, other.slack) >= 1
    # By hand, with a sink that takes some of the weight.
    model = gpt_oss()
    found = probe_model_sharpness(model, ids).heads
    with torch.no_grad():
        weights = model.eval()(ids, output_attentions=True).attentions[0][0].double()
    sink = 1 - weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(torch.cat([weights, sink.clamp(min=0)], dim=-1)).sum(-1)[:, 1:]
    assert sink.mean() > 0.01
    for head in found[:4]:
        assert head.entropy == pytest.approx(entropy[head.head].mean().item(), abs=1e-4)
        assert math.isnan(head.weight_bound)  # the projections of this model have biases


def test_first_keys_can_be_taken_out():
    ids, model = tokens(60), llama("eager")
    found = probe_model_sharpness(model, ids, exclude_first_keys=2)
    with torch.no_grad():
        attentions = model.eval()(ids, output_attentions=True).attentions
    for head in found.heads:
        rest = attentions[head.layer][:, head.head, 3:, 2:].double()
        entropy = torch.special.entr(rest / rest.sum(-1, keepdim=True)).sum(-1)
        assert head.rows == 2 * 57
        assert head.entropy == pytest.approx(entropy.mean().item(), abs=1e-4)
        assert head.entropy_share == pytest.approx((entropy / torch.arange(2, 59).log()).mean().item(), abs=1e-4)
        assert head.slack >= 1
    assert found.excluded == 2
    assert "60 tokens without the first 2" in str(found)
    for name in ("excluded", "own"):
        assert name in found.to_dict()
    # Padding on the left comes before the first keys.
    padded = torch.cat([torch.zeros(2, 7, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(67) >= 7).long().expand(2, 67)
    again = probe_model_sharpness(model, padded, mask, exclude_first_keys=2, normalisers={"plain": Plain()})
    for one, other in zip(found.heads, again.heads, strict=True):
        assert other.rows == one.rows
        assert other.entropy == pytest.approx(one.entropy, abs=1e-3)
        assert other.beta_crit == pytest.approx(one.beta_crit, rel=1e-3)
    assert again.remedies[0].entropy_share == pytest.approx(again.own.entropy_share, abs=1e-4)
    assert again.own.entropy_share == pytest.approx(found.own.entropy_share, abs=1e-3)


@pytest.mark.parametrize("kind", [llama, gpt_oss])
def test_remedies_are_compared_by_the_loss_of_the_model(kind):
    ids, model = tokens(50), kind()
    normalisers = {"plain": Plain(), "adaptive": Adaptive(), "hard": Hard(), "entmax": Entmax()}
    if kind is not llama:
        del normalisers["entmax"]
    report = probe_model_sharpness(model, ids, normalisers=normalisers)
    assert model.config._attn_implementation == ("sdpa" if kind is llama else "eager")
    model.eval()
    with torch.no_grad():
        own = model(ids, labels=ids).loss.item()
        assert report.own.cross_entropy == pytest.approx(own, abs=1e-4)
        for found in report.remedies:
            name = register(f"holdfast_test_{found.normaliser}", normalisers[found.normaliser])
            model.set_attn_implementation(name)
            assert found.cross_entropy == pytest.approx(model(ids, labels=ids).loss.item(), abs=1e-5)
            unregister(name)
    shares = {each.normaliser: each.entropy_share for each in report.remedies}
    assert shares["plain"] == pytest.approx(report.own.entropy_share, abs=1e-4)
    assert shares["adaptive"] < shares["plain"]
    assert shares["hard"] == pytest.approx(0, abs=1e-6)
    assert "nats/token" in str(report)
    assert max(map(len, str(report).splitlines()[1:])) <= 100
    json.dumps(report.to_dict(), allow_nan=False)
    for name in ("holdfast_probe", "holdfast_probe_remedy"):
        assert name not in transformers.AttentionInterface._global_mapping


def test_padding_does_not_count_in_the_loss():
    ids, model = tokens(30, batch=1), llama()
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    mask = (torch.arange(35) < 30).long()[None]
    alone = probe_model_sharpness(model, ids, normalisers={"adaptive": Adaptive()})
    found = probe_model_sharpness(model, padded, mask, normalisers={"adaptive": Adaptive()})
    assert found.own.cross_entropy == pytest.approx(alone.own.cross_entropy, abs=1e-4)
    assert found.remedies[0].cross_entropy == pytest.approx(alone.remedies[0].cross_entropy, abs=1e-4)


def test_a_model_that_looks_ahead_has_no_next_token_loss():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model = transformers.AutoModelForMaskedLM.from_config(config)
    report = probe_model_sharpness(model, tokens(40), normalisers={"plain": Plain()})
    assert math.isnan(report.own.cross_entropy)
    assert math.isnan(report.remedies[0].cross_entropy)
    assert report.remedies[0].entropy_share == pytest.approx(report.own.entropy_share, abs=1e-5)
    assert all(math.isnan(head.onset) for head in report.heads)  # all rows see the same number of keys


def test_a_failure_under_a_remedy_leaves_the_model_as_it_was():
    model = llama().train()
    with pytest.raises(ArgumentError, match="one for any number of heads, or for 4"):
        probe_model_sharpness(model, tokens(20), normalisers={"x": SSMax((0.1, 0.2))})
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "holdfast_probe_remedy" not in transformers.AttentionInterface._global_mapping


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bound_of_the_weights(dtype):
    model, ids = llama().to(dtype), tokens(40)
    report = probe_model_sharpness(model, ids)
    attention, scale = model.model.layers[0].self_attn, 8**-0.5
    with torch.no_grad():
        x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids)).float().norm(dim=-1)
    for head in report.heads:
        assert 1 <= head.slack <= head.weight_slack * (1.02 if dtype == torch.bfloat16 else 1 + 1e-5)
        assert head.bound < head.weight_bound
        if head.layer == 0:
            q = attention.q_proj.weight[8 * head.head :][:8].float()
            k = attention.k_proj.weight[8 * (head.head // 2) :][:8].float()
            gain = torch.linalg.matrix_norm(q, 2) * torch.linalg.matrix_norm(k, 2)
            expected = (2 * scale * gain * x * x.amax(-1, keepdim=True))[:, 1:].mean().item()
            assert head.weight_bound == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-2)
    assert not any(module._forward_hooks for module in model.modules())


def test_there_is_no_bound_where_norms_change_on_the_way():
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    for config in (transformers.Qwen3Config(**shape, **heads), transformers.Qwen2Config(**shape, **heads)):
        # Norms of each head in the one, biases in the other.
        report = probe_model_sharpness(transformers.AutoModelForCausalLM.from_config(config), tokens(20))
        assert all(math.isnan(head.weight_bound) for head in report.heads)
        assert all(head.slack >= 1 for head in report.heads)
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
    config = transformers.LlamaConfig(**shape, **heads, rope_parameters=yarn)
    report = probe_model_sharpness(transformers.AutoModelForCausalLM.from_config(config), tokens(20))
    assert all(math.isnan(head.weight_bound) for head in report.heads)  # its rotation stretches


@pytest.mark.parametrize("given", [torch.bool, torch.float32, None])
def test_a_bias_on_the_logits_has_no_bound(given):
    torch.manual_seed(0)
    query, key, bias = torch.randn(1, 2, 5, 4), torch.randn(1, 1, 5, 4), torch.randn(1, 2, 5, 5)
    visible = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    hiding = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    mask = {torch.bool: visible, torch.float32: hiding, None: None}[given]
    layer = torch.nn.Identity()
    options = {"is_causal": False, "position_bias": bias}
    alone = MeasuredCall.of(AttentionCall.of_transformers(layer, query, key, None, mask, is_causal=False), None)
    biased = MeasuredCall.of(AttentionCall.of_transformers(layer, query, key, None, mask, **options), None)
    assert alone.norm_bound().isfinite().all()
    assert biased.norm_bound().isnan().all()
    assert biased.weight_bound(None).isnan().all()
    logits = query @ key.expand(1, 2, 5, 4).mT / 2 + bias
    if given is not None:
        logits = logits.masked_fill(~visible, -math.inf)
    torch.testing.assert_close(biased.last_logits(5), logits)
    torch.testing.assert_close(biased.statistics()[1].entropy, entropy_of(logits))
    torch.testing.assert_close(biased.last_weights(2, Plain()), logits.softmax(-1)[:, :, -2:])


def test_critical_beta_and_onset_of_heads():
    ids, model = tokens(200, batch=1), llama("eager")
    report = probe_model_sharpness(model, ids)
    with torch.no_grad():
        weights = model.eval()(ids, output_attentions=True).attentions[0][0].double()
    for head in report.heads[:4]:
        by_hand = []
        for i in range(168, 200):
            row = weights[head.head, i, : i + 1].log().sort(descending=True).values
            by_hand.append(max(math.log(j + 1) / (row[0] - row[j]).item() for j in range(1, i + 1)))
        assert head.beta_crit == pytest.approx(sorted(by_hand)[15], rel=1e-3)
    flat = probe_model_sharpness(llama(std=1e-4), tokens(300))
    assert all(math.isnan(head.onset) for head in flat.heads)  # below one half from the start
    sharp = probe_model_sharpness(llama(std=1.0), tokens(300))
    assert any(head.onset > 64 for head in sharp.heads)


@pytest.mark.parametrize("keys", [-1, 19, 20])
def test_two_keys_must_be_left(keys):
    with pytest.raises(ArgumentError, match="exclude_first_keys"):
        probe_model_sharpness(llama(), tokens(20), exclude_first_keys=keys)


SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
BOTH = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}


def attentions_of(report):
    return [(head.part, head.layer, head.name) for head in report.heads if head.head == 0]


def bart():
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, **BOTH, pad_token_id=0, init_std=0.3
    )
    return transformers.BartForConditionalGeneration(config).eval()


def test_every_attention_of_an_encoder_decoder_has_its_row():
    """Numbers of each are those of the attention weights that the model itself returns."""
    model, ids, target = bart(), tokens(120), tokens(110)[:, 10:]
    mask = torch.ones_like(ids)
    mask[1, 90:] = 0
    report = probe_model_sharpness(model, ids, mask, inputs={"decoder_input_ids": target}, normalisers={"x": Plain()})
    layers = "model.decoder.layers"
    assert attentions_of(report) == [
        ("encoder", 0, "model.encoder.layers.0.self_attn"),
        ("encoder", 1, "model.encoder.layers.1.self_attn"),
        ("decoder", 0, f"{layers}.0.self_attn"),
        ("decoder", 1, f"{layers}.1.self_attn"),
        ("cross", 0, f"{layers}.0.encoder_attn"),
        ("cross", 1, f"{layers}.1.encoder_attn"),
    ]
    assert len(report.heads) == 24
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, mask, decoder_input_ids=target, output_attentions=True)
    weights = {"encoder": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
    for head in report.heads:
        entropy = torch.special.entr(weights[head.part][head.layer][:, head.head].double()).sum(-1)
        kept = torch.ones_like(entropy, dtype=torch.bool)
        if head.part == "encoder":
            kept = mask.bool()
        if head.part == "decoder":
            kept[:, 0] = False  # sees one key
        assert head.rows == kept.sum()
        assert head.entropy == pytest.approx(entropy[kept].mean().item(), abs=1e-4)
        assert math.isnan(head.slope) == (head.part != "decoder")
    logits = out.logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, target[:, 1:].flatten()).item()
    assert report.own.cross_entropy == pytest.approx(loss, abs=1e-4)
    assert report.remedies[0].cross_entropy == pytest.approx(loss, abs=1e-4)
    assert "encoder-decoder" in report.verdict
    assert "part" in str(report)
    # By default the decoder reads what the encoder reads.
    assert len(probe_model_sharpness(model, ids).heads) == 24


def test_keys_are_taken_out_on_their_side_of_a_cross_attention():
    model, ids = bart(), tokens(40)
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), ids], 1)
    mask = (torch.arange(45) >= 5).long().expand(2, 45)
    target = tokens(30)
    report = probe_model_sharpness(model, padded, mask, inputs={"decoder_input_ids": target}, exclude_first_keys=3)
    assert {head.part: head.keys for head in report.heads}["cross"] == 37
    assert {head.part: head.keys for head in report.heads}["encoder"] == 37


def test_an_encoder_is_called_one():
    model = transformers.BertModel(transformers.BertConfig(vocab_size=97, **SHAPE))
    report = probe_model_sharpness(model, tokens(100))
    assert report.parts == ("encoder",)
    assert "in this encoder at 100 tokens" in report.verdict
    assert "cannot be told at one size" in report.verdict
    assert all(math.isnan(head.slope) for head in report.heads)
    assert "nats/token" not in str(report)
    # Rows of nearly the same number of keys have no slope either.
    mask = torch.ones(2, 100, dtype=torch.long)
    mask[0, 97:] = 0
    assert all(math.isnan(head.slope) for head in probe_model_sharpness(model, tokens(100), mask).heads)
    assert all(math.isnan(head.slope) for head in probe_model_sharpness(llama(), tokens(70)).heads)


def test_a_layer_that_runs_several_times_has_a_row_for_each():
    config = transformers.AlbertConfig(vocab_size=97, embedding_size=16, **SHAPE)
    report = probe_model_sharpness(transformers.AlbertModel(config), tokens(20))
    assert [(part, layer) for part, layer, _ in attentions_of(report)] == [("encoder", 0), ("encoder", 1)]


def test_images_and_sound():
    vision = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=4, **SHAPE))
    report = probe_model_sharpness(vision, inputs={"pixel_values": torch.randn(2, 3, 32, 32)})
    assert (report.parts, report.length, len(report.heads)) == (("encoder",), 65, 8)
    assert report.heads[0].rows == 2 * 65
    config = transformers.WhisperConfig(
        vocab_size=97,
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=40,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        **BOTH,
        **{f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "decoder_start"))},
    )
    sound = {"input_features": torch.randn(1, 16, 100), "decoder_input_ids": tokens(20, 1)}
    report = probe_model_sharpness(transformers.WhisperForConditionalGeneration(config), inputs=sound)
    assert [part for part, _, _ in attentions_of(report)] == ["encoder", "decoder", "cross"]
    assert [head.keys for head in report.heads if head.head == 0] == [50, 11, 50]  # 11 = mean of 2 to 20
    text = transformers.LlamaConfig(vocab_size=97, **SHAPE)
    clip = transformers.CLIPVisionConfig(image_size=32, patch_size=8, **SHAPE)
    llava = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(text_config=text, vision_config=clip, image_token_index=96, vision_feature_layer=-1)
    )
    ids = tokens(60, 1) % 96
    ids[0, 3:19] = 96
    report = probe_model_sharpness(llava, ids, inputs={"pixel_values": torch.randn(1, 3, 32, 32)})
    assert [part for part, _, _ in attentions_of(report)] == ["encoder", "encoder", "decoder", "decoder"]
    assert math.isfinite(report.own.cross_entropy)  # the text of the model is causal, though its images are not


def test_packed_documents_are_probed_as_documents():
    ids, model = tokens(120, 1), llama()
    position_ids = torch.cat([torch.arange(70), torch.arange(50)])[None]
    options = {"normalisers": {"adaptive": Adaptive()}, "exclude_first_keys": 1}
    packed = probe_model_sharpness(model, ids, inputs={"position_ids": position_ids}, **options)
    parts = [probe_model_sharpness(model, part, **options) for part in (ids[:, :70], ids[:, 70:])]
    for index, head in enumerate(packed.heads):
        one, other = (part.heads[index] for part in parts)
        assert head.rows == one.rows + other.rows
        for name in ("entropy", "keys", "largest", "spread"):
            together = (getattr(one, name) * one.rows + getattr(other, name) * other.rows) / head.rows
            assert getattr(head, name) == pytest.approx(together, rel=1e-3)
    for whole, (one, other) in (
        (packed.own, [part.own for part in parts]),
        (packed.remedies[0], [part.remedies[0] for part in parts]),
    ):
        together = (69 * one.cross_entropy + 49 * other.cross_entropy) / 118
        assert whole.cross_entropy == pytest.approx(together, rel=1e-4)


def test_broken_weights_are_counted_and_said():
    model = llama()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = math.nan
    report = probe_model_sharpness(model, tokens(30))
    # One number breaks all rows of one head, and through the values after it every row of the next layer.
    assert [report.heads[i].nan_rows for i in (0, 4, 5, 8)] == [0, 58, 0, 58]
    assert report.nan_rows == 5 * 58
    assert f"{report.nan_rows} rows are NaN" in report.verdict
    assert math.isnan(report.heads[4].weight_bound)


def test_the_report_begins_with_a_sentence_and_explains_its_columns():
    flat = probe_model_sharpness(llama(std=1e-4), tokens(300))
    assert str(flat).startswith(flat.verdict + "\n")
    assert flat.verdict.startswith("Attention is dispersed in this decoder at 300 tokens: 12 of 12 heads")
    assert "adaptive temperature acts on 100% of their rows" in flat.verdict
    assert flat.to_dict()["verdict"] == flat.verdict
    sharp = probe_model_sharpness(llama(std=1.0), tokens(300), normalisers={"plain": Plain()})
    assert "none of the normalisers compared lowers the loss on this text." in sharp.verdict
    header = str(flat).replace("H/ln n, last 32 rows", "").splitlines()
    words = " ".join(line for line in header if "head  " in line or line.startswith("normaliser"))
    for column in (
        "layer",
        "head",
        "H",
        "H/ln n",
        "slope",
        "n*",
        "b_crit",
        "weight bound/spread",
        "nats/token",
        "change",
    ):
        assert column in words
        assert f"\n{column}  " in "\n" + flat.explain().replace("   ", "  ")


def test_inputs_that_do_not_fit_are_refused():
    model, ids = llama(), tokens(20)
    with pytest.raises(ArgumentError, match=r"inputs: expected what LlamaForCausalLM takes .*, got pixels"):
        probe_model_sharpness(model, ids, inputs={"pixels": ids})
    with pytest.raises(ArgumentError, match="inputs: expected input_ids once"):
        probe_model_sharpness(model, ids, inputs={"input_ids": ids})
    with pytest.raises(ArgumentError, match="input_ids: expected tokens"):
        probe_model_sharpness(model)
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(ArgumentError, match=r"model: .*, got BloomForCausalLM"):
        probe_model_sharpness(bloom, ids)


def test_the_command_line_refuses_what_does_not_apply_and_loads_models_whole(tmp_path: Path):
    bart().save_pretrained(tmp_path / "model")
    words = ("probe", "sharpness", "model")
    status, out, err = ask(*words, "--length", "40", "--explain", cwd=tmp_path)
    assert status == 0, err
    assert "encoder-decoder at 40 tokens" in out.splitlines()[0]
    assert "24 heads" in out
    assert "mean Shannon entropy" in out
    status, _, err = ask(*words, "--lengths", "16", "32", cwd=tmp_path)
    assert status == 2
    assert "--lengths: expected a function" in err
    assert ask(*words, "--json", "--explain", cwd=tmp_path)[0] == 2
    (tmp_path / "f.py").write_text("import torch\n\n\ndef z(n):\n    return torch.zeros(2, n)\n", encoding="utf-8")
    for option in (("--length", "64"), ("--exclude-first-keys", "1"), ("--text", "f.py")):
        status, _, err = ask("probe", "sharpness", "f.py:z", *option, cwd=tmp_path)
        assert status == 2
        assert f"{option[0]}: expected a model" in err
    status, out, _ = ask("probe", "sharpness", "f.py:z", "--lengths", "16", "64", "--explain", cwd=tmp_path)
    assert status == 0
    assert out.startswith("Attention is dispersed at n = 64: 1 of 1 head spread")
