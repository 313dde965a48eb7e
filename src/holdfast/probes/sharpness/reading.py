"""What a transformers model reads, and which of its attentions is which."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.visibility import block
from holdfast.nn.masking import hidden_by
from holdfast.probes.replaced_attention import model_implementation

ROWS = 1024
"""Rows of a mask that are looked at together."""

PARTS = ("encoder", "decoder", "cross")
"""Kinds of attention, in the order of a report."""

OTHER_SEQUENCE = ("key_value", "encoder_hidden", "encoder_states", "cross_attention")
"""What arguments of an attention layer are called that hold the sequence whose keys it sees."""


@dataclass(frozen=True)
class ModelInputs:
    """What a model reads, and what is known of each token.

    Arguments:
        values: arguments of the model's forward by name.
        both: whether the model is an encoder with a decoder beside it, each with a sequence of its own.
        encoder: which tokens of the encoder's sequence are none of padding.
        decoder: likewise of the decoder's, or of the only sequence there is.
        tokens: that sequence.
        positions: of each of its tokens, where the caller gave them; they start anew with each packed document.
        excluded: how many first keys of each sequence, or document, are left out.
    """

    values: dict[str, Any]
    both: bool
    encoder: Bool[Tensor, "batch source"] | None
    decoder: Bool[Tensor, "batch time"] | None
    tokens: Int[Tensor, "batch time"] | None
    positions: Tensor | None
    excluded: int

    @classmethod
    def of(cls, model: nn.Module, values: dict[str, Any], excluded: int) -> ModelInputs:
        """Read the arguments of a model's forward; a decoder beside an encoder reads the same tokens by default."""
        both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        source = values.get("input_ids")
        tokens = values.get("decoder_input_ids") if both else source
        if both and tokens is None and source is not None and "decoder_inputs_embeds" not in values:
            tokens = source
            values = {**values, "decoder_input_ids": tokens}
        masks = [
            values.get(name) for name in ("attention_mask", "decoder_attention_mask" if both else "attention_mask")
        ]
        sequences = (source, tokens)
        kept = [
            mask.bool() if mask is not None and mask.ndim == 2
            else None if sequence is None
            else torch.ones_like(sequence, dtype=torch.bool)
            for mask, sequence in zip(masks, sequences, strict=True)
        ]  # fmt: skip
        positions = values.get("decoder_position_ids" if both else "position_ids")
        return cls(values, both, kept[0], kept[1], tokens, positions, excluded)

    def kept(self, side: str, batch: int, time: int, device: torch.device) -> Bool[Tensor, "batch time"]:
        """Which tokens of a side of some attention count: all where it is not of the text, as in an image."""
        mask = self.encoder if side == "encoder" else self.decoder
        if mask is None or tuple(mask.shape) != (batch, time):
            return torch.ones(batch, time, dtype=torch.bool, device=device)
        return mask

    def excluded_keys(self, side: str, key: Tensor) -> Bool[Tensor, "batch keys"] | None:
        """The first keys of each sequence, or of each document of a packed one; `None` for none."""
        if self.excluded == 0:
            return None
        batch, _, keys, _ = key.shape
        kept = self.kept(side, batch, keys, key.device)
        positions = self.positions
        if side == "decoder" and positions is not None and positions.ndim == 2 and positions.shape[-1] == keys:
            return kept & (positions.expand(batch, keys) < self.excluded)
        return kept & (kept.cumsum(1) <= self.excluded)


def forward_arguments(
    model: nn.Module, input_ids: Tensor | None, attention_mask: Tensor | None, inputs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """All arguments of the model's forward by name; refuses what it does not take."""
    values = dict(inputs or {})
    for name, value in (("input_ids", input_ids), ("attention_mask", attention_mask)):
        if value is not None and name in values:
            raise ArgumentError("inputs", f"{name} once", "it twice")
        if value is not None:
            values[name] = value
    if not values:
        raise ArgumentError("input_ids", "tokens, or other inputs of the model in `inputs`", "none")
    model_implementation(model)
    taken = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    for name in values:
        if name not in taken and not (open_ended and name in ("attention_mask", "position_ids")):
            expected = f"what {type(model).__name__} takes ({', '.join(list(taken)[:6])}, ...)"
            raise ArgumentError("inputs" if name in (inputs or {}) else name, expected, name)
    return values


def run(model: nn.Module, given: ModelInputs) -> Any:
    taken = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in taken else {}
    return model(**given.values, **options)


class Layers:
    """Names and numbers attentions: by the index of their layer, or by their order; and knows cross-attention."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}
        self.cross: dict[int, bool] = {}
        self.calls: dict[str, int] = {}

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Note of each attention layer whether it is given another sequence."""

        def note(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            try:
                bound = inspect.signature(module.forward).bind_partial(*arguments, **options).arguments
            except TypeError:
                return
            bound |= bound.pop("kwargs", {})
            others = [v for name, v in bound.items() if any(word in name for word in OTHER_SEQUENCE)]
            self.cross[id(module)] = any(isinstance(value, Tensor) for value in others)

        attentions = [module for module in model.modules() if "Attention" in type(module).__name__]
        handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in attentions]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def is_cross(self, module: nn.Module, query: Tensor, key: Tensor) -> bool:
        """Whether an attention sees the keys of another sequence."""
        return self.cross.get(id(module), False) or query.shape[2] != key.shape[2]

    def number(self, module: nn.Module, part: str) -> tuple[int, str]:
        """The layer's number in its part, and its path in the model."""
        name = self.names.get(id(module), type(module).__name__)
        order = self.calls.get(part, 0)
        self.calls[part] = order + 1
        carried = getattr(module, "layer_idx", None)
        return (order if carried is None else int(carried)), name


def side_of(part: str, of: str, given: ModelInputs) -> str:
    """Whose sequence the queries or keys of an attention are. An encoder alone reads what would be the decoder's."""
    return "encoder" if given.both and (part == "encoder" or (part == "cross" and of == "key")) else "decoder"


def sees_no_future(call: AttentionCall) -> bool:
    """Whether no query of a self-attention sees a key after it."""
    if call.causal:
        return True
    if call.mask is None:
        return False
    key = torch.arange(call.keys, device=call.mask.device)
    for start in range(0, call.queries, ROWS):  # a mask may be large, and needs no copies of itself
        mask = block(call, start, min(call.queries, start + ROWS), 0, call.keys).mask
        assert mask is not None
        ahead = key > torch.arange(start, min(call.queries, start + ROWS), device=key.device)[:, None]
        if bool((ahead & ~hidden_by(mask)).any()):
            return False
    return True
