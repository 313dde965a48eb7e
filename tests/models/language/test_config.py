"""The configuration: through JSON and back, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from transformers import AutoConfig

from holdfast.errors import ArgumentError
from holdfast.models.language import HoldfastConfig
from holdfast.nn import NORMALISERS
from tests.models.language.tiny import config, model, rows


def test_a_configuration_survives_json(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "num_key_value_heads": 2,
        "qk_groups": None,
        "rope_theta": None,
        "output_gate": True,
        "normaliser": {"name": "log-n", "train_length": 64},
        "eos_token_id": 5,
    }
    written = config(("rat", "window", "attention", "rnn"), **changes)
    written.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert type(read) is HoldfastConfig
    assert {**read.to_dict(), "_name_or_path": ""} == {**written.to_dict(), "_name_or_path": ""}
    assert read.backbone() == written.backbone()
    assert {name: getattr(read, name) for name in changes} == changes
    assert read.num_hidden_layers == 4


@pytest.mark.parametrize("name", NORMALISERS)
def test_every_normaliser_can_be_named(name: str) -> None:
    arguments: dict[str, Any] = {"log-n": {"train_length": 64}, "yarn": {"extension": 2.0}}.get(name, {})
    network = model(("rat", "attention"), normaliser={"name": name, **arguments} if arguments else name)
    assert network.backbone.blocks[1].mixer.normaliser == NORMALISERS[name](**arguments)
    ids = rows(9)[0][None]
    assert network(ids, labels=ids).loss.isfinite()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mixers": ["rat", "mamba"]},
            "mixers: expected a sequence of names among rat, attention, window, rnn, mlstm, slstm, got",
        ),
        ({"mixers": "rat"}, "mixers: expected a list of"),
        ({"mixers": []}, "mixers: expected a sequence of names among"),
        ({"vocab_size": 0}, "vocab_size: expected a whole number of at least 1, got 0"),
        ({"hidden_size": 30}, "hidden_size: expected a multiple of the 4 heads, got 30"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected a whole number of at least 1, got 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of the 4 heads, got 3"),
        ({"qk_groups": 3}, "qk_groups: expected a divisor of the 4 heads, got 3"),
        ({"chunk_size": 0}, "chunk_size: expected a whole number"),
        ({"sliding_window": 0}, "sliding_window: expected a whole number of at least 1, got 0"),
        ({"memory": 0}, "memory: expected a whole number of at least 1, got 0"),
        ({"rope_theta": -1.0}, "rope_theta: expected a positive number or None, got -1.0"),
        ({"rope_theta": 1e4, "hidden_size": 36, "qk_groups": 4}, "rope_theta: expected None, where a head has an odd"),
        ({"expansion": 0}, "expansion: expected a whole number of at least 1, got 0"),
        ({"normaliser": "softplus"}, "normaliser: expected None or one of plain, adaptive"),
        ({"normaliser": {"train_length": 9}}, "normaliser: expected None or one of plain, adaptive"),
        ({"normaliser": "log-n"}, "normaliser: expected a dict of the name log-n and of train_length, got 'log-n'"),
        ({"normaliser": {"name": "hard", "cold": 1}}, "normaliser: expected a dict of the name hard and of no arg"),
        ({"normaliser": {"name": "log-n", "train_length": 1}}, "train_length: expected at least 2, got 1"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], message: str) -> None:
    mixers = changes.pop("mixers", ("rat", "window", "attention", "rnn"))
    with pytest.raises(ArgumentError) as caught:
        config(mixers, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
