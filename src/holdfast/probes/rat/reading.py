"""How a causal language model reads tokens: its losses, how far it can read, and what it must be left like."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.huggingface import refusal_of_parts
from holdfast.probes.context_length import text_config
from holdfast.probes.replaced_attention import model_implementation
from holdfast.probes.report import evaluating, random_state_kept

Progress = Callable[[str, int, int], None]
"""Told the part, how many of its steps are done, and how many there are."""

PREDICTS = 0.1
"""Nats a token by which a model must beat guessing for its losses to say something."""

LOGITS = 1 << 24
"""Logits of a batch, 64 MiB in float32: texts are read together up to there."""


CAUSAL_CHECK = 16
"""Tokens on which it is seen whether a model looks ahead."""


def untold(part: str, done: int, total: int) -> None:
    """The progress of somebody who does not ask."""


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Read without gradients and without dropout; afterwards modes and random states are as before."""
    with torch.no_grad(), random_state_kept(), evaluating(model):
        yield


def width(model: nn.Module) -> int:
    """Heads times their width: that of keys without groups; the model's width where it has no heads."""
    config = text_config(model)
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return int(config.hidden_size)
    return int(heads) * int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def check_causal_model(model: nn.Module) -> None:
    """Refuse what is no causal language model of transformers.

    Errors:
        ArgumentError: it is none, or a token changes what is said before it.
    """
    expected = "a causal language model of transformers"
    can_generate = getattr(model, "can_generate", None)
    if can_generate is None or not can_generate() or model.config.is_encoder_decoder:  # type: ignore[union-attr]
        raise ArgumentError("model", expected, type(model).__name__)
    vocabulary = text_config(model).vocab_size
    ids = torch.arange(CAUSAL_CHECK, device=device_of(model))[None] % vocabulary
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + vocabulary // 2) % vocabulary
    with left_as_found(model):
        one, other = (model(input_ids=given).logits[:, :-1].double() for given in (ids, changed))
    if not torch.allclose(one, other, rtol=1e-2, atol=1e-2 * float(one.abs().max()), equal_nan=True):
        raise ArgumentError("model", expected, f"{type(model).__name__}, which looks ahead")


def registered_implementation(model: nn.Module) -> str:
    """Name of the attention that a model asks transformers' registry for.

    Errors:
        ArgumentError: some of its attention does not come from there.
    """
    name = model_implementation(model)
    reason = refusal_of_parts(model)
    if reason is not None:
        raise ArgumentError("model", "one that asks transformers' registry for its attention", reason)
    return name


def no_attention(model: nn.Module) -> ArgumentError:
    """The error for a model that asked for no attention while it ran."""
    return ArgumentError("model", "one that routes its attention through transformers' registry", type(model).__name__)


def check_tokens(model: nn.Module, tokens: Tensor, least: int) -> None:
    """Refuse what are no texts of this model.

    Errors:
        ArgumentError: other shapes, fewer tokens a text than `least`, or numbers that the vocabulary lacks.
    """
    if tokens.ndim != 2 or tokens.shape[0] < 1 or tokens.shape[1] < least:
        expected = f"shape (texts, tokens), with at least one text of {least} tokens"
        raise ArgumentError("tokens", expected, f"shape {tuple(tokens.shape)}")
    vocabulary = text_config(model).vocab_size
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        raise ArgumentError("tokens", f"numbers from 0 to {vocabulary - 1}", f"{low} to {high}")


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter is."""
    return next(model.parameters()).device


def without_cache(model: nn.Module) -> dict[str, Any]:
    """The option of a model's forward that spares its cache, where it has one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def target_losses(model: nn.Module, tokens: Int[Tensor, "texts time"], targets: int) -> Float[Tensor, "texts targets"]:
    """Cross-entropy of the last tokens of each text, in nats.

    Arguments:
        model: a causal language model, as it is to be.
        tokens: texts of one length.
        targets: how many last tokens; fewer than there are.
    """
    options, kept = without_cache(model), tokens.shape[1]
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = kept = targets + 1
    together = max(1, LOGITS // (kept * text_config(model).vocab_size))
    losses = []
    for texts in torch.split(tokens.to(device_of(model)), together):
        logits = model(input_ids=texts, **options).logits[:, -targets - 1 : -1].float()
        wanted = texts[:, -targets:]
        losses.append(nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").cpu())
    return torch.cat(losses)


def chance(model: nn.Module) -> float:
    """Loss of guessing each token alike, in nats."""
    return math.log(text_config(model).vocab_size)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent values and its 95 % t interval; its ends are NaN for a single value."""
    from scipy.stats import t

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(t.ppf(0.975, count - 1)) * math.sqrt(variance / count)
    return mean, mean - half, mean + half
