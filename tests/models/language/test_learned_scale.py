"""A scale that each head of the language model learns is in its configuration and in its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.models.language.tiny import model, rows

LEARNED = {"name": "ssmax", "scale": 0.43, "learned": True}


def test_it_survives_saving_bit_for_bit(tmp_path: Path) -> None:
    network = model(("rat", "window", "attention"), num_key_value_heads=2, normaliser=LEARNED)
    names = [name for name, _ in network.named_parameters() if name.endswith("log_scale")]
    assert names == [f"backbone.blocks.{layer}.mixer.scale.log_scale" for layer in range(3)]
    ids = torch.stack(rows(23, 23))
    network(ids, labels=ids).loss.backward()
    for name in names:
        weight = network.get_parameter(name)
        assert weight.grad is not None
        assert weight.grad.abs().min() > 0
        with torch.no_grad():
            weight -= weight.grad.sign() * torch.tensor([0.1, 0.2, 0.3, 0.4])
    network.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert read.config.normaliser == LEARNED
    assert all(torch.equal(weight, read.state_dict()[name]) for name, weight in network.state_dict().items())
    assert torch.equal(read(ids).logits, network(ids).logits)
    halves = network(ids[:, :9], use_cache=True)
    rest = network(ids[:, 9:], past_key_values=halves.past_key_values)
    torch.testing.assert_close(torch.cat([halves.logits, rest.logits], 1), network(ids).logits, rtol=0, atol=1e-9)


def test_weights_without_scales_begin_with_those_of_the_configuration(tmp_path: Path) -> None:
    model(("attention",)).save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, normaliser=LEARNED)
    scale = read.backbone.blocks[0].mixer.scale.log_scale
    torch.testing.assert_close(scale.exp(), torch.full_like(scale, 0.43))
