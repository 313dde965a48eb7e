"""The card of transformers models of all shapes, and of a simulated observer's endpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.card import Card, CheckSettings, Outcome, compare
from holdfast.card.checks import CHECKS
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
    # Keys and values of 32 float32 numbers in each of two layers.
    assert told["rat"].measures[0].value == 2 * 2 * 32 * 4


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
