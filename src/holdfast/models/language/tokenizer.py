"""A tokenizer that needs no file: a token is a byte of the text in UTF-8."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from holdfast.models.language.config import HoldfastConfig

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
"""Tokens that are no byte, from number 256 on. A text that contains such a word has its bytes all the same."""


class ByteTokenizer(PreTrainedTokenizerFast):
    """Token b is byte b; 256, 257 and 258 are padding, begin and end. Any text comes back as it was.

    Bytes that are no UTF-8, such as half a character, are decoded as the replacement character.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("tokenizer_object", None)
        kwargs.pop("tokenizer_file", None)
        options = {"padding_side": "left", "clean_up_tokenization_spaces": False, **SPECIAL, **kwargs}
        options["split_special_tokens"] = True
        super().__init__(tokenizer_object=of_bytes(), **options)  # type: ignore[no-untyped-call]


def of_bytes() -> Tokenizer:
    """The tokenizer that `ByteTokenizer` wraps."""
    tokenizer = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in enumerate(signs())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL.values()])
    return tokenizer


def signs() -> list[str]:
    """The visible character that stands for each byte inside `tokenizers`: itself, or the next one from 256 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


AutoTokenizer.register(HoldfastConfig, fast_tokenizer_class=ByteTokenizer)
