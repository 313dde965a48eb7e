"""How many tokens a model of transformers was made for, and how many it can read at all."""

from __future__ import annotations

from typing import Any

from torch import nn

TABLE_OFFSET = 2
"""Rows that a table of positions may have beyond the positions (OPT's has two)."""


def text_config(model: nn.Module) -> Any:
    """The configuration of the language model, of one that reads images too as well."""
    config: Any = model.config
    return config.get_text_config()


def trained_length(model: nn.Module) -> int | None:
    """How many tokens a model was made for, as its configuration says; `None` where that says nothing."""
    length = getattr(text_config(model), "max_position_embeddings", None)
    return int(length) if length else None


def position_limit(model: nn.Module) -> int | None:
    """How many tokens a model can read at all: those in its table of positions; `None` without such a table."""
    known = trained_length(model)
    if known is None:
        return None
    shared: Any = model
    tokens = {id(shared.get_input_embeddings()), id(shared.get_output_embeddings())}
    learned = any(
        isinstance(module, nn.Embedding)
        and id(module) not in tokens
        and known <= module.num_embeddings <= known + TABLE_OFFSET
        for module in model.modules()
    )
    stored = any(
        "position" in name and buffer.ndim == 2 and len(buffer) == known for name, buffer in model.named_buffers()
    )
    return known if learned or stored else None
