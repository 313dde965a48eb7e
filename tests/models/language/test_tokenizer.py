"""Tokens are bytes, whatever the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from holdfast.models.language import ByteTokenizer
from tests.models.language.tiny import model

TOKENIZER = ByteTokenizer()
ODD = "Grüße, 世界 \U0001f980 <pad> <eos>\x00\r\n\t  x . ,"


@given(st.text())
def test_a_text_comes_back(text: str) -> None:
    numbers = TOKENIZER(text)["input_ids"]
    assert numbers == list(text.encode())
    assert TOKENIZER.decode(numbers) == text
    assert TOKENIZER.decode(numbers, skip_special_tokens=True) == text


@given(st.binary())
def test_bytes_that_are_no_text_are_replaced(content: bytes) -> None:
    decoded = TOKENIZER.decode(list(content))
    assert decoded == content.decode(errors="replace")


def test_special_tokens_are_no_bytes() -> None:
    numbers = (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id)
    assert (numbers, len(TOKENIZER)) == ((256, 257, 258), 259)
    assert TOKENIZER.decode([257, 104, 105, 258]) == "<bos>hi<eos>"
    assert TOKENIZER.decode([257, 104, 105, 258], skip_special_tokens=True) == "hi"


def test_a_batch_is_padded_on_the_left() -> None:
    batch = TOKENIZER(["hi", "four"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[256, 256, *b"hi"], list(b"four")]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1] * 4]
    assert set(batch) == {"input_ids", "attention_mask"}


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model(("rat",)).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is ByteTokenizer
    assert loaded(ODD)["input_ids"] == list(ODD.encode())
    assert loaded.decode(loaded(ODD)["input_ids"]) == ODD
    assert (loaded.padding_side, len(loaded)) == ("left", 259)


def test_a_long_text_takes_no_long_time() -> None:
    text = ODD * 20_000
    assert TOKENIZER(text)["input_ids"] == list(text.encode())
