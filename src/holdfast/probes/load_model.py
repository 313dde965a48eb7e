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
from holdfast.probes.context_length import position_limit, trained_length

STANDARD_LIBRARY = (
    "argparse",
    "tarfile",
    "inspect",
    "typing",
    "zipfile",
    "ast",
    "statistics",
    "subprocess",
    "difflib",
    "doctest",
    "pickle",
    "threading",
    "shutil",
    "optparse",
    "tempfile",
    "mailbox",
)
"""Modules whose source is read where no text is given: it is on every machine that has Python."""

BYTES_A_TOKEN = 8
"""More than this many bytes of text make a token seldom enough."""


def load_model(
    target: str, text: Path | None, length: int | None, *, usual: int = 1024
) -> tuple[torch.nn.Module, Int[Tensor, "batch time"], str]:
    """A model of transformers and tokens for it to read.

    Arguments:
        target: a folder, or an id on the hub.
        text: a file to read; `None` for random tokens, the same ones each time.
        length: how many tokens, at most; `None`: `usual`, or as many as the model was made for if these are fewer.
        usual: how many tokens, where that is left open.

    Returns:
        The model, the tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model does not load or has no positions for so many tokens, or the text has fewer than two.
        MissingExtraError: transformers is not installed.
    """
    model = _model(target, "file.py:name, module:name, or a transformers model")
    config: Any = model.config
    config = config.get_text_config()
    length, beyond = fitting_length(model, length, usual)
    if text is None:
        generator = torch.Generator().manual_seed(0)
        return model, torch.randint(config.vocab_size, (1, length), generator=generator), f"random tokens{beyond}"
    encode, unit = _encoder(target, config.vocab_size)
    tokens = encode(_content(text))
    if len(tokens) < 2:
        raise ArgumentError("--text", "at least two tokens", len(tokens))
    return model, torch.tensor([tokens[:length]]), f"{unit[0]} of {text.name}{unit[1]}{beyond}"


def fitting_length(model: torch.nn.Module, length: int | None, usual: int) -> tuple[int, str]:
    """How many tokens a model can read.

    Arguments:
        model: a model of transformers.
        length: how many it shall; `None`: `usual`, or as many as it was made for if these are fewer.
        usual: how many tokens, where that is left open.

    Returns:
        The number, and a clause that says so where it is beyond what the model was made for.

    Errors:
        ArgumentError: the model has no positions for so many.
    """

    made_for, limit = trained_length(model), position_limit(model)
    if length is None:
        return min(usual, made_for or usual), ""
    # A table of positions that ends has nothing for tokens behind it.
    if limit is not None and length > limit:
        raise ArgumentError("--length", f"at most {limit}, as the model has no more positions", length)
    beyond = made_for is not None and length > made_for
    return length, f", beyond the {made_for:,} tokens that the model was made for" if beyond else ""


def load_model_and_texts(
    target: str, text: Path | None, length: int | None, texts: int, *, usual: int = 1024
) -> tuple[torch.nn.Module, Int[Tensor, "texts time"], str]:
    """A causal language model of transformers and several texts for it to predict.

    Arguments:
        target: a folder, or an id on the hub.
        text: a file, from which pieces are taken that do not overlap; `None`: pieces of the standard library's source.
        length: tokens of a piece, at most; `None`: `usual`, or as many as the model was made for if these are fewer.
        texts: how many pieces, at most.
        usual: tokens of a piece, where that is left open.

    Returns:
        The model, the tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model does not load or has no positions for so many, or there are fewer than eight tokens.
        MissingExtraError: transformers is not installed.
    """
    model = _model(target, "a transformers model: a folder or an id on the hub")
    return model, *texts_for(model, target, text, length, texts, usual=usual)


def texts_for(
    model: torch.nn.Module, place: str | None, text: Path | None, length: int | None, texts: int, *, usual: int = 1024
) -> tuple[Int[Tensor, "texts time"], str]:
    """Several texts for a model to read.

    Arguments:
        model: the model.
        place: where its tokenizer is, a folder or an id on the hub; `None`: it has none, and reads bytes.
        text: a file, or `None`, as for `load_model_and_texts`.
        length: tokens of a piece, likewise.
        texts: how many pieces, at most.
        usual: tokens of a piece, where that is left open.

    Returns:
        The tokens, and a line that says what they are.

    Errors:
        ArgumentError: the model has no positions for so many, or there are fewer than eight tokens.
    """
    config: Any = model.config
    encode, unit = _encoder(place, config.get_text_config().vocab_size)
    length, beyond = fitting_length(model, length, usual)
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
    return torch.tensor(rows), f"{unit[0]} of {name}{unit[1]}{beyond}"


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


def _encoder(target: str | None, vocabulary: int) -> tuple[Callable[[bytes], list[int]], tuple[str, str]]:
    """What makes tokens of a text, and what they are called: bytes where the model has no tokenizer."""
    transformers = require("transformers", "hf")
    try:
        if target is None:
            raise ValueError("no place for a tokenizer")
        tokenizer = transformers.AutoTokenizer.from_pretrained(target, trust_remote_code=False, **offline(target))
        # Where there are no files of one, transformers makes a tokenizer that knows no words.
        made = tokenizer("import this", add_special_tokens=False)["input_ids"]
        if not set(made) - {tokenizer.unk_token_id}:
            raise ValueError("a tokenizer without tokens")
    except (OSError, ValueError, KeyError, TypeError):
        return (
            lambda content: [byte % vocabulary for byte in content],
            ("bytes", ", since the model has no tokenizer"),
        )
    # Texts are cut to what the model reads later, and the tokenizer need not warn of it.
    return lambda content: list(tokenizer(content.decode(errors="replace"), verbose=False)["input_ids"]), ("tokens", "")


def _auto_class(transformers: Any, config: Any) -> Any:
    """What loads a model whole: an encoder as one, and with its decoder where it has one."""
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if any(name.endswith("ForMaskedLM") for name in config.architectures or ()):
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM
