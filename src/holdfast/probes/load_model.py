"""A model of transformers, and tokens for it to read, from names on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from holdfast.errors import ArgumentError, require


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
    transformers = require("transformers", "hf")
    if target.startswith((".", "/")) and not Path(target).is_dir():
        raise ArgumentError(
            "TARGET", "file.py:name, module:name, or a transformers model", f"{target}, which is no folder"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(target)
        model = _auto_class(transformers, config).from_pretrained(target, config=config).eval()
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArgumentError(
            "TARGET", "file.py:name, module:name, or a transformers model", f"{target} ({first})"
        ) from error
    config = model.config.get_text_config()
    vocabulary = config.vocab_size
    # A table of positions that ends has nothing for tokens behind it.
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    if text is None:
        generator = torch.Generator().manual_seed(0)
        return model, torch.randint(vocabulary, (1, length), generator=generator), "random tokens"
    try:
        content = text.read_bytes()
    except OSError as error:
        raise ArgumentError("--text", "a file", f"{text} ({error.strerror})") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(target)
        tokens, read = tokenizer(content.decode(errors="replace"))["input_ids"], f"tokens of {text.name}"
    except (OSError, ValueError, KeyError, TypeError):
        tokens, read = (
            [byte % vocabulary for byte in content],
            f"bytes of {text.name}, since the model has no tokenizer",
        )
    if len(tokens) < 2:
        raise ArgumentError("--text", "at least two tokens", len(tokens))
    return model, torch.tensor([tokens[:length]]), read


def _auto_class(transformers: Any, config: Any) -> Any:
    """What loads a model whole: an encoder as one, and with its decoder where it has one."""
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if any(name.endswith("ForMaskedLM") for name in config.architectures or ()):
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM
