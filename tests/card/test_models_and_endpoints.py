"""The card of transformers models of all shapes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.card import Card, CheckSettings, Outcome, compare
from holdfast.card.checks import CHECKS, rat, sharpness
from holdfast.card.run import check_targets
from holdfast.card.target import Kind, recognise
from holdfast.errors import ArgumentError

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def card_of(target: object, seed: int = 0, *probes: str) -> Card:
    settings = CheckSettings(budget_s=60.0, seed=seed)
    return check_targets([recognise(target)], settings, probes=probes or tuple(check.name for check in CHECKS))


def llama(sharp: float, seed: int = 0) -> Any:
    """Attention logits of a random model, multiplied."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**SMALL, intermediate_size=64, max_position_embeddings=256)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(sharp)
    return model


def bert() -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, intermediate_size=64))


def bart() -> Any:
    sides = {
        f"{side}_{what}": number
        for side in ("encoder", "decoder")
        for what, number in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
    }
    return transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=256, d_model=32, **sides))


def vit() -> Any:
    shape = {key: value for key, value in SMALL.items() if key != "vocab_size"}
    config = transformers.ViTConfig(**shape, intermediate_size=64, image_size=32, patch_size=4)
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("make", [bert, bart, vit])
def test_only_sharpness_suits_models_that_write_no_text(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    card = card_of(str(tmp_path))
    told = {finding.probe: finding for finding in card.findings if finding.outcome is not Outcome.INAPPLICABLE}
    assert set(told) == {"sharpness"}
    # Logits of random weights are small, and attention is even.
    assert told["sharpness"].outcome is Outcome.FAILS
    assert len(set(told["sharpness"].measures[0].values)) > 1, "each input is another one"


def test_llama_has_a_cache_besides(tmp_path: Path) -> None:
    llama(1.0).save_pretrained(tmp_path)
    card = card_of(str(tmp_path))
    told = {finding.probe: finding for finding in card.findings if finding.outcome is not Outcome.INAPPLICABLE}
    assert {name: finding.outcome for name, finding in told.items()} == dict.fromkeys(
        ("sharpness", "rat"), Outcome.FAILS
    )
    assert "Timed on this machine, one more token took" in told["rat"].sentence
    assert [measure.name for measure in told["rat"].measures] == ["cache per token"], "clocks are no figures"
    # Keys and values of 32 float32 numbers in each of two layers.
    assert told["rat"].measures[0].value == 2 * 2 * 32 * 4


def test_the_lengths_say_what_becomes_of_attention_as_inputs_grow() -> None:
    torch.manual_seed(0)
    finding = card_of(bert(), 0, "sharpness").finding("sharpness")
    spans = finding.report["lengths"]
    assert list(spans) == ["64", "128", "256", "512"], "512 is what it was made for"
    # Even attention: an encoder sees all keys from each place, and the entropy is their logarithm.
    for length, span in spans.items():
        assert span["seen"] == int(length)
        assert span["entropy"] == pytest.approx(math.log(int(length)), rel=0.01)
    assert finding.sentence.startswith("It is spread thin at 256 tokens: 8 of 8 heads look at almost everything alike.")
    assert "Reading 64 tokens, a head spreads over 64 of them on average" in finding.sentence
    assert "reading 512, which is 8 times as many, over 51" in finding.sentence


def test_more_time_reads_more_inputs_and_longer_ones() -> None:
    model = bert()
    assert [sharpness._rows(model, 1.0, left) for left in (1.0, 10.0, 24.0, 32.0, 1e6)] == [2, 2, 6, 8, 16]
    model.config.vocab_size = 150_000
    assert sharpness._rows(model, 1.0, 1e6) == 6, "its logits have room for no more"


def test_more_time_is_spent_on_steps_after_longer_texts(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SMALL, intermediate_size=64, max_position_embeddings=1024)
    target = recognise(transformers.LlamaForCausalLM(config))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "holdfast.probes.rat.decode_latency",
        lambda model, tokens, rounds: asked.append((tokens.shape[1], rounds)),
    )
    # Four texts of up to 256 tokens in a second; the model was made for 1,024.
    for left in (8.9, 9.1, 12.1, 38.1, 1e6):
        rat._timed(target, CheckSettings(), 1.0, left)
    assert asked == [(256, 7), (512, 7), (1024, 21), (1024, 21)]


def test_a_model_without_attention_is_not_asked_for_its_focus() -> None:
    config = transformers.MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=1, state_size=4)
    card = card_of(transformers.MambaForCausalLM(config), 0, "sharpness", "rat")
    assert card.finding("sharpness").outcome is Outcome.INAPPLICABLE
    assert card.finding("sharpness").sentence == "it has no attention"
    assert card.finding("rat").outcome is Outcome.HOLDS
    assert "no more memory than a short one. Timed on this machine" in card.finding("rat").sentence


def test_dispersed_model_is_told_from_the_plain_one() -> None:
    found = compare(card_of(llama(200.0), 0), card_of(llama(20.0), 0))
    assert [difference.probe for difference in found.beyond_noise] == ["sharpness"]
    assert found.beyond_noise[0].better == "here"


def test_a_sentence_encoder_lies_in_a_folder_below(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.BertModel(config).save_pretrained(folder / "0_Transformer")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "modules.json").write_text("[]")
    found = recognise(str(folder))
    assert (found.kind, found.name) == (Kind.MODEL, "encoder")
    assert type(found.subject) is transformers.BertModel


def test_a_file_that_is_not_there_is_no_model_id() -> None:
    for name in ("values.csv", "policy.safetensors"):
        with pytest.raises(ArgumentError, match="which is not there"):
            recognise(name)
