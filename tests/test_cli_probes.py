"""What holds for every probe on the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from holdfast.cli.parsing import PATIENT, ExplainedOptions
from holdfast.cli.probes import PROBES
from holdfast.errors import ArgumentError
from holdfast.probes.load_model import fitting_length, load_model
from tests.command_line import ask


def test_every_probe_explains_its_columns():
    assert all(issubclass(options, ExplainedOptions) for options, _ in PROBES.values())


@pytest.mark.parametrize(("probe", "seen"), [("lists", "passive"), ("control-latency", "None")])
def test_threads_do_not_spin_unless_they_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe, seen):
    monkeypatch.delenv(PATIENT[0], raising=False)
    source = f"import os\n\n\ndef spoken(*_):\n    raise OSError(os.environ.get({PATIENT[0]!r}))\n"
    (tmp_path / "mine.py").write_text(source)
    status, _, err = ask("probe", probe, "mine.py:spoken", cwd=tmp_path)
    assert (status, f"OSError: {seen}" in err) == (2, True), err


def test_a_report_says_how_to_have_its_columns_explained(tmp_path: Path):
    words = ("probe", "lists", "builtins:sorted", "--lengths", "3", "--lists", "5")
    status, plain, _ = ask(*words, cwd=tmp_path)
    assert status == 0
    assert plain.startswith("Up to length 3 the function follows the rule")
    assert plain.splitlines()[-1] == "--explain says what each column means."
    status, explained, _ = ask(*words, "--explain", cwd=tmp_path)
    assert explained.startswith(plain.rpartition("\n--explain")[0])
    assert "--explain" not in explained
    status, document, _ = ask(*words, "--json", cwd=tmp_path)
    assert json.loads(document)["verdict"]


@pytest.mark.parametrize(
    ("words", "flag", "expected"),
    [
        ("rat model --parts locality --window 8", "--window", "the part chunks"),
        ("rat model --parts locality --chunk-sizes 4", "--chunk-sizes", "the part chunks"),
        ("rat model --parts positions --chunk-size 4", "--chunk-size", "the part cache"),
        ("control-latency made.py:f --device cuda", "--device", "an action model"),
        ("copycat --episodes 3", "--episodes", "a --policy"),
        ("plasticity demo --weight-decay 0.1", "--weight-decay", "a network of your own"),
        ("plasticity demo --optimizer sgd", "--optimizer", "a network of your own"),
        ("solutions demo --optimizer sgd", "--optimizer", "a network of your own"),
        ("solutions demo --force", "--force", "--compare"),
        ("solutions --compare a.json b.json --device cuda", "--device", "a TARGET"),
        ("sharpness f.py:z --length 8", "--length", "a model"),
        ("sharpness model --lengths 8", "--lengths", "a function"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(words: str, flag: str, expected: str, tmp_path: Path):
    status, out, err = ask("probe", *words.split(), cwd=tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"holdfast: error: {flag}: expected {expected}, which alone has such an option")
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with a table of 16 positions, and one that was made for 16 and can read on."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models")
    sizes = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0}
    table = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16, **sizes)
    rotary = transformers.LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        **sizes,
    )
    transformers.GPT2LMHeadModel(table).save_pretrained(folder / "table")
    transformers.LlamaForCausalLM(rotary).save_pretrained(folder / "rotary")
    return {"table": folder / "table", "rotary": folder / "rotary"}


@pytest.mark.parametrize("name", ["table", "rotary"])
def test_by_default_a_model_reads_what_it_was_made_for(folders: dict[str, Path], name: str):
    model, tokens, read = load_model(str(folders[name]), None, None)
    assert tokens.shape == (1, 16)
    assert read == "random tokens"
    assert fitting_length(model, None, 8) == (8, "")
    assert fitting_length(model, 16, 8) == (16, "")


def test_more_tokens_than_positions_are_refused(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(ArgumentError, match=r"^--length: expected at most 16, as the model has no more positions"):
        load_model(str(folders["table"]), None, 17)
    for probe in ("sharpness", "rat"):
        status, _, err = ask("probe", probe, folders["table"], "--length", "17", cwd=tmp_path)
        assert status == 2
        assert "--length: expected at most 16" in err


def test_more_tokens_than_a_model_was_made_for_are_told(folders: dict[str, Path], tmp_path: Path):
    status, out, err = ask("probe", "sharpness", folders["rotary"], "--length", "24", cwd=tmp_path)
    assert status == 0
    assert "beyond the 16 tokens that the model was made for" in err
    assert "24 tokens, beyond the 16 it was made for" in " ".join(out.split("\n\n")[0].split())


def test_defaults_of_options_are_values():
    for options, _ in PROBES.values():
        for field in dataclasses.fields(options):
            assert field.name == "target" or field.default is not dataclasses.MISSING, field.name
