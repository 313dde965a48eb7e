"""A model's file brings back all of it, and what is not whole or not ours is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from holdfast import __version__
from holdfast.models.action import checkpoint
from holdfast.models.action.checkpoint import fingerprint, load_model, save_model
from holdfast.models.action.tensor_file import CheckpointError
from tests.models.action.tiny import ARM, BACKBONES, batch, model


@pytest.mark.parametrize("name", BACKBONES)
def test_a_model_comes_back_with_all_that_acting_needs(name, tmp_path):
    net = model(BACKBONES[name], past_actions=True)
    save_model(net, tmp_path / "new" / "policy.safetensors")
    other = load_model(tmp_path / "new" / "policy.safetensors")
    assert other.config == net.config
    assert other.config.domain("arm") == ARM
    assert not other.training
    assert fingerprint(other) == fingerprint(net)
    with torch.no_grad():
        assert torch.equal(other(batch(ARM, 2, 5))[0], net(batch(ARM, 2, 5))[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["policy.safetensors"]


def test_weights_of_half_precision_come_back_too(tmp_path):
    net = model(BACKBONES["attention"]).bfloat16()
    save_model(net, tmp_path / "policy")
    assert load_model(tmp_path / "policy").head.linear.weight.dtype == torch.bfloat16
    assert fingerprint(load_model(tmp_path / "policy")) == fingerprint(net)


@pytest.fixture
def file(tmp_path):
    save_model(model(BACKBONES["rnn"]), tmp_path / "policy")
    return tmp_path / "policy"


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value).removeprefix(f"{path}: ")


def test_a_truncated_file_is_said_to_be_one_wherever_it_ends(file):
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for end in (0, 3, 8, 9, 100, header - 1, header, header + 1, len(content) - 1):
        file.write_bytes(content[:end])
        assert f"file truncated at {end} " in refusal(file)
    file.write_bytes(content)
    load_model(file)


def test_a_changed_byte_is_seen_wherever_it_is(file):
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in range(header, len(content), len(content) // 40):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert refusal(file) == "damaged, its contents do not have the checksum that it was written with"
    bound = content.replace(rb"6.0]", rb"7.0]", 1)  # an action bound of the configuration
    assert bound != content
    file.write_bytes(bound)
    assert "checksum" in refusal(file)
    file.write_bytes(content + b"more")
    assert "damaged" in refusal(file)


def test_foreign_files_are_none(tmp_path):
    foreign = tmp_path / "foreign"
    assert refusal(foreign) == "cannot be read (No such file or directory)"
    foreign.write_bytes(b"PK\x03\x04 this is a zip file, as torch writes it")
    assert refusal(foreign) == "no Holdfast action model, and no safetensors file"
    save_file({"weight": torch.zeros(3)}, foreign)
    assert refusal(foreign) == "no Holdfast action model, but another safetensors file"
    save_file({"weight": torch.zeros(3)}, foreign, {"kind": "Holdfast policy state"})
    assert refusal(foreign) == "no Holdfast action model, but Holdfast policy state"
    foreign.write_bytes((20).to_bytes(8, "little") + b"{" + b"x" * 30)
    assert refusal(foreign) == "damaged, its header cannot be read"


def test_a_newer_layout_or_another_version_s_configuration_is_refused(file, monkeypatch):
    net = load_model(file)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "VERSION", 2)
        save_model(net, file)
    assert refusal(file).startswith(f"Holdfast action model of layout 2, written by Holdfast {__version__}")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "to_document", lambda config: json.loads('{"backbone": 1}'))
        save_model(net, file)
    assert refusal(file).startswith("no model of this version of Holdfast (config: expected")


def test_weights_of_another_shape_are_refused(file, monkeypatch):
    net = load_model(file)
    with monkeypatch.context() as patched:
        patched.setattr(net, "state_dict", lambda: {"head.linear.weight": torch.zeros(3)})
        save_model(net, file)
    assert refusal(file).startswith("no model of this version of Holdfast (Error")


def test_nothing_is_left_where_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(model(BACKBONES["rnn"]), tmp_path / "file" / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
