"""A model is loaded whole by its own class, or refused in one line."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from holdfast.card.digest import digest_of
from holdfast.errors import ArgumentError

transformers = pytest.importorskip("transformers")


class Foreign:
    """What a pickle may hold and a checkpoint may not."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_own_class_and_weights(saved: Path) -> None:
    from holdfast.card.transformers_model import load

    model, identity = load(str(saved), "cpu")
    assert type(model) is transformers.LlamaForCausalLM
    again = transformers.LlamaForCausalLM.from_pretrained(saved)
    assert identity == digest_of(again.state_dict())


@pytest.mark.parametrize("harm", ["cut", "none", "pickle"])
def test_refused_in_one_line(saved: Path, harm: str) -> None:
    from holdfast.card.transformers_model import load

    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    if harm == "cut":
        weights.write_bytes(whole[:100])
    if harm == "pickle":
        torch.save(OrderedDict(a=Foreign()), saved / "pytorch_model.bin")
    told = {"cut": "Safetensor", "none": "with weights", "pickle": "plain tensors"}[harm]
    with pytest.raises(ArgumentError, match=told) as caught:
        load(str(saved), "cpu")
    assert "\n" not in str(caught.value)
