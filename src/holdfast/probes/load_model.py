"""A model of transformers, and tokens for it to read, from names on a command line."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from holdfast.errors import ArgumentError, require
from holdfast.hub import offline

STANDARD_LIBRARY = ("argparse", "tarfile", "inspect", "typing", "zipfile", "ast", "statistics", "subprocess")
"""Modules whose source is read where no text is given: it is on every machine that has Python."""

BYTES_A_TOKEN = 8
"""More than this many bytes of text make a token seldom enough."""


def load_model(target: str, text: Path | None, length: int) -> tuple[torch.nn.Module, Int[Tensor, "batch time"], str]:
    """A model of transformers and tokens for it to read.

    Arguments:
        target: a folder, or an id on the hub.
        text: a file to read; `None` for random tokens, the same ones each time.
        length: how many tokens, at most.

    Returns:
        The model, the tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model does not load, or the text has fewer than two tokens.
        MissingExtraError: transformers is not installed.
    """
    model = _model(target, "file.py:name, module:name, or a transformers model")
    config: Any = model.config
    config = config.get_text_config()
    # A table of positions that ends has nothing for tokens behind it.
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    if text is None:
        generator = torch.Generator().manual_seed(0)
        return model, torch.randint(config.vocab_size, (1, length), generator=generator), "random tokens"
    encode, unit = _encoder(target, config.vocab_size)
    tokens = encode(_content(text))
    if len(tokens) < 2:
        raise ArgumentError("--text", "at least two tokens", len(tokens))
    return model, torch.tensor([tokens[:length]]), f"{unit[0]} of {text.name}{unit[1]}"


def load_model_and_texts(
    target: str, text: Path | None, length: int, texts: int
) -> tuple[torch.nn.Module, Int[Tensor, "texts time"], str]:
    """A causal language model of transformers and several texts for it to predict.

    Arguments:
        target: a folder, or an id on the hub.
        text: a file, from which pieces are taken that do not overlap; `None`: pieces of the standard library's source.
        length: tokens of a piece, at most.
        texts: how many pieces, at most.

    Returns:
        The model, the tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model does not load, or there are fewer than eight tokens.
        MissingExtraError: transformers is not installed.
    """
    model = _model(target, "a transformers model: a folder or an id on the hub")
    config: Any = model.config
    encode, unit = _encoder(target, config.get_text_config().vocab_size)
    if text is not None:
        tokens, name = encode(_content(text)), text.name
        pieces = max(1, min(texts, len(tokens) // length))
        length = min(length, len(tokens))
        starts = [place * (len(tokens) - length) // max(1, pieces - 1) for place in range(pieces)]
        rows = [tokens[start : start + length] for start in starts]
    else:
        name = "the standard library's source"
        contents = _standard_library(texts, BYTES_A_TOKEN * length)
        rows = [encode(content)[:length] for content in contents]
        length = min(map(len, rows))
        rows = [row[:length] for row in rows]
    if length < 8:
        raise ArgumentError("--text", "at least eight tokens", length)
    return model, torch.tensor(rows), f"{unit[0]} of {name}{unit[1]}"


def _standard_library(texts: int, size: int) -> list[bytes]:
    """So many pieces of source, from the middle of a file each."""
    folder = Path(sysconfig.get_path("stdlib"))
    contents = []
    for name in STANDARD_LIBRARY[:texts]:
        try:
            content = (folder / f"{name}.py").read_bytes()
        except OSError as error:
            raise ArgumentError("--text", "a file, since this Python comes without its source", "none") from error
        start = max(0, (len(content) - size) // 2)
        contents.append(content[start : start + size])
    return contents


def _model(target: str, expected: str) -> torch.nn.Module:
    """Load a model.

    Arguments:
        target: a folder, or an id on the hub.
        expected: what the command takes, for people.
    """
    transformers = require("transformers", "hf")
    import holdfast.models.language  # noqa: F401  (makes our own models known to transformers)

    if target.startswith((".", "/")) and not Path(target).is_dir():
        raise ArgumentError("TARGET", expected, f"{target}, which is no folder")
    try:
        config = transformers.AutoConfig.from_pretrained(target, **offline(target))
        model: torch.nn.Module = (
            _auto_class(transformers, config).from_pretrained(target, config=config, **offline(target)).eval()
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArgumentError("TARGET", expected, f"{target} ({first})") from error
    return model


def _content(text: Path) -> bytes:
    try:
        return text.read_bytes()
    except OSError as error:
        raise ArgumentError("--text", "a file", f"{text} ({error.strerror})") from error


def _encoder(target: str, vocabulary: int) -> tuple[Callable[[bytes], list[int]], tuple[str, str]]:
    """What makes tokens of a text, and what they are called: bytes where the model has no tokenizer."""
    transformers = require("transformers", "hf")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(target, **offline(target))
        if not tokenizer("a")["input_ids"]:
            raise ValueError("a tokenizer without tokens")
    except (OSError, ValueError, KeyError, TypeError):
        return (
            lambda content: [byte % vocabulary for byte in content],
            ("bytes", ", since the model has no tokenizer"),
        )
    return lambda content: list(tokenizer(content.decode(errors="replace"))["input_ids"]), ("tokens", "")


def _auto_class(transformers: Any, config: Any) -> Any:
    """What loads a model whole: an encoder as one, and with its decoder where it has one."""
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if any(name.endswith("ForMaskedLM") for name in config.architectures or ()):
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM
