"""The command that continues a text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from holdfast.models.language import ByteTokenizer, HoldfastConfig, HoldfastForCausalLM
from holdfast.models.language import generate as generation
from tests.command_line import ask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = ByteTokenizer()
    shape = HoldfastConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        mixers=["rat", "window"],
        num_attention_heads=2,
        chunk_size=4,
        sliding_window=8,
        pad_token_id=tokenizer.pad_token_id,
    )
    HoldfastForCausalLM(shape).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_text_is_continued(folder: Path) -> None:
    words = ("generate", folder, "--prompt", "def f(", "--tokens", 12)
    status, out, err = ask(*words, cwd=folder)
    assert (status, err) == (0, "")
    assert out.startswith("def f(")
    assert ask(*words, cwd=folder) == (0, out, "")
    assert ask(*words, "--seed", 1, cwd=folder)[1] != out
    status, told, _ = ask(*words, "--json", cwd=folder)
    assert status == 0
    assert json.loads(told)["prompt"] + json.loads(told)["text"] + "\n" == out
    for choice in (("--temperature", 0), ("--beams", 2)):
        status, likely, _ = ask(*words, *choice, cwd=folder)
        assert status == 0
        assert ask(*words, *choice, "--seed", 1, cwd=folder)[1] == likely


def test_a_prompt_comes_from_standard_input_or_from_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("import"))
    assert ask("generate", folder, "--prompt", "-", "--tokens", 3, cwd=folder)[1].startswith("import")
    assert ask("generate", folder, "--tokens", 3, cwd=folder)[0] == 0


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    monkeypatch.setattr(generation, "SHIPPED", tmp_path / "none")
    mistakes = {
        (): "MODEL: expected a folder with a model, since none comes with this installation, got none",
        (tmp_path / "other",): "MODEL: expected a folder with a model, as save_pretrained writes it",
        (tmp_path,): "MODEL: expected a folder with a language model and its tokenizer",
        (folder, "--tokens", 0): "--tokens: expected a whole number of at least 1, got 0",
        (folder, "--tokens", "few"): "--tokens",
        (folder, "--top-p", 2): "--top-p: expected a share in (0, 1], got 2.0",
        (folder, "--temperature", -1): "--temperature: expected a number of at least 0, got -1.0",
        (folder, "--beams", 0): "--beams: expected a whole number of at least 1, got 0",
    }
    for words, message in mistakes.items():
        status, out, err = ask("generate", *words, cwd=tmp_path)
        assert (status, out, err.count("\n")) == (2, "", 1), words
        assert message in err
