"""Another function in the place of a transformers model's attention, for a while."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from holdfast.errors import ArgumentError, require
from holdfast.nn.attention.huggingface import refusal
from holdfast.nn.huggingface import unregister

NAME = "holdfast_probe"


def model_implementation(model: nn.Module) -> str:
    """Name of the attention that a model uses.

    Errors:
        ArgumentError: it is none that a probe can stand in for.
    """
    require("transformers", "hf")
    from transformers.masking_utils import AttentionMaskInterface

    name = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if name is None or name not in AttentionMaskInterface._global_mapping:
        raise ArgumentError("model", "a transformers model with eager or sdpa attention", f"attention {name!r}")
    reason = refusal(type(model))
    if reason is not None:
        raise ArgumentError("model", "one that asks transformers' registry for its attention", reason)
    return str(name)


@contextmanager
def attention_replaced(model: nn.Module, attend: Callable[..., Any], masks_of: str) -> Iterator[None]:
    """Have a model call `attend` for its attention, with the masks that another implementation gets; then put it back.

    Arguments:
        model: a model of transformers.
        attend: module, query, key, value, mask and options, as an attention function of transformers takes them.
        masks_of: name of that implementation.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    before = model_implementation(model)
    unregister(NAME)
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, cast("Any", AttentionMaskInterface._global_mapping[masks_of]))
    switch: Any = model.set_attn_implementation
    try:
        switch(NAME)
        yield
    finally:
        switch(before)
        unregister(NAME)


def model_attention(module: nn.Module, implementation: str) -> Callable[..., Any]:
    """The function that a layer would call with this implementation.

    Arguments:
        module: an attention layer of transformers.
        implementation: for example `"sdpa"` or `"eager"`, which each model brings along.

    Errors:
        ArgumentError: its source file has no such function.
    """
    files = [sys.modules[kind.__module__] for kind in type(module).__mro__ if kind.__module__ in sys.modules]
    eager = next((file.eager_attention_forward for file in files if hasattr(file, "eager_attention_forward")), None)
    table: Any = next((file.ALL_ATTENTION_FUNCTIONS for file in files if hasattr(file, "ALL_ATTENTION_FUNCTIONS")), {})
    function: Callable[..., Any] | None = table.get(implementation, eager if implementation == "eager" else None)
    if function is None:
        raise ArgumentError("model", f"an attention function for {implementation!r}", type(module).__name__)
    return function
