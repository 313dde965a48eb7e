"""A transformers model as it was saved, and something for it to read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.card.digest import digest_of
from holdfast.errors import ArgumentError, require
from holdfast.hub import offline

OPTIONAL = ("pooler",)
"""Parts that a saved model may lack, and that nothing here looks at."""


def load(place: str, device: str) -> tuple[nn.Module, str]:
    """A model by the class that its configuration names, else without a head; and the digest of its weights.

    Weights are read as tensors; code that lies beside them is never run.

    Arguments:
        place: a folder, or an id on the hub.
        device: where to put it.

    Errors:
        ArgumentError: configuration or weights are not there, not whole, or more than tensors.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "hf")
    import holdfast.models.language  # noqa: F401  (makes our own models known to transformers)

    if not sys.stderr.isatty():
        require("transformers.utils.logging", "hf").disable_progress_bar()
    folder = Path(place)
    if folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        raise ArgumentError("target", "a folder with weights (.safetensors or pytorch_model.bin)", place)
    options = offline(place)
    try:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **options)
        model, loading = _kind(transformers, config).from_pretrained(
            place, config=config, weights_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # transformers, safetensors and pickle have errors of their own for a bad file
        if type(error).__name__ == "UnpicklingError":
            raise ArgumentError("target", "weights that are plain tensors", f"{place}, a pickle of more") from error
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ArgumentError("target", "a transformers model", f"{place} ({type(error).__name__}: {first})") from error
    lacking = [key for key in loading["missing_keys"] if not any(part in key for part in OPTIONAL)]
    if lacking:
        # transformers draws them at random, and a card would judge that.
        raise ArgumentError("target", "a model with all of its weights", f"{place}, which lacks {sorted(lacking)[0]}")
    model = model.to(device).eval()
    return model, digest_of(model.state_dict())


def _kind(transformers: Any, config: Any) -> Any:
    """What loads the model: the class that was saved; for one of ours that for language models; else its body."""
    own = getattr(transformers, next(iter(config.architectures or ()), ""), None)
    if isinstance(own, type) and issubclass(own, transformers.PreTrainedModel):
        return own
    causal = transformers.AutoModelForCausalLM
    return causal if config.model_type == "holdfast" else transformers.AutoModel


def is_causal(model: nn.Module) -> bool:
    """Whether it predicts the next token of a text."""
    name = type(model).__name__
    config: Any = model.config
    return not config.is_encoder_decoder and ("CausalLM" in name or "LMHead" in name)


def inputs_for(
    model: nn.Module, place: str | None, text: Path | None, rows: int, length: int
) -> tuple[dict[str, Tensor], str]:
    """What a model reads: pieces of a text by its own tokenizer, or images of noise.

    Arguments:
        model: the model.
        place: where its tokenizer is; `None`: it has none that is known, and reads bytes.
        text: a file; `None`: source of Python's standard library.
        rows: how many pieces, or images.
        length: tokens of a piece, at most.

    Returns:
        Arguments of the model's forward, and words for them.

    Errors:
        ArgumentError: it reads neither tokens nor images, or the text is too short.
    """
    from holdfast.probes.load_model import fitting_length, texts_for

    config: Any = model.config
    device = next(model.parameters()).device
    wanted = str(getattr(model, "main_input_name", "input_ids"))
    if wanted == "pixel_values":
        shape = (rows, config.num_channels, config.image_size, config.image_size)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": drawn.to(device)}, f"{rows} images of noise"
    if wanted != "input_ids":
        raise ArgumentError("target", "a model that reads tokens or images", f"one that reads {wanted}")
    longest, _ = fitting_length(model, None, length)
    tokens, read = texts_for(model, place, text, longest, rows)
    return {"input_ids": tokens.to(device)}, f"{tokens.shape[0]} x {tokens.shape[1]} {read}"
