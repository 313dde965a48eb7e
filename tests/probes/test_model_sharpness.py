"""The probe of whole models says what a direct computation says, and leaves the model as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import AdaptiveTemperature
from holdfast.probes.model_sharpness import probe_model_sharpness
from tests.test_cli import ask

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
    status, out, err = ask(*words, "--length", "100000", "--json", cwd=tmp_path)
    assert status == 0, err
    assert json.loads(out)["length"] == 512
    status, _, err = ask(*words, "--text", "none.txt", cwd=tmp_path)
    assert status == 2
    assert "--text: expected a file" in err
